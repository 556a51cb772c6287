"""From photos to embeddings: align, embed with the mirror image, block by block."""

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from keras_sphereface.arguments import whole_number
from keras_sphereface.data.images import Photo, is_open_file
from keras_sphereface.evaluation.embeddings import check_embeddings, check_flip, fuse
from keras_sphereface.evaluator import embed_batch
from keras_sphereface.faces import FaceAligner
from keras_sphereface.faces.detectors import Detector

if TYPE_CHECKING:
    from keras_sphereface.recognition.models import FaceModel

# The pictures that a model is known by: waves in these directions (degrees), wavelengths (pixels) and about these colours.
_PROBE_DIRECTIONS = (0, 45, 90, 135)
_PROBE_WAVELENGTHS = (16, 24, 40)
_PROBE_COLOURS = ((200, 110, 70), (70, 200, 110), (110, 70, 200), (150, 130, 60))
_PROBE_CONTRAST = 55

_ONE_PHOTO = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)  # and arrays of fewer than four dimensions


class PhotoEmbedder:
    """Gives the embedding of the face in a photo. May be used from several threads.

    Args:
        model: `FaceModel`.
        detector, which, flip, batch_size: As in `Recognizer`.
    """

    def __init__(
        self,
        model: "FaceModel",
        detector: str | Detector | None = "mtcnn",
        which: str = "largest",
        flip: str = "sum",
        batch_size: int = 32,
    ):
        check_flip(flip)
        self.align = FaceAligner(detector, model.size, which)
        self.flip, self.batch_size = flip, whole_number("batch_size", batch_size)
        self._model, self._lock = model, threading.Lock()

    def crop(self, photo: Photo, name: str) -> np.ndarray:
        """Returns the crop of a photo's face; `name` is for messages about photos that are no files."""
        return self.align(photo, "" if isinstance(photo, str | os.PathLike) else name)[0]

    def crops(self, photos: Sequence[Photo], name: str = "the photo") -> np.ndarray:
        """Returns the `(n, h, w, 3)` crops of several photos."""
        return np.stack([self.crop(photo, f"{name} {number}") for number, photo in enumerate(photos, 1)])

    def embed(self, photos: Sequence[Photo], on_error: Callable[[Any, Exception], None] | None = None) -> np.ndarray:
        """Embeds photos; as `Recognizer.embed`."""
        rows = []
        with tqdm(total=len(photos), desc="embed", unit="photo", disable=None) as bar:
            for start in range(0, len(photos), self.batch_size):
                block = photos[start : start + self.batch_size]
                crops = [self._crop_or_none(photo, start + offset, on_error) for offset, photo in enumerate(block, 1)]
                usable = [crop for crop in crops if crop is not None]
                names = [
                    name_of(photo, start + offset)
                    for offset, (photo, crop) in enumerate(zip(block, crops), 1)
                    if crop is not None
                ]
                found = iter(self.embed_crops(np.stack(usable), names) if usable else ())
                rows += [None if crop is None else next(found) for crop in crops]
                bar.update(len(block))
        known = next((row for row in rows if row is not None), None)
        absent = np.full_like(self.fingerprint()[0] if known is None else known, np.nan)  # no photo told the length
        return np.stack([absent if row is None else row for row in rows])

    def _crop_or_none(self, photo, number, on_error):
        try:
            return self.crop(photo, f"photo {number}")
        except (ValueError, OSError) as error:
            if on_error is None:
                raise
            on_error(photo, error)

    def embed_crops(self, crops: np.ndarray, names: Sequence[str] | None = None) -> np.ndarray:
        """Embeds `(n, h, w, 3)` uint8 crops; returns `(n, d)` float32 of unit length. `names` are for messages."""
        size, names = self.batch_size, names or [f"crop {number}" for number in range(1, len(crops) + 1)]
        parts = [self._embed_block(crops[i : i + size], names[i : i + size]) for i in range(0, len(crops), size)]
        return np.concatenate(parts)

    def _embed_block(self, crops, names):
        sides = crops if self.flip == "none" else np.concatenate([crops, crops[:, :, ::-1]])
        # Blocks of 1, 2, 4, ... images: a model is compiled for each size that it meets.
        room = 1 << (len(sides) - 1).bit_length()
        with self._lock:
            embeddings = embed_batch(self._model.embed, sides, room, [*names, *names])
        fused = fuse(embeddings[: len(crops)], embeddings[-len(crops) :], self.flip)
        fused = check_embeddings(fused.astype(np.float64), names)
        return (fused / np.linalg.norm(fused, axis=1, keepdims=True)).astype(np.float32)

    def fingerprint(self) -> np.ndarray:
        """Embeddings `(k, d)` of fixed pictures, by which a model is known again: coloured waves in four directions."""
        rows, columns = np.indices(self._model.size)[..., None]
        angles = np.radians(_PROBE_DIRECTIONS).reshape(-1, 1, 1, 1)
        phase = 2 * np.pi * (rows * np.sin(angles) + columns * np.cos(angles)) / _PROBE_WAVELENGTHS
        colours = np.reshape(_PROBE_COLOURS, (-1, 1, 1, 3)) + _PROBE_CONTRAST * np.sin(phase)
        return self.embed_crops(np.rint(colours).astype(np.uint8))


def name_of(photo: Photo, number: int, name: str = "photo") -> str:
    """What messages call a photo: its path, or its number."""
    return os.fspath(photo) if isinstance(photo, str | os.PathLike) else f"{name} {number}"


def as_list(photos: Photo | Sequence[Photo]) -> list:
    """Returns photos as a list; a single photo makes a list of one, a 1-D array of paths is one already.

    Raises:
        ValueError: If there is none.
    """
    is_listed = isinstance(photos, np.ndarray) and photos.ndim == 1 and photos.dtype.kind in "UO"  # of paths
    is_one = (
        isinstance(photos, _ONE_PHOTO) or is_open_file(photos) or (getattr(photos, "ndim", 4) < 4 and not is_listed)
    )
    photos = [photos] if is_one else list(photos)
    if not photos:
        raise ValueError("Expected at least one photo. Received: an empty list")
    return photos
