"""A distractor protocol of MegaFace's kind: one mate among a growing number of strangers."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from keras_sphereface.arguments import list_of, whole_number
from keras_sphereface.evaluation import blocks
from keras_sphereface.evaluation.counts import run_starts
from keras_sphereface.evaluation.mates import check_labels, check_ranks, is_count, share
from keras_sphereface.evaluation.report import RATE_WIDTH, check_details, percent, signature
from keras_sphereface.evaluation.results import Result

# Gallery sizes of the MegaFace challenge (arXiv 1512.00596, figure 1).
DISTRACTOR_COUNTS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)


@dataclasses.dataclass(frozen=True)
class Distractors(Result):
    """What `distractors` measured.

    Attributes:
        name: Name of the experiment, the signature's first part.
        rank_rates: Number of distractors -> rank k -> share of (probe, mate) trials with the mate at rank k or better.
        num_probes: Probes with at least one mate.
        num_trials: Ordered (probe, mate) trials.
        signature: How the numbers were computed.

    Example:
    >>> result = keras_sphereface.evaluation.distractors(embeddings, labels, distractor_embeddings)
    >>> print(result)
    >>> result.save("distractors.json")
    """

    name: str
    rank_rates: dict
    num_probes: int
    num_trials: int
    signature: str

    def rows(self) -> list[tuple[str, str]]:
        """Returns the table's rows: a label and a text each."""
        rates = [
            (f"rank {k}, {count} distractors", percent(rate, RATE_WIDTH))
            for count, by_rank in self.rank_rates.items()
            for k, rate in by_rank.items()
        ]
        return [("trials", f"{self.num_trials} of {self.num_probes} probes"), *rates]


def distractors(
    embeddings: ArrayLike,
    labels: ArrayLike,
    distractor_embeddings: ArrayLike,
    counts: Sequence[int] | None = None,
    ranks: Sequence[int] = (1, 10),
    block_size: int = blocks.BLOCK_ROWS,
    progress: bool = True,
    name: str = "distractors",
    details: dict | None = None,
) -> Distractors:
    """Measures rank-k against a growing number of distractors, as the MegaFace challenge does.

    One trial is one ordered pair of different images of one person: the first is the probe, the second the only mate in
    a gallery of it and N distractors. The mate's rank is 1 + the number of distractors that score as high or higher (a
    tie counts against it). The rate is the share of trials with rank <= k. The first N rows of
    `distractor_embeddings` are taken, so that the galleries are nested; shuffle them beforehand if their order means
    something. People with one image give no trial. Nobody among the distractors may be among the probes.

    Args:
        embeddings: `(n, d)` embeddings of probes and mates.
        labels: `(n,)` identities.
        distractor_embeddings: `(m, d)` array, memory map or h5py dataset, streamed by blocks.
        counts: Numbers of distractors, each from 1 to m. Defaults to those of 10, 100, ... 1,000,000 below m, and m.
        ranks: Ranks k to report. Defaults to `(1, 10)`.
        block_size: Distractor rows in memory at a time; no result depends on it. Defaults to `8192`.
        progress: Whether to show a progress bar, on a terminal only. Defaults to `True`.
        name: First part of the signature. Defaults to `"distractors"`.
        details: Dict of further parts of the signature, e.g. `{"flip": "sum"}`. Defaults to `None`.

    Returns:
        `Distractors`.

    Raises:
        ValueError: If nobody has two images, a count or another argument is out of its range, shapes do not fit, or an
            embedding is not finite.

    Example:
    >>> embeddings, strangers = np.array([[1.0, 0.1], [1.0, 0.2]]), np.array([[0.0, 1.0], [-1.0, 0.0]])
    >>> result = keras_sphereface.evaluation.distractors(embeddings, ["Ann", "Ann"], strangers, ranks=(1,))
    >>> result.rank_rates
    {2: {1: 1.0}}

    Reference: Kemelmacher-Shlizerman et al., The MegaFace Benchmark, CVPR 2016, arXiv 1512.00596, section 4.
    """
    embeddings, distractor_embeddings = blocks.as_embeddings(
        embeddings=embeddings, distractor_embeddings=distractor_embeddings
    )
    labels, ranks = check_labels(labels, embeddings, "labels"), check_ranks(ranks)
    block_size = whole_number("block_size", block_size)
    details = check_details(details, "trials", "distance", "ties")
    counts = _check_counts(counts, distractor_embeddings.shape[0])
    probe, mate = _ordered_pairs(labels)
    if not len(probe):
        raise ValueError("Expected at least one label with two embeddings. Received: labels that all differ")
    rows = blocks.all_unit_rows(embeddings, "embeddings")
    own_scores = blocks.exact_scores(rows, rows, probe, mate)
    top = blocks.TopScores(rows, max(ranks))
    rates, seen = {}, 0
    for _, block in blocks.unit_blocks(
        distractor_embeddings, "distractor_embeddings", block_size=block_size, progress=progress
    ):
        stops = [count for count in counts if seen < count <= seen + len(block)]
        for stop in sorted({*stops, seen + len(block)}):
            part = block[: stop - seen]
            top.update(part, np.arange(seen, stop))
            block, seen = block[len(part) :], stop
            if stop in counts:
                rates[stop] = {k: share(own_scores > top.scores[probe, k - 1]) for k in ranks}
    return Distractors(
        rank_rates=rates,
        num_probes=len(np.unique(probe)),
        num_trials=len(probe),
        name=name,
        signature=signature(name, **details, trials="ordered-pairs", distance="cosine", ties="against"),
    )


def _check_counts(counts, available):
    """Returns distinct numbers of distractors in ascending order."""
    if counts is None:
        return [*(count for count in DISTRACTOR_COUNTS if count < available), available]
    expected = f"numbers of distractors from 1 to {available}, e.g. [{available}]"
    counts = list_of("counts", counts, lambda count: is_count(count) and count <= available, expected)
    return sorted({int(count) for count in counts})


def _ordered_pairs(labels):
    """Returns row numbers `(probe, mate)` of all ordered pairs of different rows with equal labels."""
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, run_starts(labels[order])[1:])
    probe = [np.repeat(group, len(group) - 1) for group in groups]
    mate = [np.tile(group, (len(group), 1))[~np.eye(len(group), dtype=bool)] for group in groups]
    return np.concatenate(probe), np.concatenate(mate)
