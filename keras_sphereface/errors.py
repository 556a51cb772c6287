"""The package's own exceptions. Wrong arguments raise ValueError or TypeError as in Keras."""

import difflib
import errno
import importlib
import re
import types
from collections.abc import Iterable

_PATH_ERRORS = {
    FileNotFoundError: "there is no such file or folder",
    IsADirectoryError: "expected a file, this is a folder",
    NotADirectoryError: "a file stands where a folder is expected",
    FileExistsError: "a file stands where a folder is expected",
}


# What the system refuses, whatever a file holds: full or read-only disks, missing rights, limits, broken disks.
_OF_SYSTEM = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO),
)
_SHOWN = 120  # characters of a wrong value in an error
_PASSWORD = re.compile(r"(?<=://)[^/\s]*@")  # of a URL, with the user's name


class FileFormatError(ValueError):
    """A file whose content breaks its format.

    The message is one line: the file, the place in it, what was found, what was expected, and what to do.
    """


class NoFaceError(ValueError):
    """A picture in which no face was found. The message names the picture."""


class CheckpointError(OSError):
    """A checkpoint could not be written or read. The message names the last good one and what to do."""


class DivergenceError(ArithmeticError):
    """A loss, gradient or weight is not finite. The message names the step, and what is known about the cause."""


class MissingDependencyError(ImportError):
    """An optional dependency is not installed. The message names the extra that brings it."""


def require(module_name: str, extra: str) -> types.ModuleType:
    """Imports an optional dependency where it is used.

    Args:
        module_name: Dotted name of the module to import, e.g. `"matplotlib.pyplot"`.
        extra: The extra of this package that installs it, e.g. `"plots"`.

    Returns:
        The module.

    Raises:
        MissingDependencyError: If the module is not installed.
    """
    try:
        return importlib.import_module(module_name)
    except ImportError as error:
        package = module_name.partition(".")[0]
        raise MissingDependencyError(
            f"This needs the package {package!r}, which could not be imported ({error}). "
            f"Install it with: python -m pip install 'keras_sphereface[{extra}]'"
        ) from error


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """A question for the end of an error's message: the valid name that is spelt most like a wrong one.

    Args:
        name: What was given; case does not count.
        names: The valid names.

    Returns:
        `" Did you mean 'sfnet20'?"`, or an empty text where none is near.

    Example:
    >>> keras_sphereface.errors.did_you_mean("SFNet_20", ["sfnet4", "sfnet20"])
    " Did you mean 'sfnet20'?"
    """
    by_lower_case = {valid.lower(): valid for valid in names}
    nearest = difflib.get_close_matches(str(name).lower(), by_lower_case, n=1)
    return f" Did you mean {by_lower_case[nearest[0]]!r}?" if nearest else ""


def one_line(value: object) -> str:
    """The text of a value without line ends, for an error's message; of an error without a text, the type's name."""
    return " ".join(str(value).split()) or type(value).__name__


def shown(value: object) -> str:
    """What an error says of a wrong value: its `repr`, on one line, without the middle of a long one."""
    text = one_line(repr(value))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}...{text[-_SHOWN // 4 :]}"


def without_password(text: str) -> str:
    """A text without the names and passwords of the URLs in it.

    Example:
    >>> without_password("no answer from https://me:secret@hub.example.org")
    'no answer from https://hub.example.org'
    """
    return _PASSWORD.sub("", text)


def is_of_system(error: BaseException) -> bool:
    """Whether an error is the system's, such as a full disk, and says nothing of the file that was read."""
    return isinstance(error, OSError) and error.errno in _OF_SYSTEM


def unwrapped(error: Exception) -> Exception:
    """The `FileFormatError` that tf.data passed on as an error of its own, around a traceback; any other error as it is.

    Example:
    >>> try:
    ...     trainer.fit(dataset.batches(64), steps_per_epoch=100)
    ... except Exception as error:
    ...     print(errors.unwrapped(error))
    """
    _, found, text = str(error).partition(f"{FileFormatError.__name__}: ")
    if not found or not type(error).__module__.startswith("tensorflow."):
        return error
    return FileFormatError(text.splitlines()[0])


def message(error: Exception) -> str:
    """What an error says, in one line; of a path that the system refuses, what is wrong with it."""
    path = getattr(error, "filename2", None) or getattr(error, "filename", None)  # where a rename leads, not its source
    if path is not None:
        for kind, wrong in _PATH_ERRORS.items():
            if isinstance(error, kind):
                return f"{path}: {wrong}"
    return one_line(error.args[0] if isinstance(error, KeyError) and error.args else error)
