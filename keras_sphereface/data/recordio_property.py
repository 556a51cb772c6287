"""InsightFace's file `property`, beside the .rec files of a folder: "num_classes,height,width"."""

import os
import pathlib

from keras_sphereface.data.loader import MAX_CLASSES
from keras_sphereface.errors import FileFormatError
from keras_sphereface.files import atomic_writer

PROPERTY = "property"  # one file for all of a folder
MAX_SIDE = 4096  # pixels of a face crop's height and width; what says more is another file


def read_property(path):
    """Reads InsightFace's `property` file, "num_classes,height,width".

    Args:
        path: Path of the file.

    Returns:
        `(num_classes, (height, width))`, each `None` where there is no file or the file says 0.

    Raises:
        FileFormatError: If the file is something else.
    """
    if not os.path.exists(path):
        return None, None
    with open(path, "rb") as file:
        text = file.read(256).decode("latin-1").strip()
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise FileFormatError(
            f'{path}: expected "num_classes,height,width", found {text[:64]!r}. Correct or delete it.'
        )
    classes, height, width = (int(part) for part in parts)
    if classes > MAX_CLASSES:
        raise FileFormatError(f"{path}: {classes} classes, expected at most {MAX_CLASSES}. Correct or delete it.")
    if max(height, width) > MAX_SIDE:
        raise FileFormatError(f"{path}: images of {height} x {width} are no face crops. Correct or delete it.")
    return classes or None, (height, width) if height and width else None


def write_property(folder, num_classes, image_size):
    """Writes InsightFace's `property` file, "num_classes,height,width"."""
    with atomic_writer(pathlib.Path(folder, PROPERTY)) as file:
        file.write(_property(num_classes, image_size))


def check_property(path, num_classes, image_size):
    """Refuses a new .rec file whose `property` no reader would take, or would be a wrong one for others in its folder.

    Raises:
        ValueError: If there are too many classes or the images are too large for `read_property`, or another .rec, which
            shares the file, lies beside `path`, and `write_property` would change what is said of it.
    """
    if num_classes > MAX_CLASSES:
        raise ValueError(f"`num_classes` must be at most {MAX_CLASSES}. Received: num_classes={num_classes}")
    if max(image_size) > MAX_SIDE:
        raise ValueError(
            f"A face crop has at most {MAX_SIDE} pixels in height and width. Received: image_size={tuple(image_size)}"
        )
    path, text = pathlib.Path(path), _property(num_classes, image_size)
    others = sorted(other.name for other in path.parent.glob("*.rec") if other.name != path.name)
    kept = path.with_name(PROPERTY)
    if others and not (kept.is_file() and kept.read_bytes().strip() == text):
        raise ValueError(
            f"{path}: would change the folder's `{PROPERTY}`, by which {others[0]} is read as well, to {text.decode()}. "
            "Choose another folder"
        )


def _property(num_classes, image_size):
    height, width = image_size
    return f"{num_classes},{height},{width}".encode("ascii")
