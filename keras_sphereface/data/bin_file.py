"""A `.bin` pair file as its reader sees it: in order once, then by position for as long as its images are asked for."""

from keras_sphereface.data.positioned_file import PositionedFile


class BinFile(PositionedFile):
    """An open file with the methods, beside those by position, that `pickletools` asks of one.

    Args:
        path: Path of the file.
    """

    def __init__(self, path):
        super().__init__(path)
        self.tell, self.readline = self._file.tell, self._file.readline

    def read(self, length):
        """The next bytes; no memory is taken for more than the file has."""
        return self._file.read(max(0, min(length, self.size - self.tell())))
