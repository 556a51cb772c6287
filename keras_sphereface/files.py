"""Files written whole or not at all, and their checksums."""

import contextlib
import hashlib
import os
import pathlib
import threading

from keras_sphereface.hints import Path

_BLOCK = 1 << 20


@contextlib.contextmanager
def atomic_writer(path):
    """Opens a temporary file beside `path` for binary writing; renames it to `path` when the block ends well.

    The file is flushed to disk before it is renamed, and removed if the block raises.

    Args:
        path: Path that the finished file will have.

    Yields:
        The open file; seekable.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path):
    """Makes a rename in a folder last through a power cut, where the system allows it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
