"""Files written whole or not at all, and their checksums."""

import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from keras_sphereface.errors import FileFormatError, is_of_system, one_line
from keras_sphereface.hints import Path

_BLOCK = 1 << 20
_SMALL_BLOCK = 64 << 10
SHA256 = re.compile("[0-9a-f]{64}")

# Bytes of a description or a configuration: as JSON, each can become fifty in memory. An IResNet-200's has 780,000.
_LONGEST_JSON = 4 << 20


def check_output(path: Path, make_folder: bool = False) -> pathlib.Path:
    """Checks that a file can be written, before the long work that makes it.

    Args:
        path: Path of the file; an older one may be there.
        make_folder: Whether to make the file's folder, and those around it, where they are not there. Defaults to `False`.

    Returns:
        The path.

    Raises:
        ValueError: If there is a folder of this name.
        FileNotFoundError: If its folder is not there, and not to be made.
        NotADirectoryError: If a file is where its folder, or one around that, would be.
        PermissionError: If nothing can be written into its folder, or that cannot be made.
    """
    path = pathlib.Path(path)
    folder = path.absolute().parent
    if path.is_dir():
        raise ValueError(f"Expected a file. Received: {path}, a folder. Add a file's name")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder}: a file stands where a folder is expected. Choose another for {path.name}")
    if make_folder:
        folder.mkdir(parents=True, exist_ok=True)
    if not folder.is_dir():
        raise FileNotFoundError(f"The folder {folder} does not exist. Make it, or choose another for {path.name}")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"Nothing can be written into the folder {folder}. Choose another for {path.name}")
    return path


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file beside `path` for binary writing; renames it to `path` when the block ends well.

    The file is flushed to disk before it is renamed, and removed if the block raises.

    Args:
        path: Path that the finished file will have.

    Yields:
        The open file; seekable.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    with _naming(path):
        file = open(temporary, "wb")  # noqa: SIM115 - closed below, where errors are of the block as well
    try:
        with file:
            with _naming_what_lacks_a_name(path):
                yield file
            with _naming(path):
                file.flush()
                os.fsync(file.fileno())
        with _naming(path):
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def _naming(path):
    """Lets the system's errors name the file that was asked for, not the temporary one, which nobody knows."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


@contextlib.contextmanager
def _naming_what_lacks_a_name(path):
    """The same for what others write: where the system refused a write, as on a full disk, and nobody said which."""
    try:
        yield
    except OSError as error:
        if not is_of_system(error) or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


@contextlib.contextmanager
def draft(path: Path) -> Iterator[pathlib.Path]:
    """For what others write by name: yields a path in a new folder beside, and moves what is there when the block ends well.

    An older file, or folder, of the name `path` stays as it was until then, and if the block raises. What is new is flushed
    to disk before it takes its place.

    Args:
        path: Path that the finished file or folder will have; its folder exists.

    Yields:
        The path to write.
    """
    path = pathlib.Path(path)
    with _naming(path):
        temporary = tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    with temporary as folder:
        unfinished = pathlib.Path(folder, path.name)
        with _naming_what_lacks_a_name(path):
            yield unfinished
        with _naming(path):
            flush(unfinished)
            _replace(unfinished, path, pathlib.Path(folder, "older"))
    sync_folder(path.parent)


def flush(path: Path) -> None:
    """Flushes a file, or all files below a folder, to disk: a power cut then finds them whole.

    Args:
        path: Path of the file or folder, which others have written and closed.

    Raises:
        OSError: If the disk did not take them.
    """
    path = pathlib.Path(path)
    for file in (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]:
        with open(file, "rb+") as unflushed:  # Windows flushes only what may be written
            os.fsync(unflushed.fileno())


def _replace(new, path, aside):
    """Renames; no rename replaces a folder, so that an older one is moved aside, and back if anything fails."""
    if not path.is_dir():
        os.replace(new, path)
        return
    path.rename(aside)
    try:
        os.replace(new, path)
    except BaseException:
        if not path.exists():
            aside.rename(path)
        raise


def sync_folder(path: Path) -> None:
    """Makes a rename in a folder last through a power cut, where the system allows it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_at_most(file: BinaryIO, size: int) -> bytes:
    """Reads an open file of somebody else's from where it stands, and little beyond a size: a device has no end.

    Args:
        file: The file, open for reading bytes.
        size: Number of bytes that are enough.

    Returns:
        All bytes if they are `size` at most, else more than `size`, by a block at most.

    Example:
    >>> len(read_at_most(io.BytesIO(b"abc"), 2)) > 2
    True
    """
    # `file.read(n)` takes n bytes of memory at once, however few there are.
    return b"".join(itertools.islice(iter(lambda: file.read(_SMALL_BLOCK), b""), size // _SMALL_BLOCK + 1))


def read_json(
    path: Path,
    source: str | None = None,
    advice: str = "Get the file again",
    object_hook: Callable[[dict], Any] | None = None,
) -> Any:
    """Reads a JSON file of somebody else's, not one of any size.

    Args:
        path: Path of the file.
        source: What to call it in errors. Defaults to the path.
        advice: What to do about a broken one. Defaults to getting it again.
        object_hook: As in `json.loads`. Defaults to `None`.

    Returns:
        Its content.

    Raises:
        FileFormatError: If it has more than 4 MiB, or is not JSON.
    """
    source = source or path
    with open(path, "rb") as file:
        content = read_at_most(file, _LONGEST_JSON)
    if len(content) > _LONGEST_JSON:
        raise FileFormatError(
            f"{source}: has more than {_LONGEST_JSON} bytes, expected at most that. Do not use this file"
        )
    try:
        return json.loads(content, object_hook=object_hook)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{source}: not JSON ({one_line(error)}). {advice}") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def tree_sha256(path: Path) -> str:
    """SHA-256 of a file, or of the names and hashes of all files below a folder."""
    folder = pathlib.Path(path)
    if not folder.is_dir():
        return sha256(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{sha256(file)}\n".encode())
    return digest.hexdigest()
