"""Fast reading of text files that hold a fixed number of non-negative integers per line."""

import codecs
from typing import NamedTuple

import numpy as np

from keras_sphereface.errors import FileFormatError
from keras_sphereface.hints import Path

# Bytes parsed at a time; the work arrays take some 20 times as much.
CHUNK_BYTES = 1 << 20
_LONGEST_LINE = 1 << 16  # bytes; what is longer is another file, perhaps without lines

# Any number of so many digits fits.
MAX_DIGITS = {np.int32: 9, np.int64: 18}

_DIGIT, _SPACE, _NEWLINE = 1, 2, 3
_MARKS = dict.fromkeys(b"0123456789", _DIGIT) | dict.fromkeys(b" \t\r", _SPACE) | {ord("\n"): _NEWLINE}
_KINDS = bytes(_MARKS.get(byte, 0) for byte in range(256))


def read_int_table(
    path: Path,
    columns: int,
    chunk_bytes: int = CHUNK_BYTES,
    dtype: type = np.int32,
    advice: str = "Correct the line, or take the file from the original archive again",
) -> np.ndarray:
    """Reads lines of `columns` non-negative integers, separated by spaces or tabs; empty lines are skipped.

    Args:
        path: The file.
        columns: Integers per line.
        chunk_bytes: Bytes parsed at a time. Defaults to 1 MB.
        dtype: `np.int32` for integers of up to 9 digits, `np.int64` for up to 18. Defaults to `np.int32`.
        advice: What to do about a broken file. Defaults to what helps with IJB's.

    Returns:
        `(columns, lines)` of `dtype`.

    Raises:
        FileFormatError: If a line holds something else, naming the line.
        FileNotFoundError: If there is no such file.

    Example:
    >>> left, right, label = keras_sphereface.data.ijb.read_int_table("IJBC/meta/ijbc_template_pair_label.txt", columns=3)
    """
    table = _Table(path, columns, dtype, advice)
    parts, line, rest = [], 1, b""
    with open(path, "rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        while data := file.read(chunk_bytes):
            data = rest + data
            cut = data.rfind(b"\n") + 1
            rest = data[cut:]
            if cut:
                parts.append(table.parse(data[:cut], line))
                line += data.count(b"\n", 0, cut)
            elif len(rest) > _LONGEST_LINE:
                raise table.error(rest, line)
    if rest:
        parts.append(table.parse(rest + b"\n", line))
    return np.concatenate(parts, axis=1) if parts else np.zeros((columns, 0), dtype)


def line_of_row(path: Path, row: int) -> int:
    """Returns the line number, from 1 on, of a row of the table: empty lines are not rows.

    Args:
        path: The file that `read_int_table` read.
        row: Number of the row, from 0 on.

    Returns:
        The line number, an int.

    Raises:
        IndexError: If the file has fewer rows.

    Example:
    >>> label = keras_sphereface.data.ijb.read_int_table("template_pairs.txt", columns=3)[2]
    >>> keras_sphereface.data.ijb.line_of_row("template_pairs.txt", label.argmax())  # where the first mated pair is
    """
    with open(path, "rb") as file:
        for line, text in enumerate(file, 1):
            row -= bool(text.strip())
            if row < 0:
                return line
    raise IndexError(f"{path} has fewer rows")


class _Table(NamedTuple):
    """What the lines of a file are to hold."""

    path: Path
    columns: int
    dtype: type
    advice: str

    def parse(self, data, first_line):
        """Parses whole lines, all at once."""
        text = np.frombuffer(data, np.uint8)
        kinds = np.frombuffer(data.translate(_KINDS), np.uint8)
        digit = np.concatenate([[False], kinds == _DIGIT])
        edges = np.flatnonzero(digit[1:] != digit[:-1])
        starts, ends = edges[::2], edges[1::2]
        before = np.searchsorted(starts, np.flatnonzero(kinds == _NEWLINE))
        per_line = np.diff(before, prepend=0)
        odd = (per_line != self.columns) & (per_line != 0)
        if not kinds.all() or (ends - starts).max(initial=0) > MAX_DIGITS[self.dtype] or odd.any():
            raise self.error(data, first_line)
        tokens = ((starts[column :: self.columns], ends[column :: self.columns]) for column in range(self.columns))
        return np.stack([_values(text, *column, self.dtype) for column in tokens])

    def error(self, data, first_line):
        """What is wrong with lines that cannot be parsed."""
        digits = MAX_DIGITS[self.dtype]
        for number, line in enumerate(data.split(b"\n"), first_line):
            tokens = line.split()
            if tokens and (len(tokens) != self.columns or not all(t.isdigit() and len(t) <= digits for t in tokens)):
                return FileFormatError(
                    f"{self.path}, line {number}: expected {self.columns} integers of up to {digits} digits, found "
                    f"{line[:80].decode('utf-8', 'replace')!r}. {self.advice}"
                )
        return FileFormatError(f"{self.path}: not a text file of {self.columns} integers per line. {self.advice}")


def _values(text, starts, ends, dtype):
    """The values of runs of digits, from the last digits to the first."""
    widths = ends - starts
    narrowest, widest = widths.min(initial=MAX_DIGITS[dtype]), widths.max(initial=0)
    values, at = np.zeros(len(starts), dtype), ends.copy()
    for place in range(int(widest)):
        at -= 1
        digits = text[at] - np.uint8(ord("0"))
        if place >= narrowest:
            digits *= place < widths  # before a shorter run stands something else
        values += np.multiply(digits, 10**place, dtype=dtype)
    return values
