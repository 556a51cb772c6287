"""What results of several numbers share: a printed table, plain values, a JSON file."""

import dataclasses
import json
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_sphereface.files import atomic_writer
from keras_sphereface.hints import Path

LABEL_WIDTH = 26


class Result:
    """Base of dataclasses of measured numbers that have a `name`, a `signature`, `rows()` and perhaps `notes`.

    `str(result)` is a table, `result["rank_rates"]` is `result.rank_rates`, `to_dict` and `save` give plain values.
    """

    notes = ()  # what a reader has to know about the numbers
    _unsaved = ()  # fields that `to_dict` leaves out, e.g. images

    @property
    def _heading(self):
        """The table's first line."""
        return self.name

    def rows(self) -> list[tuple[str, str]]:
        """Returns the table's rows: a label and a text each."""
        raise NotImplementedError

    def __getitem__(self, name):
        return getattr(self, name)

    def __str__(self):
        rows = self.rows()
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([self._heading, *([table(rows)] if rows else []), *notes, self.signature])

    def to_dict(self) -> dict:
        """Returns everything as plain values for JSON; a rate or a count that is a key becomes a text like `"0.001"`."""
        kept = (field.name for field in dataclasses.fields(self) if field.name not in self._unsaved)
        return {name: plain(getattr(self, name)) for name in kept}

    def save(self, path: Path) -> None:
        """Saves the result as JSON; an interrupted save leaves no broken file."""
        save_json(self.to_dict(), path)


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Formats (label, text) rows as lines of one width."""
    width = max([LABEL_WIDTH, *(len(label) for label, _ in rows)])
    return "\n".join(f"{label:<{width}}  {text}".rstrip() for label, text in rows)


def save_json(values: dict, path: Path) -> None:
    """Writes values as JSON, complete or not at all.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON does not know.
    """
    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    os.makedirs(os.path.dirname(os.fspath(path)) or ".", exist_ok=True)
    with atomic_writer(path) as file:
        file.write(text.encode())


def plain(value: Any) -> Any:
    """Returns nested dictionaries, sequences and results as values for JSON; a `NamedTuple` becomes a dictionary."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, dict):
        return {_plain_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _plain_key(key):
    return f"{key:g}" if isinstance(key, float | np.floating) else str(key)
