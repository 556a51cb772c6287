"""What is read off a checkpoint's tensors before there is a network, and how errors name them."""

from collections.abc import Iterable

import numpy as np

from keras_sphereface import errors
from keras_sphereface.hints import Path

# IResNet-200 has 98. Names cost a file next to nothing, a network of 160 units takes Keras beyond Python's stack.
MOST_UNITS = 120
_LISTED = 10  # names that an error message lists before it only counts
_LONGEST_NAME = 200  # letters; a file may hold anything as a name


def shape_of(tensors: dict[str, np.ndarray], name: str, rank: int, path: Path) -> tuple[int, ...]:
    """Returns the shape of a tensor that a network's sizes are read from.

    Args:
        tensors: Tensor names to arrays.
        name: The tensor's.
        rank: Its expected number of axes.
        path: The file, for error messages.

    Raises:
        FileFormatError: If there is no such tensor, or it has another rank, or no numbers.
    """
    if name not in tensors:
        raise errors.FileFormatError(
            f"{path}: missing tensor {name!r}; the file has {len(tensors)} tensors, "
            f"the first are {', '.join(list(tensors)[:3])}. Does the file hold this architecture?"
        )
    shape = tensors[name].shape
    if len(shape) != rank or 0 in shape:
        raise errors.FileFormatError(f"{path}: tensor {name!r} has the shape {shape}, expected {rank} positive sizes.")
    return tuple(int(size) for size in shape)


def check_units(count: int, path: Path) -> None:
    """Refuses a file, with `FileFormatError`, whose names are those of more residual units than any network has."""
    if count > MOST_UNITS:
        raise errors.FileFormatError(
            f"{path}: the tensors' names are those of {count} residual units, expected at most {MOST_UNITS}. "
            "Do not use this file."
        )


def listing(names: Iterable[str]) -> str:
    """Joins names for an error message, the first ten and the number of the others."""
    names = sorted(names)
    rest = len(names) - _LISTED
    return ", ".join(map(_short, names[:_LISTED])) + (f" and {rest} more" if rest > 0 else "")


def _short(name):
    text = errors.one_line(name) if name.strip() else repr(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."
