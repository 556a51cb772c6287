"""InsightFace's `.bin` pair files (lfw.bin, agedb_30.bin, cfp_fp.bin, ...): reading and writing."""

import hashlib
import os
import pathlib
import pickle

import numpy as np

from keras_sphereface.data.bin_file import BinFile
from keras_sphereface.data.bin_reader import load_bin_pickle
from keras_sphereface.data.bin_values import Blob, LazyArray
from keras_sphereface.data.images import decode_image, encode_jpeg, encode_png
from keras_sphereface.data.pairs import NUM_FOLDS, PairSet, contiguous_folds
from keras_sphereface.errors import FileFormatError
from keras_sphereface.files import atomic_writer
from keras_sphereface.hints import Path

# Protocol 2 is the highest that Python 2 reads, and many of the tools that take these files are of its time.
PICKLE_PROTOCOL = 2
_ENCODERS = {"png": encode_png, "jpeg": encode_jpeg, "array": np.asarray}


def read_bin(path: Path, name: str | None = None, num_folds: int = NUM_FOLDS) -> PairSet:
    """Reads a `.bin` pair file, both kinds: encoded images and arrays.

    Nothing in the file is executed: see `keras_sphereface.data.bin_reader`. Images are decoded when they are asked
    for. Identical images are one unique image. The folds are runs of consecutive pairs, as the tools that use these
    files cut them: 10 runs, where `count % 10` first ones have one pair more.

    An array is an encoded image (uint8 `(n,)` or `(n, 1)`) or pixels in RGB (uint8 `(h, w, 3)` or `(3, h, w)`).

    Args:
        path: Path of the file.
        name: Name of the pair set. Defaults to the file's name without its ending.
        num_folds: Number of folds. Defaults to `10`.

    Returns:
        `PairSet` without identities, which the file does not hold.

    Raises:
        FileFormatError: If the file is truncated, is not such a file, or names a global that it does not need.

    Example:
    >>> lfw = keras_sphereface.data.read_bin("faces_emore/lfw.bin")
    >>> report = keras_sphereface.evaluate(keras_sphereface.load_pretrained(), lfw)
    >>> print(report)
    """
    path = os.fspath(path)
    file = BinFile(path)
    with file.closed_on_error():
        images, mated = _images_and_flags(load_bin_pickle(file), path)
        unique, indices = _unique_images(images, path)
        folds = contiguous_folds(len(mated), num_folds)
    names = [f"{os.path.basename(path)}[{position}]" for position in unique]
    return PairSet(
        lambda index: _decode(images[unique[index]], f"{path}: image {unique[index]}"),
        len(unique),
        indices[0::2],
        indices[1::2],
        mated,
        folds=folds,
        names=names,
        name=pathlib.Path(path).stem if name is None else name,
        protocol="bin",
    )


def write_bin(path: Path, pairs: PairSet, encoding: str = "png") -> None:
    """Writes pairs as a `.bin` file that this and other projects' readers take.

    Args:
        path: Path of the file to write; its folder is made if missing.
        pairs: `PairSet`. Folds, names and identities have no place in the format.
        encoding: `"png"` (no loss), `"jpeg"` (quality 95) or `"array"` (uint8 `(h, w, 3)`). Defaults to `"png"`.

    Raises:
        ValueError: If `encoding` is another word.

    Example:
    >>> pairs = keras_sphereface.data.synthetic_pairs(num_identities=20, num_pairs=100)
    >>> keras_sphereface.data.write_bin("synthetic.bin", pairs)
    >>> len(keras_sphereface.data.read_bin("synthetic.bin"))
    100
    """
    if encoding not in _ENCODERS:
        raise ValueError(f"Expected encoding as one of {sorted(_ENCODERS)}. Received: encoding={encoding!r}")
    encode = _ENCODERS[encoding]
    unique = [encode(pairs.image(index)) for index in range(pairs.num_images)]
    images = [unique[index] for pair in zip(pairs.left, pairs.right) for index in pair]
    pathlib.Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(path) as file:
        pickle.dump((images, [bool(flag) for flag in pairs.mated]), file, protocol=PICKLE_PROTOCOL)


def _images_and_flags(content, path):
    if not isinstance(content, (tuple, list)) or len(content) != 2:
        raise FileFormatError(f"{path}: expected (images, is_same), found {type(content).__name__}. Check the file.")
    images, mated = content[0], _read_flags(content[1], path)
    if not isinstance(images, (list, tuple)) or len(images) != 2 * len(mated):
        kind = "one array" if isinstance(images, LazyArray) else type(images).__name__
        count = len(images) if isinstance(images, (list, tuple)) else f"{kind} for the list of images"
        raise FileFormatError(
            f"{path}: expected two images per pair, {2 * len(mated)} for {len(mated)} pairs, found {count}. "
            "The file was written wrongly; get it again."
        )
    return images, mated


def _read_flags(flags, path):
    if isinstance(flags, LazyArray) and flags.data is not None:
        flags = flags.read().reshape(-1).tolist()
    if not isinstance(flags, (list, tuple)) or not all(isinstance(flag, int) and flag in (0, 1) for flag in flags):
        raise FileFormatError(f"{path}: expected is_same as a list of booleans. Check that it is a pair file.")
    return np.array(flags, dtype=bool)


def _unique_images(images, path):
    """Returns the position of each distinct image and, per image, which distinct one it is."""
    seen, unique, indices = {}, [], np.zeros(len(images), np.int64)
    for position, item in enumerate(images):
        blob = item.data if isinstance(item, LazyArray) else item
        if not isinstance(blob, Blob):
            raise FileFormatError(f"{path}: image {position}: expected bytes or a uint8 array. Get the file again.")
        key = (blob.offset, blob.length) if blob.file is not None else None
        if key not in seen:
            digest = (getattr(item, "shape", None), hashlib.sha256(_content(blob, path, position)).digest())
            seen[key] = seen.setdefault(digest, len(unique))
            if seen[key] == len(unique):
                unique.append(position)
        indices[position] = seen[key]
    return unique, indices


def _content(blob, path, position):
    try:
        return blob.read()
    except UnicodeError as error:
        raise FileFormatError(
            f"{path}: image {position}: its text holds no bytes ({error}). Get the file again."
        ) from None


def _decode(item, label):
    if isinstance(item, Blob):
        return decode_image(item.read(), label)
    try:
        array = item.read()
    except ValueError as error:
        raise FileFormatError(f"{label}: broken array ({error}). Get the file again.") from None
    if array.dtype == np.uint8 and (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
        return decode_image(array.tobytes(), label)
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[-1] == 3:
        return array
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[0] == 3:
        return array.transpose(1, 2, 0)
    raise FileFormatError(
        f"{label}: expected uint8 pixels (h, w, 3) or (3, h, w), or encoded bytes; found shape {array.shape}, "
        f"dtype {array.dtype}. Write the file anew."
    )
