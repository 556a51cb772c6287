"""Aligned face crops of IJB-B and IJB-C."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from keras_sphereface.arguments import whole_number
from keras_sphereface.data.alignment import TEMPLATES, align
from keras_sphereface.data.ijb import IJBMeta
from keras_sphereface.data.images import check_size, read_image
from keras_sphereface.errors import one_line
from keras_sphereface.hints import Path, Size

_THREADS = 4


class IJBImages:
    """The aligned face crops of IJB, in the order of the meta files.

    Args:
        meta: `IJBMeta`.
        folder: The folder `loose_crop`, or the one that holds it.
        image_size: `(height, width)`: `(112, 112)` or `(112, 96)`. Defaults to `(112, 112)`.

    Raises:
        FileNotFoundError: If images are missing, naming the first.
        ValueError: If `image_size` is another one.

    Example:
    >>> meta = keras_sphereface.data.read_ijb("IJBC", "ijbc")
    >>> images = keras_sphereface.data.IJBImages(meta, "IJBC")
    >>> first = next(images.batches(64))  # uint8 (64, 112, 112, 3)
    """

    def __init__(self, meta: IJBMeta, folder: Path, image_size: Size = (112, 112)):
        self.image_size = check_size(image_size)
        if self.image_size not in TEMPLATES:
            raise ValueError(
                f"Expected image_size as one of {list(TEMPLATES)}, to which faces are aligned. "
                f"Received: image_size={image_size!r}"
            )
        folder = os.fspath(folder)
        inner = os.path.join(folder, "loose_crop")
        self.folder = inner if os.path.isdir(inner) else folder
        self.meta = meta
        missing = sorted(set(meta.image_names) - _files_below(self.folder))
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(meta.image_names)} images of {meta.name} are not in {self.folder!r}, the first is "
                f"{missing[0]!r}. Unpack the archive again"
            )

    def __len__(self):
        return len(self.meta.image_names)

    def batches(self, batch_size: int, start: int = 0) -> Iterator[np.ndarray]:
        """Yields uint8 blocks `(k, height, width, 3)`, RGB, from image number `start` on.

        Raises:
            FileFormatError: If an image is broken.
            ValueError: If `batch_size` is not an integer of at least 1, or the landmarks of an image do not define its crop.
        """
        whole_number("batch_size", batch_size)
        with ThreadPoolExecutor(_THREADS) as pool:
            for first in range(start, len(self), batch_size):
                yield np.stack(list(pool.map(self._crop, range(first, min(first + batch_size, len(self))))))

    def _crop(self, row):
        path = os.path.join(self.folder, self.meta.image_names[row])
        image = read_image(path)
        try:
            return align(image, self.meta.landmarks[row], self.image_size)
        except ValueError as error:
            raise ValueError(f"{path}: cannot be aligned ({one_line(error)}). Correct its landmarks") from error


def _files_below(folder):
    """Returns the names of all files below a folder, relative to it, with forward slashes."""
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"No folder {folder!r}. Expected the folder loose_crop of the archive")
    names = set()
    for base, _, files in os.walk(folder):
        inner = os.path.relpath(base, folder).replace(os.sep, "/")
        names.update(files if inner == "." else (f"{inner}/{file}" for file in files))
    return names
