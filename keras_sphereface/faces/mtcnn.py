"""MTCNN: three small networks in a row, by the package `mtcnn`, whose weights are inside its wheel.

Reference: Zhang et al., Joint face detection and alignment using multi-task cascaded convolutional networks, arXiv
1604.02878.
"""

import threading

import keras
import numpy as np
from PIL import Image

from keras_sphereface.arguments import finite_number, whole_number
from keras_sphereface.errors import require
from keras_sphereface.faces.detectors import Detector, Face

# The package places points half a pixel too far up and left (it counts from pixels' edges, as the MATLAB original): on LFW's
# aligned crops (every 33rd, 401 in all) the median shift of a fitted face is 0.48 pixels in x and 0.33 in y.
_PIXEL_CENTRE = 0.5
_SMALLEST_SIDE = 12  # pixels: the first network's window


class MTCNN(Detector):
    """Finds faces by MTCNN. It needs no network, and TensorFlow as Keras's backend. May be called from several threads.

    Args:
        max_side: Photos whose longer side has more pixels are looked at in this size: a phone's 12 megapixels take seconds
            otherwise. `None`: never. Defaults to `1280`.
        min_face: Smallest face that is found, in pixels of the size that is looked at. Defaults to `20`.
        min_confidence: Faces with less are left out. Defaults to `0.9`.

    Raises:
        MissingDependencyError: If the package is not installed: extra `[faces]`.
        RuntimeError: If Keras runs on another backend.
        ValueError: If `max_side` is no integer of at least 12, `min_face` none of at least 1, or the confidence not from 0
            to 1.

    Example:
    >>> faces = MTCNN().detect(ksf.data.read_image("photo.jpg"))  # doctest: +SKIP
    """

    def __init__(self, max_side: int | None = 1280, min_face: int = 20, min_confidence: float = 0.9):
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                "The detector 'mtcnn' runs on TensorFlow only. "
                f"Received: Keras backend {keras.backend.backend()!r}. "
                "Unset KERAS_BACKEND, give a detector of your own, or detector=None for aligned crops"
            )
        self.max_side = None if max_side is None else whole_number("max_side", max_side, _SMALLEST_SIDE)
        self.min_face = whole_number("min_face", min_face)
        self.min_confidence = finite_number("min_confidence", min_confidence)
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"`min_confidence` must be from 0 to 1. Received: min_confidence={min_confidence!r}")
        self._network = require("mtcnn", "faces").MTCNN()
        self._lock = threading.Lock()

    def detect(self, image: np.ndarray) -> list[Face]:
        """Finds all faces of a picture; as `Detector.detect`."""
        if min(image.shape[:2]) < _SMALLEST_SIDE:
            return []
        small, scale = _shrink(image, self.max_side)
        with self._lock:
            # Rows of image number, left, top, width, height, confidence, five x, five y.
            rows = self._network.detect_faces(
                small, output_type="numpy", fit_to_image=False, min_face_size=self.min_face
            )
        rows = np.asarray(rows, np.float64).reshape(-1, 16)
        rows = rows[(rows[:, 5] >= self.min_confidence) & np.isfinite(rows).all(axis=1)]
        return [_face(row, scale) for row in rows]


def _shrink(image, max_side):
    """Returns the picture in the size to look at, and `(2,)` factors back to its own size in x and y."""
    height, width = image.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return image, np.ones(2)
    factor = max_side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
    return small, np.array([width / size[0], height / size[1]])


def _face(row, scale):
    box = np.array([row[1:3], row[1:3] + row[3:5]]) + _PIXEL_CENTRE
    points = row[6:].reshape(2, 5).T + _PIXEL_CENTRE
    # Places scale about the picture's corner, half a pixel before its first centre.
    box, points = ((places + 0.5) * scale - 0.5 for places in (box, points))
    return Face(box.ravel(), points, float(row[5]))
