"""What a face detector is, and the table of those that have a name."""

import importlib
from typing import NamedTuple, Protocol

import numpy as np


class Face(NamedTuple):
    """A face found in a picture. All places are in pixels, a pixel's centre at whole numbers.

    Args:
        box: `(4,)` left, top, right, bottom.
        points: `(5, 2)` x and y of left eye, right eye, nose tip, left and right mouth corner, as seen in the picture.
        confidence: 0..1, as the detector gives it.

    Example:
    >>> image = keras_sphereface.data.read_image("photo.jpg")
    >>> faces = keras_sphereface.faces.MTCNN().detect(image)
    >>> crops = [keras_sphereface.data.align(image, face.points) for face in faces]
    """

    box: np.ndarray
    points: np.ndarray
    confidence: float

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


class Detector(Protocol):
    """Finds faces. A detector of your own is a class, or any object, with this one method.

    Example:
    >>> class Centre(Detector):
    ...     def detect(self, image):
    ...         points = ksf.data.alignment.ARCFACE_112X112
    ...         return [Face(np.array([0, 0, 111, 111]), points, 1.0)]
    >>> aligner = FaceAligner(detector=Centre())
    """

    def detect(self, image: np.ndarray) -> list[Face]:
        """Finds all faces of a picture.

        Args:
            image: uint8 `(height, width, 3)`, RGB.

        Returns:
            List of `Face`, empty where there is none. The order has no meaning.
        """
        raise NotImplementedError(f"{type(self).__name__} must define detect(image)")


# Name -> (module, class); imported when asked for.
DETECTORS = {"mtcnn": ("keras_sphereface.faces.mtcnn", "MTCNN")}


def get(detector: str | Detector | None) -> Detector | None:
    """Returns a detector by its name.

    Args:
        detector: A name of `DETECTORS`; an object with a method `detect`, returned as it is; or `None`.

    Returns:
        The detector, or `None`: pictures are aligned crops already.

    Raises:
        ValueError: If nothing has this name.
        MissingDependencyError: If its package is not installed.
        RuntimeError: If it does not run on Keras's backend.

    Example:
    >>> detector = keras_sphereface.faces.get("mtcnn")
    >>> faces = detector.detect(keras_sphereface.data.read_image("photo.jpg"))
    """
    if detector is None or callable(getattr(detector, "detect", None)):
        return detector
    if detector not in DETECTORS:
        raise ValueError(
            f"Expected a detector's name ({', '.join(DETECTORS)}), an object with detect(image), or None. "
            f"Received: detector={detector!r}"
        )
    module, name = DETECTORS[detector]
    return getattr(importlib.import_module(module), name)()
