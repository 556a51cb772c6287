"""Procedural faces as a data set and as verification pairs: unlimited people, no download."""

import numpy as np
from tqdm import tqdm

from keras_sphereface.arguments import whole_number
from keras_sphereface.data.face_renderer import render
from keras_sphereface.data.pairs import NUM_FOLDS, PairSet
from keras_sphereface.data.process_lock import ProcessLock

# Drawn pictures are kept up to this size in memory; a larger set is drawn anew each epoch.
CACHE_BYTES = 512 * 1024 * 1024
_SIZES = (16, 512)
_BLOCK = 64


class SyntheticSource:
    """Procedural faces: identity `k` of the set is the person `first_identity + k` of the world `seed`."""

    name, class_names = "synthetic faces", None

    def __init__(self, num_identities, images_per_identity, seed=0, image_size=112, first_identity=0):
        self.num_classes = whole_number("num_identities", num_identities)
        self._per_identity = whole_number("images_per_identity", images_per_identity)
        self._first = whole_number("first_identity", first_identity, 0)
        self._seed = whole_number("seed", seed, 0)
        for name, value, end in (
            ("seed", seed, 2**64),
            ("first_identity + num_identities", self._first + self.num_classes, 2**63),
        ):
            if value >= end:
                raise ValueError(f"{name} must be below {end}. Received: {name}={value}")
        side = whole_number("image_size", image_size, _SIZES[0])
        if side > _SIZES[1]:
            raise ValueError(f"image_size must be at most {_SIZES[1]}. Received: image_size={image_size!r}")
        self.image_size = (side, side)
        self.num_images = self.num_classes * self._per_identity
        self._lock = ProcessLock()
        fits = self.num_images * side * side * 3 <= CACHE_BYTES
        # Untouched pages of an empty array cost no memory.
        self._cache = np.empty((self.num_images, side, side, 3), np.uint8) if fits else None
        self._drawn = np.zeros(self.num_images if fits else 0, bool)

    def __reduce__(self):
        arguments = self.num_classes, self._per_identity, self._seed, self.image_size[0], self._first
        return SyntheticSource, arguments  # for another process, without what was drawn here

    def where(self, record):
        """Name of a picture in messages."""
        return f"{self.name}, image {record}"

    def read_arrays(self, records):
        """Images and labels by their numbers."""
        records = np.asarray(records)
        if self._cache is None:
            return self._render(records), self._labels(records)
        missing = np.unique(records[~self._drawn[records]])
        if missing.size:
            images = self._render(missing)
            with self._lock:
                self._cache[missing] = images
                self._drawn[missing] = True
        return self._cache[records], self._labels(records)

    def _labels(self, records):
        return (records // self._per_identity).astype(np.int32)

    def _render(self, records):
        people = self._first + records // self._per_identity
        return render(self._seed, people, records % self._per_identity, self.image_size[0])


def synthetic_pairs(
    num_identities: int = 100,
    first_identity: int = 0,
    seed: int = 0,
    images_per_identity: int = 10,
    num_pairs: int = 3000,
    image_size: int = 112,
    num_folds: int = NUM_FOLDS,
    progress: bool = True,
) -> PairSet:
    """Draws verification pairs of procedural faces, as many mated as non-mated, in folds that share no person.

    Only the pictures that the pairs show are made; their names are their numbers in the set that
    `synthetic(num_identities, images_per_identity, seed, image_size, first_identity)` is.

    Args:
        num_identities: Number of people. Defaults to 100.
        first_identity: The first of them: past the people that the training set takes, they are unseen. Defaults to 0.
        seed: The world of people, the same as the training set's. Defaults to 0.
        images_per_identity: Pictures of each person. Defaults to 10.
        num_pairs: Number of pairs; a multiple of `2 * num_folds`. Defaults to 3000.
        image_size: Side of the images in pixels. Defaults to 112.
        num_folds: Number of folds. Defaults to 10.
        progress: Whether to show a progress bar. Defaults to `True`.

    Returns:
        A `PairSet` named `"synthetic"`.

    Raises:
        ValueError: If a fold gets fewer than two people or a person fewer than two pictures, or `num_pairs` cannot be
            split evenly.

    Example:
    >>> ds = ksf.data.synthetic(300, 20)
    >>> pairs = ksf.data.synthetic_pairs(num_identities=100, first_identity=300)
    """
    whole_number("num_folds", num_folds)
    whole_number("images_per_identity", images_per_identity, 2)
    whole_number("num_identities", num_identities, 2 * num_folds)
    whole_number("num_pairs", num_pairs, 2 * num_folds)
    if num_pairs % (2 * num_folds):
        raise ValueError(
            f"num_pairs must be a multiple of {2 * num_folds} (2 x num_folds). Received: num_pairs={num_pairs}"
        )
    source = SyntheticSource(num_identities, images_per_identity, seed, image_size, first_identity)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 2, first_identity])))
    left, right, mated, folds = [], [], [], []
    for fold, people in enumerate(np.array_split(np.arange(num_identities), num_folds)):
        for same in (True, False):
            one, other = _pairs_of(people, images_per_identity, num_pairs // (2 * num_folds), same, rng)
            left.append(one)
            right.append(other)
            mated.append(np.full(len(one), same))
            folds.append(np.full(len(one), fold))
    used, sides = np.unique(np.concatenate(left + right), return_inverse=True)
    blocks = np.array_split(used, max(1, len(used) // _BLOCK))
    images = [source.read_arrays(block)[0] for block in tqdm(blocks, desc="faces", disable=None if progress else True)]
    return PairSet.from_arrays(
        np.concatenate(images),
        *sides.reshape(2, num_pairs),
        np.concatenate(mated),
        np.concatenate(folds),
        names=used,
        identities=first_identity + used // images_per_identity,
        name="synthetic",
        protocol=f"seed {seed}, people from {first_identity}",
    )


def _pairs_of(people, images_per_identity, count, same, rng):
    """Image numbers of both sides of `count` pairs within a fold; they may repeat where there are few."""
    first = rng.integers(len(people), size=count)
    # A step of 1 to n - 1 around the circle reaches everyone else with equal probability.
    second = first if same else (first + rng.integers(1, len(people), size=count)) % len(people)
    one = rng.integers(images_per_identity, size=count)
    other = rng.integers(images_per_identity, size=count)
    if same:
        other = (one + rng.integers(1, images_per_identity, size=count)) % images_per_identity
    return people[first] * images_per_identity + one, people[second] * images_per_identity + other
