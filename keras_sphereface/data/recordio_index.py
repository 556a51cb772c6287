"""The index of a RecordIO file: text lines "key<TAB>offset".

It is rebuilt by a scan of the .rec file where it is missing.
"""

import contextlib
import itertools
import logging
import os

import numpy as np
from tqdm import tqdm

from keras_sphereface.data.int_tables import read_int_table
from keras_sphereface.data.positioned_file import PositionedFile
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


def read_index(path):
    """Reads an .idx file.

    Args:
        path: Path of the file.

    Returns:
        `(keys, offsets)`, int64 arrays in the order of the file.

    Raises:
        FileFormatError: If a line is not two whole numbers, naming the line.
        FileNotFoundError: If there is no such file.
    """
    advice = "Delete the index so that it is rebuilt from the .rec file."
    table = read_int_table(path, 2, dtype=np.int64, advice=advice)
    if not table.size:
        raise FileFormatError(f"{os.fspath(path)}: the index is empty. {advice}")
    return tuple(table)


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
    ids, offsets, position, open_record = [], [], 0, False
    with (
        PositionedFile(path) as file,
        tqdm(total=file.size, unit="B", unit_scale=True, desc="index", disable=None) as bar,
    ):
        while position < file.size:
            where = f"{file.path}, offset {position}"
            header = file.read_up_to(position, PART_HEADER.size + IMAGE_HEADER.size)
            flag, length = part_header(header, where)
            end = position + PART_HEADER.size + length
            file.check_end(end, length, where)
            if open_record != (flag in (MIDDLE, LAST)):
                raise FileFormatError(
                    f"{where}: a part with continuation flag {flag} is out of place. Restore the file."
                )
            if flag in (WHOLE, FIRST):
                offsets.append(position)
                ids.append(_image_id(header[PART_HEADER.size :], length))
            open_record = flag in (FIRST, MIDDLE)
            following = min(file.size, end + -length % ALIGNMENT)
            bar.update(following - position)
            position = following
    if open_record:
        raise FileFormatError(
            f"{file.path}: the file ends in the middle of a record of several parts. Restore the file."
        )
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


def _records_from(file, offset):
    """Yields the offset of each record from one on, a read for each part, until no record starts there."""
    open_record = False
    while offset < file.size:
        try:
            flag, length = part_header(file.read_up_to(offset, PART_HEADER.size), "")
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
    with PositionedFile(path) as file:
        size = file.size
        highest = int(offsets.max(where=offsets < size, initial=0))
        following = list(itertools.islice(_records_from(file, highest), 2))[1:]
        if not following:
            return
        wrong = np.count_nonzero((offsets >= size) | (offsets % ALIGNMENT != 0))
        last = int(offsets[-1])  # where a file is cut within a line, digits are missing
        if last < size and last % ALIGNMENT == 0:
            wrong += next(_records_from(file, last), None) is None
        unlisted = itertools.islice(_records_from(file, following[0]), wrong + 1)
        if sum(1 for _ in unlisted) <= wrong:
            return
    raise FileFormatError(
        f"{index_path}: the last of the {len(offsets)} records listed is at offset {highest}, but more records follow "
        f"in {file.path} ({size} bytes), expected an index of all of them. "
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
