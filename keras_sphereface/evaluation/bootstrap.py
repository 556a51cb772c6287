"""Bootstrap intervals of verification rates: comparisons that share a person are not independent."""

import numpy as np
from tqdm import tqdm

from keras_sphereface.evaluation.counts import run_ends
from keras_sphereface.evaluation.metrics import cut_thresholds

CONFIDENCE = 0.95
# Weights of one block of replicates: 2^20 float64 are 8 MB, and a handful of such arrays are alive at once.
BLOCK_ELEMENTS = 2**20


class WeightedRates:
    """The rates of `metrics` for many weightings of the same comparisons at once.

    With all weights 1 they equal the unweighted rates. A comparison of weight 2 counts as two equal comparisons.

    Args:
        scores: `(n,)` scores.
        mated: `(n,)` booleans; both kinds occur.
        folds: `(n,)` integers or `None`.
        fars: False accept rates at which TAR is wanted.
        threshold: A given threshold for the accuracy, instead of the folds. Defaults to `None`.
    """

    def __init__(self, scores, mated, folds, fars, threshold=None):
        self.order = np.argsort(scores, kind="stable")[::-1]
        self.scores = np.asarray(scores, np.float64)[self.order]
        self.mated = np.asarray(mated, bool)[self.order]
        self.ends = run_ends(self.scores)
        self.fars = tuple(fars)
        self.threshold = threshold
        self.folds = [] if folds is None else [self._fold(np.asarray(folds)[self.order], f) for f in np.unique(folds)]

    def _fold(self, folds, fold):
        """Prepares a fold: the cuts of the other folds, and how many of its own comparisons each cut accepts."""
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        ends = run_ends(self.scores[train])
        thresholds = cut_thresholds(self.scores[train][ends])
        accepted = len(test) - np.searchsorted(self.scores[test][::-1], thresholds, side="left")
        return train, ends, test, accepted

    def __call__(self, weights):
        """Computes the rates.

        Args:
            weights: `(b, n)` non-negative weights in the order of `scores` as given.

        Returns:
            A dict from the rate's name to its `(b,)` values; NaN where a replicate lost one kind entirely.
        """
        weights = weights[:, self.order].astype(np.float64)
        mated = np.cumsum(weights * self.mated, axis=1)[:, self.ends]
        nonmated = np.cumsum(weights * ~self.mated, axis=1)[:, self.ends]
        num_mated, num_nonmated = mated[:, -1:], nonmated[:, -1:]
        zeros = np.zeros((len(weights), 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            tar = np.hstack([zeros, mated / num_mated])
            far = np.hstack([zeros, nonmated / num_nonmated])
            rates = {
                "best_threshold_accuracy": _best_correct(mated, nonmated) / (num_mated + num_nonmated)[:, 0],
                "eer": _equal_error(far, tar),
                "auc": np.sum(np.diff(far) * (tar[:, 1:] + tar[:, :-1]) / 2, axis=1),
            }
            rows = np.arange(len(weights))
            for limit in self.fars:
                rates[f"tar@{limit:g}"] = tar[rows, np.maximum(np.sum(far <= limit, axis=1) - 1, 0)]
            if self.threshold is not None:
                right = (self.scores >= self.threshold) == self.mated
                rates["accuracy"] = weights @ right / weights.sum(axis=1)
            elif self.folds:
                folds = np.array([self._accuracy(weights, *fold) for fold in self.folds])
                rates["accuracy"] = np.nansum(folds, axis=0) / np.sum(~np.isnan(folds), axis=0)
        lost = (num_mated[:, 0] == 0) | (num_nonmated[:, 0] == 0)
        return {name: np.where(lost, np.nan, values) for name, values in rates.items()}

    def _accuracy(self, weights, train, ends, test, accepted):
        sign = np.where(self.mated, 1.0, -1.0)
        gain = np.cumsum(weights[:, train] * sign[train], axis=1)[:, ends]
        cut = _middle_best(gain)
        inside = weights[:, test]
        gain_inside = np.hstack([np.zeros((len(weights), 1)), np.cumsum(inside * sign[test], axis=1)])
        nonmated = np.sum(inside * ~self.mated[test], axis=1)
        right = gain_inside[np.arange(len(weights)), accepted[cut]] + nonmated
        return right / inside.sum(axis=1)


def _best_correct(mated, nonmated):
    return np.maximum(np.max(mated - nonmated, axis=1), 0) + nonmated[:, -1]


def _equal_error(far, tar):
    gap = 1.0 - tar - far
    after = np.maximum(np.argmax(gap <= 0, axis=1), 1)
    rows = np.arange(len(gap))
    before = after - 1
    part = gap[rows, before] / (gap[rows, before] - gap[rows, after])
    return far[rows, before] + part * (far[rows, after] - far[rows, before])


def _middle_best(gain):
    """Returns per row the middle one of the best cuts, with "accept nobody" as cut 0."""
    gain = np.hstack([np.zeros((len(gain), 1)), gain])
    best = gain == gain.max(axis=1, keepdims=True)
    rank = np.cumsum(best, axis=1, dtype=np.int32)
    return np.argmax(rank > (rank[:, -1:] - 1) // 2, axis=1)


def identity_weights(generator, count, left, right, mated, num_identities):
    """Draws weights of comparisons by drawing people.

    Of m people, m are drawn with replacement; person a is drawn c_a times. A mated comparison of person a counts
    c_a times, a nonmated comparison of persons a and b counts c_a * c_b times (the vertex bootstrap).

    Args:
        generator: `numpy.random.Generator`.
        count: Number of replicates.
        left, right: `(n,)` indices of the people on both sides.
        mated: `(n,)` booleans.
        num_identities: m.

    Returns:
        `(count, n)` int64 weights.

    Reference:
        Fogliato, Patil, Perona: Confidence Intervals for Error Rates in 1:1 Matching Tasks, arXiv 2306.01198.
    """
    drawn = generator.multinomial(num_identities, np.full(num_identities, 1 / num_identities), size=count)
    return drawn[:, left] * np.where(mated, 1, drawn[:, right])


def pair_weights(generator, count, num_pairs):
    """Draws `num_pairs` comparisons with replacement; returns `(count, num_pairs)` weights."""
    return generator.multinomial(num_pairs, np.full(num_pairs, 1 / num_pairs), size=count)


def intervals(rates, mated, identities=None, replicates=1000, seed=0, confidence=CONFIDENCE):
    """Computes percentile intervals of all rates.

    Args:
        rates: `WeightedRates`.
        mated: `(n,)` booleans.
        identities: Both sides' identities, two `(n,)` arrays: people are drawn. `None`: comparisons are drawn, which
            makes the intervals too narrow where people occur in several comparisons.
        replicates: Number of draws. Defaults to `1000`.
        seed: Seed of the draws. Defaults to `0`.
        confidence: Share of replicates inside the interval. Defaults to `0.95`.

    Returns:
        A dict from the rate's name to `(low, high)`, without the rates that no draw could tell.
    """
    generator = np.random.default_rng(seed)
    num_pairs = len(mated)
    if identities is not None:
        people, index = np.unique(
            np.concatenate([np.asarray(side).astype(str) for side in identities]), return_inverse=True
        )
        left, right = index[:num_pairs], index[num_pairs:]
    block = max(1, BLOCK_ELEMENTS // max(num_pairs, 1))
    values = []
    with tqdm(total=replicates, desc="bootstrap", unit="draw", disable=None, leave=False) as bar:
        for start in range(0, replicates, block):
            count = min(block, replicates - start)
            if identities is None:
                weights = pair_weights(generator, count, num_pairs)
            else:
                weights = identity_weights(generator, count, left, right, mated, len(people))
            values.append(rates(weights))
            bar.update(count)
    edges = [(1 - confidence) / 2, (1 + confidence) / 2]
    drawn = {name: np.concatenate([part[name] for part in values]) for name in values[0]}
    return {
        name: tuple(float(edge) for edge in np.nanquantile(draws, edges))
        for name, draws in drawn.items()
        if not np.isnan(draws).all()
    }
