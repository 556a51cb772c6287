"""One-to-many identification: closed-set rank-k, open-set TPIR@FPIR, and a distractor protocol of MegaFace's kind."""

import dataclasses

import numpy as np

from keras_sphereface.evaluation import blocks
from keras_sphereface.evaluation.counts import allowed_accepts, count_accepted
from keras_sphereface.evaluation.metrics import supported
from keras_sphereface.evaluation.report import percent, signature
from keras_sphereface.evaluation.results import Result

RANKS = (1, 5, 10)
FPIRS = (1e-1, 1e-2, 1e-3)

# Gallery sizes of the MegaFace challenge (arXiv 1512.00596, figure 1).
DISTRACTOR_COUNTS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)


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

    def rows(self):
        """Returns the table's rows: a label and a text each."""
        rows = [
            ("gallery", f"{self.num_gallery} embeddings of {self.num_identities} identities"),
            ("probes", f"{self.num_mated} mated, {self.num_nonmated} nonmated"),
        ]
        rows += [(f"rank {k}", percent(rate)) for k, rate in self.rank_rates.items()]
        for limit, by_rank in self.tpir.items():
            if self.thresholds[limit] is None:
                rows.append((f"TPIR at FPIR {limit:g}", "too few nonmated probes"))
                continue
            threshold = f"  at threshold {self.thresholds[limit]:.4f}"
            rows += [(f"TPIR at FPIR {limit:g}, rank {k}", percent(rate) + threshold) for k, rate in by_rank.items()]
        return rows


def identification(
    gallery_embeddings,
    gallery_labels,
    probe_embeddings,
    probe_labels,
    ranks=RANKS,
    fpirs=FPIRS,
    block_size=blocks.BLOCK_ROWS,
    progress=True,
    name="identification",
    details=None,
):
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
        gallery_labels: `(n,)` identities (integers or strings).
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
        ValueError: If an array is empty, shapes do not fit, or an embedding is zero, NaN or infinite.

    Example:
    >>> result = identification(np.eye(2), ["Ann", "Bob"], np.array([[1.0, 0.1]]), ["Ann"], ranks=(1,))
    >>> result.rank_rates
    {1: 1.0}

    Reference: ISO/IEC 19795-1:2021 (FPIR, TPIR = 1 - FNIR); Maze et al., IARPA Janus Benchmark - C, ICB 2018.
    """
    ranks, fpirs = _check_ranks(ranks), _check_limits(fpirs)
    gallery_embeddings, probe_embeddings = blocks.as_embeddings(
        gallery_embeddings=gallery_embeddings, probe_embeddings=probe_embeddings
    )
    gallery_labels = _check_labels(gallery_labels, gallery_embeddings, "gallery_labels")
    probe_labels = _check_labels(probe_labels, probe_embeddings, "probe_labels")
    order, codes, probe_codes = _identity_codes(gallery_labels, probe_labels)
    mated = probe_codes >= 0
    probes = blocks.all_unit_rows(probe_embeddings, "probe_embeddings")

    def gallery(desc):
        for numbers, rows in blocks.unit_blocks(gallery_embeddings, desc, order, block_size, progress):
            yield (numbers if order is None else None), rows

    mate_scores = _mate_scores(gallery("gallery_embeddings"), codes, probes[mated], probe_codes[mated])
    mate_ranks = _mate_ranks(gallery("gallery_embeddings"), codes, probes[mated], probe_codes[mated], mate_scores)
    nonmated_scores = _top_scores(gallery("gallery_embeddings"), probes[~mated])
    return Identification(
        rank_rates={k: _share(mate_ranks <= k) for k in ranks},
        **_open_set(mate_scores, mate_ranks, nonmated_scores, ranks, fpirs),
        num_gallery=len(codes),
        num_identities=int(codes[-1]) + 1,
        num_mated=int(mated.sum()),
        num_nonmated=int((~mated).sum()),
        name=name,
        signature=signature(
            name, **(details or {}), distance="cosine", identity="max", ties="against", threshold="nonmated-probes"
        ),
    )


@dataclasses.dataclass(frozen=True)
class Distractors(Result):
    """What `distractors` measured.

    Attributes:
        name: Name of the experiment, the signature's first part.
        rank_rates: Number of distractors -> rank k -> share of (probe, mate) trials with the mate at rank k or better.
        num_probes: Probes with at least one mate.
        num_trials: Ordered (probe, mate) trials.
        signature: How the numbers were computed.
    """

    name: str
    rank_rates: dict
    num_probes: int
    num_trials: int
    signature: str

    def rows(self):
        """Returns the table's rows: a label and a text each."""
        rates = [
            (f"rank {k}, {count} distractors", percent(rate))
            for count, by_rank in self.rank_rates.items()
            for k, rate in by_rank.items()
        ]
        return [("trials", f"{self.num_trials} of {self.num_probes} probes"), *rates]


def distractors(
    embeddings,
    labels,
    distractor_embeddings,
    counts=None,
    ranks=(1, 10),
    block_size=blocks.BLOCK_ROWS,
    progress=True,
    name="distractors",
    details=None,
):
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
        ValueError: If nobody has two images, a count is out of range, shapes do not fit, or an embedding is not finite.

    Reference: Kemelmacher-Shlizerman et al., The MegaFace Benchmark, CVPR 2016, arXiv 1512.00596, section 4.
    """
    embeddings, distractor_embeddings = blocks.as_embeddings(
        embeddings=embeddings, distractor_embeddings=distractor_embeddings
    )
    labels, ranks = _check_labels(labels, embeddings, "labels"), _check_ranks(ranks)
    counts = _check_counts(counts, distractor_embeddings.shape[0])
    probe, mate = _ordered_pairs(labels)
    if not len(probe):
        raise ValueError("Expected at least one label with two embeddings. Received: labels that all differ")
    rows = blocks.all_unit_rows(embeddings, "embeddings")
    mate_scores = blocks.exact_scores(rows, rows, probe, mate)
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
                rates[stop] = {k: _share(mate_scores > top.scores[probe, k - 1]) for k in ranks}
    return Distractors(
        rank_rates=rates,
        num_probes=len(np.unique(probe)),
        num_trials=len(probe),
        name=name,
        signature=signature(name, **(details or {}), trials="ordered-pairs", distance="cosine", ties="against"),
    )


def _check_labels(labels, embeddings, name):
    labels = np.asarray(labels)
    if labels.shape != (embeddings.shape[0],):
        raise ValueError(
            f"Expected one label per embedding. Received: {name}.shape={labels.shape} for {embeddings.shape[0]} embeddings"
        )
    return labels


def _check_ranks(ranks):
    ranks = tuple(ranks)
    if not ranks or any(k != int(k) or k < 1 for k in ranks):
        raise ValueError(f"Expected ranks as integers from 1 on. Received: ranks={ranks}")
    return tuple(sorted({int(k) for k in ranks}))


def _check_limits(fpirs):
    fpirs = tuple(fpirs)
    if not all(0 < limit < 1 for limit in fpirs):
        raise ValueError(f"Expected limits between 0 and 1. Received: fpirs={fpirs}")
    return tuple(sorted({float(limit) for limit in fpirs}, reverse=True))


def _check_counts(counts, available):
    if counts is None:
        counts = [*(count for count in DISTRACTOR_COUNTS if count < available), available]
    if any(count != int(count) or not 1 <= count <= available for count in counts):
        raise ValueError(f"Expected numbers of distractors from 1 to {available}. Received: counts={tuple(counts)}")
    return sorted({int(count) for count in counts})


def _share(hits):
    return int(np.count_nonzero(hits)) / len(hits) if len(hits) else None


def _ordered_pairs(labels):
    """Returns row numbers `(probe, mate)` of all ordered pairs of different rows with equal labels."""
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(labels[order][1:] != labels[order][:-1]) + 1)
    probe = [np.repeat(group, len(group) - 1) for group in groups]
    mate = [np.tile(group, (len(group), 1))[~np.eye(len(group), dtype=bool)] for group in groups]
    return np.concatenate(probe), np.concatenate(mate)


def _identity_codes(gallery_labels, probe_labels):
    """Numbers the identities in the order of reading, in which the rows of an identity lie together.

    Returns:
        `(order, codes, probe_codes)`: row numbers in reading order, or `None` for the array's own; the non-decreasing
        code of each row read; and the code of each probe, -1 where its identity is not in the gallery.
    """
    names, inverse = np.unique(gallery_labels, return_inverse=True)
    order = None
    if np.count_nonzero(inverse[1:] != inverse[:-1]) + 1 > len(names):
        order = np.argsort(inverse, kind="stable")
        inverse = inverse[order]
    first = np.append(0, np.flatnonzero(inverse[1:] != inverse[:-1]) + 1)
    code_of_name = np.empty(len(names), np.int64)
    code_of_name[inverse[first]] = np.arange(len(names))
    place = np.minimum(np.searchsorted(names, probe_labels), len(names) - 1)
    return order, code_of_name[inverse], np.where(names[place] == probe_labels, code_of_name[place], -1)


def _mate_scores(gallery, codes, probes, probe_codes):
    """Returns the exact score of each probe with its own identity: the highest over that identity's rows."""
    best = np.full(len(probes), -np.inf, np.float32)
    by_code = np.argsort(probe_codes, kind="stable")
    ordered, seen = probe_codes[by_code], 0
    for _, rows in gallery:
        block_codes = codes[seen : seen + len(rows)]
        seen += len(rows)
        first = np.searchsorted(ordered, block_codes, side="left")
        repeats = np.searchsorted(ordered, block_codes, side="right") - first
        row = np.repeat(np.arange(len(rows)), repeats)
        within = np.arange(len(row)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        probe = by_code[np.repeat(first, repeats) + within]
        np.maximum.at(best, probe, blocks.exact_scores(probes, rows, probe, row))
    return best


def _mate_ranks(gallery, codes, probes, probe_codes, mate_scores):
    """Returns 1 + the number of other identities that score as high as each probe's own, or higher."""
    ranks = np.ones(len(probes), np.int64)
    # Whether the identity that a block ends in, which may go on in the next, has already been counted.
    counted = np.zeros(len(probes), bool)
    seen = 0
    for _, rows in gallery:
        block_codes = codes[seen : seen + len(rows)]
        continues = seen > 0 and codes[seen - 1] == block_codes[0]
        seen += len(rows)
        for start in range(0, len(probes), blocks.PROBE_ROWS):
            part = slice(start, start + blocks.PROBE_ROWS)
            beaten = _beaten(probes[part], rows, block_codes, probe_codes[part], mate_scores[part])
            if continues:
                beaten[:, 0] |= counted[part]
                ranks[part] -= counted[part]
            ranks[part] += np.count_nonzero(beaten, axis=1)
            counted[part] = beaten[:, -1]
    return ranks


def _beaten(probes, rows, codes, probe_codes, mate_scores):
    """Tells which other identities of a block score as high as each probe's own; `(probes, identities in block)`."""
    products = probes @ rows.T
    error = np.float32(blocks.score_error(probes.shape[1]))
    beaten = products > (mate_scores + error)[:, None]
    probe, row = np.nonzero((products >= (mate_scores - error)[:, None]) & ~beaten)
    beaten[probe, row] = blocks.exact_scores(probes, rows, probe, row) >= mate_scores[probe]
    first = np.append(0, np.flatnonzero(codes[1:] != codes[:-1]) + 1)
    if len(first) < len(codes):
        beaten = np.logical_or.reduceat(beaten, first, axis=1)
    own = probe_codes - codes[0]
    inside = (own >= 0) & (own < len(first))
    beaten[np.flatnonzero(inside), own[inside]] = False
    return beaten


def _top_scores(gallery, probes):
    if not len(probes):
        return np.zeros(0, np.float32)
    top = blocks.TopScores(probes, 1)
    for _, rows in gallery:
        top.update(rows, np.zeros(len(rows), np.int64))
    return top.scores[:, 0]


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
