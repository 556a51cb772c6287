"""Where images come from.

A source has `name`, `num_images`, `num_classes`, `image_size`, `class_names`, and either

    read(record) -> (bytes of an image file, label)        with where(record) -> its name in messages, or
    read_arrays(records) -> (uint8 images, labels)         for many at once.

Where `read` has a quicker way for many, `read_many(records) -> (list of bytes, labels)` is it, or `None` if a record needs
to be looked at by itself. A broken record raises `FileFormatError` or `OSError`.
"""

import os

import numpy as np
from tqdm import tqdm

from keras_sphereface.data.images import decode_image, read_file
from keras_sphereface.data.loader import MAX_CLASSES
from keras_sphereface.data.recordio import RecordIOReader
from keras_sphereface.data.recordio_property import PROPERTY, read_property
from keras_sphereface.errors import FileFormatError

_PROBES = 16  # images tried to learn the size where no file tells it


def check_label(value, num_classes, where, stated_by="the `property` file, or num_classes"):
    """Returns a label as an int; `stated_by` is where the user can correct the class count.

    Raises:
        FileFormatError: If it is not a whole number from 0 to `num_classes - 1`.
    """
    label = int(value) if np.isfinite(value) else -1
    if label != value or not 0 <= label < num_classes:
        raise FileFormatError(
            f"{where}: label {value:g} is not one of the {num_classes} classes 0 to {num_classes - 1}. "
            f"Correct the class count ({stated_by}) or leave the image out."
        )
    return label


def probe_image_size(source):
    """The size of the first image of a source that can be decoded.

    Raises:
        FileFormatError: If none of the first ones can.
    """
    for record in range(min(_PROBES, source.num_images)):
        try:
            return decode_image(source.read(record)[0], source.where(record)).shape[:2]
        except (FileFormatError, OSError) as error:
            latest = error
    raise FileFormatError(f"{source.name}: none of the first images can be decoded. The latest: {latest}") from latest


class RecordIOSource:
    """The images of a .rec file: InsightFace's layout where record 0 says so, else every record."""

    class_names = None

    def __init__(self, path, num_classes=None, image_size=None):
        self.reader = RecordIOReader(path)
        self.name = self.reader.path
        with self.reader.closed_on_error():
            self._positions, identities = self._layout()
            self.num_images = len(self._positions)
            declared_classes, declared_size = read_property(os.path.join(os.path.dirname(self.name), PROPERTY))
            self.num_classes = num_classes or declared_classes or identities or self._count_classes()
            self.image_size = image_size or declared_size or probe_image_size(self)

    def _layout(self):
        """`(positions of the images in the index, number of identities or None)`."""
        first = self.reader.positions_of([0])[0]
        head = None
        if first >= 0:
            try:
                head = self.reader.read(first)
            except FileFormatError:
                head = None  # met again, and counted, when it is read as an image
        if head is None or np.isscalar(head.label) or head.label.size != 2 or head.data:
            return np.arange(len(self.reader), dtype=np.int64), None
        start, end = (float(value) for value in head.label)
        # A float32 beyond 2^24 is rounded to a multiple of 2: the index then decides where the file ends.
        counts = 1 < start <= end <= start + MAX_CLASSES and start.is_integer()
        if not counts or start - 1 > len(self.reader):
            raise FileFormatError(
                f"{self.name}, record 0: expected 1 < first identity record <= end within {len(self.reader)} records, "
                f"found {start:g} and {end:g}. Pack the images again."
            )
        positions = self.reader.positions_of(np.arange(1, int(start)))
        if (positions < 0).any():
            raise FileFormatError(
                f"{self.name}: record 0 announces {int(start) - 1} images, but the index lacks "
                f"{np.count_nonzero(positions < 0)} of them. Delete the .idx so that it is rebuilt, or restore both files."
            )
        return positions, int(end - start)

    def _count_classes(self):
        """One more than the largest label, by reading every header."""
        largest = -1
        for record in tqdm(range(self.num_images), desc="labels", disable=None):
            try:
                label = self._record(record).first_label
            except (FileFormatError, OSError):
                continue
            if np.isfinite(label) and 0 <= label < MAX_CLASSES:
                largest = max(largest, int(label))
        if largest < 0:
            raise FileFormatError(f"{self.name}: no record has a label of 0 or more. Pack the images again.")
        return largest + 1

    def _record(self, record):
        return self.reader.read(int(self._positions[record]))

    def where(self, record):
        """Name of a record in messages."""
        return self.reader.where(int(self._positions[record]))

    def read(self, record):
        """Bytes and label of an image."""
        found = self._record(record)
        if not found.data:
            raise FileFormatError(f"{self.where(record)}: holds no image bytes. Pack the images again.")
        return found.data, check_label(found.first_label, self.num_classes, self.where(record))

    def read_many(self, records):
        """Bytes and labels of many images, or `None` if one is not as it should be."""
        found = self.reader.read_images(self._positions[records])
        if found is None:
            return None
        data, values = found
        with np.errstate(invalid="ignore"):  # NaN has no whole number
            labels = values.astype(np.int64)
        sound = (labels == values) & (labels >= 0) & (labels < self.num_classes)
        return (data, labels) if sound.all() else None


class FolderSource:
    """The images of a `FaceFolder`."""

    def __init__(self, faces, image_size=None):
        self._faces = faces
        self.name, self.class_names = faces.root, faces.class_names
        self.num_images, self.num_classes = len(faces.names), len(faces.class_names)
        self.image_size = image_size or probe_image_size(self)

    def where(self, record):
        """Path of an image."""
        return os.path.join(self._faces.root, self._faces.names[record])

    def read(self, record):
        """Bytes and label of an image."""
        data = read_file(self.where(record))
        if not data:
            raise FileFormatError(f"{self.where(record)}: holds no bytes. Replace or remove it.")
        return data, int(self._faces.labels[record])
