"""TFRecord files of face images, read in any order and written, without TensorFlow."""

import contextlib
import glob
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
from tqdm import tqdm

from keras_sphereface.data.loader import MAX_CLASSES
from keras_sphereface.data.packing import encoded
from keras_sphereface.data.positioned_file import PositionedFile
from keras_sphereface.data.sources import check_label, probe_image_size
from keras_sphereface.data.tfrecord_format import (
    CHECKSUM,
    HEAD,
    IMAGE,
    LABEL,
    TEXT,
    decode_example,
    encode_example,
    frame,
    masked_crc,
    payload_length,
)
from keras_sphereface.errors import FileFormatError
from keras_sphereface.files import atomic_writer
from keras_sphereface.hints import Path


class TFRecordReader(PositionedFile):
    """Random access to the records of a TFRecord file; opening it walks through the lengths.

    Args:
        path: Path of the file.

    Raises:
        FileFormatError: If the file is broken or empty.
        FileNotFoundError: If there is no such file.
    """

    def __init__(self, path):
        super().__init__(path)
        with self.closed_on_error():
            self.offsets = self._scan()
        # A record's checksum is computed in Python: once, not each epoch.
        self._checked = np.zeros(len(self.offsets), bool)

    def __len__(self):
        return len(self.offsets)

    def _scan(self):
        offsets, position = [], 0
        with tqdm(total=self.size, unit="B", unit_scale=True, desc="index", disable=None) as bar:
            while position < self.size:
                offsets.append(position)
                end = self._end(position, f"{self.path}, offset {position}")[1]
                bar.update(end - position)
                position = end
        if not offsets:
            raise FileFormatError(f"{self.path}: holds no bytes, expected TFRecord. Restore the file.")
        return np.array(offsets, np.int64)

    def _end(self, position, where):
        """`(length of the payload, position of the next record)`."""
        length = payload_length(self.read_up_to(position, HEAD), where)
        end = position + HEAD + length + CHECKSUM.size
        self.check_end(end, length, where)
        return length, end

    def where(self, record):
        """Name of a record in messages."""
        return f"{self.path}, record {record} at offset {int(self.offsets[record])}"

    def read(self, record):
        """Reads the bytes of a record, and compares their checksum the first time.

        Raises:
            FileFormatError: If the record is broken.
        """
        position, where = int(self.offsets[record]), self.where(record)
        length, _ = self._end(position, where)
        data = self.read_at(position + HEAD, length + CHECKSUM.size, where)
        payload = data[:length]
        if not self._checked[record]:
            if masked_crc(payload) != CHECKSUM.unpack_from(data, length)[0]:
                raise FileFormatError(f"{where}: the checksum of the bytes is wrong. Restore the file.")
            self._checked[record] = True
        return payload


class TFRecordSource:
    """The images of one or several TFRecord files."""

    def __init__(self, path, num_classes=None, image_size=None):
        paths = _paths(path)
        self.name = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        self.class_names = None
        with contextlib.ExitStack() as opened:
            self._readers = [opened.enter_context(TFRecordReader(one)) for one in paths]
            self._ends = np.cumsum([len(reader) for reader in self._readers])
            self.num_images = int(self._ends[-1])
            self.num_classes = num_classes or self._scan_classes()
            self.image_size = image_size or probe_image_size(self)
            opened.pop_all()  # they stay open where all went well

    def _scan_classes(self):
        names = {}
        for record in tqdm(range(self.num_images), desc="labels", disable=None):
            with contextlib.suppress(FileFormatError):
                features = self._features(record)
                label, text = _single(features, LABEL, int), _single(features, TEXT, bytes)
                if label is not None and 0 <= label < MAX_CLASSES:
                    names[label] = None if text is None else text.decode("utf-8", "replace")
        if not names:
            raise FileFormatError(
                f"{self.name}: no record has a whole number {LABEL!r} of 0 or more. Write the file again."
            )
        classes = max(names) + 1
        if len(names) == classes and None not in names.values():
            self.class_names = [names[label] for label in range(classes)]
        return classes

    def _place(self, record):
        file = int(np.searchsorted(self._ends, record, side="right"))
        return self._readers[file], record - (int(self._ends[file - 1]) if file else 0)

    def _features(self, record):
        reader, place = self._place(record)
        return decode_example(reader.read(place), reader.where(place))

    def where(self, record):
        """Name of a record in messages."""
        reader, place = self._place(record)
        return reader.where(place)

    def read(self, record):
        """Bytes and label of an image."""
        features, where = self._features(record), self.where(record)
        for key, kind in ((IMAGE, bytes), (LABEL, int)):
            if _single(features, key, kind) is None:
                found = ", ".join(sorted(features)) or "nothing"
                raise FileFormatError(
                    f"{where}: expected one {kind.__name__} under {key!r}, found the keys {found[:200]}."
                )
        if not features[IMAGE][0]:
            raise FileFormatError(f"{where}: holds no image bytes. Write the file again.")
        return features[IMAGE][0], check_label(features[LABEL][0], self.num_classes, where, "num_classes")


def _single(features, key, kind):
    """The one value under a key, or `None` where there is none, several, or one of another kind."""
    values = features.get(key, ())
    return values[0] if len(values) == 1 and isinstance(values[0], kind) else None


def _paths(path):
    if isinstance(path, list | tuple):
        paths = [os.fspath(one) for one in path]
    elif os.path.exists(path):
        paths = [os.fspath(path)]
    else:
        paths = sorted(glob.glob(os.fspath(path)))
    if not paths:
        raise FileNotFoundError(f"No TFRecord file. Received: path={os.fspath(path) if path else path!r}")
    return paths


class TFRecordWriter:
    """Writes image records one by one; a context manager that leaves either a complete file or none.

    Args:
        path: Path of the file.

    Raises:
        ValueError: From `add`, if a label is none that a reader takes, or UTF-8 cannot hold a name.

    Example:
    >>> with keras_sphereface.data.TFRecordWriter("train.tfrecord") as writer:
    ...     writer.add(keras_sphereface.data.encode_jpeg(image), label=0, class_name="Ann")
    """

    def __init__(self, path: Path):
        self.path, self.count = pathlib.Path(path), 0

    def __enter__(self):
        self._context = atomic_writer(self.path)
        self._file = self._context.__enter__()
        return self

    def __exit__(self, *exception):
        return self._context.__exit__(*exception)

    def add(self, data: bytes, label: int, class_name: str | None = None) -> None:
        """Appends an image.

        Args:
            data: Bytes of the image file.
            label: A whole number from 0 to 2147483646.
            class_name: Name of the identity. Defaults to `None`: not stored.

        Raises:
            ValueError: If the label is another number, or UTF-8 cannot hold the name.
        """
        if not 0 <= label < MAX_CLASSES or int(label) != label:
            raise ValueError(
                f"A label must be a whole number from 0 to {MAX_CLASSES - 1}. "
                f"Received: label={label!r} at image {self.count}"
            )
        features = {LABEL: int(label)}  # first, where a reader finds it without passing the image
        if class_name is not None:
            features[TEXT] = _as_utf8(str(class_name), self.count)
        self._file.write(frame(encode_example(features | {IMAGE: data})))
        self.count += 1


def _as_utf8(name, number):
    try:
        return name.encode()
    except UnicodeEncodeError as error:  # a folder's name may be of any bytes
        raise ValueError(
            f"A class name is stored in UTF-8, which cannot hold this one. "
            f"Received: class_name={name!r} at image {number}. Rename the class or its folder"
        ) from error


def write_tfrecord(
    path: Path,
    images: Iterable[np.ndarray],
    labels: Iterable[int],
    class_names: Sequence[str] | None = None,
    quality: int = 95,
    progress: bool = False,
) -> pathlib.Path:
    """Packs images into a TFRecord file of `tf.train.Example`: `image/encoded`, `image/class/label`, `image/class/text`.

    Args:
        path: Path of the file; the folder is made if need be.
        images: Iterable of image files' bytes, kept as they are, or of uint8 arrays `(height, width, 3)` in RGB, encoded
            as JPEG.
        labels: Whole numbers, shape `(n,)`.
        class_names: Name of each class. Defaults to `None`: not stored.
        quality: JPEG quality for arrays. Defaults to 95.
        progress: Whether to show a progress bar. Defaults to `False`.

    Returns:
        The path of the file, as a `pathlib.Path`.

    Raises:
        ValueError: If images and labels differ in number, or a label is none that a reader takes, or has no name.

    Example:
    >>> ksf.data.write_tfrecord("faces/train.tfrecord", [face_a, face_b], [0, 1])
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TFRecordWriter(path) as writer:
        for data, label in encoded(images, np.asarray(labels).tolist(), quality, path.name, progress):
            if class_names is not None and label not in range(len(class_names)):
                raise ValueError(
                    f"Expected a class name for each label. Received: {len(class_names)} for label={label!r}"
                )
            writer.add(data, label, None if class_names is None else class_names[label])
    return path
