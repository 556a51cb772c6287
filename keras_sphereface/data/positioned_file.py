"""A file that is read by position, for as long as its records are asked for."""

import contextlib
import os
from collections.abc import Iterator

from keras_sphereface.errors import FileFormatError
from keras_sphereface.hints import Path


class PositionedFile:
    """An open file, whose threads may share it, and which another process opens anew.

    Unlike a memory map, one that is cut short meanwhile is an error, not a signal that ends the process.

    Args:
        path: Path of the file.

    Attributes:
        path: Path of the file, a `str`.
        size: Its bytes when it was opened.

    Raises:
        FileNotFoundError: If there is no such file.
    """

    def __init__(self, path: Path):
        self.path = os.fspath(path)
        self._file = open(self.path, "rb")  # noqa: SIM115 - closed by close()
        self.size = os.fstat(self._file.fileno()).st_size

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __reduce__(self):
        return type(self), (self.path,)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Closes the file if the block raises: around what follows the opening, before others know of it."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def read_up_to(self, offset: int, length: int) -> bytes:
        """Bytes by position, fewer where the file ends."""
        return os.pread(self._file.fileno(), length, offset)

    def read_at(self, offset: int, length: int, where: str | None = None) -> bytes:
        """Bytes by position, which were there when the file was opened.

        Args:
            offset: Position of the first.
            length: How many.
            where: What they belong to, for the message. Defaults to the file.

        Raises:
            FileFormatError: If they are there no more.
        """
        data = self.read_up_to(offset, length)
        if len(data) < length:
            raise FileFormatError(
                f"{where or self.path}: became shorter while it was in use, expected {length} bytes at {offset}, "
                f"found {len(data)}. Restore the file."
            )
        return data

    def check_end(self, end: int, length: int, where: str) -> None:
        """Refuses a record that claims more bytes than there are, before any memory is taken for it.

        Args:
            end: Where it would end.
            length: What it says of its length, for the message.
            where: Its name there.

        Raises:
            FileFormatError: If the file ends before.
        """
        if end > self.size:
            raise FileFormatError(
                f"{where}: a record of {length} bytes runs past the end of the file ({self.size} bytes). "
                "Restore the file; its download may have been cut short."
            )
