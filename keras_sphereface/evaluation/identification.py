"""One-to-many identification: closed-set rank-k and open-set TPIR@FPIR."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from keras_sphereface.arguments import is_number, list_of, whole_number
from keras_sphereface.evaluation import blocks
from keras_sphereface.evaluation.counts import allowed_accepts, count_accepted
from keras_sphereface.evaluation.mates import (
    check_labels,
    check_one_kind,
    check_ranks,
    comparable,
    highest_scores,
    identity_codes,
    mate_ranks,
    mate_scores,
    share,
)
from keras_sphereface.evaluation.metrics import supported
from keras_sphereface.evaluation.report import RATE_WIDTH, check_details, percent, signature
from keras_sphereface.evaluation.results import Result

RANKS = (1, 5, 10)
FPIRS = (1e-1, 1e-2, 1e-3)


@dataclasses.dataclass(frozen=True)
class Identification(Result):
    """What `identification` measured.

    Attributes:
        name: Name of the experiment, the signature's first part.
        rank_rates: Rank k -> share of mated probes whose own identity is at rank k or better; `None` without mated
            probes.
        tpir: FPIR limit -> rank k -> TPIR; `None` where too few nonmated probes support the limit.
        thresholds: FPIR limit -> threshold (accept if `score >= threshold`), or `None`.
        fpir: FPIR limit -> the FPIR reached at the threshold, at most the limit, or `None`.
        num_gallery: Gallery embeddings.
        num_identities: Identities in the gallery.
        num_mated: Probes whose identity is in the gallery.
        num_nonmated: Probes whose identity is not.
        signature: How the numbers were computed.

    Example:
    >>> result = keras_sphereface.evaluation.identification(gallery, gallery_labels, probes, probe_labels)
    >>> result.rank_rates[1], result.tpir[1e-2][1]
    >>> print(result)
    """

    name: str
    rank_rates: dict
    tpir: dict
    thresholds: dict
    fpir: dict
    num_gallery: int
    num_identities: int
    num_mated: int
    num_nonmated: int
    signature: str

    def rows(self) -> list[tuple[str, str]]:
        """Returns the table's rows: a label and a text each."""
        rows = [
            ("gallery", f"{self.num_gallery} embeddings of {self.num_identities} identities"),
            ("probes", f"{self.num_mated} mated, {self.num_nonmated} nonmated"),
        ]
        rows += [(f"rank {k}", percent(rate, RATE_WIDTH)) for k, rate in self.rank_rates.items()]
        for limit, by_rank in self.tpir.items():
            if self.thresholds[limit] is None:
                rows.append((f"TPIR at FPIR {limit:g}", "too few nonmated probes"))
                continue
            threshold = f"  at threshold {self.thresholds[limit]:.4f}"
            rows += [
                (f"TPIR at FPIR {limit:g}, rank {k}", percent(rate, RATE_WIDTH) + threshold)
                for k, rate in by_rank.items()
            ]
        return rows


def identification(
    gallery_embeddings: ArrayLike,
    gallery_labels: ArrayLike,
    probe_embeddings: ArrayLike,
    probe_labels: ArrayLike,
    ranks: Sequence[int] = RANKS,
    fpirs: Sequence[float] = FPIRS,
    block_size: int = blocks.BLOCK_ROWS,
    progress: bool = True,
    name: str = "identification",
    details: dict | None = None,
) -> Identification:
    """Searches probes in a gallery and measures closed-set and open-set identification.

    The score of an identity is the highest cosine of its gallery embeddings. A probe is mated if its identity is in
    the gallery. The rank of a mated probe is 1 + the number of other identities whose score is equal or higher: a tie
    counts against the probe, whatever the order of the gallery.

        rank-k      = |mated, rank <= k| / |mated|
        FPIR(T)     = |nonmated, highest score >= T| / |nonmated|
        TPIR(T, k)  = |mated, rank <= k and score of its own identity >= T| / |mated|

    Both count probes, not pairs. T for an FPIR limit comes from the nonmated probes only: with a the largest number
    of false alarms that the limit allows, T is the next number above the (a+1)-th highest of their scores. A limit
    that allows none (fewer than 1 / limit nonmated probes) is not supported and gives `None`. Scores are float32.

    Args:
        gallery_embeddings: `(n, d)` array, memory map or h5py dataset, streamed by blocks (one million rows of 512
            take some 100 MB). Fastest where the rows of an identity lie together. Need not be of unit length.
        gallery_labels: `(n,)` identities: integers or strings, those of the probes alike.
        probe_embeddings: `(m, d)` embeddings.
        probe_labels: `(m,)` identities.
        ranks: Ranks k to report. Defaults to `(1, 5, 10)`.
        fpirs: FPIR limits, between 0 and 1. Defaults to `(1e-1, 1e-2, 1e-3)`.
        block_size: Gallery rows in memory at a time; no result depends on it. Defaults to `8192`.
        progress: Whether to show progress bars, on a terminal only. Defaults to `True`.
        name: First part of the signature. Defaults to `"identification"`.
        details: Dict of further parts of the signature, e.g. `{"flip": "sum"}`. Defaults to `None`.

    Returns:
        `Identification`.

    Raises:
        ValueError: If an array is empty, shapes do not fit, an embedding is zero, NaN or infinite, the labels of one side
            are numbers and those of the other texts, or an argument is out of its range.

    Example:
    >>> result = identification(np.eye(2), ["Ann", "Bob"], np.array([[1.0, 0.1]]), ["Ann"], ranks=(1,))
    >>> result.rank_rates
    {1: 1.0}

    Reference: ISO/IEC 19795-1:2021 (FPIR, TPIR = 1 - FNIR); Maze et al., IARPA Janus Benchmark - C, ICB 2018.
    """
    ranks, fpirs, block_size = check_ranks(ranks), check_limits(fpirs), whole_number("block_size", block_size)
    details = check_details(details, "distance", "identity", "ties", "threshold")
    gallery_embeddings, probe_embeddings = blocks.as_embeddings(
        gallery_embeddings=gallery_embeddings, probe_embeddings=probe_embeddings
    )
    gallery_labels = check_labels(gallery_labels, gallery_embeddings, "gallery_labels")
    probe_labels = check_labels(probe_labels, probe_embeddings, "probe_labels")
    check_one_kind(gallery_labels, probe_labels)
    order, codes, probe_codes = identity_codes(*comparable(gallery_labels, probe_labels))
    mated = probe_codes >= 0
    probes = blocks.all_unit_rows(probe_embeddings, "probe_embeddings")

    def gallery(desc):
        for numbers, rows in blocks.unit_blocks(gallery_embeddings, desc, order, block_size, progress):
            yield (numbers if order is None else None), rows

    own_scores = mate_scores(gallery("gallery_embeddings"), codes, probes[mated], probe_codes[mated])
    own_ranks = mate_ranks(gallery("gallery_embeddings"), codes, probes[mated], probe_codes[mated], own_scores)
    nonmated_scores = highest_scores(gallery("gallery_embeddings"), probes[~mated])
    return Identification(
        rank_rates={k: share(own_ranks <= k) for k in ranks},
        **_open_set(own_scores, own_ranks, nonmated_scores, ranks, fpirs),
        num_gallery=len(codes),
        num_identities=int(codes[-1]) + 1,
        num_mated=int(mated.sum()),
        num_nonmated=int((~mated).sum()),
        name=name,
        signature=signature(
            name, **details, distance="cosine", identity="max", ties="against", threshold="nonmated-probes"
        ),
    )


def check_limits(fpirs):
    """Returns distinct FPIR limits from high to low; raises `ValueError` unless they are between 0 and 1."""
    expected = "limits between 0 and 1, e.g. [1e-2]"
    limits = list_of("fpirs", fpirs, lambda limit: is_number(limit) and 0 < limit < 1, expected, empty_allowed=True)
    return tuple(sorted({float(limit) for limit in limits}, reverse=True))


def _open_set(mate_scores, mate_ranks, nonmated_scores, ranks, fpirs):
    """Returns `tpir`, `thresholds` and `fpir` of `Identification`."""
    nonmated = np.sort(nonmated_scores)
    by_rank = {k: np.sort(mate_scores[mate_ranks <= k]) for k in ranks}
    tpir, thresholds, reached = {}, {}, {}
    for limit in fpirs:
        if not supported(limit, len(nonmated)):
            thresholds[limit] = reached[limit] = None
            tpir[limit] = dict.fromkeys(ranks)
            continue
        first_rejected = nonmated[len(nonmated) - allowed_accepts(limit, len(nonmated)) - 1]
        threshold = np.nextafter(first_rejected, np.float32(np.inf))
        thresholds[limit] = float(threshold)
        reached[limit] = int(count_accepted(nonmated, threshold)) / len(nonmated)
        tpir[limit] = {
            k: int(count_accepted(accepted, threshold)) / len(mate_scores) if len(mate_scores) else None
            for k, accepted in by_rank.items()
        }
    return {"tpir": tpir, "thresholds": thresholds, "fpir": reached}
