"""Fast reading of text files that hold a fixed number of non-negative integers per line."""

import codecs

import numpy as np

from keras_sphereface.errors import FileFormatError
from keras_sphereface.hints import Path

# Bytes parsed at a time; the work arrays take some 20 times as much.
CHUNK_BYTES = 1 << 22

# int32 holds every number of nine digits.
MAX_DIGITS = 9

_DIGIT, _SPACE, _NEWLINE = 1, 2, 3
_KINDS = np.zeros(256, np.uint8)
_KINDS[np.frombuffer(b"0123456789", np.uint8)] = _DIGIT
_KINDS[np.frombuffer(b" \t\r", np.uint8)] = _SPACE
_KINDS[ord("\n")] = _NEWLINE


def read_int_table(path: Path, columns: int, chunk_bytes: int = CHUNK_BYTES) -> np.ndarray:
    """Reads lines of `columns` non-negative integers, separated by spaces or tabs; empty lines are skipped.

    Args:
        path: The file.
        columns: Integers per line.
        chunk_bytes: Bytes parsed at a time. Defaults to 4 MB.

    Returns:
        `(columns, lines)` int32.

    Raises:
        FileFormatError: If a line holds something else, naming the line.
        FileNotFoundError: If there is no such file.

    Example:
    >>> left, right, label = keras_sphereface.data.ijb.read_int_table("IJBC/meta/ijbc_template_pair_label.txt", columns=3)
    """
    parts, line, rest = [], 1, b""
    with open(path, "rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        while data := file.read(chunk_bytes):
            data = rest + data
            cut = data.rfind(b"\n") + 1
            rest = data[cut:]
            if cut:
                parts.append(_parse(data[:cut], columns, path, line))
                line += data.count(b"\n", 0, cut)
    if rest:
        parts.append(_parse(rest + b"\n", columns, path, line))
    return np.concatenate(parts, axis=1) if parts else np.zeros((columns, 0), np.int32)


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


def _parse(data, columns, path, first_line):
    """Parses whole lines: every token's value is built digit by digit, for all tokens at once."""
    text = np.frombuffer(data, np.uint8)
    kinds = _KINDS[text]
    edges = np.flatnonzero(np.diff((kinds == _DIGIT).view(np.int8), prepend=0))
    starts, stops = edges[::2], edges[1::2]
    lengths = stops - starts
    before = np.searchsorted(starts, np.flatnonzero(kinds == _NEWLINE))
    per_line = np.diff(before, prepend=0)
    if not kinds.all() or lengths.max(initial=0) > MAX_DIGITS or ((per_line != columns) & (per_line != 0)).any():
        _raise_for_line(data, columns, path, first_line)
    values = np.zeros(len(starts), np.int32)
    for digit in range(int(lengths.max(initial=0))):
        longer = lengths > digit
        values = np.where(longer, values * 10 + text[np.where(longer, starts + digit, 0)] - 48, values)
    return np.ascontiguousarray(values.astype(np.int32).reshape(-1, columns).T)


def _raise_for_line(data, columns, path, first_line):
    for number, line in enumerate(data.split(b"\n"), first_line):
        tokens = line.split()
        if tokens and (len(tokens) != columns or not all(t.isdigit() and len(t) <= MAX_DIGITS for t in tokens)):
            shown = line[:80].decode("utf-8", "replace")
            raise FileFormatError(
                f"{path}, line {number}: expected {columns} integers of up to {MAX_DIGITS} digits, found {shown!r}. "
                f"Correct the line, or take the file from the original archive again"
            )
    raise FileFormatError(
        f"{path}: not a text file of {columns} integers per line. Take it from the original archive again"
    )
