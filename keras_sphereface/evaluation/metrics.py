"""Rates of a verification experiment, each a small function of the one accept/reject counter."""

import math
from typing import NamedTuple

import numpy as np

from keras_sphereface.evaluation.counts import AcceptCounts, accept_counts, check_both_kinds


class Roc(NamedTuple):
    """Operating points from "accept nobody" to "accept everybody"; nothing is dropped or interpolated.

    Attributes:
        far: `(k,)` float64, false accept rate; starts at 0, ends at 1.
        tar: `(k,)` float64, true accept rate.
        thresholds: `(k,)` float64, decreasing; the first is infinite.
    """

    far: np.ndarray
    tar: np.ndarray
    thresholds: np.ndarray


def roc(counts: AcceptCounts) -> Roc:
    """Returns the receiver operating characteristic.

    Args:
        counts: `AcceptCounts`.

    Returns:
        `Roc`: `far`, `tar` and `thresholds`, each `(k,)` float64.

    Raises:
        ValueError: If there are comparisons of one kind only.

    Example:
    >>> counts = keras_sphereface.evaluation.accept_counts([0.9, 0.7, 0.6, 0.1], [True, False, True, False])
    >>> curve = keras_sphereface.evaluation.roc(counts)
    >>> curve.far, curve.tar
    (array([0. , 0. , 0.5, 0.5, 1. ]), array([0. , 0.5, 0.5, 1. , 1. ]))
    """
    check_both_kinds(counts)
    return Roc(
        far=np.append(0.0, counts.accepted_nonmated / counts.num_nonmated),
        tar=np.append(0.0, counts.accepted_mated / counts.num_mated),
        thresholds=np.append(np.inf, counts.thresholds),
    )


def roc_corners(counts, limit):
    """Returns the corners of the ROC's steps as counts: for each number of false accepts the most true accepts.

    Args:
        counts: `AcceptCounts` with both kinds of comparisons.
        limit: Largest number of corners, at least 2. If there are more, they are taken evenly in rank on a logarithmic
            scale, so that the low rates keep every corner.

    Returns:
        `(accepted_nonmated, accepted_mated)`: int64 `(k,)` each; the first begins with 0, the last corner accepts all.
    """
    nonmated, mated = np.append(0, counts.accepted_nonmated), np.append(0, counts.accepted_mated)
    corners = np.flatnonzero(np.append(np.diff(nonmated) > 0, True))
    if len(corners) > limit:
        ranks = np.unique(np.geomspace(1, len(corners), limit).astype(np.int64)) - 1
        corners = corners[ranks]
    return nonmated[corners], mated[corners]


def auc(counts: AcceptCounts) -> float:
    """Returns the area under the ROC: the chance that a mated score is higher than a nonmated one, ties counting half.

    The trapezoids of the ROC polyline and the Mann-Whitney statistic are the same number; it is summed in integers.

    Args:
        counts: `AcceptCounts`.

    Returns:
        A float of 0..1.

    Raises:
        ValueError: If there are comparisons of one kind only.

    Example:
    >>> counts = keras_sphereface.evaluation.accept_counts([0.9, 0.7, 0.6, 0.1], [True, False, True, False])
    >>> keras_sphereface.evaluation.auc(counts)
    0.75
    """
    check_both_kinds(counts)
    new_nonmated = np.diff(counts.accepted_nonmated, prepend=0)
    mated_above_twice = counts.accepted_mated + np.append(0, counts.accepted_mated[:-1])
    return int(np.sum(new_nonmated * mated_above_twice)) / (2 * counts.num_mated * counts.num_nonmated)


def equal_error_rate(counts: AcceptCounts) -> float:
    """Returns the rate where the false accept and the false reject rate are equal.

    The rates change only at observed scores. Between the last operating point with FAR < FRR and the next one, both
    are interpolated linearly (the ROC polyline cuts the diagonal `tar = 1 - far`).

    Args:
        counts: `AcceptCounts`.

    Returns:
        A float of 0..1.

    Raises:
        ValueError: If there are comparisons of one kind only.

    Example:
    >>> counts = keras_sphereface.evaluation.accept_counts([0.9, 0.7, 0.6, 0.1], [True, False, True, False])
    >>> keras_sphereface.evaluation.equal_error_rate(counts)
    0.5
    """
    far, tar, _ = roc(counts)
    gap = 1.0 - tar - far
    after = int(np.argmax(gap <= 0))
    before = after - 1
    part = gap[before] / (gap[before] - gap[after])
    return float(far[before] + part * (far[after] - far[before]))


def cut_thresholds(ordered):
    """Returns one threshold per way to cut distinct scores into accepted and rejected ones.

    Args:
        ordered: `(k,)` distinct scores, from high to low.

    Returns:
        `(k + 1,)` float64. Entry i accepts exactly the first i scores: it lies half way between two neighbours; the
        first is the next number above the highest score, the last is the lowest score.
    """
    ordered = np.asarray(ordered, np.float64)
    if not len(ordered):
        return np.array([np.inf])
    middle = ordered[1:] + (ordered[:-1] - ordered[1:]) / 2
    # Neighbouring floats have nothing between them: the accepted score itself is then the threshold.
    middle = np.where(middle > ordered[1:], middle, ordered[:-1])
    return np.concatenate([[np.nextafter(ordered[0], np.inf)], middle, ordered[-1:]])


class Cut(NamedTuple):
    """A threshold and the share of comparisons it decides rightly."""

    threshold: float
    accuracy: float


def best_cut(counts: AcceptCounts) -> Cut:
    """Finds the threshold with the highest accuracy on the same comparisons.

    Where several cuts between neighbouring scores are equally good, the middle one of them is taken (the higher
    threshold of the two middle ones); the threshold lies half way between the two scores it separates.

    Args:
        counts: `AcceptCounts`.

    Returns:
        `Cut`: `threshold` and `accuracy`, 0..1.

    Raises:
        ValueError: If there are no comparisons.

    Example:
    >>> counts = keras_sphereface.evaluation.accept_counts([0.9, 0.7, 0.6, 0.1], [True, False, True, False])
    >>> keras_sphereface.evaluation.best_cut(counts)
    Cut(threshold=0.8, accuracy=0.75)
    """
    total = counts.num_mated + counts.num_nonmated
    if not total:
        raise ValueError("Expected at least one comparison, mated or nonmated. Received: counts of none")
    correct = np.append(0, counts.accepted_mated - counts.accepted_nonmated) + counts.num_nonmated
    best = np.flatnonzero(correct == correct.max())
    middle = best[(len(best) - 1) // 2]
    return Cut(float(cut_thresholds(counts.thresholds)[middle]), int(correct[middle]) / total)


def accuracy_at(scores, mated, threshold):
    """Returns the share of comparisons for which `score >= threshold` agrees with `mated`."""
    return float(np.mean((np.asarray(scores) >= threshold) == mated))


def fold_accuracies(scores, mated, folds):
    """Measures each fold at the threshold that is best on all the other folds (`best_cut`).

    Args:
        scores: `(n,)` scores.
        mated: `(n,)` booleans.
        folds: `(n,)` integers; at least two distinct ones.

    Returns:
        A list of `Cut`, one per fold in ascending order of the fold's number.
    """
    scores, mated, folds = np.asarray(scores, np.float64), np.asarray(mated, bool), np.asarray(folds)
    cuts = []
    for fold in np.unique(folds):
        held = folds == fold
        threshold = best_cut(accept_counts(scores[~held], mated[~held])).threshold
        cuts.append(Cut(threshold, accuracy_at(scores[held], mated[held], threshold)))
    return cuts


def standard_deviation(values):
    """Returns the sample standard deviation (divisor n - 1), or 0 for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def supported(far, num_nonmated):
    """Tells whether a false accept rate can be measured: at least one of the nonmated scores may be accepted."""
    return num_nonmated >= nonmated_needed(far)


def nonmated_needed(far):
    """Returns the smallest number n of nonmated scores with `1 / n <= far`."""
    needed = max(1, math.floor(1.0 / far))
    return needed if 1.0 / needed <= far else needed + 1
