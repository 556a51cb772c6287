"""A `.bin` pair file as its reader sees it: in order once, then by position for as long as its images are asked for."""

import os

from keras_sphereface.errors import FileFormatError


class BinFile:
    """An open file. Unlike a memory map, one that is cut short meanwhile is an error, not a signal that ends the process.

    Threads may share `read_at`; the other methods are what `pickletools` asks of a file.

    Args:
        path: Path of the file.
    """

    def __init__(self, path):
        self.path = os.fspath(path)
        self._file = open(self.path, "rb")  # noqa: SIM115 - open as long as images may be asked for
        self._size = os.fstat(self._file.fileno()).st_size
        self.tell, self.readline = self._file.tell, self._file.readline

    def read(self, length):
        """The next bytes; no memory is taken for more than the file has."""
        return self._file.read(max(0, min(length, self._size - self._file.tell())))

    def read_at(self, offset, length):
        """Bytes by position.

        Raises:
            FileFormatError: If the file became shorter since it was opened.
        """
        data = os.pread(self._file.fileno(), length, offset)
        if len(data) < length:
            raise FileFormatError(
                f"{self.path}: became shorter while it was in use, expected {length} bytes at {offset}, found {len(data)}. "
                "Restore the file."
            )
        return data
