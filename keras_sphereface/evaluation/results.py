"""What results of several numbers share: a printed table, plain values, a JSON file."""

import dataclasses
from typing import Any

from keras_sphereface.evaluation.report import save_json, table
from keras_sphereface.hints import Path


class Result:
    """Base of dataclasses of measured numbers that have a `name`, a `signature`, `rows()` and perhaps `notes`.

    `str(result)` is a table, `result["rank_rates"]` is `result.rank_rates`, `to_dict` and `save` give plain values.
    """

    notes = ()  # what a reader has to know about the numbers

    def rows(self) -> list[tuple[str, str]]:
        """Returns the table's rows: a label and a text each."""
        raise NotImplementedError

    def __getitem__(self, name):
        return getattr(self, name)

    def __str__(self):
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([self.name, table(self.rows()), *notes, self.signature])

    def to_dict(self) -> dict:
        """Returns everything as plain values for JSON; a rate or a count that is a key becomes a text like `"0.001"`."""
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def save(self, path: Path) -> None:
        """Saves the result as JSON; an interrupted save leaves no broken file."""
        save_json(self.to_dict(), path)


def plain(value: Any) -> Any:
    """Returns nested dictionaries, sequences and results as values for JSON."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, dict):
        return {f"{key:g}" if isinstance(key, float) else str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
