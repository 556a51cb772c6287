"""Takes the known trainers' checkpoints apart: backbone tensors and head tensors as named NumPy arrays."""

import collections.abc
import dataclasses

import numpy as np

from keras_sphereface import errors
from keras_sphereface.conversion import torch_file
from keras_sphereface.conversion.tensors import listing
from keras_sphereface.files import sha256
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
    "optimizer_states",
    "lr_schedulers",
    "callbacks",  # Lightning's; its ModelCheckpoint, on by default, keeps the best score there as a tensor
)
NESTING_ENTRY = "model"  # OpenSphere's second version: {"model": {"backbone": ..., "head": ...}, "step": ...}
# Of the names in the state dict of a module that holds both; `model` is AdaFace's.
BACKBONE_PREFIXES, HEAD_PREFIX = ("backbone", "model"), "head"
# Left by DistributedDataParallel, torch.compile, and CVLface, whose safetensors files have both.
WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
# Tied weights have two names, in a file made to fill the memory one storage has thousands.
_MOST_SHARED = 2  # bytes of tensors per byte of the storages that they are views of


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's content.

    Attributes:
        path: The file.
        sha256: Of the file.
        backbone: Tensor names to arrays, prefixes of wrappers removed.
        head: The same of the head; empty if the file has none.
        ignored: Names of the entries that are no part of a network.
        arguments: Arguments of the backbone that the file tells otherwise than by its tensors.
    """

    path: str
    sha256: str
    backbone: dict
    head: dict
    ignored: tuple
    arguments: dict = dataclasses.field(default_factory=dict)


def read(path: Path, include_head: bool = True) -> Checkpoint:
    """Reads a checkpoint file.

    Args:
        path: A `.pth`, `.pt` or `.ckpt` file, in PyTorch's zip or older format, or a `.safetensors` file.
        include_head: Whether to read the head. Defaults to `True`; else its entry is among `ignored`, whatever it holds.

    Returns:
        A `Checkpoint`.

    Raises:
        FileFormatError: If the file is no checkpoint, holds pickled code, or has entries that are not known.
    """
    payload = torch_file.load(path)
    backbone, head, ignored = _split(payload, path, include_head)
    return Checkpoint(
        path=str(path),
        sha256=sha256(path),
        backbone=_arrays(backbone, path),
        head=_arrays(head, path),
        ignored=tuple(ignored),
    )


def _split(payload, path, include_head):
    """Returns the backbone's state dict, the head's, and the names of the entries left aside."""
    entries, ignored = _mapping(payload, path), []
    if isinstance(entries.get(NESTING_ENTRY), collections.abc.Mapping):
        ignored += _check_others(entries, {NESTING_ENTRY}, path)
        entries = _mapping(entries[NESTING_ENTRY], path, NESTING_ENTRY)
    state, heads = entries, {}
    if any(isinstance(value, collections.abc.Mapping) for value in entries.values()):
        state, heads, others = _split_entries(entries, path)
        ignored += others
    backbone, prefixed = _split_prefixes(state)
    if prefixed:
        heads[f"{HEAD_PREFIX}.*"] = prefixed
    if not include_head:
        return backbone, {}, [*ignored, *heads]
    return backbone, _head(heads, path), ignored


def _split_entries(entries, path):
    """Of a trainer's file the backbone's state dict, the heads as they are by their entries, and the other names."""
    backbones = [name for name in BACKBONE_ENTRIES if name in entries]
    heads = [name for name in HEAD_ENTRIES if name in entries]
    if len(backbones) != 1 or len(heads) > 1:
        raise errors.FileFormatError(
            f"{path}: has the entries {listing(map(str, entries))}; expected a state dict, or exactly one of "
            f"{', '.join(BACKBONE_ENTRIES)} (and at most one of {', '.join(HEAD_ENTRIES)})."
        )
    others = _check_others(entries, {*backbones, *heads}, path)
    return _mapping(entries[backbones[0]], path, backbones[0]), {name: entries[name] for name in heads}, others


def _head(heads, path):
    """The one head's state dict; empty where the file has none."""
    filled = {name: value for name, value in heads.items() if not _is_empty(value)}
    if len(filled) > 1:
        raise errors.FileFormatError(
            f"{path}: has two heads, {' and '.join(filled)}, expected one. "
            "Pass `include_head=False` to convert the backbone alone."
        )
    return next((_unwrap(_mapping(value, path, name)) for name, value in filled.items()), {})


def _is_empty(value):
    return isinstance(value, collections.abc.Mapping) and not value


def _mapping(value, path, entry=None):
    """Checks that a value is a state dict; `entry` names it in the message where it is not the whole file."""
    place = path if entry is None else f"{path}: the entry {entry!r}"
    separator = ":" if entry is None else ""
    if not isinstance(value, collections.abc.Mapping) or not value:
        found = "nothing" if _is_empty(value) else f"a {type(value).__name__}"
        raise errors.FileFormatError(
            f"{place}{separator} holds {found}, expected a non-empty state dict (names to tensors)."
        )
    if any(not isinstance(name, str) for name in value):
        raise errors.FileFormatError(f"{place}{separator} has names that are not strings, expected a state dict.")
    return value


def _check_others(entries, known, path):
    others = [name for name in entries if name not in known]
    unknown = [name for name in others if name not in OTHER_ENTRIES and _holds_tensors(entries[name])]
    if unknown:
        raise errors.FileFormatError(
            f"{path}: unknown entries: {listing(unknown)}. Known beside the state dicts: {', '.join(OTHER_ENTRIES)}."
        )
    return others


def _holds_tensors(value):
    """Whether there are tensors in an entry, which then may be of the network; single numbers and texts are not."""
    pending, seen = [value], set()
    while pending:  # no recursion: a nested file must not exhaust the stack
        value = pending.pop()
        if id(value) in seen:  # a file may hold a list that holds itself, or one under exponentially many names
            continue
        seen.add(id(value))
        if hasattr(value, "detach") and value.ndim:
            return True
        if isinstance(value, collections.abc.Mapping):
            pending.extend(value.values())
        elif isinstance(value, (list, tuple, set)):
            pending.extend(value)
    return False


def _unwrap(state):
    """Removes what wrappers of a module put before its names as often as all names begin with it."""
    while state and (prefix := next((p for p in WRAPPER_PREFIXES if all(name.startswith(p) for name in state)), None)):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _split_prefixes(state):
    """Splits the state dict of a module that holds `backbone` and `head`; any other is a backbone's as it is."""
    state = _unwrap(state)
    backbone, head = {}, {}
    parts = {**dict.fromkeys(BACKBONE_PREFIXES, backbone), HEAD_PREFIX: head}
    for name, value in state.items():
        prefix, _, rest = name.partition(".")
        part = parts.get(prefix)
        if part is None or not rest or rest in part:
            return state, {}
        part[rest] = value
    return _unwrap(backbone), _unwrap(head)


def _arrays(state, path):
    _check_shared(state, path)
    return {name: _array(name, value, path) for name, value in state.items()}


def _check_shared(state, path):
    """Refuses, before arrays are made, a few numbers under so many names that the arrays would fill the memory."""
    torch = errors.require("torch", "convert")
    tensors = [value for value in state.values() if isinstance(value, torch.Tensor) and _is_dense(value)]
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    storages = {storage.data_ptr(): storage.nbytes() for tensor in tensors if (storage := tensor.untyped_storage())}
    held = sum(storages.values())
    if claimed > _MOST_SHARED * held:
        raise errors.FileFormatError(
            f"{path}: the tensors have {claimed:,} bytes, but share {held:,}; expected at most {_MOST_SHARED} names of one. "
            "Save each tensor once, or a clone of each."
        )


def _array(name, value, path):
    torch = errors.require("torch", "convert")
    if not isinstance(value, torch.Tensor):
        raise errors.FileFormatError(f"{path}: {name!r} is a {type(value).__name__}, expected a tensor.")
    if not _is_dense(value):
        raise errors.FileFormatError(
            f"{path}: {name!r} is sparse, quantized, complex, nested, without data, or larger than its data, expected a "
            "dense real tensor."
        )
    try:
        array = value.detach().to(torch.float32).resolve_neg().numpy()
    except (RuntimeError, NotImplementedError) as error:  # PyTorch's, for types of which it only keeps the bytes
        raise errors.FileFormatError(
            f"{path}: {name!r} is {value.dtype}, expected numbers of 16 bits or more."
        ) from error
    if not np.isfinite(array).all():
        raise errors.FileFormatError(f"{path}: {name!r} has values that are not finite (NaN or infinity).")
    return array


def _is_dense(value):
    """Whether a tensor is real numbers that the file has one by one: an expanded one repeats few as often as it says."""
    torch = errors.require("torch", "convert")
    if value.is_nested or value.is_meta or value.layout != torch.strided or value.is_quantized or value.is_complex():
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()
