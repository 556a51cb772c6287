"""Folders of images, one folder per identity."""

import logging
import os
from typing import NamedTuple

import numpy as np

from keras_sphereface.arguments import whole_number
from keras_sphereface.errors import FileFormatError
from keras_sphereface.hints import Path

log = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".heic", ".heif", ".avif")
_NAMED_AT_MOST = 5


class FaceFolder(NamedTuple):
    """The images under a folder: `names` relative to `root`, `labels` (int32), and the identities' `class_names`.

    `empty` are the folders that hold no image at all, and so no label.
    """

    root: str
    names: list
    labels: np.ndarray
    class_names: list
    empty: list = ()


def list_folder(root: Path, min_images: int = 1) -> FaceFolder:
    """Lists the images of a folder that holds one folder per identity.

    Identities and images are sorted by name, so the labels are the same on every machine. Hidden files and files that
    are no images are left out; an identity folder with too few images gets no label and is named in the log.

    Args:
        root: Path of the folder.
        min_images: Fewest images of an identity that is kept. Defaults to 1.

    Returns:
        A `FaceFolder`.

    Raises:
        FileFormatError: If no identity is left.
        FileNotFoundError: If there is no such folder.
        OSError: If it or a folder in it cannot be read.
    """
    whole_number("min_images", min_images, 0)
    root, names, labels, class_names, left_out, empty = os.fspath(root), [], [], [], [], []
    for identity in sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != "."):
        files = images_under(os.path.join(root, identity))
        if not files:
            empty.append(identity)
            continue
        if len(files) < min_images:
            left_out.append(identity)
            continue
        labels.append(np.full(len(files), len(class_names), np.int32))
        names += [os.path.join(identity, name) for name in files]
        class_names.append(identity)
    for folders, reason in ((empty, "without images"), (left_out, f"with fewer than {min_images} images")):
        if folders:
            some = ", ".join(folders[:_NAMED_AT_MOST]) + (", ..." if len(folders) > _NAMED_AT_MOST else "")
            log.warning("%s: %d folders %s left out: %s", root, len(folders), reason, some)
    if not names:
        raise FileFormatError(
            f"{root}: no identity with {'an image' if min_images <= 1 else f'at least {min_images} images'}. "
            "Expected one folder per identity, with images in it."
        )
    return FaceFolder(root, names, np.concatenate(labels), class_names, empty)


def images_under(folder):
    """Names of all images inside a folder and its folders, relative to it, sorted; hidden ones are left out."""
    found = []
    for place, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if name[0] != "."]
        inside = os.path.relpath(place, folder)
        for name in files:
            if name[0] != "." and name.lower().endswith(EXTENSIONS):
                found.append(name if inside == "." else os.path.join(inside, name))
    return sorted(found)


def _raise(error):
    """A folder that cannot be read is an error: left out, it would change the labels of those behind it."""
    raise error
