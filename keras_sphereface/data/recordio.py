"""MXNet RecordIO files read and written without MXNet, InsightFace's layout included."""

import pathlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from keras_sphereface.arguments import whole_number
from keras_sphereface.data.images import check_size, decode_image
from keras_sphereface.data.packing import encoded
from keras_sphereface.data.positioned_file import PositionedFile
from keras_sphereface.data.recordio_batch import read_batch
from keras_sphereface.data.recordio_format import (
    ALIGNMENT,
    FIRST,
    LAST,
    MAGIC_BYTES,
    MIDDLE,
    PART_HEADER,
    WHOLE,
    Record,
    part_header,
    unpack_image,
)
from keras_sphereface.data.recordio_index import ascending_starts, load_index
from keras_sphereface.data.recordio_property import check_property, write_property
from keras_sphereface.data.recordio_writer import RecordIOWriter
from keras_sphereface.errors import FileFormatError
from keras_sphereface.hints import Path, Size

# Read at once for a record; a face crop is 2 to 20 KB, and a wrong index may make a record look as long as the file.
_FIRST_READ = 64 * 1024


class RecordIOReader(PositionedFile):
    """Random access to the records of a .rec file.

    Nothing but the index is held in memory; reads are by position (`os.pread`), so threads may share a reader. Every length
    is checked against the size of the file before anything is read.

    Args:
        path: Path of the .rec file.
        index_path: Path of the .idx file. Defaults to the same name with `.idx`. Where it is missing, it is rebuilt by a
            scan and written.

    Raises:
        FileFormatError: If the index is broken or lacks the last records, or the file has no records.
        FileNotFoundError: If there is no such file.

    Example:
    >>> with RecordIOReader("faces/train.rec") as reader:
    ...     record = reader.read(reader.position_of(1))
    ...     image = ksf.data.decode_image(record.data)
    """

    def __init__(self, path: Path, index_path: Path | None = None):
        super().__init__(path)
        self._index_path = index_path
        with self.closed_on_error():
            if self.size == 0:
                raise FileFormatError(f"{self.path}: holds no bytes, expected RecordIO. Restore the file.")
            self.keys, self.offsets = load_index(self.path, index_path)
        # As MXNet writes it: then a key is a position, and nothing needs to be sorted.
        self._counts_up = self.keys[0] == 0 and bool((np.diff(self.keys) == 1).all())
        self._by_key = None
        self._starts = ascending_starts(self.offsets)

    def __len__(self):
        return len(self.offsets)

    def __iter__(self):
        return (self.read(position) for position in range(len(self)))

    def __reduce__(self):
        return type(self), (self.path, self._index_path)

    def positions_of(self, keys: ArrayLike) -> np.ndarray:
        """Positions of records in the index by their keys.

        Args:
            keys: Whole numbers, shape `(n,)`.

        Returns:
            An int64 array of shape `(n,)`; -1 where the index lacks the key.
        """
        keys = np.asarray(keys, np.int64)
        if self._counts_up:
            return np.where((keys >= 0) & (keys < len(self)), keys, -1)
        if self._by_key is None:
            self._by_key = np.argsort(self.keys, kind="stable")
        found = np.searchsorted(self.keys, keys, sorter=self._by_key).clip(max=len(self) - 1)
        positions = self._by_key[found]
        return np.where(self.keys[positions] == keys, positions, -1)

    def position_of(self, key: int) -> int:
        """Position of one record by its key.

        Raises:
            KeyError: If the index has no such key.
        """
        position = int(self.positions_of([key])[0])
        if position < 0:
            raise KeyError(f"{self.path}: the index has no record with key {key}")
        return position

    def read(self, position: int) -> Record:
        """Reads a record.

        Args:
            position: Position in the index, from 0.

        Returns:
            A `Record` with `label`, `id`, `id2` and `data`.

        Raises:
            FileFormatError: If the record is broken or lies outside the file.
        """
        return unpack_image(self.read_payload(position), self.where(position))

    def read_images(self, positions: np.ndarray) -> tuple[list[bytes], np.ndarray] | None:
        """Reads many image records together, without Python an image; the common case only.

        Args:
            positions: Positions in the index, int64 of shape `(n,)`.

        Returns:
            `(data, labels)`, the image files' bytes as a list and the first labels as float32 of shape `(n,)`; or `None` if
            a record is broken or unusual. `read` then tells which.

        Raises:
            OSError: If the file cannot be read.
        """
        if not len(positions) or not len(self._starts):
            return None
        offsets = self.offsets[positions]
        following = np.searchsorted(self._starts, offsets, side="right")
        ends = np.where(following < len(self._starts), self._starts.take(following, mode="clip"), self.size)
        return read_batch(self._file.fileno(), offsets, np.minimum(ends, self.size))

    def read_payload(self, position: int) -> bytes:
        """Reads a record's bytes, its parts joined; arguments and errors as `read`."""
        offset = int(self.offsets[position])
        if not 0 <= offset < self.size:
            raise FileFormatError(
                f"{self.where(position)}: the index points outside the file ({self.size} bytes). "
                "Delete a wrong .idx so that it is rebuilt, or restore the .rec file."
            )
        flag, payload, following = self._read_part(position, offset)
        if flag == WHOLE:
            return payload
        if flag != FIRST:
            raise FileFormatError(
                f"{self.where(position)}: expected the start of a record, found a later part. Delete a wrong .idx."
            )
        parts = [payload]
        while flag != LAST:
            flag, payload, following = self._read_part(position, following)
            if flag not in (MIDDLE, LAST):
                raise FileFormatError(
                    f"{self.where(position)}: a record of several parts breaks off before its last. Restore the file."
                )
            parts.append(payload)
        return MAGIC_BYTES.join(parts)

    def _read_part(self, position, offset):
        block, where = self.read_up_to(offset, _FIRST_READ), self.where(position)
        flag, length = part_header(block, where)
        end = offset + PART_HEADER.size + length
        self.check_end(end, length, where)
        payload = block[PART_HEADER.size : PART_HEADER.size + length]
        if len(payload) < length:
            payload += self.read_at(offset + len(block), length - len(payload), where)
        return flag, payload, end + -length % ALIGNMENT

    def where(self, position: int) -> str:
        """Name of a record in messages, by its position in the index."""
        return f"{self.path}, record {int(self.keys[position])} at offset {int(self.offsets[position])}"


def write_recordio(
    path: Path,
    images: Iterable[np.ndarray],
    labels: Iterable[int],
    num_classes: int | None = None,
    image_size: Size | None = None,
    quality: int = 95,
    progress: bool = False,
) -> pathlib.Path:
    """Packs images into a RecordIO set: the .rec file, its .idx, and the `property` file that InsightFace's code reads.

    Whole-number labels whose images stand together are written in InsightFace's layout: record 0 holds the range of the
    identity records, which follow the images and hold the range of each identity's images. Other labels (mixed, fractional
    or several an image) are written without record 0, as MXNet's im2rec does. The images are streamed; the files appear
    under their names only when they are complete.

    Args:
        path: Path of the .rec file; the folder is made if need be.
        images: Iterable of image files' bytes, kept as they are, or of uint8 arrays `(height, width, 3)` in RGB, encoded
            as JPEG.
        labels: Numbers of shape `(n,)`, or several an image, `(n, k)`: the first is its class, counted from 0.
        num_classes: Number of classes for `property`. Defaults to the largest class plus one.
        image_size: `(height, width)` for `property`. Defaults to the first image's.
        quality: JPEG quality for arrays. Defaults to 95.
        progress: Whether to show a progress bar. Defaults to `False`.

    Returns:
        The path of the .rec file, as a `pathlib.Path`.

    Raises:
        ValueError: If there are no images, images and labels differ in number, a label cannot be stored exactly or is none
            of the classes, images are larger than 4096 pixels, or another .rec in the folder has another `property`.

    Example:
    >>> ksf.data.write_recordio("faces/train.rec", [face_a, face_b], [0, 1])
    """
    path = pathlib.Path(path)
    labels = np.asarray(labels)
    if labels.dtype == object:  # a table's column of several kinds of numbers
        labels = np.asarray(labels.tolist())
    if labels.dtype.kind not in "biuf":
        raise ValueError(f"Expected numbers as labels. Received: labels of dtype {labels.dtype}")
    num_classes = _class_count(labels, num_classes)
    image_size = None if image_size is None else check_size(image_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with RecordIOWriter(path, insightface=_is_grouped(labels)) as writer:
        for data, label in encoded(images, labels, quality, path.name, progress):
            if not writer.count:
                image_size = image_size or decode_image(data, "image 0").shape[:2]
                check_property(path, num_classes, image_size)
            writer.add(data, label)
    write_property(path.parent, num_classes, image_size)
    return path


def _class_count(labels, num_classes):
    """The number of classes, checked: a reader refuses an image of another."""
    classes = labels[:, 0] if labels.ndim == 2 and labels.size else labels
    least = 1
    if classes.size and np.isfinite(classes).all():  # of other labels the writer says which image's they are
        if classes.min() < 0:
            raise ValueError(f"Labels count from 0. Received: label={classes.min()} at image {classes.argmin()}")
        least += int(classes.max())
    if num_classes is None:
        return least
    if whole_number("num_classes", num_classes) < least:
        raise ValueError(
            f"Expected num_classes of at least {least}, for label {least - 1}. Received: num_classes={num_classes}"
        )
    return int(num_classes)


def _is_grouped(labels):
    """Whether labels are whole numbers that each stand in one run."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return False
    runs = 1 + np.count_nonzero(np.diff(labels)) if labels.size else 0
    return runs == np.unique(labels).size
