"""Many records of a .rec file at once, for the hot path: NumPy reads the headers of a batch together."""

import itertools
import os

import numpy as np

from keras_sphereface.data.recordio_format import IMAGE_HEADER, LENGTH_BITS, MAGIC, MAX_LENGTH, PART_HEADER, WHOLE

_HEAD = np.dtype([("magic", "<u4"), ("word", "<u4"), ("flag", "<u4"), ("label", "<f4"), ("id", "<u8"), ("id2", "<u8")])
_LABEL = 4  # bytes of each label behind the header, where `flag` counts some
_LONGEST = 256 * 1024  # a batch of longer records is read one by one, which needs no such blocks of memory


def read_batch(descriptor, starts, ends):
    """Reads image records that are whole and as usual, all or none.

    Args:
        descriptor: Of the open file.
        starts: Offsets of the records, int64 of shape `(n,)`.
        ends: Where the next records begin.

    Returns:
        `(data, labels)`: a list of the image files' bytes, and the first labels, float32 of shape `(n,)`; or `None` if one
        of the records is long, of several parts, broken or empty: reading them one by one tells which and why.

    Raises:
        OSError: If the file cannot be read.
    """
    lengths = ends - starts
    if lengths.min() < _HEAD.itemsize + _LABEL or lengths.max() > _LONGEST or starts.min() < 0:
        return None
    blocks = list(map(os.pread, itertools.repeat(descriptor), lengths.tolist(), starts.tolist()))
    if not np.array_equal(np.fromiter(map(len, blocks), np.int64, len(blocks)), lengths):
        return None
    # One array of the records' first bytes: the header and, where there are some, the first of its labels.
    text = np.frombuffer(b"".join(block[: _HEAD.itemsize + _LABEL] for block in blocks), np.uint8)
    text = text.reshape(len(blocks), _HEAD.itemsize + _LABEL)
    heads = text[:, : _HEAD.itemsize].copy().view(_HEAD)[:, 0]
    inside = PART_HEADER.size + (heads["word"] & MAX_LENGTH).astype(np.int64)
    begin = PART_HEADER.size + IMAGE_HEADER.size + _LABEL * heads["flag"].astype(np.int64)
    whole = (heads["magic"] == MAGIC) & (heads["word"] >> LENGTH_BITS == WHOLE)
    if not (whole & (begin < inside) & (inside <= lengths)).all():
        return None
    array = text[:, _HEAD.itemsize :].copy().view("<f4")[:, 0]
    labels = np.where(heads["flag"] > 0, array, heads["label"])
    return list(map(bytes.__getitem__, blocks, map(slice, begin.tolist(), inside.tolist()))), labels
