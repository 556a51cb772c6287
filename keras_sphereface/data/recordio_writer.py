"""A streaming writer of RecordIO sets."""

import contextlib
import itertools
import pathlib
from collections.abc import Sequence

import numpy as np

from keras_sphereface.data.recordio_format import MAX_EXACT_LABEL, frame, pack_image
from keras_sphereface.data.recordio_index import write_index
from keras_sphereface.data.recordio_property import PROPERTY, check_property, read_property, write_property
from keras_sphereface.files import atomic_writer
from keras_sphereface.hints import Path


class RecordIOWriter:
    """Writes image records one by one; a context manager that leaves either complete .rec and .idx files or none.

    Where the labels leave numbers out, record 0 does not say how many classes there are: the folder's `property` then does.

    Args:
        path: Path of the .rec file; the .idx file stands beside it.
        insightface: Whether to write InsightFace's record 0 and identity records; the images of an identity must then
            be added together. Defaults to `True`.

    Raises:
        ValueError: From `add`, if a label cannot be stored exactly or an identity's images do not stand together. At the
            end, if no image was added, or another .rec in the folder needs another `property`.

    Example:
    >>> with RecordIOWriter("train.rec") as writer:
    ...     writer.add(jpeg_bytes, label=0)
    """

    def __init__(self, path: Path, insightface: bool = True):
        self.path = pathlib.Path(path)
        self.insightface = insightface
        self.count = 0
        self._offsets = []
        self._first_keys = {}  # label -> key of its first image, in order of appearance
        self._label = None

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        self._file = self._stack.enter_context(atomic_writer(self.path))
        if self.insightface:
            self._write(0, [0, 0])  # its place is kept, its numbers are known at the end
        return self

    def __exit__(self, *exception):
        stated = None
        if exception[0] is None:
            try:
                self._check_not_empty()
                if self.insightface:
                    stated = self._property()
                    self._write_identities()
            except BaseException as error:
                self._stack.__exit__(type(error), error, error.__traceback__)
                raise
        index = self.path.with_suffix(".idx")
        if exception[0] is None:
            index.unlink(missing_ok=True)  # an older file's: if this process is killed now, the index is rebuilt
        self._stack.__exit__(*exception)
        if exception[0] is None:
            write_index(index, range(len(self._offsets)), self._offsets)
        if stated:
            write_property(self.path.parent, *stated)

    def add(self, data: bytes, label: float | Sequence[float]) -> None:
        """Appends an image.

        Args:
            data: Bytes of the image file.
            label: A number; without InsightFace's layout, or a sequence of numbers.
        """
        values = np.asarray(label, np.float64)
        if (np.abs(values) > MAX_EXACT_LABEL).any() or not np.isfinite(values).all():
            raise ValueError(
                f"A label is stored as float32, exact up to {MAX_EXACT_LABEL}. "
                f"Received: label={label!r} at image {self.count}"
            )
        key = len(self._offsets)
        if self.insightface:
            self._begin_identity(values, key)
        self._write(key, label, data)
        self.count += 1

    def _begin_identity(self, values, key):
        """Notes where an identity's images begin, if this is the first."""
        if values.ndim:
            raise ValueError(
                "InsightFace's layout has one number as an image's label. "
                f"Received: label={values.tolist()} at image {self.count}; pass insightface=False."
            )
        label = float(values)
        if label == self._label:
            return
        if label < 0:
            raise ValueError(f"Labels count from 0. Received: label={label:g} at image {self.count}")
        if label in self._first_keys:
            raise ValueError(
                "InsightFace's layout needs the images of an identity to stand together. "
                f"Received: label={label:g} again at image {self.count}; sort by label or pass insightface=False."
            )
        self._first_keys[label] = key
        self._label = label

    def _check_not_empty(self):
        if not self.count:
            raise ValueError(
                f"{self.path}: no image was added, and no reader takes an empty file. Nothing was written."
            )

    def _property(self):
        """What `property` has to say: `(number of classes, image size)`, or `None` where readers know the classes."""
        classes = int(max(self._first_keys)) + 1
        declared, _ = read_property(self.path.with_name(PROPERTY))
        if classes <= (declared or len(self._first_keys)):
            return None
        size = (0, 0)  # not stated: it is the first image's
        check_property(self.path, classes, size)
        return classes, size

    def _write(self, key, label, data=b""):
        self._offsets.append(self._file.tell())
        self._file.write(frame(pack_image(label, data, id=key)))

    def _write_identities(self):
        first, starts = len(self._offsets), [*self._first_keys.values(), len(self._offsets)]
        if first + len(starts) > MAX_EXACT_LABEL:
            raise ValueError(
                f"Record 0 counts in float32, exact up to {MAX_EXACT_LABEL} records. Received: {first + len(starts)}. "
                "Write several files, or pass insightface=False."
            )
        for number, (start, end) in enumerate(itertools.pairwise(starts)):
            self._write(first + number, [start, end])
        end = self._file.tell()
        self._file.seek(0)
        self._file.write(frame(pack_image([first, len(self._offsets)], b"", id=0)))
        self._file.seek(end)
