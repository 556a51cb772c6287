"""Nearest embeddings: exact by one matrix product, or approximate by `usearch`; and of those, the nearest people."""

from typing import TYPE_CHECKING

import numpy as np

from keras_sphereface.errors import require

if TYPE_CHECKING:
    from keras_sphereface.recognition.gallery import Gallery

INDEXES = ("exact", "usearch")


class ExactIndex:
    """Compares with every embedding."""

    def __init__(self):
        self._rows, self._count = None, 0

    def add(self, embeddings: np.ndarray) -> None:
        """Adds `(n, d)` embeddings of unit length behind those that are there; a copy of all makes room for as many more."""
        start, self._count = self._count, self._count + len(embeddings)
        if not start:
            self._rows = embeddings
            return
        if self._count > len(self._rows):
            rows = np.empty((max(self._count, 2 * start), embeddings.shape[1]), embeddings.dtype)
            rows[:start] = self._rows[:start]
            self._rows = rows
        self._rows[start : self._count] = embeddings

    def search(self, query: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Finds the nearest embeddings.

        Args:
            query: `(d,)` of unit length.
            count: How many.

        Returns:
            `(rows, scores)`, best first: numbers of the embeddings in the order of adding, and cosines.
        """
        scores = self._rows[: self._count] @ query
        count = min(count, len(scores))
        rows = np.argpartition(-scores, count - 1)[:count]
        rows = rows[np.lexsort((rows, -scores[rows]))]
        return rows, scores[rows]


class ApproximateIndex:
    """Hierarchical navigable small worlds (arXiv 1603.09320) by `usearch`: for millions; now and then one is missed."""

    def __init__(self):
        self._module, self._index = require("usearch.index", "search"), None

    def add(self, embeddings: np.ndarray) -> None:
        """As `ExactIndex.add`."""
        if self._index is None:
            self._index = self._module.Index(ndim=embeddings.shape[1], metric="ip", dtype="f32")
        self._index.add(
            np.arange(len(self._index), len(self._index) + len(embeddings)), np.ascontiguousarray(embeddings)
        )

    def search(self, query: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """As `ExactIndex.search`."""
        found = self._index.search(query, min(count, len(self._index)))
        return np.asarray(found.keys, np.int64), 1.0 - np.asarray(found.distances, np.float64)


class PeopleIndex:
    """The people of a `Gallery`, kept in memory and brought up to date when the file has changed. Not thread-safe itself.

    Args:
        gallery: The `Gallery`.
        kind: `"exact"` or `"usearch"` (extra `[search]`). Defaults to `"exact"`.

    Raises:
        ValueError: If the kind is unknown.
        MissingDependencyError: If `usearch` is not installed.
    """

    def __init__(self, gallery: "Gallery", kind: str = "exact"):
        if kind not in INDEXES:
            raise ValueError(f"Expected index as one of {INDEXES}. Received: index={kind!r}")
        self.gallery = gallery
        self._make = ExactIndex if kind == "exact" else ApproximateIndex
        self._state = None
        self._clear()

    def _clear(self):
        self._index, self._names, self._people, self._last_id = self._make(), [], set(), 0

    def nearest(self, query: np.ndarray, count: int) -> tuple[list[tuple[str, float]], int]:
        """Finds the nearest people; a person counts by the best of their faces.

        Args:
            query: `(d,)` float32 of unit length.
            count: How many people.

        Returns:
            `(found, num_people)`: list of `(name, score)`, best first; and the number of people in the gallery.
        """
        self.update()
        num_people, faces = len(self._people), 4 * count
        count = min(count, num_people)
        while count:
            rows, scores = self._index.search(query, faces)
            best = {}
            for row, score in zip(rows.tolist(), scores.tolist()):
                best.setdefault(self._names[row], score)
            if len(best) >= count or len(rows) < faces:
                return list(best.items())[:count], num_people
            faces *= 4  # the nearest faces belong to too few people
        return [], num_people

    def update(self) -> None:
        """Reads what has changed in the file.

        Raises:
            FileFormatError: If a face in it is damaged.
        """
        state = self.gallery.state()
        if state == self._state:
            return
        if self._state is None or state[1] != self._state[1]:
            self._clear()
        ids, names, embeddings = self.gallery.faces_after(self._last_id)
        if ids:
            self._index.add(embeddings)
            self._names += names
            self._people.update(names)
            self._last_id = ids[-1]
        self._state = state
