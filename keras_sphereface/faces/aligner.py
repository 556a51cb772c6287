"""Photos in, aligned crops out."""

import os

import numpy as np
from numpy.typing import ArrayLike

from keras_sphereface.data.alignment import ARCFACE_112X112, TEMPLATES, align, similarity_transform
from keras_sphereface.data.images import Photo, as_image, check_size
from keras_sphereface.errors import FileFormatError, NoFaceError
from keras_sphereface.faces.choice import CHOICES, choose
from keras_sphereface.faces.detectors import Detector, Face, get
from keras_sphereface.hints import Size

# How far, as a share of the crop's height, a fitted face may lie from the template in a crop that counts as aligned: 6.7 of
# 112 pixels. Detected again, 98 % of LFW's aligned crops are nearer; their median is 2.8 pixels (every 33rd, 401 in all).
ALIGNED_WITHIN = 0.06


class FaceAligner:
    """Finds the face of a photo and brings eyes, nose and mouth to where a network expects them.

    A picture that has the crop's size and its face at the template's place is an aligned crop already: it is passed on
    untouched, not resampled a second time.

    Args:
        detector: Name of a detector (`"mtcnn"`), an object with `detect(image)`, or `None`: every picture is an aligned crop
            already and must have the right size. Defaults to `"mtcnn"`.
        size: `(height, width)` of the crops: 112x112 (ArcFace's template) or 112x96 (SphereFace's), or any with `template`.
            Defaults to `(112, 112)`.
        which: Which face of a photo: `"largest"`, `"central"` or `"all"`. Defaults to `"largest"`.
        template: `(5, 2)` places of the five points in the crop. Defaults to `None`: the usual ones of `size`.

    Raises:
        ValueError: If the size is none, there is no template for it or the template is not `(5, 2)`, or a name is unknown.

    Example:
    >>> aligner = FaceAligner()
    >>> crops = aligner("family.jpg", which="all")  # list of uint8 (112, 112, 3)
    """

    def __init__(
        self,
        detector: str | Detector | None = "mtcnn",
        size: Size = (112, 112),
        which: str = "largest",
        template: ArrayLike | None = None,
    ):
        self.size = check_size(size, "size")
        if template is None and self.size not in TEMPLATES and detector is not None:
            raise ValueError(
                f"Expected size as one of {list(TEMPLATES)}; another needs `template`, (5, 2) places. Received: size={size}"
            )
        if which not in CHOICES:
            raise ValueError(f"Expected which as one of {CHOICES}. Received: which={which!r}")
        self.which = which
        self.template = TEMPLATES.get(self.size) if template is None else np.asarray(template, np.float64)
        if self.template is not None and self.template.shape != ARCFACE_112X112.shape:
            raise ValueError(f"Expected template as (5, 2) places. Received: template.shape={self.template.shape}")
        self.detector = get(detector)

    def __call__(self, source: Photo, name: str = "", which: str | None = None) -> list[np.ndarray]:
        """Aligns the faces of one photo.

        Args:
            source: Path, bytes, open file, Pillow image or array, as in `keras_sphereface.data.as_image`.
            name: What the photo is called in messages. Defaults to `""`: its path, if it has one.
            which: Another choice for this photo. Defaults to `None`.

        Returns:
            List of uint8 `(height, width, 3)` crops: one, or all faces with `which="all"`, largest first.

        Raises:
            NoFaceError: If no face is found.
            ValueError: If the photo cannot be read, or without a detector has another size.
        """
        name = name or (os.fspath(source) if isinstance(source, str | os.PathLike) else "the picture")
        image = as_image(source, name)
        if self.detector is None:
            return [self._crop_already(image, name)]
        return [self.cut(image, face) for face in self.faces(image, name, which)]

    def faces(self, image: np.ndarray, name: str = "the picture", which: str | None = None) -> list[Face]:
        """Finds the faces of a decoded picture.

        Args:
            image: uint8 `(h, w, 3)`, RGB.
            name: What it is called in messages.
            which: As in `__call__`.

        Returns:
            List of at least one `Face`.

        Raises:
            NoFaceError: If there is none.
            ValueError: If there is no detector, or what it gives are no faces.
        """
        if self.detector is None:
            raise ValueError("Finding faces needs a detector. Received: detector=None. Use detector='mtcnn'")
        found = self.detector.detect(image)
        _check_found(found, name)
        faces = choose(found, image.shape[:2], which or self.which)
        if not faces:
            raise NoFaceError(
                f"{name}: no face found in {image.shape[1]} x {image.shape[0]} pixels. "
                "Use a sharper or larger photo of a face seen from the front; detector=None (--detector none) takes crops."
            )
        return faces

    def cut(self, image: np.ndarray, face: Face) -> np.ndarray:
        """The aligned crop of a face, uint8 `(height, width, 3)`; a picture that is one already is passed on as it is.

        Args:
            image: uint8 `(h, w, 3)`, RGB.
            face: One of its faces, as `faces` gives them.
        """
        return image if self.is_aligned(image, face) else align(image, face.points, self.size, self.template)

    def is_aligned(self, image: np.ndarray, face: Face) -> bool:
        """Whether a picture is an aligned crop with this face: its size, and its face within 6 % of the template's place."""
        if image.shape[:2] != self.size:
            return False
        matrix = similarity_transform(face.points, self.template)
        moved = self.template @ matrix[:, :2].T + matrix[:, 2]
        return bool(np.linalg.norm(moved - self.template, axis=1).max() <= ALIGNED_WITHIN * self.size[0])

    def _crop_already(self, image, name):
        if image.shape[:2] != self.size:
            raise FileFormatError(
                f"{name}: expected an aligned crop of {self.size[0]} x {self.size[1]} (height, width), for there is no "
                f"detector. Received: {image.shape[0]} x {image.shape[1]}. Use detector='mtcnn' for photos"
            )
        return image


def _check_found(faces, name):
    """Names the photo, which the alignment of a face without places could not."""
    for face in faces:
        places = [np.asarray(part, np.float64) for part in (face.box, face.points)]
        if [part.shape for part in places] != [(4,), (5, 2)] or not all(np.isfinite(part).all() for part in places):
            raise ValueError(
                f"{name}: expected of the detector faces with a box (4,) and points (5, 2), all finite. Received: "
                f"box={places[0].tolist()}, points={places[1].tolist()}"
            )
