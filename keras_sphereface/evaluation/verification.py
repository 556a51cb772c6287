"""1:1 verification: what a list of scores says about a face model."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from keras_sphereface.arguments import finite_number, is_number, list_of, whole_number
from keras_sphereface.evaluation import bootstrap as resampling
from keras_sphereface.evaluation import metrics
from keras_sphereface.evaluation.counts import accept_counts, check_mated, check_scores, operating_point
from keras_sphereface.evaluation.report import VerificationReport, check_details, scientific, signature

FARS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
REPLICATES = 1000
NUM_HARDEST = 12
NO_ACCURACY = "no accuracy: it needs folds, or a threshold chosen elsewhere"  # a report's note


def verification(
    scores: ArrayLike,
    mated: ArrayLike,
    folds: ArrayLike | None = None,
    identities: ArrayLike | None = None,
    threshold: float | None = None,
    fars: Sequence[float] = FARS,
    bootstrap: int = REPLICATES,
    seed: int = 0,
    name: str = "pairs",
    details: dict | None = None,
    hardest: int = NUM_HARDEST,
) -> VerificationReport:
    """Measures verification from scores.

    A comparison is accepted if and only if `score >= threshold`. Definitions:

    - accuracy: each fold is decided at the threshold with the highest accuracy on all the other folds; the mean over
      folds. Among equally good cuts between neighbouring scores of the other folds the middle one is taken (the higher of
      two middle ones), and the threshold lies half way between the two scores it separates.
    - best-threshold accuracy: the highest accuracy any threshold reaches on these same comparisons.
    - TAR at FAR: the share of mated comparisons accepted at the lowest threshold whose false accept rate does not
      exceed the limit. Equal scores are accepted or rejected together; nothing is interpolated. The threshold is the
      lowest observed score that qualifies, or the next number above all scores. `None` where there are fewer than
      1 / FAR nonmated scores.
    - EER: where false accept and false reject rate are equal, both interpolated linearly between operating points.
    - AUC: the chance that a mated score exceeds a nonmated one, ties counting half.
    - intervals: 95 % percentile intervals of a bootstrap over people where `identities` are given (all thresholds are
      chosen anew in each draw, among the cuts between all comparisons), else over comparisons.

    Args:
        scores: `(n,)` finite scores; higher means more alike.
        mated: `(n,)` booleans or 0 and 1: whether both sides are the same person.
        folds: `(n,)` integers. Defaults to `None`: no accuracy, unless `threshold` is given.
        identities: Two `(n,)` arrays, the identity of the left and of the right side. Defaults to `None`.
        threshold: A threshold chosen elsewhere, e.g. on LFW's View 1; `accuracy` is then the accuracy at it, and
            `folds` are not used. Defaults to `None`.
        fars: False accept rates for TAR. Defaults to 1e-2, ..., 1e-6.
        bootstrap: Number of draws; `0` leaves the intervals out. Defaults to `1000`.
        seed: Seed of the draws. Defaults to `0`.
        name: First part of the signature. Defaults to `"pairs"`.
        details: Dict of further parts of the signature, e.g. `{"flip": "sum"}`. Defaults to `None`.
        hardest: How many pairs of each kind to list. Defaults to `12`.

    Returns:
        `VerificationReport`. With comparisons of one kind only, every rate is `None` and a note says why.

    Raises:
        ValueError: If a score is NaN or infinite, shapes differ, there are no comparisons, `identities` contradict
            `mated`, or another argument is out of its range.

    Example:
    >>> verification([0.9, 0.6, 0.4, 0.1], [1, 1, 0, 0], bootstrap=0).auc
    1.0
    """
    scores, fars = _finite_scores(scores), check_fars(fars)
    mated = check_mated(mated, len(scores))
    folds = _check_folds(folds, len(scores))
    check_identities(identities, mated)
    check_choices(threshold, bootstrap, seed, hardest)
    details = check_details(details, "folds", "threshold", "intervals")
    num_mated = int(mated.sum())
    has_both = 0 < num_mated < len(mated)
    num_folds = len(np.unique(folds)) if folds is not None and threshold is None and has_both else 0
    report = VerificationReport(
        name=name,
        signature="",
        num_pairs=len(scores),
        num_mated=num_mated,
        num_nonmated=len(scores) - num_mated,
        scores=scores,
        mated=mated,
    )
    if report.num_mated and report.num_nonmated:
        _measure(report, folds if num_folds > 1 else None, threshold, fars)
        if bootstrap:
            rates = resampling.WeightedRates(
                scores, mated, folds if num_folds > 1 else None, _supported(report), threshold
            )
            report.intervals = resampling.intervals(rates, mated, identities, bootstrap, seed)
    report.notes = _notes(report, folds if num_folds > 1 else None, threshold, identities)
    report.signature = signature(
        name,
        folds=num_folds if num_folds > 1 else None,
        **details,
        threshold=f"given-{threshold:g}" if threshold is not None else "other-folds" if num_folds > 1 else "none",
        intervals=f"{'pairs' if identities is None else 'identities'}-{bootstrap}-{seed}" if report.intervals else None,
    )
    report.hardest = _hardest(report, folds, threshold, hardest)
    return report


def check_fars(fars: Sequence[float]) -> tuple[float, ...]:
    """Returns false accept rates as a tuple; raises `ValueError` unless they are above 0 and at most 1."""
    expected = "false accept rates above 0 and at most 1, e.g. [1e-3]"
    return list_of("fars", fars, lambda far: is_number(far) and 0 < far <= 1, expected, empty_allowed=True)


def check_choices(threshold: float | None, bootstrap: int, seed: int, hardest: int) -> None:
    """Raises `ValueError` unless these arguments of `verification` are in their ranges: before an hour of embedding."""
    if threshold is not None:
        finite_number("threshold", threshold)
    whole_number("bootstrap", bootstrap, least=0)
    whole_number("seed", seed, least=0)
    whole_number("hardest", hardest, least=0)


def _measure(report, folds, threshold, fars):
    scores, mated = report.scores, report.mated
    counts = accept_counts(scores, mated)
    best = metrics.best_cut(counts)
    report.best_threshold, report.best_threshold_accuracy = best.threshold, best.accuracy
    report.eer, report.auc = metrics.equal_error_rate(counts), metrics.auc(counts)
    sides = np.sort(scores[mated]), np.sort(scores[~mated])
    report.tar_at_far = {
        far: operating_point(*sides, far) if metrics.supported(far, report.num_nonmated) else None for far in fars
    }
    if threshold is not None:
        report.threshold, report.accuracy = float(threshold), metrics.accuracy_at(scores, mated, threshold)
    elif folds is not None:
        cuts = metrics.fold_accuracies(scores, mated, folds)
        report.accuracy_folds = [cut.accuracy for cut in cuts]
        report.fold_thresholds = [cut.threshold for cut in cuts]
        report.accuracy = float(np.mean(report.accuracy_folds))
        report.accuracy_std = metrics.standard_deviation(report.accuracy_folds)


def _supported(report):
    return [far for far, point in report.tar_at_far.items() if point is not None]


def _notes(report, folds, threshold, identities):
    if not (report.num_mated and report.num_nonmated):
        missing = "nonmated" if report.num_mated else "mated"
        return [f"there are no {missing} pairs: accuracy, EER, AUC and TAR at FAR are not defined"]
    notes = []
    if threshold is None and folds is None:
        notes.append(NO_ACCURACY)
    elif folds is not None and (one_kind := _of_one_kind(report.mated, folds)):
        notes.append(
            f"{one_kind} of {len(report.accuracy_folds)} folds have pairs of one kind only: the accuracy depends on how the "
            "pairs were ordered, not on the model alone"
        )
    unsupported = [far for far, point in report.tar_at_far.items() if point is None]
    if unsupported:
        needed = metrics.nonmated_needed(max(unsupported))
        notes.append(
            f"TAR at FAR {scientific(max(unsupported))} and below is left out: it needs at least {needed} nonmated scores, "
            f"there are {report.num_nonmated}"
        )
    if report.intervals and identities is None:
        notes.append("intervals draw pairs, not people (identities unknown): they can be too narrow")
    return notes


def _of_one_kind(mated, folds):
    """Number of folds whose pairs are all mated or all nonmated."""
    _, index = np.unique(folds, return_inverse=True)
    share = np.bincount(index, weights=mated) / np.bincount(index)
    return int(np.count_nonzero((share == 0) | (share == 1)))


def _hardest(report, folds, threshold, count):
    """Lists the mated pairs with the lowest and the nonmated pairs with the highest scores, both hardest first."""
    limits = np.full(report.num_pairs, np.nan)
    if threshold is not None:
        limits[:] = threshold
    elif report.fold_thresholds:
        limits = np.array(report.fold_thresholds)[np.unique(folds, return_inverse=True)[1]]
    elif report.best_threshold is not None:
        limits[:] = report.best_threshold
    order = np.argsort(report.scores, kind="stable")
    low, high = order[report.mated[order]][:count], order[~report.mated[order]][::-1][:count]
    return [
        {
            "pair": int(pair),
            "mated": bool(report.mated[pair]),
            "score": float(report.scores[pair]),
            "wrong": None
            if np.isnan(limits[pair])
            else bool((report.scores[pair] >= limits[pair]) != report.mated[pair]),
        }
        for pair in np.concatenate([low, high])
    ]


def _finite_scores(scores):
    scores = check_scores(scores).astype(np.float64)
    if not len(scores):
        raise ValueError("Expected at least one comparison. Received: scores of length 0")
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(f"Expected finite scores. Received: scores[{row}]={scores[row]}")
    return scores


def _check_folds(folds, count):
    if folds is None:
        return None
    folds = np.asarray(folds)
    if folds.shape != (count,):
        raise ValueError(f"Expected one fold per score. Received: folds.shape={folds.shape} for {count} scores")
    if folds.dtype.kind not in "biu":
        raise ValueError(
            f"Expected folds as integers. Received: folds of dtype {folds.dtype}, the first {folds[:3].tolist()}"
        )
    return folds


def check_identities(identities: tuple | None, mated: np.ndarray) -> None:
    """Raises `ValueError` unless the identities of both sides are equal in mated pairs, and in those alone."""
    if identities is None:
        return
    if len(identities) != 2 or any(len(side) != len(mated) for side in identities):
        raise ValueError(
            f"Expected identities as two arrays of {len(mated)} entries, left and right. "
            f"Received: lengths {[len(side) for side in identities]}"
        )
    wrong = np.flatnonzero((np.asarray(identities[0]) == np.asarray(identities[1])) != mated)
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"Expected mated pairs, and only those, to have equal identities. Received: mated[{row}]={mated[row]}, "
            f"identities {identities[0][row]!r} and {identities[1][row]!r}"
        )
