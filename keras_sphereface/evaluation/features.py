"""Features of many images in one HDF5 file, written block by block, so that a killed extraction goes on where it was.

All space is allocated when the file is made; afterwards only feature rows and one counter are overwritten in place, and
HDF5's own structure is never touched again. The counter is raised after its rows are on disk. A kill at any moment
leaves a readable file whose counted rows are complete.
"""

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence

import h5py
import numpy as np
from tqdm import tqdm

from keras_sphereface.errors import FileFormatError
from keras_sphereface.evaluation.embeddings import check_embeddings
from keras_sphereface.files import draft
from keras_sphereface.hints import Path
from keras_sphereface.weights_file import check_hdf5

FORMAT = "keras_sphereface features 1"
PATIENCE = 5.0  # seconds for another program that has the file open, which is but a block's writing


def names_digest(names):
    """Returns the sha256 of a list of image names, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(str(name).encode() + b"\n")
    return digest.hexdigest()


def extract(
    embed: Callable[[np.ndarray], np.ndarray],
    image_blocks: Callable[[int], Iterable[np.ndarray]],
    path: Path,
    names: Sequence[str],
    model_signature: str,
    flip: bool = True,
    progress: bool = True,
    crops: str = "",
) -> Path:
    """Computes the features of images into an HDF5 file; called again after a kill, goes on where it was.

    The file holds `features` `(n, d)` float32 and, with `flip`, `flipped_features` of the mirror images. It records the
    sha256 of the image names and the model's signature: a file made from other images or other crops of them, by another
    model or with another `flip` is refused.

    Args:
        embed: Function from uint8 images `(k, h, w, 3)` to features `(k, d)`, e.g. `model.predict`.
        image_blocks: Function from a row number to an iterator of uint8 blocks of images from that row on, e.g.
            `lambda start: images.batches(256, start)`.
        path: The file. Made if it is not there.
        names: Names of all images, in order.
        model_signature: Text that changes when the model does, e.g. its weights' sha256.
        flip: Whether to embed mirror images, too. Defaults to `True`.
        progress: Whether to show a progress bar, on a terminal only. Defaults to `True`.
        crops: Text that changes when images of the same names do, e.g. the landmarks' sha256 and the crops' size.
            Defaults to `""`.

    Returns:
        `path`.

    Raises:
        FileFormatError: If the file there is not a feature file, is damaged, or belongs to another run.
        BlockingIOError: If another program is extracting into it.
        ValueError: If features hold NaN, change their width, or there are more or fewer images than names.

    Example:
    >>> meta = keras_sphereface.data.read_ijb("IJBC", "ijbc")
    >>> images = keras_sphereface.data.IJBImages(meta, "IJBC")
    >>> keras_sphereface.evaluation.extract(
    ...     model.predict_on_batch, lambda start: images.batches(64, start), "features.h5", meta.image_names, "sfnet20 v1"
    ... )
    'features.h5'
    """
    head = {
        "format": FORMAT,
        "images_sha256": names_digest(names),
        "model_signature": str(model_signature),
        "flip": bool(flip),
        "crops": str(crops),
    }
    start = 0
    if os.path.exists(path):
        with _open(path) as file:
            _check_head(file, path, head, len(names))
            start = _valid_rows(file, path)
    bar = tqdm(total=len(names), initial=start, desc="features", unit="image", disable=None if progress else True)
    with bar:
        for images in image_blocks(start) if start < len(names) else ():
            if start + len(images) > len(names):
                raise ValueError(f"More images than names. Received: {start + len(images)} images, {len(names)} names")
            blocks = {"features": _embed(embed, images, names, start)}
            if flip:
                blocks["flipped_features"] = _embed(embed, images[:, :, ::-1], names, start)
            if not os.path.exists(path):
                _create(path, head, len(names), blocks)
            _write(path, start, blocks)
            start += len(images)
            bar.update(len(images))
    if start < len(names):
        raise ValueError(f"Fewer images than names. Received: {start} images, {len(names)} names")
    return path


def open_features(path: Path, names: Sequence[str] | None = None, model_signature: str | None = None) -> "h5py.File":
    """Opens a complete feature file for reading.

    Args:
        path: The file.
        names: Image names that it must have been made from. Defaults to `None`: not checked.
        model_signature: Signature that it must carry. Defaults to `None`: not checked.

    Returns:
        An `h5py.File`, to use in a `with` statement; `file["features"]` is streamed by `ijb` without being read whole.

    Raises:
        FileFormatError: If the file is not a feature file, is damaged, incomplete, or does not match.
        FileNotFoundError: If there is no such file.
        BlockingIOError: If another program is writing it.

    Example:
    >>> with keras_sphereface.evaluation.open_features("features.h5") as file:
    ...     features = file["features"][:]  # (n, d) float32
    """
    file = _open(path)
    try:
        head = {"format": FORMAT}
        if names is not None:
            head["images_sha256"] = names_digest(names)
        if model_signature is not None:
            head["model_signature"] = str(model_signature)
        total = file["features"].shape[0]
        _check_head(file, path, head, total if names is None else len(names))
        if (valid := _valid_rows(file, path)) < total:
            raise FileFormatError(
                f"{path}: holds {valid} of {total} rows: the extraction was stopped. "
                f"Run it again with the same arguments to go on"
            )
    except BaseException:
        file.close()
        raise
    return file


def _open(path):
    if not os.path.exists(path):
        raise FileNotFoundError(f"No feature file {path!r}. Make it with keras_sphereface.evaluation.features.extract")
    try:
        file = _opened(path, "r")
    except BlockingIOError:
        raise
    except OSError as error:
        raise FileFormatError(
            f"{path}: not a whole HDF5 file ({error}). Choose another path; delete it if it is a broken feature file"
        ) from error
    try:
        if not _is_sound(file):
            raise FileFormatError(f"{path}: not a feature file of this package. Choose another path")
        check_hdf5(path)
    except BaseException:
        file.close()
        raise
    return file


def _opened(path, mode):
    """`h5py.File`, which waits for its turn: HDF5 locks a file while somebody writes it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return h5py.File(path, mode)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise _shared(path) from error
            time.sleep(0.05)


def _shared(path):
    return BlockingIOError(
        errno.EAGAIN,
        "another program is writing this feature file. Wait for its end, or choose another path",
        os.fspath(path),
    )


def _is_sound(file):
    """Whether an HDF5 file has the parts of a feature file, in their shapes."""
    features, valid = file.get("features"), file.get("valid_rows")
    if not all(isinstance(part, h5py.Dataset) for part in (features, valid)) or "format" not in file.attrs:
        return False
    is_count = valid.shape == (1,) and valid.dtype.kind in "iu"
    tables = [features, file.get("flipped_features", features)]
    return is_count and all(
        isinstance(table, h5py.Dataset) and len(table.shape) == 2 and table.dtype.kind == "f" for table in tables
    )


def _check_head(file, path, head, count):
    for key, expected in head.items():
        if not np.array_equal(found := file.attrs.get(key, ""), expected):
            raise FileFormatError(
                f"{path}: made with {key}={found}, now {key}={expected}. Choose another path, or delete the file"
            )
    for name in {"features", "flipped_features"} & set(file):
        if file[name].shape[0] != count:
            raise FileFormatError(
                f"{path}: {name} has {file[name].shape[0]} rows for {count} images. Choose another path, or delete the file"
            )


def _valid_rows(file, path):
    """How many rows are complete, as the file's counter says."""
    valid, total = int(file["valid_rows"][0]), file["features"].shape[0]
    if not 0 <= valid <= total:
        raise FileFormatError(f"{path}: claims {valid} of {total} rows: it is damaged. Delete the file")
    return valid


def _embed(embed, images, names, start):
    features = np.asarray(embed(images), np.float32)
    if features.ndim != 2 or len(features) != len(images):
        raise ValueError(f"Expected features of shape ({len(images)}, d). Received: features.shape={features.shape}")
    return check_embeddings(features, names[start : start + len(images)], first_row=start)


def _create(path, head, count, blocks):
    """Makes the file with all its space elsewhere first: at `path` it is always complete in structure."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with draft(path) as unfinished, h5py.File(unfinished, "w", libver="earliest") as file:
        file.attrs.update(head)
        for name, rows in blocks.items():
            file.create_dataset(name, (count, rows.shape[1]), np.float32, dcpl=plan)
        file.create_dataset("valid_rows", data=np.zeros(1, np.int64))


def _write(path, start, blocks):
    with _opened(path, "r+") as file:
        if _valid_rows(file, path) != start:  # else rows that nobody wrote would be counted
            raise _shared(path)
        for name, rows in blocks.items():
            if rows.shape[1] != file[name].shape[1]:
                raise ValueError(
                    f"The model's width differs from the file's: the file is another model's. "
                    f"Received: {rows.shape[1]} for {file[name].shape[1]} in {path}"
                )
            file[name][start : start + len(rows)] = rows
        _to_disk(file, path)
        file["valid_rows"][0] = start + len(rows)
        _to_disk(file, path)


def _to_disk(file, path):
    file.flush()
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
