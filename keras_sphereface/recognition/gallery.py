"""A gallery of known people in one SQLite file: names and embeddings, no pictures.

SQLite writes a change whole or not at all, and lets several programs use the file at once.
"""

import contextlib
import os
import sqlite3
import threading
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from keras_sphereface.errors import FileFormatError, shown
from keras_sphereface.evaluation.embeddings import check_embeddings
from keras_sphereface.files import check_output
from keras_sphereface.hints import Path

APPLICATION_ID = 0x4B534647  # "KSFG", in the file's header
FORMAT = 1
WAIT = 30.0  # seconds for another program that is writing
MAX_NAME = 200
_JOINERS = "\u200c\u200d"  # invisible parts of Persian and Indian names
_BYTES = 4  # of a float32
_UNIT_TOLERANCE = 1e-3
_NO_TEXT = "Could not decode to UTF-8"  # what sqlite3 says of a damaged name, in an error as of a file that is held
# Two models are one where their embeddings of the same pictures have this cosine: a file exported in float32 or float16
# passes, another training run does not.
SAME_MODEL = 0.999

_SCHEMA = """
CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE faces (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, digest BLOB NOT NULL UNIQUE, embedding BLOB NOT NULL
);
CREATE INDEX faces_by_name ON faces (name);
"""
_COUNTS = {"revision", "removals"}


class Gallery:
    """Names, embeddings and checksums of crops. Several threads may use one object, several programs one file.

    Args:
        path: The file; made if absent, when the first face is added. Defaults to `None`: in memory only.

    Raises:
        ValueError: If the path is empty.
        FileFormatError: If the file is something else.
        OSError: If it cannot be opened, or could not be made.

    Example:
    >>> with Gallery() as gallery:
    ...     gallery.add("Ann", [b"checksum of the crop"], np.float32([[0.6, 0.8]]))
    ...     gallery.people()
    (1, 0)
    {'Ann': 1}
    """

    def __init__(self, path: Path | None = None):
        self.path = ":memory:" if path is None else os.fspath(path)
        if not self.path:  # for SQLite a file that is gone at the end
            raise ValueError("Expected the path of a gallery's file, or None for one in memory. Received: path=''")
        self._file = None if path is None else os.path.abspath(self.path)  # wherever the program goes before it is made
        self._lock, self._is_absent = threading.RLock(), False
        is_absent = path is not None and not os.path.exists(path)
        if is_absent:
            check_output(path)
        self._open(":memory:" if is_absent or path is None else self._file)
        self._is_absent = is_absent

    def _open(self, path):
        try:
            self._connection = sqlite3.connect(path, WAIT, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            why = "it is a folder" if os.path.isdir(self.path) else error
            raise OSError(f"{self.path}: cannot be opened as a gallery ({why}). Give a file's path") from error
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _open_file(self):
        """Leaves the empty gallery in memory that stands for an absent file, so that nobody finds an empty one."""
        stand_in, self._is_absent = self._connection, False
        try:
            self._open(self._file)
        except BaseException:
            self._connection, self._is_absent = stand_in, True
            raise
        stand_in.close()

    def _prepare(self):
        self._connection.execute("PRAGMA secure_delete = ON")  # what was removed is overwritten in the file
        with self._transaction() as run:
            found = _identity(run)
        if found == (0, 0, 0):
            with self._transaction("IMMEDIATE") as run:
                if _identity(run) == (0, 0, 0):
                    for statement in _statements():
                        run(statement)
                    run("INSERT INTO state VALUES ('revision', 0), ('removals', 0)")
                    run(f"PRAGMA application_id = {APPLICATION_ID}")
                    run(f"PRAGMA user_version = {FORMAT}")
                found = _identity(run)
        if found[:2] != (APPLICATION_ID, FORMAT):
            raise FileFormatError(
                f"{self.path}: not a gallery of this version of keras_sphereface. Choose another file"
            )
        with self._transaction() as run:
            # A view or a trigger in its place is a program of somebody else's.
            if sorted(map(_words, _made(run))) != sorted(map(_words, _statements())):
                raise self._damaged()
            kept = dict(run("SELECT key, value FROM state"))
        fingerprint = kept.get("fingerprint", b"")
        is_sound = isinstance(fingerprint, bytes) and len(fingerprint) % _BYTES == 0
        if not (is_sound and all(type(kept.get(key)) is int for key in _COUNTS)):
            raise self._damaged()

    def _check_names(self, names):
        # SQLite keeps bytes as well in a column of texts.
        if not all(isinstance(name, str) and _can_be_printed(name) for name in names):
            raise self._damaged()

    def _damaged(self):
        return FileFormatError(f"{self.path}: a damaged gallery. Restore the file, or enroll into a new one")

    @contextlib.contextmanager
    def _transaction(self, kind="DEFERRED"):
        """Gives the function that runs SQL; what it changes is written whole at the end, or not at all.

        Args:
            kind: `"DEFERRED"` to read; `"IMMEDIATE"` to write: nobody else writes between its reading and its writing.
        """
        with self._lock:
            if self._is_absent and (kind == "IMMEDIATE" or os.path.exists(self._file)):
                self._open_file()
            try:
                self._connection.execute(f"BEGIN {kind}")
                try:
                    yield self._connection.execute
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:  # on a full disk SQLite has done it by itself
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.ProgrammingError as error:
                raise ValueError(f"{self.path}: this gallery is closed. Open it again: Gallery(path)") from error
            except sqlite3.OperationalError as error:
                if _NO_TEXT in str(error):
                    raise self._damaged() from error
                raise OSError(
                    f"{self.path}: {error}. Check that the file can be written and nobody holds it"
                ) from error
            except sqlite3.DatabaseError as error:
                raise FileFormatError(f"{self.path}: not a gallery ({error}). Choose another file") from error
            except UnicodeDecodeError as error:  # of SQLite's own words on a damaged file
                raise self._damaged() from error

    def bind(self, fingerprint: ArrayLike) -> None:
        """Ties the gallery to a model, or checks that it is the one it is tied to.

        Args:
            fingerprint: `(k, d)` embeddings of fixed pictures by the model.

        Raises:
            ValueError: If the gallery was made with another model.
        """
        fingerprint = np.ascontiguousarray(fingerprint, "<f4")
        kept = self._fingerprint()
        if kept is None:
            with self._transaction("IMMEDIATE") as run:
                run("INSERT OR IGNORE INTO state VALUES ('fingerprint', ?)", (fingerprint.tobytes(),))
            kept = self._fingerprint()
        same = kept.size == fingerprint.size and np.all(
            np.sum(kept.reshape(fingerprint.shape) * fingerprint, axis=1) >= SAME_MODEL
        )
        if not same:
            raise ValueError(
                f"{self.path}: was made with another model (or another flip), whose embeddings cannot be compared with this "
                "one's. Load that model, or enroll everybody into a new gallery"
            )

    def is_bound(self) -> bool:
        """Whether the gallery is tied to a model."""
        return self._fingerprint() is not None

    def _fingerprint(self):
        with self._transaction() as run:
            row = run("SELECT value FROM state WHERE key = 'fingerprint'").fetchone()
        return None if row is None else np.frombuffer(row[0], "<f4")

    def add(self, name: str, digests: Sequence[bytes], embeddings: ArrayLike) -> tuple[int, int]:
        """Adds faces of one person.

        Args:
            name: The person.
            digests: `n` checksums (`bytes`) of the crops.
            embeddings: `(n, d)` float32 of unit length.

        Returns:
            `(added, duplicates)`; a face that the person has already is passed over.

        Raises:
            ValueError: If the name is no name, a digest is not `bytes`, the embeddings are not `n` of the gallery's length
                or not of unit length, or a face is enrolled under another name; then none is added.
        """
        name, added = check_name(name), 0
        if wrong := [digest for digest in digests if not isinstance(digest, bytes)]:
            raise ValueError(f"Expected digests as bytes. Received: {shown(wrong[0])} among digests")
        with self._transaction("IMMEDIATE") as run:
            kept = run("SELECT length(embedding) FROM faces LIMIT 1").fetchone()
            embeddings = check_embeddings(embeddings, width=kept and kept[0] // _BYTES)
            if len(embeddings) != len(digests):
                raise ValueError(
                    f"Expected as many digests as embeddings. Received: {len(digests)} and {len(embeddings)}"
                )
            if not (is_unit := _is_unit(embeddings)).all():
                length = np.linalg.norm(embeddings[~is_unit][0])
                raise ValueError(
                    f"Expected embeddings of unit length. Received: one of length {length:.4g}. Divide each by its length"
                )
            for number, (digest, embedding) in enumerate(zip(digests, embeddings.astype("<f4")), 1):
                owner = run("SELECT name FROM faces WHERE digest = ?", (digest,)).fetchone()
                if owner is None:
                    values = (name, digest, embedding.tobytes())
                    run("INSERT INTO faces (name, digest, embedding) VALUES (?, ?, ?)", values)
                    added += 1
                elif owner[0] != name:
                    which = f"Picture {number} of {len(digests)}" if len(digests) > 1 else "This picture"
                    raise ValueError(
                        f"{which} is enrolled as {owner[0]!r} already. Received: name={name!r}. "
                        f"Remove {owner[0]!r} first, or use the same name"
                    )
            if added:
                run("UPDATE state SET value = value + 1 WHERE key = 'revision'")
        return added, len(embeddings) - added

    def remove(self, name: str) -> int:
        """Removes a person.

        Returns:
            Number of faces that were removed.

        Raises:
            ValueError: If nobody has this name.
        """
        with self._transaction("IMMEDIATE") as run:
            names = (name, check_name(name))  # as it is kept, or as it was in a gallery that knew no composed form
            count = run("DELETE FROM faces WHERE name IN (?, ?)", names).rowcount
            if not count:
                raise ValueError(f"{self.path}: nobody is enrolled under this name. Received: name={name!r}")
            run("UPDATE state SET value = value + 1 WHERE key IN ('revision', 'removals')")
        return count

    def people(self) -> dict[str, int]:
        """Dictionary from name to number of faces, by name."""
        with self._transaction() as run:
            people = dict(run("SELECT name, count(*) FROM faces GROUP BY name ORDER BY name").fetchall())
        self._check_names(people)
        return people

    def count(self, name: str) -> int:
        """Number of a person's faces, 0 if nobody has this name."""
        with self._transaction() as run:
            return run("SELECT count(*) FROM faces WHERE name = ?", (check_name(name),)).fetchone()[0]

    def state(self) -> tuple[int, int]:
        """`(revision, removals)`: counts of changes, and of those that removed."""
        with self._transaction() as run:
            rows = dict(run("SELECT key, value FROM state WHERE key IN ('revision', 'removals')").fetchall())
        if rows.keys() != _COUNTS:
            raise self._damaged()
        return rows["revision"], rows["removals"]

    def faces_after(self, last_id: int = 0) -> tuple[list[int], list[str], np.ndarray]:
        """Reads the faces that were added after one.

        Args:
            last_id: Number of the last known face. Defaults to `0`: all faces.

        Returns:
            `(ids, names, embeddings)`: list, list, `(n, d)` float32; `(0, 0)` where there is none.

        Raises:
            FileFormatError: If an embedding is none: damaged, of another length, not finite or not of unit length.
        """
        with self._transaction() as run:
            rows = run("SELECT id, name, embedding FROM faces WHERE id > ? ORDER BY id", (last_id,)).fetchall()
        if not rows:
            return [], [], np.empty((0, 0), np.float32)
        ids, names, blobs = map(list, zip(*rows))
        self._check_names(names)
        size = len(blobs[0]) if isinstance(blobs[0], bytes) else 0
        is_sound = np.array(
            [isinstance(blob, bytes) and len(blob) == size > 0 and size % _BYTES == 0 for blob in blobs]
        )
        if is_sound.all():
            embeddings = np.frombuffer(b"".join(blobs), "<f4").reshape(len(rows), -1)
            is_sound = _is_unit(embeddings)
        if not is_sound.all():
            place = int(np.flatnonzero(~is_sound)[0])
            raise FileFormatError(
                f"{self.path}: a face of {names[place]!r} (number {ids[place]}) is damaged. Remove this person and enroll "
                "again, or restore the file"
            )
        return ids, names, embeddings

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._is_absent = False
            self._connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _identity(run):
    """Application, format and number of tables of the open file: all zero for a new one."""
    pragmas = [run(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    return (*pragmas, run("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _statements():
    """The statements that make a gallery's tables and index."""
    return filter(str.strip, _SCHEMA.split(";"))


def _made(run):
    """The statements that made what is in the open file; what SQLite makes by itself has none, or a name of its own."""
    return [sql for (sql,) in run("SELECT sql FROM sqlite_master WHERE sql NOT NULL AND name != 'sqlite_sequence'")]


def _words(statement):
    return str(statement).split()


def _is_unit(embeddings):
    with np.errstate(over="ignore", invalid="ignore"):
        return np.abs(np.linalg.norm(embeddings, axis=1) - 1) < _UNIT_TOLERANCE


def check_name(name: str) -> str:
    """Returns a person's name without blanks around it, in Unicode's composed form: é is one letter, however it is typed.

    Raises:
        ValueError: If it is empty, too long, or has characters that cannot be printed.
    """
    text = unicodedata.normalize("NFC", name.strip()) if isinstance(name, str) else ""
    if not text.strip(_JOINERS) or len(text) > MAX_NAME or not _can_be_printed(text):
        raise ValueError(f"Expected a name of 1 to {MAX_NAME} printable characters. Received: name={name!r}")
    return text


def _can_be_printed(text):
    return all(letter.isprintable() or letter in _JOINERS for letter in text)
