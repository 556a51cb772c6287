"""The table of architectures, and how the arguments of each are read off a checkpoint's tensor shapes."""

import dataclasses

import numpy as np

from keras_sphereface import errors
from keras_sphereface.backbones import IResNet, MobileFaceNet, SFNet
from keras_sphereface.backbones.base import FaceBackbone
from keras_sphereface.hints import Path

_SFNET_UNITS = {"4": (0, 0, 0, 0), "10": (0, 1, 2, 0), "20": (1, 2, 4, 1), "36": (2, 4, 8, 2), "64": (3, 8, 16, 3)}
_IRESNET_UNITS = {
    "18": (2, 2, 2, 2),
    "34": (3, 4, 6, 3),
    "50": (3, 4, 14, 3),
    "100": (3, 13, 30, 3),
    "200": (6, 26, 60, 6),
}
_STAGES = (1, 2, 3, 4)
# IResNet-200 has 98. Names cost a file next to nothing, a network of 160 units takes Keras beyond Python's stack.
_MOST_UNITS = 120
# The kernel of MobileFaceNet's global depthwise convolution tells which of the paper's two input sizes it is for.
_MOBILEFACENET_INPUTS = {(7, 7): (112, 112, 3), (7, 6): (112, 96, 3)}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a name stands for.

    Attributes:
        family: `"sfnet"`, `"iresnet"` or `"mobilefacenet"`.
        units: Residual units of the stages, or `None` to count them in the file.
        block_order: Of an SFNet.
        batch_norm: Of an SFNet; `None` to see whether the file has it.
    """

    family: str
    units: tuple | None = None
    block_order: str = "add_relu"
    batch_norm: bool | None = None


def _table():
    table = {}
    for depth, units in [("", None), *_SFNET_UNITS.items()]:
        table[f"sfnet{depth}"] = Architecture("sfnet", units)
        table[f"sfnet{depth}_bn"] = Architecture("sfnet", units, batch_norm=True)
        table[f"sfnet{depth}_deprecated"] = Architecture("sfnet", units, block_order="relu_add", batch_norm=False)
    for depth, units in [("", None), *_IRESNET_UNITS.items()]:
        table[f"iresnet{depth}"] = Architecture("iresnet", units)
    table["mobilefacenet"] = Architecture("mobilefacenet")
    return table


_TABLE = _table()


def architectures() -> tuple[str, ...]:
    """The names that `convert` knows, as a tuple.

    A name with a number fixes the depth. `sfnet` and `iresnet` count the residual units in the file. `_bn` demands
    batch normalization; `_deprecated` is OpenSphere's name for SphereFace's own block order.
    """
    return tuple(_TABLE)


def get(name: str) -> Architecture:
    """Returns the `Architecture` of a name, or raises `ValueError` with the known names."""
    if not isinstance(name, str) or name not in _TABLE:
        raise ValueError(
            f"Unknown architecture. Received: architecture={name!r}. Known names: {', '.join(_TABLE)}."
            f"{errors.did_you_mean(name, _TABLE)}"
        )
    return _TABLE[name]


def canonical_names(architecture: Architecture, tensors: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Renames what OpenSphere's first `sfnet_deprecated` called otherwise: a stage's first convolution is `conv1`.

    Args:
        architecture: An `Architecture`.
        tensors: Tensor names to arrays.
        path: The file, for error messages.

    Returns:
        The tensors by their later names.

    Raises:
        FileFormatError: If these names are given for another architecture: they tell the block order.
    """
    if architecture.family != "sfnet":
        return tensors
    aliases = {
        f"layer{stage}.0.conv.{kind}": f"layer{stage}.0.conv1.{kind}"
        for stage in _STAGES
        for kind in ("weight", "bias")
    }
    old = next((name for name in aliases if name in tensors), None)
    if old is not None and architecture.block_order != "relu_add":
        raise errors.FileFormatError(
            f"{path}: the tensor {old!r} has a name that only OpenSphere's sfnet_deprecated gave, whose blocks add after "
            "the activation. Name the architecture with `_deprecated`, e.g. 'sfnet20_deprecated'."
        )
    return {name if aliases.get(name) in tensors else aliases.get(name, name): x for name, x in tensors.items()}


def build(architecture: Architecture, tensors: dict[str, np.ndarray], path: Path, **arguments) -> FaceBackbone:
    """Builds the backbone whose sizes the tensors have.

    Args:
        architecture: An `Architecture`.
        tensors: Tensor names to arrays.
        path: The file, for error messages.
        **arguments: Given by the user: `input_shape`, `image_mean`, `image_std`, `name`; `None` means the default.

    Returns:
        The backbone, in float32, with random weights.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    builder = {"sfnet": _sfnet, "iresnet": _iresnet, "mobilefacenet": _mobilefacenet}[architecture.family]
    return builder(architecture, tensors, path, {**given, "dtype": "float32"})


def _shape(tensors, name, rank, path):
    """The shape of a tensor that the sizes are read from."""
    if name not in tensors:
        raise errors.FileFormatError(
            f"{path}: missing tensor {name!r}; the file has {len(tensors)} tensors, "
            f"the first are {', '.join(list(tensors)[:3])}. Does the file hold this architecture?"
        )
    shape = tensors[name].shape
    if len(shape) != rank or 0 in shape:
        raise errors.FileFormatError(f"{path}: tensor {name!r} has the shape {shape}, expected {rank} positive sizes.")
    return tuple(int(size) for size in shape)


def _count_units(tensors, first, path):
    """Counts `layer<stage>.<index>`, index from `first` on, in each stage."""
    units = {tuple(name.split(".", 2)[:2]) for name in tensors if name.count(".") > 1}
    counts = []
    for stage in _STAGES:
        index = first
        while (f"layer{stage}", str(index)) in units:
            index += 1
        counts.append(index - first)
    if sum(counts) > _MOST_UNITS:
        raise errors.FileFormatError(
            f"{path}: the tensors' names are those of {sum(counts)} residual units, expected at most {_MOST_UNITS}. "
            "Do not use this file."
        )
    return tuple(counts)


def _sfnet(architecture, tensors, path, arguments):
    batch_norm = architecture.batch_norm
    if batch_norm is None:
        batch_norm = "layer1.0.bn1.weight" in tensors
    return SFNet(
        architecture.units or _count_units(tensors, 1, path),
        channels=tuple(_shape(tensors, f"layer{stage}.0.conv1.weight", 4, path)[0] for stage in _STAGES),
        embedding_dim=_shape(tensors, "fc.weight", 2, path)[0],
        block_order=architecture.block_order,
        batch_norm=batch_norm,
        **arguments,
    )


def _iresnet(architecture, tensors, path, arguments):
    return IResNet(
        architecture.units or tuple(max(1, count) for count in _count_units(tensors, 0, path)),
        channels=tuple(_shape(tensors, f"layer{stage}.0.conv1.weight", 4, path)[0] for stage in _STAGES),
        embedding_dim=_shape(tensors, "fc.weight", 2, path)[0],
        **arguments,
    )


def _mobilefacenet(architecture, tensors, path, arguments):
    if "input_shape" not in arguments:
        kernel = _shape(tensors, "linear7.conv.weight", 4, path)[2:]
        if kernel not in _MOBILEFACENET_INPUTS:
            raise errors.FileFormatError(
                f"{path}: the kernel of 'linear7.conv.weight' is {kernel}, neither (7, 7) of 112x112 nor (7, 6) of "
                "112x96: pass `input_shape`."
            )
        arguments["input_shape"] = _MOBILEFACENET_INPUTS[kernel]
    return MobileFaceNet(embedding_dim=_shape(tensors, "linear1.conv.weight", 4, path)[0], **arguments)
