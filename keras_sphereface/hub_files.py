"""Files of a model repository on the Hugging Face Hub: download with checksums, upload in one commit."""

import functools
import pathlib
import time
from typing import TYPE_CHECKING

from keras_sphereface import hub_arguments, hub_errors, model_folder
from keras_sphereface.errors import FileFormatError, shown
from keras_sphereface.hints import Path
from keras_sphereface.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

ATTEMPTS = 4  # of one file; the client itself resumes a body that breaks off
FIRST_WAIT = 0.5  # seconds before the second attempt, doubled each time
_SHA256_DIGITS = 64


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
        ValueError: If an argument is of the wrong kind, or `sha256` names a file that is not downloaded.
        HubError: If the Hub does not give them.
        FileFormatError: If a file is not the expected one even after a second download.
    """
    hub_arguments.check_repo_id(repo_id)
    options = hub_arguments.checked_options(revision, token, cache_dir, endpoint)
    del options["revision"]
    sha256 = sha256 or {}
    if not set(sha256) <= set(model_folder.KERAS_FILES):
        raise ValueError(
            f"sha256: expected checksums of {', '.join(model_folder.KERAS_FILES)}, no other file is downloaded. "
            f"Received: {shown(sorted(sha256, key=repr))}"
        )
    config = _download_file(repo_id, model_folder.CONFIG, revision, options)
    commit = config.parent.name  # snapshots/<commit>/config.json: the other files come from the same commit
    description = _download_checked(repo_id, model_folder.PRESET, commit, options, _read_checksums, optional=True) or {}
    for name in model_folder.KERAS_FILES:
        wanted = {description.get(name), sha256.get(name)} - {None}
        _download_checked(repo_id, name, commit, options, functools.partial(_check_all, wanted=wanted))
    return config.parent


def _download_checked(repo_id, name, commit, options, check, optional=False):
    """Downloads a file and returns `check(path, source)`; a file that it refuses is downloaded once more, then refused."""
    source = f"hf://{repo_id}/{name}"
    path = _download_file(repo_id, name, commit, options, optional=optional)
    if path is None:
        return None
    try:
        return check(path, source)
    except FileFormatError as refused:
        if hub_errors.is_offline():
            raise
        try:
            path = _download_file(repo_id, name, commit, {**options, "force_download": True})
        except hub_errors.HubError:  # the file that is here is wrong whether or not there is another
            raise refused from None
        return check(path, source)


def _read_checksums(path, source):
    try:
        return model_folder.read_checksums(path)
    except FileFormatError as error:
        raise FileFormatError(str(error).replace(str(path), source, 1)) from error


def _check_all(path, source, wanted):
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
    if optional and _is_known_absent(repo_id, name, revision, options["cache_dir"]):
        return None
    refusals = (errors.EntryNotFoundError, errors.HfHubHTTPError, OSError, ValueError, *hub_errors.transport_errors())
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
        except refusals as error:
            has_retried = isinstance(error, errors.LocalEntryNotFoundError)  # the client itself, for half a minute
            if (
                attempt + 1 < ATTEMPTS
                and not has_retried
                and not hub_errors.is_offline()
                and hub_errors.is_temporary(hub_errors.cause_of(error))
            ):
                time.sleep(FIRST_WAIT * 2**attempt)
                continue
            if optional and _may_be_absent(error, repo_id, revision, options["cache_dir"]):
                return None
            raise hub_errors.HubError(hub_errors.explain(error, source)) from error


def _is_known_absent(repo_id, name, commit, cache_dir):
    """Whether an earlier download found that this commit, which never changes, has no such file: needs no network."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(repo_id, name, cache_dir=cache_dir, revision=commit)
    return found is huggingface_hub._CACHED_NO_EXIST


def _may_be_absent(error, repo_id, commit, cache_dir):
    """Whether to do without a file: the repository has none, or no network can tell and the model is in the cache."""
    import huggingface_hub
    from huggingface_hub import errors

    if not isinstance(error, errors.EntryNotFoundError):
        return False
    if not isinstance(error, errors.LocalEntryNotFoundError) or hub_errors.is_offline():
        return True
    cached = (
        huggingface_hub.try_to_load_from_cache(repo_id, name, cache_dir=cache_dir, revision=commit)
        for name in model_folder.KERAS_FILES
    )
    return all(isinstance(path, str) for path in cached)


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
        revision: Branch; made from `main` if absent. Defaults to `None`, `main`.
        token: Hub token. Defaults to `None`.
        message: Commit message.
        endpoint: URL of the Hub. Defaults to `None`.

    Returns:
        The client's `CommitInfo`; `oid` is the commit.

    Raises:
        ValueError: If an argument is of the wrong kind.
        HubError: If the Hub refuses or cannot be reached.
    """
    import huggingface_hub
    from huggingface_hub import errors

    hub_arguments.check_repo_id(repo_id)
    options = hub_arguments.checked_options(revision=revision, token=token, endpoint=endpoint)
    api = huggingface_hub.HfApi(
        endpoint=options["endpoint"],
        token=options["token"],
        library_name="keras_sphereface",
        library_version=__version__,
    )
    operations = [
        huggingface_hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()
    ]
    try:
        if not api.repo_exists(repo_id):  # a token with the right to write to it need not have the right to make one
            api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None and not revision.startswith("refs/"):  # the Hub itself makes those of pull requests
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        return api.create_commit(repo_id, operations, commit_message=message, revision=revision)
    except (errors.HfHubHTTPError, OSError, RuntimeError, ValueError, *hub_errors.transport_errors()) as error:
        raise hub_errors.HubError(hub_errors.explain_upload(error, f"hf://{repo_id}")) from error
