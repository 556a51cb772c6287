"""Face pairs as every verification protocol needs them: unique images, index pairs, mated flags, folds."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from keras_sphereface.arguments import whole_number

NUM_FOLDS = 10


class PairSet:
    """Pairs over a list of unique images, which are decoded only when a block of them is asked for.

    Args:
        load: Callable that takes an index in `0..num_images - 1` and returns the uint8 `(h, w, 3)` RGB image.
        num_images: Number of unique images.
        left, right: `(n,)` image indices of both sides of each pair.
        mated: `(n,)` booleans or 0 and 1, whether both sides show the same person.
        folds: `(n,)` integers, the fold of each pair. Defaults to `None`: no folds.
        names: `num_images` names for messages and pictures. Defaults to the index.
        identities: `num_images` identities (names or integers), or `None` where they are not known.
        name: Name of the set, e.g. `"lfw"`; the first part of a report's signature.
        protocol: The rest of what the signature says about the pairs, e.g. `"view2"`. Defaults to `""`.

    Raises:
        ValueError: If lengths disagree, an index points outside the images, or `mated` or `folds` hold something else.

    Example:
    >>> files = ["ann1.jpg", "ann2.jpg", "bob1.jpg"]
    >>> keras_sphereface.data.PairSet(
    ...     lambda index: keras_sphereface.data.read_image(files[index]), 3, [0, 0], [1, 2], mated=[True, False], name="own"
    ... )
    PairSet(name='own': 2 pairs, 1 mated, 3 images, no folds)
    """

    def __init__(
        self,
        load: Callable[[int], np.ndarray],
        num_images: int,
        left: ArrayLike,
        right: ArrayLike,
        mated: ArrayLike,
        folds: ArrayLike | None = None,
        names: Sequence[str] | None = None,
        identities: Sequence | np.ndarray | None = None,
        name: str = "",
        protocol: str = "",
    ):
        self.left = _indices(left, num_images, "left")
        self.right = _indices(right, num_images, "right")
        _check_length(self.right, len(self.left), "right", "left")
        self.mated = _flags(mated, len(self.left))
        self.folds = None if folds is None else _integers(folds, len(self.left), "folds")
        self.names = [str(index) for index in range(num_images)] if names is None else [str(item) for item in names]
        self.identities = None if identities is None else np.asarray(identities)
        for values, label in ((self.names, "names"), (self.identities, "identities")):
            if values is not None:
                _check_length(values, num_images, label, "images")
        self.num_images = int(num_images)
        self.name = name
        self.protocol = protocol
        self._load = load

    @classmethod
    def from_arrays(
        cls,
        images: ArrayLike,
        left: ArrayLike,
        right: ArrayLike,
        mated: ArrayLike,
        folds: ArrayLike | None = None,
        names: Sequence[str] | None = None,
        identities: Sequence | np.ndarray | None = None,
        name: str = "",
        protocol: str = "",
    ) -> "PairSet":
        """Makes a set of images that are in memory already.

        Args:
            images: uint8 `(num_images, h, w, 3)` RGB.
            left, right, mated, folds, names, identities, name, protocol: As in `PairSet`.

        Returns:
            `PairSet`.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] != 3:
            raise ValueError(
                "Expected images as uint8 (n, h, w, 3), RGB. "
                f"Received: images.shape={images.shape}, images.dtype={images.dtype}"
            )
        return cls(images.__getitem__, len(images), left, right, mated, folds, names, identities, name, protocol)

    def __len__(self):
        return len(self.left)

    def __repr__(self):
        folds = "no folds" if self.folds is None else f"{len(np.unique(self.folds))} folds"
        return (
            f"PairSet(name={self.name!r}: {len(self)} pairs, {int(self.mated.sum())} mated, "
            f"{self.num_images} images, {folds})"
        )

    def image(self, index: int) -> np.ndarray:
        """Returns the uint8 `(h, w, 3)` RGB image with this index."""
        return self._load(int(index))

    def images(self, batch_size: int = 64) -> Iterator[np.ndarray]:
        """Iterates over the unique images in order, in uint8 blocks of `(up to batch_size, h, w, 3)`.

        Raises:
            ValueError: If an image differs in size from the first one; the message names both.
        """
        whole_number("batch_size", batch_size)
        shape = None
        for start in range(0, self.num_images, batch_size):
            block = [self.image(index) for index in range(start, min(start + batch_size, self.num_images))]
            shape = shape or block[0].shape
            for offset, image in enumerate(block):
                if image.shape != shape:
                    raise ValueError(
                        f"Image {self.names[start + offset]!r} of {self.name!r} has shape {image.shape}, but "
                        f"{self.names[0]!r} has {shape}. Align all images to one size first."
                    )
            yield np.stack(block)

    def pair_identities(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns the identities of both sides as two `(n,)` arrays, or `None` where they are not known."""
        if self.identities is None:
            return None
        return self.identities[self.left], self.identities[self.right]


def number_names(pair_sets: Sequence[PairSet]) -> list[PairSet]:
    """Numbers the sets whose name another one has as well, so that logs and reports tell them apart.

    Args:
        pair_sets: Sets of pairs; `lfw`, `lfw`, `cfp` become `lfw_1`, `lfw_2`, `cfp`.

    Returns:
        The same sets as a list.

    Example:
    >>> images = np.zeros((2, 112, 112, 3), "uint8")
    >>> sets = [keras_sphereface.data.PairSet.from_arrays(images, [0], [1], [True], name="lfw") for _ in range(2)]
    >>> [one.name for one in keras_sphereface.data.number_names(sets)]
    ['lfw_1', 'lfw_2']
    """
    names = [one.name for one in pair_sets]
    taken = set(names)
    for one in pair_sets:
        if names.count(one.name) > 1:
            numbered = (f"{one.name}_{number}" for number in itertools.count(1))
            one.name = next(name for name in numbered if name not in taken)
            taken.add(one.name)
    return list(pair_sets)


def contiguous_folds(count, num_folds=NUM_FOLDS):
    """Cuts `count` pairs into folds of consecutive pairs; the first `count % num_folds` folds have one more.

    Args:
        count: Number of pairs.
        num_folds: Number of folds. Defaults to `10`; fewer where there are fewer pairs.

    Returns:
        `(count,)` int64, ascending from 0.
    """
    num_folds = max(1, min(whole_number("num_folds", num_folds), count))
    sizes = np.full(num_folds, count // num_folds)
    sizes[: count % num_folds] += 1
    return np.repeat(np.arange(num_folds), sizes)


def _flags(values, length):
    values = _column(values, length, "mated")
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        found = np.unique(values) if values.dtype.kind in "iuf" else values
        raise ValueError(f"Expected mated as booleans or 0 and 1. Received: {found[:5].tolist()}")
    return values.astype(bool)


def _integers(values, length, label):
    values = _column(values, length, label)
    if values.size and values.dtype.kind not in "biu":
        raise ValueError(f"Expected {label} as integers. Received: {label} of dtype {values.dtype}")
    return values.astype(np.int64)


def _column(values, length, label):
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"Expected {label} as a 1-D array. Received: {label}.shape={values.shape}")
    _check_length(values, length, label, "left")
    return values


def _check_length(values, length, label, other):
    if len(values) != length:
        raise ValueError(f"Expected {length} {label}, as many as {other}. Received: len({label})={len(values)}")


def _indices(values, num_images, label):
    values = np.asarray(values)
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
        raise ValueError(
            f"Expected {label} as a 1-D array of image indices. Received: shape={values.shape}, dtype={values.dtype}"
        )
    values = values.astype(np.int64)
    outside = np.flatnonzero((values < 0) | (values >= num_images))
    if len(outside):
        row = int(outside[0])
        raise ValueError(f"Expected image indices in 0..{num_images - 1}. Received: {label}[{row}]={values[row]}")
    return values
