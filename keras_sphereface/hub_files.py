"""Files of a model repository on the Hugging Face Hub: download with checksums, upload in one commit."""

import pathlib
import sys
import time
from typing import TYPE_CHECKING

from keras_sphereface import model_folder, presets
from keras_sphereface.errors import FileFormatError
from keras_sphereface.hints import Path
from keras_sphereface.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

ATTEMPTS = 4  # of one file; the client itself resumes a body that breaks off
FIRST_WAIT = 0.5  # seconds before the second attempt, doubled each time
_TEMPORARY = (408, 429)
_SHA256_DIGITS = 64


class HubError(OSError):
    """The Hub did not give or take the files. The message says which, why, and what to do."""


def check_repo_id(repo_id: str) -> None:
    """Raises `ValueError` unless this is `organization/repository` in the Hub's letters."""
    if not presets.REPO_ID.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id:
        raise ValueError(f"Expected 'hf://organization/repository'. Received: {repo_id!r}")


def download(
    repo_id: str,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: Path | None = None,
    endpoint: str | None = None,
    sha256: dict[str, str] | None = None,
) -> pathlib.Path:
    """Downloads the files of one commit, or finds them in the cache.

    Args:
        repo_id: `"organization/repository"`.
        revision: Branch, tag or commit. Defaults to `None`, `main`.
        token: Hub token. Defaults to `None`.
        cache_dir: Folder of the cache. Defaults to `None`, the client's.
        endpoint: URL of the Hub. Defaults to `None`.
        sha256: Checksums that the caller expects, by file name. Defaults to `None`. They are checked beside those of
            the repository's `preset.json` and those under which the Hub stores large files.

    Returns:
        Folder with the files of the commit.

    Raises:
        ValueError: If `repo_id` is not a repository's name.
        HubError: If the Hub does not give them.
        FileFormatError: If a file is not the expected one even after a second download.
    """
    check_repo_id(repo_id)
    options = {"token": token, "cache_dir": cache_dir, "endpoint": endpoint}
    config = _download_file(repo_id, model_folder.CONFIG, revision, options)
    commit = config.parent.name  # snapshots/<commit>/config.json: the other files come from the same commit
    description = _download_file(repo_id, model_folder.PRESET, commit, options, optional=True)
    checksums = {name: None for name in model_folder.KERAS_FILES}
    if description is not None:
        checksums.update(model_folder.read_checksums(description))
    for name, expected in checksums.items():
        wanted = {expected, (sha256 or {}).get(name)} - {None}
        _download_checked(repo_id, name, commit, options, wanted)
    return config.parent


def _download_checked(repo_id, name, commit, options, wanted):
    """Downloads a file; one that is not the expected one is downloaded once more, then refused."""
    source = f"hf://{repo_id}/{name}"
    path = _download_file(repo_id, name, commit, options)
    try:
        _check_all(path, wanted, source)
    except FileFormatError:
        if _offline():
            raise
        path = _download_file(repo_id, name, commit, {**options, "force_download": True})
        _check_all(path, wanted, source)


def _check_all(path, wanted, source):
    stored_under = path.resolve().name  # the client names a large file of its cache by its SHA-256
    if len(stored_under) == _SHA256_DIGITS:
        wanted = wanted | {stored_under}
    for expected in wanted:
        model_folder.check_sha256(path, expected, source)


def _download_file(repo_id, name, revision, options, optional=False):
    """Path of one file in the cache, after at most `ATTEMPTS` tries."""
    import huggingface_hub
    from huggingface_hub import errors

    source = f"hf://{repo_id}/{name}" + (f" at {revision}" if revision else "")
    for attempt in range(ATTEMPTS):
        try:
            path = huggingface_hub.hf_hub_download(
                repo_id,
                name,
                revision=revision,
                library_name="keras_sphereface",
                library_version=__version__,
                **options,
            )
            return pathlib.Path(path)
        except errors.EntryNotFoundError as error:
            is_absent = not isinstance(error, errors.LocalEntryNotFoundError)
            if optional and (is_absent or _offline()):
                return None
            raise HubError(_explain(error, source)) from error
        except (errors.HfHubHTTPError, OSError, *_transport_errors()) as error:
            if attempt + 1 == ATTEMPTS or not _is_temporary(error):
                raise HubError(_explain(error, source)) from error
            time.sleep(FIRST_WAIT * 2**attempt)


def _offline():
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _transport_errors():
    """Base classes of the network errors of the HTTP libraries that versions of the Hub's client use."""
    bases = (("httpx2", "HTTPError"), ("httpx", "HTTPError"), ("requests", "RequestException"))
    return tuple(getattr(sys.modules[module], name) for module, name in bases if module in sys.modules)


def _status(error):
    return getattr(getattr(error, "response", None), "status_code", None)


def _is_temporary(error):
    status = _status(error)
    if status is not None:
        return status >= 500 or status in _TEMPORARY
    return not isinstance(error, (PermissionError, FileNotFoundError, FileExistsError))


def _explain(error, source):
    """One line: what failed, and what to do."""
    from huggingface_hub import errors

    status = _status(error)
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{source}: no such revision. Give a branch, tag or commit of the repository"
    if isinstance(error, errors.LocalEntryNotFoundError):
        if _offline():
            return f"{source}: not in the cache, and HF_HUB_OFFLINE is set. Load it once with the network"
        cause = str(error.__cause__ or error).strip().partition("\n")[0]
        return f"{source}: the Hub could not be reached, and it is not in the cache ({cause}). Try again later"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{source}: the repository has no such file. Expected a Keras model as push_to_hub writes it"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        return (
            f"{source}: no such repository, or no access (HTTP {status}). Check the name; if it is private, pass token="
        )
    reason = str(error).strip().partition("\n")[0]
    return f"{source}: {type(error).__name__}: {reason}. Try again later"


def upload(
    files: dict[str, pathlib.Path],
    repo_id: str,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    message: str = "",
    endpoint: str | None = None,
) -> "CommitInfo":
    """Uploads files in one commit, so that a broken upload leaves the repository as it was.

    Args:
        files: Dictionary from the name in the repository to the path here.
        repo_id: `"organization/repository"`; made if absent.
        private: Whether a new repository is private. Defaults to `False`.
        revision: Branch. Defaults to `None`, `main`.
        token: Hub token. Defaults to `None`.
        message: Commit message.
        endpoint: URL of the Hub. Defaults to `None`.

    Returns:
        The client's `CommitInfo`; `oid` is the commit.

    Raises:
        HubError: If the Hub refuses or cannot be reached.
    """
    import huggingface_hub
    from huggingface_hub import errors

    api = huggingface_hub.HfApi(
        endpoint=endpoint, token=token, library_name="keras_sphereface", library_version=__version__
    )
    operations = [
        huggingface_hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()
    ]
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.create_commit(repo_id, operations, commit_message=message, revision=revision)
    except (errors.HfHubHTTPError, OSError, RuntimeError, *_transport_errors()) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        status = _status(cause)
        if status in (401, 403):
            raise HubError(
                f"hf://{repo_id}: no right to write (HTTP {status}). Pass a token= with write access"
            ) from error
        reason = str(cause).strip().partition("\n")[0]
        raise HubError(
            f"hf://{repo_id}: the upload failed: {type(cause).__name__}: {reason}. The repository holds all of it or none. "
            "Try again"
        ) from error
