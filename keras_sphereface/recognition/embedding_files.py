"""Embeddings in a file: .npz, .h5 or .csv."""

import csv
import io
import pathlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from keras_sphereface.files import atomic_writer, check_output
from keras_sphereface.hints import Path

SUFFIXES = (".npz", ".h5", ".csv")


def check_path(path: Path) -> pathlib.Path:
    """Returns the path after checking that its ending is one that `write_embeddings` writes, and as `check_output`.

    Raises:
        ValueError: If it has another ending, or is a folder.
        FileNotFoundError: If there is no such folder.
        PermissionError: If nothing can be written there.
    """
    if pathlib.Path(path).suffix not in SUFFIXES:
        raise ValueError(f"Expected a file name ending in {', '.join(SUFFIXES)}. Received: {path}")
    return check_output(path)


def write_embeddings(path: Path, names: Sequence[str], embeddings: ArrayLike) -> None:
    """Writes embeddings with their pictures' names, whole or not at all.

    Args:
        path: File. `.npz` and `.h5` have the arrays `names` (text) and `embeddings` (float32); `.csv` has a header, then a
            name and its numbers on each line, with nine digits, from which float32 comes back exactly.
        names: `n` names. What is no UTF-8 in a file's name stands as an escape in `.h5` and `.csv`.
        embeddings: `(n, d)` float32.

    Raises:
        ValueError: If the ending is another one, or there are not as many names as embeddings.
        FileNotFoundError: If there is no such folder.

    Example:
    >>> photos = ["ann1.jpg", "bob1.jpg"]
    >>> embeddings = keras_sphereface.Recognizer().embed(photos)
    >>> keras_sphereface.recognition.write_embeddings("faces.npz", photos, embeddings)
    >>> np.load("faces.npz")["embeddings"].shape
    """
    path, embeddings = check_path(path), np.asarray(embeddings, np.float32)
    names = [str(name) for name in names]
    if embeddings.ndim != 2 or len(names) != len(embeddings):
        raise ValueError(
            "Expected (n, d) embeddings and n names. "
            f"Received: embeddings.shape={embeddings.shape}, len(names)={len(names)}"
        )
    with atomic_writer(path) as file:
        {".npz": _write_npz, ".h5": _write_hdf5, ".csv": _write_csv}[path.suffix](file, names, embeddings)


def _write_npz(file, names, embeddings):
    np.savez(file, names=np.array(names, dtype=np.str_), embeddings=embeddings)


def _write_hdf5(file, names, embeddings):
    import h5py

    # HDF5 reads back what it writes; the file is open for writing only.
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as hdf5:
        encoded = [name.encode("utf-8", "backslashreplace") for name in names]
        hdf5.create_dataset("names", data=encoded, dtype=h5py.string_dtype())
        hdf5.create_dataset("embeddings", data=embeddings)
    file.write(buffer.getbuffer())


def _write_csv(file, names, embeddings):
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
    rows = csv.writer(text)
    rows.writerow(["name", *(f"e{index}" for index in range(embeddings.shape[1]))])
    rows.writerows([name, *(f"{value:.9g}" for value in row)] for name, row in zip(names, embeddings))
    text.flush()
    text.detach()
