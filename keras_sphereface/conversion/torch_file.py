"""Opens PyTorch's checkpoint files and safetensors files: nothing in them is executed."""

import os
import pickle
import re
import textwrap
import zipfile
from typing import Any

from keras_sphereface import errors
from keras_sphereface.conversion.tensors import listing
from keras_sphereface.hints import Path

# Classes by which Lightning's older versions call its callbacks' states: the file is read with an empty class in the place
# of each.
_STAND_INS = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
)
SAFETENSORS_SUFFIX = ".safetensors"
_REASON_LENGTH = 200  # characters of PyTorch's own error that are passed on
# PyTorch stores its archives unpacked, so their entries are no longer than the file; who packs one anew saves little.
# An archive beyond this is made to fill the memory of whoever opens it.
_MOST_UNPACKED = 4  # bytes of entries per byte of the file
_ZIP_START = b"PK\x03\x04"


def load(path: Path) -> Any:
    """Opens a file of PyTorch's, or of safetensors by its suffix.

    Args:
        path: The file.

    Returns:
        What it holds: PyTorch's tensors in dictionaries and lists, plain values, and nothing else.

    Raises:
        FileFormatError: If it is no such file, holds pickled code, or would fill the memory.
        MissingDependencyError: If PyTorch, or for a `.safetensors` file safetensors, is not installed: extra `[convert]`.
    """
    torch = errors.require("torch", "convert")
    with open(path, "rb"):  # a missing or unreadable file is the operating system's error, not a format's
        pass
    if str(path).lower().endswith(SAFETENSORS_SUFFIX):
        return _load_safetensors(path)
    try:
        _check_archive(path)
        with torch.serialization.safe_globals([_stand_in(name) for name in _STAND_INS]):
            return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever the reader stumbles over, the file is at fault
        raise errors.FileFormatError(
            f"{path}: no PyTorch checkpoint of plain tensors ({_reason(error)}). Expected a state dict; a file that "
            "holds pickled objects is not opened, because they could run code: save `module.state_dict()` instead."
        ) from error


def _stand_in(name):
    """An empty class of this full name."""
    module, _, name = name.rpartition(".")
    return type(name, (), {"__module__": module})


def _load_safetensors(path):
    reader = errors.require("safetensors.torch", "convert")
    safetensors = errors.require("safetensors", "convert")
    try:
        return reader.load_file(path)
    except (safetensors.SafetensorError, ValueError, RuntimeError) as error:
        raise errors.FileFormatError(
            f"{path}: no safetensors file ({errors.one_line(error)}). Get it again."
        ) from error


def _check_archive(path):
    """Refuses, before anything is unpacked, an archive far larger in memory than on disk, and PyTorch's other kind."""
    with open(path, "rb") as file:
        if file.read(len(_ZIP_START)) != _ZIP_START:  # by which PyTorch tells its formats apart, too
            return
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    unpacked, packed = sum(sizes.values()), os.path.getsize(path)
    if unpacked > _MOST_UNPACKED * packed:
        raise ValueError(f"its {packed:,} bytes would unpack to {unpacked:,}, PyTorch's own files are not packed")
    if any(name.endswith("/constants.pkl") for name in sizes):  # PyTorch would warn, and open it another way
        raise ValueError("it is a TorchScript archive, which holds code")
    if not any(name.endswith("/data.pkl") for name in sizes):  # a .keras or .npz file, whose names PyTorch complains of
        raise ValueError(f"it is a ZIP archive of something else, with {listing(sizes)}")


def _reason(error):
    """One line on why PyTorch refused. Its own text on forbidden objects is long and advises to allow them."""
    if isinstance(error, pickle.UnpicklingError):
        name = re.search(r"GLOBAL (\S+)", str(error))
        return f"it refers to {name.group(1)}" if name else "its pickle is damaged or holds more than tensors"
    text = str(error).strip()
    if "weights_only" in text:  # advice to load it unsafely
        old = "legacy .tar" in text
        return "it is a legacy .tar archive, of PyTorch 0.1" if old else "PyTorch does not open it as plain tensors"
    lines = text.splitlines() or [type(error).__name__]
    return textwrap.shorten(lines[0], _REASON_LENGTH, placeholder=" ...")
