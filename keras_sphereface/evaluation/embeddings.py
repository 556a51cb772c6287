"""From embeddings to scores: checks, flip-test fusion, cosines of pairs."""

import numpy as np
from numpy.typing import ArrayLike

FLIPS = ("none", "sum", "concat")
# Pairs whose two embeddings are gathered at once: 8,192 pairs of 512 float64 are 2 x 32 MB.
PAIR_BLOCK = 8192


def check_embeddings(embeddings, names=None, width=None, first_row=0):
    """Returns embeddings as a 2-D float array after checking that every row is usable.

    Args:
        embeddings: `(n, d)` numbers.
        names: Names of the rows for the message. Defaults to `None`: row numbers only.
        width: The `d` that is expected. Defaults to `None`: any.
        first_row: Number of the first row in the whole set, for the message. Defaults to `0`.

    Returns:
        `(n, d)` array, float32 or float64.

    Raises:
        ValueError: If the array is not 2-D, the width differs, or a row holds NaN, infinity, or only zeros.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.dtype not in (np.float32, np.float64):
        embeddings = embeddings.astype(np.float32)
    if embeddings.ndim != 2 or (width is not None and embeddings.shape[1] != width):
        raise ValueError(
            f"Expected embeddings of shape (n, {'d' if width is None else width}), from row {first_row} on as before. "
            f"Received: embeddings.shape={embeddings.shape}. Use one model, with one output, for all images."
        )
    for bad, what in (
        (~np.isfinite(embeddings).all(axis=1), "holds NaN or infinity"),
        (~embeddings.any(axis=1), "is all zeros and has no direction"),
    ):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            name = "" if names is None else f" ({names[row]})"
            raise ValueError(
                f"The embedding of row {first_row + row}{name} {what}. Check the image and the model's weights."
            )
    return embeddings


def fuse(embeddings: np.ndarray, mirrored: np.ndarray, flip: str) -> np.ndarray:
    """Fuses the embeddings of images and of their mirror images.

    Args:
        embeddings: `(n, d)` as the model gives them, not normalized again.
        mirrored: `(n, d)` of the mirror images; unused where `flip="none"`.
        flip: `"none"`: the image alone; `"sum"`: the sum of both, taken before any normalization; `"concat"`: both side
            by side, `(n, 2 d)`. Scores are cosines of the result. A model whose own output is unit length makes
            `"sum"` the sum of unit vectors.

    Returns:
        `(n, d)` or `(n, 2 d)`.

    Raises:
        ValueError: If `flip` is another word, or the two differ in shape.

    Example:
    >>> keras_sphereface.evaluation.fuse(np.array([[1.0, 0.0]]), np.array([[0.8, 0.6]]), flip="sum")
    array([[1.8, 0.6]])
    """
    check_flip(flip)
    if flip == "none":
        return embeddings
    embeddings, mirrored = np.asarray(embeddings), np.asarray(mirrored)
    if embeddings.shape != mirrored.shape:
        raise ValueError(
            "Expected embeddings of one shape of images and of their mirror images. "
            f"Received: {embeddings.shape} and {mirrored.shape}. Use one model, with one output, for both."
        )
    return embeddings + mirrored if flip == "sum" else np.concatenate([embeddings, mirrored], axis=1)


def check_flip(flip):
    """Raises ValueError if `flip` is not a known fusion."""
    if flip not in FLIPS:
        raise ValueError(f"Expected flip as one of {FLIPS}. Received: flip={flip!r}")


def pair_scores(embeddings: ArrayLike, left: ArrayLike, right: ArrayLike) -> np.ndarray:
    """Computes the cosine of each pair, in float64, whatever the embeddings' type; blocks do not change a result.

    Args:
        embeddings: `(n, d)`, not necessarily of unit length.
        left, right: `(p,)` row numbers.

    Returns:
        `(p,)` float64 in -1..1.

    Raises:
        ValueError: If an embedding is unusable, or the row numbers are not as many on both sides or not those of rows.

    Example:
    >>> embeddings = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
    >>> keras_sphereface.evaluation.pair_scores(embeddings, left=[0, 1], right=[1, 2])
    array([0.6, 0.8])
    """
    embeddings = check_embeddings(embeddings)
    left, right = (_row_numbers(side, len(embeddings)) for side in (left, right))
    if len(left) != len(right):
        raise ValueError(f"Expected as many left as right rows. Received: {len(left)} left, {len(right)} right")
    scores = np.empty(len(left), np.float64)
    for start in range(0, len(left), PAIR_BLOCK):
        part = slice(start, start + PAIR_BLOCK)
        first, second = (_near_one(embeddings[side[part]]) for side in (left, right))
        # Under one root, and summed alike: the cosine of equal embeddings is 1 to the last bit, so that they tie.
        squares = np.einsum("ij,ij->i", first, first) * np.einsum("ij,ij->i", second, second)
        scores[part] = np.einsum("ij,ij->i", first, second) / np.sqrt(squares)
    return np.clip(scores, -1.0, 1.0)


def _near_one(embeddings):
    """Rows in float64, where a square can be no overflow and no underflow: those that may have one by powers of two."""
    if embeddings.dtype == np.float32:
        return embeddings.astype(np.float64)
    return np.ldexp(embeddings, -np.frexp(np.abs(embeddings).max(axis=1, keepdims=True))[1])


def _row_numbers(side, count):
    side = np.asarray(side)
    if side.ndim != 1 or (side.size and side.dtype.kind not in "iu"):
        raise ValueError(f"Expected a 1-D array of row numbers. Received: shape={side.shape}, dtype={side.dtype}")
    if side.size and not 0 <= side.min() <= side.max() < count:
        raise ValueError(f"Expected row numbers in 0..{count - 1}. Received: {side.min()} to {side.max()}")
    return side.astype(np.int64)
