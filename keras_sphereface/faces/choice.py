"""Which of several faces in a photo is meant."""

from collections.abc import Sequence

import numpy as np

from keras_sphereface.faces.detectors import Face
from keras_sphereface.hints import Size

CHOICES = ("largest", "central", "all")


def choose(faces: Sequence[Face], image_size: Size, which: str = "largest") -> list[Face]:
    """Chooses among the faces of a photo.

    Args:
        faces: List of `Face`.
        image_size: `(height, width)` of the photo in pixels.
        which: `"largest"`: the one whose box has most pixels. `"central"`: the one whose box's centre is nearest to the
            photo's (LFW's rule). `"all"`: all of them, the largest first. Defaults to `"largest"`.

    Returns:
        List of `Face`: one, or all; empty where there is none.

    Raises:
        ValueError: If `which` is none of these.

    Example:
    >>> boxes = np.array([[0, 0, 30, 40], [40, 30, 60, 50]])
    >>> faces = [keras_sphereface.faces.Face(box, np.zeros((5, 2)), 0.99) for box in boxes]
    >>> keras_sphereface.faces.choose(faces, image_size=(80, 100), which="central")[0].area
    400.0
    """
    if which not in CHOICES:
        raise ValueError(f"Expected which as one of {CHOICES}. Received: which={which!r}")
    if which == "central":
        middle = (np.array(image_size[::-1]) - 1) / 2
        return sorted(faces, key=lambda face: np.linalg.norm(face.box.reshape(2, 2).mean(axis=0) - middle))[:1]
    ordered = sorted(faces, key=lambda face: -face.area)
    return ordered if which == "all" else ordered[:1]
