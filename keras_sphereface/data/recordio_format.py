"""The bytes of MXNet's RecordIO: framing of records, and the image header in front of each payload.

A record is one or more parts; a part is the magic number, a word with a continuation flag (3 bits) and a length
(29 bits), the bytes, and zeros up to a multiple of 4. A payload that holds the magic number at a multiple of 4 is split
there, so that a reader can find the start of a record from anywhere in the file; the magic itself is left out and put
back on reading.

Reference: dmlc-core, doc/parameter.md and include/dmlc/recordio.h; mxnet.recordio.IRHeader.
"""

import struct
from typing import NamedTuple

import numpy as np

from keras_sphereface.errors import FileFormatError

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
PART_HEADER = struct.Struct("<II")
IMAGE_HEADER = struct.Struct("<IfQQ")
ALIGNMENT = 4  # bytes: every part is filled up to a multiple, so that a record starts at one
LENGTH_BITS = 29
MAX_LENGTH = (1 << LENGTH_BITS) - 1
WHOLE, FIRST, MIDDLE, LAST = range(4)

# Integers beyond this are not exact as float32, the type of a label in the image header.
MAX_EXACT_LABEL = 1 << 24


class Record(NamedTuple):
    """One image record: `label` is a float, or a float32 array where the header's flag is positive."""

    label: float | np.ndarray
    id: int
    id2: int
    data: bytes

    @property
    def first_label(self):
        """The label, or the first one of an array of labels."""
        return float(self.label if np.isscalar(self.label) else self.label[0])


def frame(payload):
    """Frames a payload as the parts of one record.

    Args:
        payload: The bytes of the record.

    Returns:
        The bytes to write, a multiple of 4 long.

    Raises:
        ValueError: If the payload is longer than the format's 29-bit length holds.
    """
    if len(payload) > MAX_LENGTH:
        raise ValueError(f"A record holds at most {MAX_LENGTH} bytes. Received: {len(payload)} bytes")
    cuts = _aligned_magics(payload)
    starts = [0, *(cut + 4 for cut in cuts)]
    ends = [*cuts, len(payload)]
    last = len(starts) - 1
    pieces = []
    for number, (start, end) in enumerate(zip(starts, ends)):
        flag = WHOLE if last == 0 else FIRST if number == 0 else LAST if number == last else MIDDLE
        pieces += [PART_HEADER.pack(MAGIC, flag << LENGTH_BITS | (end - start)), payload[start:end]]
        pieces.append(b"\0" * (-(end - start) % ALIGNMENT))
    return b"".join(pieces)


def _aligned_magics(payload):
    cuts, position = [], payload.find(MAGIC_BYTES)
    while position >= 0:
        if position % ALIGNMENT == 0:
            cuts.append(position)
        position = payload.find(MAGIC_BYTES, position + (ALIGNMENT if position % ALIGNMENT == 0 else 1))
    return cuts


def part_header(header, where):
    """Checks the 8 bytes in front of a part.

    Args:
        header: The bytes.
        where: File and offset, for the error message.

    Returns:
        `(flag, length)`.

    Raises:
        FileFormatError: If the bytes are fewer than 8, or no part starts here.
    """
    if len(header) < PART_HEADER.size:
        raise FileFormatError(
            f"{where}: the file ends inside a record's header. Restore the file; its download may have been cut short."
        )
    magic, word = PART_HEADER.unpack_from(header)
    if magic != MAGIC:
        raise FileFormatError(
            f"{where}: expected a RecordIO record, which begins with {MAGIC:#x}, found {magic:#x}. Delete a wrong .idx so "
            "that it is rebuilt, or restore the file."
        )
    flag, length = word >> LENGTH_BITS, word & MAX_LENGTH
    if flag > LAST:
        raise FileFormatError(f"{where}: unknown continuation flag {flag}, expected 0 to 3. Restore the file.")
    return flag, length


def pack_image(label, data, id=0, id2=0):  # the header's own names
    """Puts the image header in front of an image's bytes.

    Args:
        label: A number, or a sequence of numbers (stored as an array of float32).
        data: Bytes of the image file.
        id: Number of the record. Defaults to 0.
        id2: Second number. Defaults to 0.

    Returns:
        The payload of the record.
    """
    if np.ndim(label) == 0:
        return IMAGE_HEADER.pack(0, float(label), id, id2) + data
    values = np.asarray(label, dtype="<f4").ravel()
    if values.size == 0:
        raise ValueError("An array label must hold at least one number. Received: an empty one")
    return IMAGE_HEADER.pack(values.size, 0.0, id, id2) + values.tobytes() + data


def unpack_image(payload, where):
    """Splits a record's payload into image header and image.

    Args:
        payload: The bytes of the record.
        where: File and record, for the error message.

    Returns:
        A `Record`.

    Raises:
        FileFormatError: If the payload is shorter than its header, or than the labels that the header announces.
    """
    if len(payload) < IMAGE_HEADER.size:
        raise FileFormatError(
            f"{where}: {len(payload)} bytes are fewer than the {IMAGE_HEADER.size} of an image header. "
            "This is not an image record; pack the images again."
        )
    flag, label, id, id2 = IMAGE_HEADER.unpack_from(payload)
    start = IMAGE_HEADER.size
    if flag:
        if flag * 4 > len(payload) - start:
            raise FileFormatError(
                f"{where}: the header announces {flag} labels, but only {len(payload) - start} bytes follow. "
                "Restore the file or pack the images again."
            )
        label = np.frombuffer(payload, "<f4", flag, start).astype(np.float32)
        start += flag * 4
    return Record(label, id, id2, payload[start:])
