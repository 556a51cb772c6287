"""The values that the pickle of a `.bin` pair file may hold, and the only calls that it may make.

Each stands for what Python or NumPy would build. None of them runs code of those, and the content stays in the file.
"""

import math
from typing import NamedTuple

import numpy as np

from keras_sphereface.data.bin_file import BinFile

_DTYPES = {"u1": np.uint8, "uint8": np.uint8, "b1": np.bool_, "bool": np.bool_}
_DTYPES |= {f"{kind}{size}": np.dtype(f"{kind}{size}").type for kind in "iu" for size in (1, 2, 4, 8)}
# Names, shapes and encodings are short; a longer text in their place is an attack or a broken file.
MAX_TEXT = 200


class Blob(NamedTuple):
    """Bytes or text that stay in the file; `text` says that they are UTF-8, `latin1` that they hold encoded bytes."""

    file: BinFile | None
    offset: int
    length: int
    text: bool = False
    latin1: bool = False

    def read(self):
        """Returns the bytes."""
        data = self.file.read_at(self.offset, self.length) if self.length else b""
        return data.decode("utf-8").encode("latin-1") if self.latin1 else data


class Name(NamedTuple):
    """An admitted global, as a plain word; it is never imported."""

    word: str


class Dtype:
    """A NumPy dtype of plain numbers."""

    def __init__(self, dtype):
        self.dtype = np.dtype(dtype)


class LazyArray:
    """An array whose content stays in the file until `read` is called."""

    def __init__(self):
        self.shape = self.dtype = self.data = None
        self.order = "C"

    def fill(self, shape, dtype, data, order="C"):
        """Takes shape, dtype and content after checking that they belong together."""
        if not (isinstance(shape, tuple) and len(shape) <= 4 and all(_is_count(size) for size in shape)):
            raise ValueError("an array's shape is not a tuple of up to four sizes")
        if not isinstance(dtype, Dtype) or not isinstance(data, Blob):
            raise ValueError("an array without plain numeric content (object arrays are refused)")
        # Text is never shorter in bytes than the latin-1 it encodes, nor more than twice as long.
        needed = math.prod(shape) * dtype.dtype.itemsize
        if not (needed <= data.length <= 2 * needed if data.latin1 else needed == data.length):
            raise ValueError(f"an array of shape {shape} needs {needed} bytes, but {data.length} are given")
        self.shape, self.dtype, self.data, self.order = shape, dtype.dtype, data, order
        return self

    def read(self):
        """Returns the array."""
        data = self.data.read()
        return np.frombuffer(data, self.dtype).reshape(self.shape, order=self.order)


def _is_count(value):
    return isinstance(value, int) and value >= 0


def read_text(value):
    """Returns a short text from the file, e.g. a name."""
    if not isinstance(value, Blob) or value.length > MAX_TEXT:
        raise ValueError("a name is not a short text")
    return value.read().decode("utf-8")


def _encode(blob, encoding):
    if not (isinstance(blob, Blob) and blob.text) or read_text(encoding).lower() not in ("latin1", "latin-1"):
        raise ValueError("only text can be encoded, and only as latin1")
    return blob._replace(latin1=True)


def _empty_bytes(*arguments):
    if arguments:
        raise ValueError("bytes() with an argument")
    return Blob(None, 0, 0)


def _bytearray(*arguments):
    if len(arguments) == 2:  # as Python 2 wrote it
        return _encode(*arguments)
    if len(arguments) == 1 and isinstance(arguments[0], Blob) and arguments[0].text == arguments[0].latin1:
        return arguments[0]
    return _empty_bytes(*arguments)


def _dtype(code, *flags):
    code = read_text(code).lstrip("<|")
    if code not in _DTYPES:
        raise ValueError(f"dtype {code!r}; only integers and booleans belong in a pair file")
    return Dtype(_DTYPES[code])


def _reconstruct(kind, shape, code):
    if kind != Name("ndarray"):
        raise ValueError("an array of a subclass")
    return LazyArray()


def _frombuffer(data, dtype, shape, order):
    return LazyArray().fill(shape, dtype, data, read_text(order))


def _scalar(dtype, data):
    return LazyArray().fill((), dtype, data).read()[()].item()


def _not_callable(*arguments):
    raise ValueError("numpy.ndarray called directly")


CONSTRUCTORS = {
    "encode": _encode,
    "bytes": _empty_bytes,
    "bytearray": _bytearray,
    "ndarray": _not_callable,
    "dtype": _dtype,
    "reconstruct": _reconstruct,
    "scalar": _scalar,
    "frombuffer": _frombuffer,
}
