"""Scores and ranks of mated probes in a gallery that is streamed by blocks."""

import numpy as np

from keras_sphereface.arguments import is_number, list_of
from keras_sphereface.evaluation import blocks
from keras_sphereface.evaluation.counts import run_starts


def check_labels(labels, embeddings, name):
    """Returns labels as an array after checking that there is one per embedding."""
    labels = np.asarray(labels)
    if labels.shape != (embeddings.shape[0],):
        raise ValueError(
            f"Expected one label per embedding. Received: {name}.shape={labels.shape} for {embeddings.shape[0]} embeddings"
        )
    return labels


def check_one_kind(gallery_labels, probe_labels):
    """Refuses identities of which none can be equal: numbers on one side, texts on the other."""
    kinds = {
        "numbers" if labels.dtype.kind in "biuf" else labels.dtype.kind for labels in (gallery_labels, probe_labels)
    }
    if len(kinds) > 1 and "O" not in kinds:  # objects may hold either
        raise ValueError(
            "Expected gallery and probe labels of one kind, numbers or texts: others are never equal. Received: "
            f"gallery_labels of dtype {gallery_labels.dtype}, probe_labels of dtype {probe_labels.dtype}. Convert one"
        )


def comparable(gallery_labels, probe_labels):
    """Returns the identities of both sides in one type, in which equal means equal.

    NumPy compares signed with unsigned integers of 64 bits, and integers with floats, as float64, which rounds; and it
    cannot order objects of several kinds, e.g. texts and `None` for strangers. These are numbered instead.
    """
    if np.result_type(gallery_labels.dtype, probe_labels.dtype).kind in "biuUS":
        return gallery_labels, probe_labels
    numbers = {}
    return tuple(
        np.array([numbers.setdefault(label, len(numbers)) for label in labels.tolist()], np.int64)
        for labels in (gallery_labels, probe_labels)
    )


def is_count(value):
    """Whether this is a whole number of at least 1, as 5 and 1e3 are."""
    return is_number(value) and value >= 1 and value == int(value)


def check_ranks(ranks):
    """Returns distinct ranks in ascending order; raises `ValueError` unless they are integers of at least 1."""
    ranks = list_of("ranks", ranks, is_count, "integers of at least 1, e.g. [1, 5]")
    return tuple(sorted({int(k) for k in ranks}))


def share(hits):
    """Returns the share of hits, `None` where nothing was tried."""
    return int(np.count_nonzero(hits)) / len(hits) if len(hits) else None


def identity_codes(gallery_labels, probe_labels):
    """Numbers the identities in the order of reading, in which the rows of an identity lie together.

    Args:
        gallery_labels, probe_labels: Arrays as `comparable` returns them.

    Returns:
        `(order, codes, probe_codes)`: row numbers in reading order, or `None` for the array's own; the non-decreasing
        code of each row read; and the code of each probe, -1 where its identity is not in the gallery.
    """
    order, names, index = blocks.grouped(gallery_labels)
    code_of_name = np.empty(len(names), np.int64)
    code_of_name[index[run_starts(index)]] = np.arange(len(names))
    place = np.minimum(np.searchsorted(names, probe_labels), len(names) - 1)
    return order, code_of_name[index], np.where(names[place] == probe_labels, code_of_name[place], -1)


def mate_scores(gallery, codes, probes, probe_codes):
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


def mate_ranks(gallery, codes, probes, probe_codes, mate_scores):
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
    first = run_starts(codes)
    if len(first) < len(codes):
        beaten = np.logical_or.reduceat(beaten, first, axis=1)
    own = probe_codes - codes[0]
    inside = (own >= 0) & (own < len(first))
    beaten[np.flatnonzero(inside), own[inside]] = False
    return beaten


def highest_scores(gallery, probes):
    """Returns the exact score of each probe with the gallery row nearest to it."""
    if not len(probes):
        return np.zeros(0, np.float32)
    top = blocks.TopScores(probes, 1)
    for _, rows in gallery:
        top.update(rows, np.zeros(len(rows), np.int64))
    return top.scores[:, 0]
