"""What went wrong on the Hugging Face Hub, and what to do, in a line."""

import errno
import sys

from keras_sphereface.errors import one_line, without_password

_TEMPORARY = (408, 429)

# Errors of the cache's folder, not of the network.
_FOLDER_ERRORS = (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
_FOLDER_ERRNOS = (errno.EROFS, errno.ENOSPC, errno.ENAMETOOLONG)

_NO_LOGIN = (
    "token=True takes the token of the login, and there is none. Log in with `hf auth login`, or pass the token itself"
)
_NO_ASCII = "the token of HF_TOKEN or of the login is not ASCII. Set it again, or pass the right one as token="


class HubError(OSError):
    """The Hub did not give or take the files. The message says which, why, and what to do."""


def is_offline():
    """Whether the client was told to ask no network, by HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def transport_errors():
    """Base classes of the network errors of the HTTP libraries that versions of the Hub's client use."""
    bases = (("httpx2", "HTTPError"), ("httpx", "HTTPError"), ("requests", "RequestException"))
    return tuple(getattr(sys.modules[module], name) for module, name in bases if module in sys.modules)


def _status(error):
    return getattr(getattr(error, "response", None), "status_code", None)


def cause_of(error):
    """The error behind those that the client raises when it has no answer and no file, or for a broken upload."""
    from huggingface_hub import errors

    is_wrapper = isinstance(error, (errors.LocalEntryNotFoundError, RuntimeError)) or type(error) is ValueError
    return error.__cause__ if is_wrapper and isinstance(error.__cause__, Exception) else error


def is_temporary(error):
    """Whether to try again may help."""
    from huggingface_hub import errors

    status = _status(error)
    if status is not None:
        return status >= 500 or status in _TEMPORARY
    lasting = (ValueError, errors.LocalTokenNotFoundError, errors.FileMetadataError, errors.OfflineModeIsEnabled)
    return not isinstance(error, lasting) and not _is_of_folder(error)


def _is_of_folder(error):
    return isinstance(error, _FOLDER_ERRORS) or getattr(error, "errno", None) in _FOLDER_ERRNOS


def _first_line(error):
    """What an error says first, to be part of a sentence; the client's own show an endpoint's password."""
    return without_password(str(error).strip().partition("\n")[0]).rstrip(".")


def _problem_of_token(cause):
    """What is wrong with a token that no request could be sent with, else `None`; the client checks none."""
    from huggingface_hub import errors

    if isinstance(cause, errors.LocalTokenNotFoundError):
        return _NO_LOGIN
    return _NO_ASCII if isinstance(cause, UnicodeEncodeError) else None


def explain(error, source):
    """One line: what failed, and what to do."""
    from huggingface_hub import errors

    cause = cause_of(error)
    status = _status(cause)
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{source}: no such revision. Give a branch, tag or commit of the repository"
    if isinstance(error, errors.LocalEntryNotFoundError):
        if is_offline():
            return f"{source}: not in the cache, and HF_HUB_OFFLINE is set. Load it once with the network"
        if isinstance(cause, errors.FileMetadataError):
            return f"{source}: what answered is not the Hub. Check endpoint=, HF_ENDPOINT and the network's login page"
        if status not in (401, 403):
            reason = _first_line(cause)
            return f"{source}: the Hub could not be reached, and it is not in the cache ({reason}). Try again later"
    elif isinstance(error, errors.EntryNotFoundError):
        return f"{source}: the repository has no such file. Expected a Keras model as push_to_hub writes it"
    if isinstance(cause, errors.GatedRepoError):
        return f"{source}: gated (HTTP {status}). Accept the terms on the repository's page, and pass that account's token="
    if isinstance(cause, errors.RepositoryNotFoundError) or status in (401, 403):
        return (
            f"{source}: no such repository, or no access (HTTP {status}). Check the name; if it is private, pass token="
        )
    if problem := _problem_of_token(cause):
        return f"{source}: {problem}"
    if _is_of_folder(cause):
        return (
            f"{source}: the cache cannot be used ({one_line(cause)}). Give a folder that can be written as cache_dir="
        )
    advice = "Try again later" if is_temporary(cause) else "Check the arguments"
    return f"{source}: {type(cause).__name__}: {_first_line(cause)}. {advice}"


def explain_upload(error, source):
    """The same for an upload."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{source}: nothing was uploaded, HF_HUB_OFFLINE is set. Unset it"
    if problem := _problem_of_token(cause_of(error)):
        return f"{source}: {problem}"
    is_of_card = isinstance(error, ValueError) and not isinstance(error, errors.HfHubHTTPError)
    if is_of_card:  # the client checks its metadata
        return f"{source}: the upload was refused: {without_password(one_line(error)).rstrip('.')}. Correct the card"
    cause = cause_of(error)
    status = _status(cause)
    if status in (401, 403):
        return f"{source}: no right to write (HTTP {status}). Pass a token= with write access"
    return (
        f"{source}: the upload failed: {type(cause).__name__}: {_first_line(cause)}. "
        "The repository holds all of it or none. Try again"
    )
