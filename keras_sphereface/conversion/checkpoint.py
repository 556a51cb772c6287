"""Reads PyTorch checkpoint files into named NumPy arrays: backbone tensors, head tensors, nothing executed."""

import collections.abc
import dataclasses
import hashlib
import pickle
import re
from collections.abc import Iterable

import numpy as np

from keras_sphereface import errors
from keras_sphereface.hints import Path

# Where the known trainers keep a backbone's and a head's state dict.
BACKBONE_ENTRIES = ("net_state_dict", "state_dict_backbone", "backbone", "state_dict")
HEAD_ENTRIES = ("head", "state_dict_softmax_fc")
# What they keep beside them that is no part of a network: bookkeeping and optimizers.
OTHER_ENTRIES = (
    "epoch",
    "step",
    "global_step",
    "iters",
    "optimizer",
    "scheduler",
    "scaler",
    "state_optimizer",
    "state_lr_scheduler",
)
NESTING_ENTRY = "model"  # OpenSphere's second version: {"model": {"backbone": ..., "head": ...}, "step": ...}
PARALLEL_PREFIX = "module."  # left by DistributedDataParallel
_BLOCK = 1 << 20  # bytes read at a time for the hash
_REASON_LENGTH = 200  # characters of PyTorch's own error that are passed on
_LISTED = 10  # names that an error message lists before it only counts


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's content.

    Attributes:
        path: The file.
        sha256: Of the file.
        backbone: Tensor names to arrays, prefixes of wrappers removed.
        head: The same of the head; empty if the file has none.
        ignored: Names of the entries that are no part of a network.
    """

    path: str
    sha256: str
    backbone: dict
    head: dict
    ignored: tuple


def read(path: Path) -> Checkpoint:
    """Reads a checkpoint file.

    Args:
        path: A `.pth`, `.pt` or `.ckpt` file, in PyTorch's zip or older format.

    Returns:
        A `Checkpoint`.

    Raises:
        FileFormatError: If the file is no checkpoint, holds pickled code, or has entries that are not known.
    """
    payload = _load(path)
    backbone, head, ignored = _split(payload, path)
    return Checkpoint(
        path=str(path),
        sha256=_sha256(path),
        backbone=_arrays(backbone, path),
        head=_arrays(head, path),
        ignored=tuple(ignored),
    )


def listing(names: Iterable[str]) -> str:
    """Joins names for an error message, the first ten and the number of the others."""
    names = sorted(names)
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _load(path):
    torch = errors.require("torch", "convert")
    with open(path, "rb"):  # a missing or unreadable file is the operating system's error, not a format's
        pass
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever the reader stumbles over, the file is at fault
        raise errors.FileFormatError(
            f"{path}: no PyTorch checkpoint of plain tensors ({_reason(error)}). Expected a state dict; a file that "
            "holds pickled objects is not opened, because they could run code: save `module.state_dict()` instead."
        ) from error


def _reason(error):
    """One line on why PyTorch refused. Its own text on forbidden objects is long and advises to allow them."""
    if isinstance(error, pickle.UnpicklingError):
        name = re.search(r"GLOBAL (\S+)", str(error))
        return f"it refers to {name.group(1)}" if name else "its pickle is damaged or holds more than tensors"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_REASON_LENGTH]


def _split(payload, path):
    """Returns the backbone's state dict, the head's, and the names of the entries left aside."""
    entries, ignored = _mapping(payload, path), []
    if isinstance(entries.get(NESTING_ENTRY), collections.abc.Mapping):
        ignored += _check_others(entries, {NESTING_ENTRY}, path)
        entries = _mapping(entries[NESTING_ENTRY], path)
    if not any(isinstance(value, collections.abc.Mapping) for value in entries.values()):
        return *_split_prefixes(entries), ignored
    backbones = [name for name in BACKBONE_ENTRIES if name in entries]
    heads = [name for name in HEAD_ENTRIES if name in entries]
    if len(backbones) != 1 or len(heads) > 1:
        raise errors.FileFormatError(
            f"{path}: has the entries {listing(map(str, entries))}; expected a state dict, or exactly one of "
            f"{', '.join(BACKBONE_ENTRIES)} (and at most one of {', '.join(HEAD_ENTRIES)})."
        )
    ignored += _check_others(entries, {*backbones, *heads}, path)
    head = _mapping(entries[heads[0]], path) if heads else {}
    return _unwrap(_mapping(entries[backbones[0]], path)), _unwrap(head), ignored


def _mapping(value, path):
    if not isinstance(value, collections.abc.Mapping) or not value:
        raise errors.FileFormatError(
            f"{path}: holds a {type(value).__name__}, expected a non-empty state dict (names to tensors)."
        )
    if any(not isinstance(name, str) for name in value):
        raise errors.FileFormatError(f"{path}: has names that are not strings, expected a state dict.")
    return value


def _check_others(entries, known, path):
    others = [name for name in entries if name not in known]
    unknown = [name for name in others if name not in OTHER_ENTRIES]
    if unknown:
        raise errors.FileFormatError(
            f"{path}: unknown entries: {listing(unknown)}. Known beside the state dicts: {', '.join(OTHER_ENTRIES)}."
        )
    return others


def _unwrap(state):
    """Removes `module.` as often as all names begin with it."""
    while state and all(name.startswith(PARALLEL_PREFIX) for name in state):
        state = {name.removeprefix(PARALLEL_PREFIX): value for name, value in state.items()}
    return state


def _split_prefixes(state):
    """Splits the state dict of a module that holds `backbone` and `head`; any other is a backbone's as it is."""
    state = _unwrap(state)
    parts = {"backbone": {}, "head": {}}
    for name, value in state.items():
        prefix, _, rest = name.partition(".")
        if prefix not in parts or not rest:
            return state, {}
        parts[prefix][rest] = value
    return _unwrap(parts["backbone"]), _unwrap(parts["head"])


def _arrays(state, path):
    return {name: _array(name, value, path) for name, value in state.items()}


def _array(name, value, path):
    torch = errors.require("torch", "convert")
    if not isinstance(value, torch.Tensor):
        raise errors.FileFormatError(f"{path}: {name!r} is a {type(value).__name__}, expected a tensor.")
    if value.layout != torch.strided or value.is_quantized or value.is_complex():
        raise errors.FileFormatError(f"{path}: {name!r} is sparse, quantized or complex, expected a dense real tensor.")
    array = value.detach().to(torch.float32).numpy()
    if not np.isfinite(array).all():
        raise errors.FileFormatError(f"{path}: {name!r} has values that are not finite (NaN or infinity).")
    return array


def _sha256(path):
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
