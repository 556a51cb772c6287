"""Verification pairs of a folder of people, drawn at random."""

import itertools
import pathlib

import numpy as np

from keras_sphereface.arguments import whole_number
from keras_sphereface.data.folders import list_folder
from keras_sphereface.data.images import read_image
from keras_sphereface.data.pairs import NUM_FOLDS, PairSet
from keras_sphereface.errors import FileFormatError
from keras_sphereface.hints import Path


def folder_pairs(
    folder: Path, num_pairs: int = 6000, num_folds: int = NUM_FOLDS, seed: int = 0, name: str | None = None
) -> PairSet:
    """Draws pairs of a folder that holds one folder per person, to measure a model on people that it has not seen.

    As many mated as nonmated pairs, no pair twice, in folds that share no person. Everybody with two images gives about as
    many mated pairs; nonmated ones are of two people drawn evenly, and of an image of each.

    Args:
        folder: Path of the folder, as `from_folder` takes it.
        num_pairs: Number of pairs, at most: fewer where a fold has not so many different ones. Defaults to 6000.
        num_folds: Number of folds; each needs at least two people, one of them with two images. Defaults to 10.
        seed: Seed of the drawing. Defaults to 0.
        name: Name of the pair set. Defaults to the folder's.

    Returns:
        A `PairSet` with the people's folders as identities.

    Raises:
        FileFormatError: If there are too few people, or too few with two images, for so many folds.
        FileNotFoundError: If there is no such folder.
        ValueError: If a number is none.

    Example:
    >>> pairs = keras_sphereface.data.folder_pairs("held_out_people")
    >>> keras_sphereface.data.write_bin("held_out.bin", pairs)
    """
    whole_number("num_folds", num_folds)
    whole_number("num_pairs", num_pairs, 2 * num_folds)
    whole_number("seed", seed, 0)
    people = list_folder(folder)
    rng = np.random.default_rng(seed)
    sizes = np.bincount(people.labels)
    starts = np.cumsum(sizes) - sizes
    several, alone = (rng.permutation(np.flatnonzero(chosen)) for chosen in (sizes > 1, sizes == 1))
    if len(several) < num_folds or len(sizes) < 2 * num_folds:
        raise FileFormatError(
            f"{folder}: has {len(sizes)} people, {len(several)} of them with two images; {num_folds} folds need "
            f"{2 * num_folds} and {num_folds}. Take fewer folds, or more people"
        )
    # Those with several images first, so that every fold has some of them.
    of_fold = [np.concatenate([several, alone])[fold::num_folds] for fold in range(num_folds)]
    drawn = []
    for members in of_fold:
        count = min(num_pairs // (2 * num_folds), *_possible(sizes[members]))
        both = [draw(sizes[members], starts[members], count, rng) for draw in (_mated, _nonmated)]
        # Of each kind in turn: a .bin file has no folds but equal parts of the list.
        drawn.append(np.stack(both, axis=1).reshape(-1, 2))
    used, sides = np.unique(np.concatenate(drawn), return_inverse=True)
    left, right = sides.reshape(-1, 2).T
    names = [people.names[index] for index in used]
    root = pathlib.Path(people.root)
    return PairSet(
        lambda index: read_image(root / names[index]),
        len(names),
        left,
        right,
        np.arange(len(left)) % 2 == 0,
        np.repeat(np.arange(num_folds), [len(pairs) for pairs in drawn]),
        names,
        np.array(people.class_names)[people.labels[used]],
        root.resolve().name if name is None else name,
        f"drawn, seed {seed}",
    )


def _possible(sizes):
    """How many mated and nonmated pairs of people with so many images are drawn without looking for the last ones."""
    total = int(sizes.sum())
    mated = int((sizes * (sizes - 1) // 2).sum())
    return mated, max(1, (total * (total - 1) // 2 - mated) // 2)


def _mated(sizes, starts, count, rng):
    """`(count, 2)` image numbers: about as many pairs of each person, as far as there are."""
    possible = sizes * (sizes - 1) // 2
    taken = np.zeros_like(possible)
    while missing := count - int(taken.sum()):
        open_to = np.flatnonzero(taken < possible)
        share = max(1, missing // len(open_to))
        chosen = rng.permutation(open_to)[: missing // share]
        taken[chosen] += np.minimum(share, possible[chosen] - taken[chosen])
    pairs = []
    for person in np.flatnonzero(taken):
        numbers = rng.choice(possible[person], taken[person], replace=False)
        # Pair k is of the images j and i < j with k = j (j - 1) / 2 + i.
        second = ((1 + np.sqrt(1 + 8 * numbers.astype("float64"))) // 2).astype("int64")
        first = numbers - second * (second - 1) // 2
        pairs.append(starts[person] + np.stack([first, second], axis=1))
    return np.concatenate(pairs)


def _nonmated(sizes, starts, count, rng):
    """`(count, 2)` image numbers of two people each."""
    found = {}
    while len(found) < count:
        one = rng.integers(len(sizes), size=count)
        other = (one + rng.integers(1, len(sizes), size=count)) % len(sizes)
        sides = np.stack([starts[who] + rng.integers(sizes[who]) for who in (one, other)], axis=1)
        found |= dict.fromkeys(map(tuple, np.sort(sides, axis=1).tolist()))
    return np.array(list(itertools.islice(found, count)))
