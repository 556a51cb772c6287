"""The index of a RecordIO file: text lines "key<TAB>offset".

It is parsed block by block, and rebuilt by a scan of the .rec file where it is missing.
"""

import contextlib
import itertools
import logging
import os

import numpy as np
from tqdm import tqdm

from keras_sphereface.data.recordio_format import (
    ALIGNMENT,
    FIRST,
    IMAGE_HEADER,
    LAST,
    MIDDLE,
    PART_HEADER,
    WHOLE,
    part_header,
)
from keras_sphereface.errors import FileFormatError
from keras_sphereface.files import atomic_writer

log = logging.getLogger(__name__)

_BLOCK = 1024 * 1024  # bytes of text parsed at once
_MAX_DIGITS = 18  # any number of so many digits fits an int64


def read_index(path):
    """Reads an .idx file.

    Args:
        path: Path of the file.

    Returns:
        `(keys, offsets)`, int64 arrays in the order of the file.

    Raises:
        FileFormatError: If a line is not two whole numbers.
    """
    keys, offsets, line = [], [], 1
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            block += file.readline(2 * _MAX_DIGITS + 4)  # to the end of the line that the block cut
            block_keys, block_offsets, lines = _parse_lines(block, path, line)
            keys.append(block_keys)
            offsets.append(block_offsets)
            line += lines
    if not sum(part.size for part in keys):
        raise FileFormatError(
            f"{os.fspath(path)}: the index is empty. Delete it so that it is rebuilt from the .rec file."
        )
    return np.concatenate(keys), np.concatenate(offsets)


def _parse_lines(block, path, first_line):
    text = np.frombuffer(block, np.uint8)
    digit = (text - ord("0")) <= 9  # unsigned: what is below "0" wraps round
    newline = np.flatnonzero(text == ord("\n"))
    blanks = newline.size + sum(np.count_nonzero(text == ord(mark)) for mark in "\t \r")
    edges = np.flatnonzero(digit[1:] != digit[:-1]) + 1
    edges = np.concatenate([[0] if digit[0] else [], edges, [text.size] if digit[-1] else []]).astype(np.int64)
    starts, ends = edges[0::2], edges[1::2]
    lines = np.searchsorted(newline, starts)
    pairs = starts.size % 2 == 0 and (lines[0::2] == lines[1::2]).all() and (lines[2::2] > lines[1:-1:2]).all()
    if np.count_nonzero(digit) + blanks != text.size or not pairs or (ends - starts).max(initial=0) > _MAX_DIGITS:
        raise FileFormatError(
            f"{os.fspath(path)}: between lines {first_line} and {first_line + newline.size} a line is not "
            '"key<TAB>offset" in whole numbers. Delete the index so that it is rebuilt from the .rec file.'
        )
    return _numbers(text, starts[0::2], ends[0::2]), _numbers(text, starts[1::2], ends[1::2]), newline.size


def _numbers(text, starts, ends):
    """The values of runs of digits."""
    width = ends - starts
    values = np.zeros(starts.size, np.int64)
    for place in range(int(width.max(initial=0))):
        digits = text[ends - 1 - place] - ord("0")  # before a shorter run stands something else, which does not count
        values += np.where(place < width, digits, 0).astype(np.int64) * 10**place
    return values


def scan(path):
    """Finds the records of a .rec file by walking through it.

    Args:
        path: Path of the file.

    Returns:
        `(keys, offsets)`, int64 arrays. The keys are the numbers in the image headers where these are all different
        (MXNet and InsightFace write the key there), else 0, 1, 2...

    Raises:
        FileFormatError: If a part's header is broken or runs past the end of the file.
    """
    name = os.fspath(path)
    ids, offsets, position, open_record = [], [], 0, False
    size = os.path.getsize(path)
    with open(path, "rb") as file, tqdm(total=size, unit="B", unit_scale=True, desc="index", disable=None) as bar:
        while position < size:
            where = f"{name}, offset {position}"
            header = os.pread(file.fileno(), PART_HEADER.size + IMAGE_HEADER.size, position)
            flag, length = part_header(header, where)
            end = position + PART_HEADER.size + length
            if end > size:
                raise FileFormatError(
                    f"{where}: a record of {length} bytes runs past the end of the file ({size} bytes). "
                    "Restore the file; its download may have been cut short."
                )
            if open_record != (flag in (MIDDLE, LAST)):
                raise FileFormatError(
                    f"{where}: a part with continuation flag {flag} is out of place. Restore the file."
                )
            if flag in (WHOLE, FIRST):
                offsets.append(position)
                ids.append(_image_id(header[PART_HEADER.size :], length))
            open_record = flag in (FIRST, MIDDLE)
            following = min(size, end + -length % ALIGNMENT)
            bar.update(following - position)
            position = following
    if open_record:
        raise FileFormatError(f"{name}: the file ends in the middle of a record of several parts. Restore the file.")
    return _keys(ids), np.array(offsets, np.int64)


def _image_id(head, length):
    if length < IMAGE_HEADER.size or len(head) < IMAGE_HEADER.size:
        return -1
    number = IMAGE_HEADER.unpack_from(head)[2]
    return number if number < 1 << 63 else -1


def _keys(ids):
    keys = np.array(ids, np.int64)
    if keys.size and keys.min() >= 0 and np.unique(keys).size == keys.size:
        return keys
    return np.arange(keys.size, dtype=np.int64)


def _records_from(descriptor, offset, size):
    """Yields the offset of each record from one on, a read for each part, until no record starts there."""
    open_record = False
    while offset < size:
        try:
            flag, length = part_header(os.pread(descriptor, PART_HEADER.size, offset), "")
        except FileFormatError:
            return
        if open_record != (flag in (MIDDLE, LAST)):
            return
        if not open_record:
            yield offset
        open_record = flag in (FIRST, MIDDLE)
        offset += PART_HEADER.size + length + -length % ALIGNMENT


def check_reaches_end(path, index_path, offsets):
    """Refuses an index that was cut short: the file has more records behind the last one that it lists.

    One read tells that a sound index is sound, whatever its length. A wrong offset is no missing line: it is met, named and
    counted when its record is read, so that as many records may follow as the index has wrong offsets.

    Args:
        path: Path of the .rec file.
        index_path: Path of its .idx file.
        offsets: What the index lists, int64 of shape `(n,)`.

    Raises:
        FileFormatError: If records are missing.
        FileNotFoundError: If there is no .rec file.
    """
    with open(path, "rb", buffering=0) as file:
        descriptor, size = file.fileno(), os.path.getsize(file.fileno())
        highest = int(offsets.max(where=offsets < size, initial=0))
        following = list(itertools.islice(_records_from(descriptor, highest, size), 2))[1:]
        if not following:
            return
        wrong = np.count_nonzero((offsets >= size) | (offsets % ALIGNMENT != 0))
        last = int(offsets[-1])  # where a file is cut within a line, digits are missing
        if last < size and last % ALIGNMENT == 0:
            wrong += next(_records_from(descriptor, last, size), None) is None
        unlisted = itertools.islice(_records_from(descriptor, following[0], size), wrong + 1)
        if sum(1 for _ in unlisted) <= wrong:
            return
    raise FileFormatError(
        f"{index_path}: the last of the {len(offsets)} records listed is at offset {highest}, but more records follow "
        f"in {os.fspath(path)} ({size} bytes), expected an index of all of them. "
        "Delete the index so that it is rebuilt from the .rec file, or copy it again."
    )


def ascending_starts(offsets):
    """Where records start, in the file's order: a record ends where the next larger offset is.

    Args:
        offsets: What an index lists, int64 of shape `(n,)`, in any order.

    Returns:
        An int64 array: `offsets` itself where it ascends, as nearly always; else a sorted copy without the offsets at
        which no record can start, which would cut short the record they lie in.
    """
    if (offsets[1:] > offsets[:-1]).all():
        return offsets
    starts = offsets[offsets % ALIGNMENT == 0]
    starts.sort()
    return starts


def write_index(path, keys, offsets):
    """Writes an .idx file: under a temporary name, then renamed.

    Args:
        path: Path of the file.
        keys: Whole numbers, shape `(n,)`.
        offsets: Whole numbers, shape `(n,)`.
    """
    with atomic_writer(path) as file:
        for start in range(0, len(keys), 65536):
            rows = zip(keys[start : start + 65536], offsets[start : start + 65536])
            file.write("".join(f"{int(key)}\t{int(offset)}\n" for key, offset in rows).encode("ascii"))


def load_index(path, index_path=None, write=True):
    """Reads the index beside a .rec file, or rebuilds it by a scan and writes it for the next time.

    Args:
        path: Path of the .rec file.
        index_path: Path of the .idx file. Defaults to the .rec file's with the other suffix.
        write: Whether a rebuilt index is written. A folder that cannot be written to is no error. Defaults to `True`.

    Returns:
        `(keys, offsets)`, int64 arrays.

    Raises:
        FileFormatError: If either file is broken, or the index lacks the file's last records.
    """
    index_path = os.path.splitext(os.fspath(path))[0] + ".idx" if index_path is None else os.fspath(index_path)
    with contextlib.suppress(FileNotFoundError):  # asking first would leave time for another process to remove it
        keys, offsets = read_index(index_path)
        check_reaches_end(path, index_path, offsets)
        return keys, offsets
    keys, offsets = scan(path)  # without the .rec file either, this tells
    log.warning("%s has no index; rebuilt it by a scan: %d records", os.fspath(path), len(keys))
    if write:
        try:
            write_index(index_path, keys, offsets)
        except OSError as error:
            log.warning("The rebuilt index could not be written to %s (%s)", index_path, error)
    return keys, offsets
