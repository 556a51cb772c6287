"""Five-point alignment: the similarity transform that brings eyes, nose and mouth corners to fixed places."""

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from keras_sphereface.hints import Size

# (x, y) in pixels, a pixel's centre at whole numbers: left eye, right eye, nose tip, left and right mouth corner, as seen in
# the image. The 112x96 places are those of SphereFace (arXiv 1704.08063, code release), which CosFace and others took over;
# InsightFace moved them by 8 pixels in x for the square crop.
SPHEREFACE_112X96 = np.array(
    [[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]]
)
ARCFACE_112X112 = SPHEREFACE_112X96 + np.array([8.0, 0.0])

_COINCIDE = 1e-12  # of the largest coordinate: a spread within a few float64 roundings is none

# Bilinear interpolation sees two pixels in each direction, and passes over the others where it shrinks more than so many
# times; the margin is for the rounding of a scale of exactly 1/2.
_SEEN = 2 + 1e-6

TEMPLATES = {(112, 112): ARCFACE_112X112, (112, 96): SPHEREFACE_112X96}


def similarity_transform(points: ArrayLike, template: ArrayLike) -> np.ndarray:
    """Finds the rotation, scale and shift that bring points closest to a template in the least-squares sense.

    With points and template as complex numbers p, q, centred on their means, the factor is
    `sum(conj(p) q) / sum(|p|^2)`: rotation and scale in one number, never a reflection.

    Args:
        points: `(k, 2)` x and y in pixels, k >= 2.
        template: `(k, 2)` x and y where they shall go.

    Returns:
        `(2, 3)` float64 matrix A: `A @ [x, y, 1]` is the place in the template's image.

    Raises:
        ValueError: If shapes differ, a coordinate is not finite, or all points coincide.

    Example:
    >>> similarity_transform([[0, 0], [1, 0]], [[5, 5], [5, 7]]).round(6) + 0.0
    array([[ 0., -2.,  5.],
           [ 2.,  0.,  5.]])

    Reference: Umeyama, Least-squares estimation of transformation parameters, PAMI 13(4), 1991 (the planar case).
    """
    points, template = np.asarray(points, np.float64), np.asarray(template, np.float64)
    if points.shape != template.shape or points.ndim != 2 or points.shape[1] != 2 or len(points) < 2:
        raise ValueError(
            f"Expected points and template of one shape (k, 2), k >= 2. "
            f"Received: points.shape={points.shape}, template.shape={template.shape}"
        )
    for name, places in (("points", points), ("template", template)):
        if not np.isfinite(places).all():
            raise ValueError(f"Expected finite coordinates. Received: {name}={places.tolist()}")
    source, target = points @ [1, 1j], template @ [1, 1j]
    centred = source - source.mean()
    # Overflows to infinity where the points are too far apart. Of equal points it is seldom 0: their mean is rounded.
    spread = np.vdot(centred, centred).real
    if not np.isfinite(spread) or spread <= (_COINCIDE * np.abs(points).max()) ** 2:
        raise ValueError(f"Expected points that do not all coincide. Received: points={points.tolist()}")
    factor = np.vdot(centred, target) / spread
    shift = target.mean() - factor * source.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def align(
    image: np.ndarray, points: ArrayLike, size: Size = (112, 112), template: ArrayLike | None = None
) -> np.ndarray:
    """Cuts an aligned face out of an image.

    Bilinear interpolation; what lies outside the image is black. A face that becomes less than half as large is first
    reduced by a whole factor, each pixel the mean of a square, so that no pixel of it is passed over.

    Args:
        image: `(h, w, 3)` uint8, RGB.
        points: `(5, 2)` x and y in pixels: left eye, right eye, nose tip, left and right mouth corner, as seen in the image.
        size: `(height, width)` of the crop. Defaults to `(112, 112)`.
        template: `(5, 2)` where the points shall go. Defaults to `TEMPLATES[size]`: the usual places for 112x112 and 112x96.

    Returns:
        `(height, width, 3)` uint8.

    Raises:
        ValueError: If there is no default template for the size, or the points do not define a transform.

    Example:
    >>> image = np.zeros((240, 180, 3), "uint8")
    >>> points = [[60, 100], [110, 98], [86, 128], [66, 150], [106, 149]]  # eyes, nose tip, mouth corners
    >>> keras_sphereface.data.align(image, points, size=(112, 96)).shape
    (112, 96, 3)
    """
    size = tuple(size)
    if template is None and size not in TEMPLATES:
        raise ValueError(f"Expected size as one of {list(TEMPLATES)}, or a template. Received: size={size}")
    matrix = similarity_transform(points, TEMPLATES[size] if template is None else template)
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    rows, columns = np.indices(size)
    x, y = np.einsum("ij,jrc->irc", inverse, np.stack([columns, rows, np.ones(size)]))
    shrink = np.hypot(*inverse[:, 0])
    if shrink > _SEEN:
        factor = int(min(shrink, max(image.shape[:2])))  # what is left to shrink is less than 1.5
        image = np.asarray(Image.fromarray(image).reduce(factor))
        x, y = (x + 0.5) / factor - 0.5, (y + 0.5) / factor - 0.5  # a pixel's centre is at whole numbers
    return _bilinear(image, x, y)


def _bilinear(image, x, y):
    """Samples an image at places `(x, y)` of whatever shape, rounding to the nearest; outside it is black.

    Pillow's own affine transform rounds down, which darkens the crop by half a grey level.
    """
    height, width = image.shape[:2]
    # One black row and column before, two behind: whatever is outside falls on them.
    padded = np.pad(image, ((1, 2), (1, 2), (0, 0)))
    x, y = np.clip(x, -1, width) + 1, np.clip(y, -1, height) + 1
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right_part, bottom_part = (x - left)[..., None], (y - top)[..., None]
    upper = padded[top, left] * (1 - right_part) + padded[top, left + 1] * right_part
    lower = padded[top + 1, left] * (1 - right_part) + padded[top + 1, left + 1] * right_part
    return np.rint(upper * (1 - bottom_part) + lower * bottom_part).astype(np.uint8)
