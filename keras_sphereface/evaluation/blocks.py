"""Cosine search in bounded memory: float32 products by blocks, then exact scores wherever a decision is near.

A float32 product of two unit rows is off by less than `score_error(width)`, by an amount that depends on how the rows
were cut into blocks. Whatever lies within that distance of a decision is therefore scored again by `exact_scores`,
which depends on the two rows alone. Results and ties do not depend on block sizes.
"""

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from keras_sphereface.arguments import whole_number
from keras_sphereface.evaluation.counts import run_starts

# 8192 rows of 512 float32 are 16 MB: large enough for the product to run at full speed, small enough for any machine.
BLOCK_ROWS = 8192

# Probes per product: a tile of 1024 x 8192 float32 scores is 32 MB.
PROBE_ROWS = 1024

# Pairs scored at once by exact_scores: two float64 copies of 512 columns take 16 MB.
_EXACT_ROWS = 2048


def as_embeddings(**arrays):
    """Checks that named arrays are two-dimensional, not empty and of one width; without reading their values.

    Args:
        **arrays: Arrays by the name that the error message shall use: NumPy arrays, memory maps, h5py datasets, lists.

    Returns:
        The list of arrays; whatever has no `shape` has become a NumPy array.

    Raises:
        ValueError: If a shape does not fit.
    """
    arrays = {name: array if hasattr(array, "shape") else np.asarray(array) for name, array in arrays.items()}
    first = None
    for name, array in arrays.items():
        if len(array.shape) != 2 or 0 in array.shape:
            raise ValueError(f"Expected embeddings of shape (n, d), n and d >= 1. Received: {name}.shape={array.shape}")
        if first is None:
            first = name
        elif array.shape[1] != arrays[first].shape[1]:
            raise ValueError(
                f"Embeddings of different width cannot be compared; take both from the same model. "
                f"Received: {first}.shape={arrays[first].shape}, {name}.shape={array.shape}"
            )
    return list(arrays.values())


def check_finite(rows, name, numbers):
    """Refuses NaN and infinity, naming the first row that holds one.

    Args:
        rows: `(n, d)` floats.
        name: What the array is called in the error message.
        numbers: `(n,)` row numbers in the whole array.

    Raises:
        ValueError: If a value is not finite.
    """
    # One reduction instead of a boolean copy: a NaN or infinity anywhere makes the sum not finite.
    if np.isfinite(np.sum(rows, dtype=np.float64)):
        return
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(
            f"Embeddings must be finite; look for a broken image or a diverged model. "
            f"Received: {name}[{int(numbers[bad[0]])}] holds NaN or infinity"
        )


def unit_rows(rows, name="embeddings", numbers=None):
    """Returns rows as float32 of unit length.

    Args:
        rows: `(n, d)` floats.
        name: What the array is called in an error message. Defaults to `"embeddings"`.
        numbers: `(n,)` row numbers in the whole array. Defaults to 0..n-1.

    Raises:
        ValueError: If a row holds NaN or infinity, or is all zeros.
    """
    rows = np.ascontiguousarray(rows)
    if rows.dtype not in (np.float32, np.float64):
        rows = rows.astype(np.float32)
    numbers = np.arange(len(rows)) if numbers is None else numbers
    check_finite(rows, name, numbers)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    if not norms.all():
        row = int(numbers[np.flatnonzero(norms == 0)[0]])
        raise ValueError(f"A zero embedding has no direction; drop the image. Received: {name}[{row}]=0")
    return (rows / norms[:, None]).astype(np.float32)


def read_rows(array, numbers):
    """Reads rows by number from an array, a memory map or an h5py dataset (which wants them ascending)."""
    if isinstance(numbers, slice) or isinstance(array, np.ndarray):
        return np.asarray(array[numbers])
    ascending = np.argsort(numbers, kind="stable")
    rows = np.empty((len(numbers), array.shape[1]), array.dtype)
    rows[ascending] = array[numbers[ascending]]
    return rows


def grouped(labels):
    """Tells how to read rows so that those of one label lie together.

    Args:
        labels: `(n,)` labels.

    Returns:
        `(order, names, index)`: row numbers in reading order, or `None` where the array's own will do; the distinct labels,
        ascending; and of each row read the place of its label among them.
    """
    names, index = np.unique(labels, return_inverse=True)
    if len(run_starts(index)) == len(names):
        return None, names, index
    order = np.argsort(index, kind="stable")
    return order, names, index[order]


def unit_blocks(array, name, order=None, block_size=BLOCK_ROWS, progress=True):
    """Yields `(numbers, rows)`: blocks of unit-length float32 rows and their row numbers.

    Args:
        array: `(n, d)` array, memory map or h5py dataset; only one block of it is in memory at a time.
        name: What it is called in error messages and beside the progress bar.
        order: `(n,)` row numbers in the order to read them. Defaults to the array's own.
        block_size: Rows per block. Defaults to 8192.
        progress: Whether to show a bar, on a terminal only. Defaults to `True`.
    """
    starts = range(0, array.shape[0], block_size)
    for start in tqdm(starts, desc=name, unit="block", disable=None if progress and len(starts) > 1 else True):
        stop = min(start + block_size, array.shape[0])
        numbers = np.arange(start, stop) if order is None else order[start:stop]
        rows = array[start:stop] if order is None else read_rows(array, numbers)
        yield numbers, unit_rows(rows, name, numbers)


def all_unit_rows(array, name):
    """Reads a whole array as unit-length float32 rows, block by block."""
    rows = np.empty(array.shape, np.float32)
    for numbers, block in unit_blocks(array, name, progress=False):
        rows[numbers[0] : numbers[-1] + 1] = block
    return rows


def score_error(width):
    """Returns a bound on the error of a float32 product of two unit rows, rounding included (Higham, 2002, eq. 3.5)."""
    return 1.01 * (width + 4) * 2.0**-24


def exact_scores(left, right, left_rows, right_rows):
    """Scores pairs of rows: products and sums in float64, the sum rounded to float32.

    Args:
        left: `(n, d)` float32 rows.
        right: `(m, d)` float32 rows.
        left_rows: `(k,)` row numbers into `left`.
        right_rows: `(k,)` row numbers into `right`.

    Returns:
        `(k,)` float32 scores; each depends on its two rows alone.
    """
    scores = np.empty(len(left_rows), np.float32)
    for start in range(0, len(scores), _EXACT_ROWS):
        part = slice(start, start + _EXACT_ROWS)
        products = left[left_rows[part]].astype(np.float64)
        products *= right[right_rows[part]]
        scores[part] = products.sum(axis=1)
    return scores


def top_k(
    probes: ArrayLike, gallery: ArrayLike, k: int = 1, block_size: int = BLOCK_ROWS, progress: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k gallery rows with the highest cosine for every probe.

    Args:
        probes: `(n, d)` embeddings of any length greater than 0.
        gallery: `(m, d)` embeddings: an array, a memory map or an h5py dataset, streamed by blocks.
        k: How many to return; at most m are. Defaults to `1`.
        block_size: Gallery rows in memory at a time. Defaults to `8192`.
        progress: Whether to show a progress bar, on a terminal only. Defaults to `True`.

    Returns:
        `(scores, rows)`, both `(n, min(k, m))`: float32 cosines from high to low, and int64 gallery row numbers; equal
        scores are in the order of the gallery.

    Raises:
        ValueError: If the widths differ, an embedding is zero, NaN or infinite, or `k` or `block_size` is not an integer of
            at least 1.

    Example:
    >>> scores, rows = top_k(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [0.6, 0.8]]), k=2)
    >>> rows
    array([[1, 0]])
    """
    k, block_size = whole_number("k", k), whole_number("block_size", block_size)
    probes, gallery = as_embeddings(probes=probes, gallery=gallery)
    top = TopScores(all_unit_rows(probes, "probes"), min(k, gallery.shape[0]))
    for numbers, rows in unit_blocks(gallery, "gallery", block_size=block_size, progress=progress):
        top.update(rows, numbers)
    return top.scores, top.rows


class TopScores:
    """The k highest exact scores of every probe among the rows seen so far.

    Args:
        probes: `(n, d)` float32 rows of unit length.
        k: How many scores to keep.

    Attributes:
        scores: `(n, k)` float32, from high to low; -inf where fewer than k rows were seen.
        rows: `(n, k)` int64 row numbers; -1 where fewer than k rows were seen.
    """

    def __init__(self, probes, k):
        self.probes = probes
        self.scores = np.full((len(probes), k), -np.inf, np.float32)
        self.rows = np.full((len(probes), k), -1, np.int64)

    def update(self, block, numbers):
        """Takes in a `(m, d)` block of unit rows with their `(m,)` numbers."""
        for start in range(0, len(self.probes), PROBE_ROWS):
            part = slice(start, start + PROBE_ROWS)
            products = self.probes[part] @ block.T
            probe, row = np.nonzero(products >= self._floor(products, self.scores[part, -1]))
            if len(probe):
                found = exact_scores(self.probes[part], block, probe, row)
                self._merge(part, probe, found, numbers[row])

    def _floor(self, products, kth):
        """Returns per probe the product below which no row can be among its k best."""
        error = score_error(self.probes.shape[1])
        k = self.scores.shape[1]
        floor = kth - error
        if k == 1:
            floor = np.maximum(floor, products.max(axis=1) - 2 * error)
        elif k < products.shape[1] and np.isneginf(kth).any():
            floor = np.maximum(floor, np.partition(products, -k, axis=1)[:, -k] - 2 * error)
        return floor[:, None]

    def _merge(self, part, probe, scores, rows):
        count, k = self.scores[part].shape
        probe = np.concatenate([np.repeat(np.arange(count), k), probe])
        scores = np.concatenate([self.scores[part].ravel(), scores])
        rows = np.concatenate([self.rows[part].ravel(), rows])
        order = np.lexsort((rows, -scores, probe))
        first = np.searchsorted(probe[order], np.arange(count))
        kept = order[first[:, None] + np.arange(k)]
        self.scores[part], self.rows[part] = scores[kept], rows[kept]
