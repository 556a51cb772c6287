"""Checks of what users say of a repository on the Hugging Face Hub, before the Hub's client sees it."""

import os
import re
import urllib.parse
from typing import Any

from keras_sphereface import presets
from keras_sphereface.errors import shown, without_password
from keras_sphereface.hints import Path

_TOKEN = re.compile(r"[!-~]+")  # what an HTTP header can carry: printable ASCII without spaces
_ID = presets.REPO_ID.pattern
_LONGEST_NAME = 96  # of a repository, without the organization
_MISSPELT = (  # ways to write a repository's name, and the same for load_pretrained
    (re.compile(rf"(?i:https?)://[^/]+/({_ID})(?:/tree/([^/?#]+))?(?:[/?#].*)?"), "the name is {repo}"),
    (re.compile(rf"(?i:hf:/*)?({_ID})@(\S+)"), "give the revision apart: {repo}"),
    (re.compile(rf"(?i:hf:/*)({_ID})/?()"), "the name is {repo}"),
    (re.compile(rf"({_ID})/()"), "the name is {repo}"),
)


def name_hint(text: str) -> str:
    """A sentence for the end of an error's message: how to write a misspelt name of a repository.

    Args:
        text: What was given.

    Returns:
        The sentence, e.g. for `"hf://me/faces@v1"`; an empty text if it resembles no repository's name.
    """
    for pattern, advice in _MISSPELT:
        if match := pattern.fullmatch(text):
            revision = f", revision='{match[2]}'" if match[2] else ""
            return " Hint: " + advice.format(repo=f"'hf://{match[1]}'{revision}")
    return ""


def check_repo_id(repo_id: str) -> None:
    """Raises `ValueError` unless this is `organization/repository` in the Hub's letters."""
    is_name = isinstance(repo_id, str) and presets.REPO_ID.fullmatch(repo_id)
    if not is_name or ".." in repo_id or "--" in repo_id or not _allowed(repo_id):
        hint = name_hint(repo_id) if isinstance(repo_id, str) else ""
        raise ValueError(
            "Expected 'hf://organization/repository', of letters, digits, '-', '_' and '.', as the Hub allows them. "
            f"Received: {shown(repo_id)}.{hint}"
        )


def _allowed(repo_id):
    """The Hub's rules for the ends of names and their length."""
    organization, _, repository = repo_id.partition("/")
    ends_well = not any(part.endswith((".", "-", ".git")) for part in (organization, repository))
    return ends_well and len(repository) <= _LONGEST_NAME


def checked_options(
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: Path | None = None,
    endpoint: str | None = None,
) -> dict[str, Any]:
    """Checks what `download` and `upload` hand on to the Hub's client, whose own errors show the token.

    Args:
        revision: Branch, tag or commit. Defaults to `None`.
        token: Hub token; white space around it is dropped, and an empty one is none. `True` is the one of the login, `False`
            is none. Defaults to `None`.
        cache_dir: Folder. Defaults to `None`.
        endpoint: URL. Defaults to `None`.

    Returns:
        Dictionary of the four.

    Raises:
        ValueError: If one of them cannot be what it should be. The message never has the token.
    """
    if revision is not None and not (isinstance(revision, str) and revision.strip() and revision.isprintable()):
        raise ValueError(f"revision: expected a branch, a tag, a commit or None. Received: {shown(revision)}")
    if cache_dir is not None and not (isinstance(cache_dir, (str, os.PathLike)) and os.fspath(cache_dir)):
        raise ValueError(f"cache_dir: expected the path of a folder or None. Received: {shown(cache_dir)}")
    if endpoint is not None and not _is_url(endpoint):
        raise ValueError(
            "endpoint: expected a URL, e.g. 'https://hub.example.org', or None. "
            f"Received: {without_password(shown(endpoint))}"
        )
    return {"revision": revision, "token": _clean_token(token), "cache_dir": cache_dir, "endpoint": endpoint}


def _clean_token(token):
    if token is None or isinstance(token, bool):
        return token
    if not isinstance(token, str):
        raise ValueError(f"token: expected printable ASCII, a bool or None. Received: {type(token).__name__}")
    token = token.strip()
    if token and not _TOKEN.fullmatch(token):
        raise ValueError(
            f"token: expected printable ASCII without spaces. Received: {len(token)} characters, not all such"
        )
    return token or None


def _is_url(endpoint):
    try:
        parts = urllib.parse.urlsplit(endpoint)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
        return is_web and parts.port != 0 and _TOKEN.fullmatch(endpoint) is not None
    except (ValueError, TypeError, AttributeError):  # brackets or a port that are none; no text
        return False
