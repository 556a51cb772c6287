"""The bytes of TFRecord files and of the `tf.train.Example` messages in them, without TensorFlow.

A record is a length (8 bytes), its masked CRC-32C, the bytes, and their masked CRC-32C.

Reference: TensorFlow, tensorflow/core/lib/io/record_writer.h and core/example/example.proto; RFC 3720 for CRC-32C.
"""

import functools
import struct

import numpy as np

from keras_sphereface.errors import FileFormatError

LENGTH = struct.Struct("<Q")
CHECKSUM = struct.Struct("<I")
HEAD = LENGTH.size + CHECKSUM.size
IMAGE, LABEL, TEXT = "image/encoded", "image/class/label", "image/class/text"

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected
_MASK = 0xA282EAD8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@functools.cache
def _table():
    """The remainder of every 16-bit word: two bytes a step, as Python's loop is what costs."""
    remainder = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        remainder = (remainder >> 1) ^ np.where(remainder & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return remainder.tolist()


def masked_crc(data):
    """The masked CRC-32C of bytes, as TFRecord stores it."""
    table, crc = _table(), 0xFFFFFFFF
    for word in np.frombuffer(data, "<u2", len(data) // 2).tolist():
        crc = table[(crc ^ word) & 0xFFFF] ^ (crc >> 16)
    if len(data) % 2:
        crc ^= data[-1]
        for _ in range(8):
            crc = (crc >> 1) ^ (_POLYNOMIAL if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def frame(payload):
    """Frames the bytes of one record."""
    length = LENGTH.pack(len(payload))
    return length + CHECKSUM.pack(masked_crc(length)) + payload + CHECKSUM.pack(masked_crc(payload))


def payload_length(head, where):
    """Checks the 12 bytes in front of a payload.

    Returns:
        The payload's length.

    Raises:
        FileFormatError: If they are too few, or their checksum is wrong.
    """
    if len(head) < HEAD:
        raise FileFormatError(f"{where}: the file ends inside a record's header. Restore the file.")
    if masked_crc(head[: LENGTH.size]) != CHECKSUM.unpack_from(head, LENGTH.size)[0]:
        hint = " It is compressed: unpack it first." if head.startswith(b"\x1f\x8b") else " Restore the file."
        raise FileFormatError(f"{where}: the checksum of the record's length is wrong, so this is no TFRecord.{hint}")
    return LENGTH.unpack_from(head)[0]


def encode_example(features):
    """Encodes a `tf.train.Example`.

    Args:
        features: Dict from keys to bytes or to a whole number.

    Returns:
        The bytes of the message.
    """
    entries = b""
    for key, value in features.items():
        if isinstance(value, bytes):
            feature = _field(1, _field(1, value))
        else:
            feature = _field(3, _field(1, _varint(int(value) & 0xFFFFFFFFFFFFFFFF)))
        entries += _field(1, _field(1, key.encode()) + _field(2, feature))
    return _field(1, entries)


def _field(number, data):
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _varint(value):
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def decode_example(data, where):
    """Decodes a `tf.train.Example`.

    Args:
        data: The bytes of the message.
        where: File and record, for the error message.

    Returns:
        Dict from keys to lists of bytes, of whole numbers, or to float32 arrays.

    Raises:
        FileFormatError: If the bytes are no such message.
    """
    try:
        features = {}
        for group in _messages(data, 1):
            for entry in _messages(group, 1):
                key, feature = b"", b""
                for number, value in _fields(entry):
                    key, feature = (value, feature) if number == 1 else (key, value)
                features[key.decode()] = _values(feature)
        return features
    except (IndexError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise FileFormatError(
            f"{where}: not a tf.train.Example ({error}). Restore the file or write it again."
        ) from error


def _values(feature):
    for number, content in _fields(feature):
        if number == 1:
            return list(_messages(content, 1))
        if number == 2:
            return np.frombuffer(b"".join(_packed(content)), "<f4")
        if number == 3:
            return [value for part in _packed(content) for value in _signed(part)]
    return []


def _messages(data, wanted):
    return (value for number, value in _fields(data) if number == wanted and isinstance(value, bytes))


def _packed(data):
    """Parts of a list of numbers: packed into one field, or a field each."""
    return (value if isinstance(value, bytes) else _varint(value) for _, value in _fields(data))


def _signed(data):
    position = 0
    while position < len(data):
        value, position = _read_varint(data, position)
        yield value - (1 << 64) if value >> 63 else value


def _fields(data):
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        kind = tag & 7
        if kind == _VARINT:
            value, position = _read_varint(data, position)
        elif kind in (_BYTES, _FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
            if kind == _BYTES:
                length, position = _read_varint(data, position)
            if length > len(data) - position:
                raise ValueError("a field runs past the end of its message")
            value, position = data[position : position + length], position + length
        else:
            raise ValueError(f"unknown wire type {kind}")
        yield tag >> 3, value


def _read_varint(data, position):
    result = shift = 0
    while shift < 70:
        byte = data[position]
        result |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
    raise ValueError("a number of more than 10 bytes")
