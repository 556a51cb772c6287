"""The one accept/reject counter: every curve and rate of the evaluation layer comes from here, or, of
resampled pairs, from `bootstrap`, which equals it where each pair counts once.

A comparison is accepted if and only if `score >= threshold`. Equal scores are accepted or rejected together, so an
operating point exists only between distinct scores. Counts are int64, rates float64.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from keras_sphereface.arguments import is_number


class AcceptCounts(NamedTuple):
    """How many comparisons each threshold accepts; thresholds are the distinct scores, from high to low.

    Attributes:
        thresholds: `(k,)` float64, strictly decreasing.
        accepted_mated: `(k,)` int64, mated comparisons with `score >= threshold`.
        accepted_nonmated: `(k,)` int64, nonmated comparisons with `score >= threshold`.
        num_mated: Number of mated comparisons.
        num_nonmated: Number of nonmated comparisons.

    Example:
    >>> counts = keras_sphereface.evaluation.accept_counts([0.9, 0.7, 0.6, 0.1], [True, False, True, False])
    >>> counts.accepted_mated, counts.accepted_nonmated
    (array([1, 1, 2, 2]), array([0, 1, 1, 2]))
    """

    thresholds: np.ndarray
    accepted_mated: np.ndarray
    accepted_nonmated: np.ndarray
    num_mated: int
    num_nonmated: int


class OperatingPoint(NamedTuple):
    """The lowest threshold that keeps a limit on the false accepts, and what it accepts.

    Attributes:
        threshold: The threshold; accept if and only if `score >= threshold`.
        accepted_mated: Number of mated comparisons accepted.
        accepted_nonmated: Number of nonmated comparisons accepted.
        tar: `accepted_mated / num_mated`.
        far: `accepted_nonmated / num_nonmated`, at most the limit.

    Example:
    >>> scores, mated = [0.8, 0.5, 0.6, 0.1], [True, True, False, False]
    >>> report = keras_sphereface.evaluation.verification(scores, mated, fars=(0.5,), bootstrap=0)
    >>> report.tar_at_far[0.5].tar
    1.0
    """

    threshold: float
    accepted_mated: int
    accepted_nonmated: int
    tar: float
    far: float


def check_scores(scores):
    """Returns `scores` as a 1-D float array (float32 and float64 are kept as they are); refuses NaN.

    Raises:
        ValueError: If the array is not one-dimensional or holds NaN.
    """
    scores = np.asarray(scores)
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float64)
    if scores.ndim != 1:
        raise ValueError(f"Expected one score per comparison, a 1-D array. Received: scores.shape={scores.shape}")
    # min() propagates NaN: one pass, no temporary array of booleans.
    if scores.size and np.isnan(scores.min()):
        row = int(np.flatnonzero(np.isnan(scores))[0])
        raise ValueError(
            f"A score must be a number; look for a broken image or a zero embedding. Received: scores[{row}]=nan"
        )
    return scores


def check_mated(mated, count):
    """Returns `mated` as a `(count,)` boolean array; accepts booleans and the integers 0 and 1.

    Raises:
        ValueError: If the length differs or another value occurs.
    """
    mated = np.asarray(mated)
    if mated.shape != (count,):
        raise ValueError(f"Expected one mated flag per score. Received: mated.shape={mated.shape} for {count} scores")
    if mated.dtype != bool:
        if mated.dtype.kind not in "iuf" or not np.isin(mated, (0, 1)).all():
            values = np.unique(mated) if mated.dtype.kind in "iuf" else mated
            raise ValueError(f"Expected mated as booleans or 0 and 1. Received: values {values[:5].tolist()}")
        mated = mated.astype(bool)
    return mated


def check_both_kinds(counts: AcceptCounts) -> None:
    """Raises `ValueError` unless there are comparisons of both kinds: a rate of none is not defined."""
    if not (counts.num_mated and counts.num_nonmated):
        raise ValueError(
            "Expected mated and nonmated comparisons. "
            f"Received: {counts.num_mated} mated, {counts.num_nonmated} nonmated"
        )


def count_accepted(sorted_scores, thresholds):
    """Counts the scores at or above each threshold.

    Args:
        sorted_scores: `(n,)` scores in ascending order (`np.sort`).
        thresholds: Thresholds of any shape.

    Returns:
        int64 counts with the shape of `thresholds`.
    """
    return np.int64(len(sorted_scores)) - np.searchsorted(sorted_scores, thresholds, side="left").astype(np.int64)


def accept_counts(scores: ArrayLike, mated: ArrayLike) -> AcceptCounts:
    """Counts what every distinct threshold accepts.

    Args:
        scores: `(n,)` comparison scores; higher means more alike.
        mated: `(n,)` booleans; whether both sides are the same person.

    Returns:
        `AcceptCounts`.

    Raises:
        ValueError: If a score is NaN, or the shapes differ.

    Example:
    >>> accept_counts([0.9, 0.5, 0.5, 0.1], [True, True, False, False]).accepted_nonmated
    array([0, 1, 2])
    """
    scores = check_scores(scores)
    mated = check_mated(mated, len(scores))
    order = np.argsort(scores)[::-1]
    scores, mated = scores[order], mated[order]
    del order
    last = run_ends(scores)
    accepted_mated = np.cumsum(mated, dtype=np.int64)[last]
    num_mated = int(accepted_mated[-1]) if len(last) else 0
    return AcceptCounts(
        thresholds=scores[last].astype(np.float64),
        accepted_mated=accepted_mated,
        accepted_nonmated=last + 1 - accepted_mated,
        num_mated=num_mated,
        num_nonmated=len(scores) - num_mated,
    )


def run_starts(values):
    """Returns the index of the first element of each run of equal neighbours."""
    if not len(values):
        return np.zeros(0, np.int64)
    return np.append(0, np.flatnonzero(values[1:] != values[:-1]) + 1)


def run_ends(values):
    """Returns the index of the last element of each run of equal neighbours."""
    return np.append(run_starts(values)[1:], len(values)) - 1 if len(values) else np.zeros(0, np.int64)


def allowed_accepts(rate, count):
    """Returns the largest k with `k / count <= rate` in float64, so that 0.29 of 100 is 29 and not 28."""
    allowed = int(rate * count)
    while allowed < count and (allowed + 1) / count <= rate:
        allowed += 1
    while allowed and allowed / count > rate:
        allowed -= 1
    return allowed


def operating_point(mated_sorted: np.ndarray, nonmated_sorted: np.ndarray, far: float) -> OperatingPoint:
    """Finds the lowest threshold whose false accept rate is at most `far`; nothing is interpolated.

    With k the largest count allowed by `far`, the threshold must lie above the (k+1)-th highest nonmated score. It is
    the lowest observed score that does, mated or nonmated; where none is left, the next number above, which accepts
    nobody. Nonmated scores tied with the (k+1)-th are all rejected, so the rate reached can be lower than `far`.

    Args:
        mated_sorted: `(m,)` mated scores in ascending order, m >= 1.
        nonmated_sorted: `(n,)` nonmated scores in ascending order, n >= 1.
        far: Limit of the false accept rate, 0..1.

    Returns:
        `OperatingPoint`.

    Raises:
        ValueError: If there are no scores of a kind, or `far` is no rate.

    Example:
    >>> mated, nonmated = np.array([0.5, 0.8]), np.array([0.1, 0.6])  # ascending
    >>> point = keras_sphereface.evaluation.operating_point(mated, nonmated, far=0.5)
    >>> point.threshold, point.tar, point.far
    (0.5, 1.0, 0.5)
    """
    if not (len(mated_sorted) and len(nonmated_sorted) and is_number(far) and 0 <= far <= 1):
        raise ValueError(
            f"Expected scores of both kinds and a rate of 0..1. Received: {len(mated_sorted)} mated and "
            f"{len(nonmated_sorted)} nonmated scores, far={far!r}"
        )
    mated_sorted, nonmated_sorted = np.asarray(mated_sorted), np.asarray(nonmated_sorted)
    num_mated, num_nonmated = len(mated_sorted), len(nonmated_sorted)
    allowed = allowed_accepts(far, num_nonmated)
    if allowed == num_nonmated:
        threshold = min(mated_sorted[0], nonmated_sorted[0])
    else:
        first_rejected = nonmated_sorted[num_nonmated - allowed - 1]
        above = [
            ordered[index]
            for ordered in (mated_sorted, nonmated_sorted)
            if (index := np.searchsorted(ordered, first_rejected, side="right")) < len(ordered)
        ]
        threshold = min(above) if above else np.nextafter(first_rejected, first_rejected.dtype.type(np.inf))
    accepted_mated = int(count_accepted(mated_sorted, threshold))
    accepted_nonmated = int(count_accepted(nonmated_sorted, threshold))
    return OperatingPoint(
        threshold=float(threshold),
        accepted_mated=accepted_mated,
        accepted_nonmated=accepted_nonmated,
        tar=accepted_mated / num_mated,
        far=accepted_nonmated / num_nonmated,
    )
