"""The table of architectures, and how the arguments of each are read off a checkpoint's tensor shapes."""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_sphereface import errors
from keras_sphereface.backbones import IResNet, MobileFaceNet, SFNet, ViT, iresnet, sfnet
from keras_sphereface.backbones.base import FaceBackbone
from keras_sphereface.conversion import ir, mapping, vit
from keras_sphereface.conversion.tensors import check_units, listing, shape_of
from keras_sphereface.hints import Path

# The same networks under these projects' names: one counts the convolution at the beginning, too.
_IR_UNITS = {depth: iresnet.UNITS[usual] for depth, usual in {18: 18, 34: 34, 50: 50, 101: 100}.items()}
# InsightFace's and LVFace's; what a file tells of them beside the embedding's length.
_VIT_SIZES = {
    name: {"depth": depth, "hidden_dim": hidden_dim, "mlp_ratio": 4.0, "patch_size": 9, "qkv_bias": False}
    for name, depth, hidden_dim in (("t", 12, 256), ("s", 12, 512), ("b", 24, 512), ("l", 24, 768))
}
_VIT_HEADS = 8  # of these
_STAGES = (1, 2, 3, 4)
# The kernel of MobileFaceNet's global depthwise convolution tells which of the paper's two input sizes it is for.
_MOBILEFACENET_INPUTS = {(7, 7): (112, 112, 3), (7, 6): (112, 96, 3)}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a name stands for.

    Attributes:
        family: `"sfnet"`, `"iresnet"`, `"ir"`, `"mobilefacenet"`, `"vit"`, or `"onnx"`: whatever network an ONNX file has.
        units: Residual units of the stages, or `None` to count them in the file.
        block_order: Of an SFNet.
        batch_norm: Of an SFNet; `None` to see whether the file has it.
        squeeze: Whether an IR has squeeze and excitation; `None` to see whether the file has it.
        sizes: Arguments of a ViT, or `None` to read them off the file, which does not tell the number of heads.
    """

    family: str
    units: tuple | None = None
    block_order: str = "add_relu"
    batch_norm: bool | None = None
    squeeze: bool | None = None
    sizes: dict | None = None


def _table():
    table = {}
    for depth, units in [("", None), *sfnet.UNITS.items()]:
        table[f"sfnet{depth}"] = Architecture("sfnet", units)
        table[f"sfnet{depth}_bn"] = Architecture("sfnet", units, batch_norm=True)
        table[f"sfnet{depth}_deprecated"] = Architecture("sfnet", units, block_order="relu_add", batch_norm=False)
    for depth, units in [("", None), *iresnet.UNITS.items()]:
        table[f"iresnet{depth}"] = Architecture("iresnet", units)
    table["ir"] = Architecture("ir")
    for name, squeeze in (("ir", False), ("ir_se", True)):
        table |= {f"{name}_{depth}": Architecture("ir", units, squeeze=squeeze) for depth, units in _IR_UNITS.items()}
    table["mobilefacenet"] = Architecture("mobilefacenet")
    table["vit"] = Architecture("vit")
    table |= {
        f"vit_{name}": Architecture("vit", sizes={**sizes, "num_heads": _VIT_HEADS})
        for name, sizes in _VIT_SIZES.items()
    }
    table["onnx"] = Architecture("onnx")
    return table


_TABLE = _table()
# The first that a checkpoint has tells what it holds.
_TELLING_NAMES = {
    "body.0.res_layer.0.weight": "ir",
    "dw_conv1.conv.weight": "mobilefacenet",
    vit.PATCHES: "vit",
    "layer1.0.prelu.weight": "iresnet",
    "layer1.0.bn1.weight": "sfnet_bn",  # only the later order has normalization
    "layer1.0.conv.weight": "sfnet_deprecated",
    "layer1.0.conv1.weight": "sfnet",
}


def architectures() -> tuple[str, ...]:
    """The names that `convert` knows, as a tuple.

    A name with a number fixes the depth. `sfnet`, `iresnet` and `ir` count the residual units in the file. `_bn` demands
    batch normalization; `_deprecated` is OpenSphere's name for SphereFace's own block order. `ir_50` and `ir_se_50` are
    the names of InsightFace_Pytorch, face.evoLVe, AdaFace and CVLface; `ir` sees whether the file has the squeeze and
    excitation of `_se`. `vit_t` to `vit_l` are InsightFace's and LVFace's; `vit`, of any sizes, needs to be told the number
    of heads. `onnx` is any network in an ONNX file.
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


def recognize(tensors: dict[str, np.ndarray], path: Path) -> str:
    """Tells the architecture, without a depth, by a PyTorch checkpoint's names.

    Args:
        tensors: Tensor names to arrays.
        path: The file, for error messages.

    Returns:
        One of `architectures()`.

    Raises:
        FileFormatError: If the names are those of none, or of an SFNet that could have either block order.
    """
    found = next((family for name, family in _TELLING_NAMES.items() if name in tensors), None)
    if found is None:
        raise errors.FileFormatError(
            f"{path}: its tensors' names are those of no known architecture, the first are {listing(list(tensors)[:3])}. "
            "Convert an ONNX export of the network, which may have any names"
        )
    if found == "sfnet":
        raise errors.FileFormatError(
            f"{path}: it holds an SFNet, and its blocks' order, which its tensors do not tell, costs accuracy if it is "
            "another. Name the architecture: 'sfnet', or 'sfnet_deprecated' for SphereFace's own order"
        )
    if found == "vit":
        sizes = vit.arguments(tensors, path)
        return next((f"vit_{name}" for name, known in _VIT_SIZES.items() if known.items() <= sizes.items()), found)
    return found


def canonical_names(architecture: Architecture, tensors: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Renames what OpenSphere's first `sfnet_deprecated` called otherwise, and adds what an IR means by leaving it away.

    A stage's first convolution is `conv1`; a normalization without scale and offset has 1 and 0. What a ViT has for its
    training alone is left out.

    Args:
        architecture: An `Architecture`.
        tensors: Tensor names to arrays.
        path: The file, for error messages.

    Returns:
        The tensors by their later names.

    Raises:
        FileFormatError: If these names are given for another architecture: they tell the block order.
    """
    if architecture.family == "ir":
        return ir.with_scale(tensors)
    if architecture.family == "vit":
        return {name: x for name, x in tensors.items() if name != mapping.MASK_TOKEN}
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
        **arguments: Given by the user: `input_shape`, `image_mean`, `image_std`, `num_heads`, `name`; `None` means the
            default.

    Returns:
        The backbone, in float32, with random weights.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    builders = {"sfnet": _sfnet, "iresnet": _iresnet, "ir": _ir, "mobilefacenet": _mobilefacenet, "vit": _vit}
    return builders[architecture.family](architecture, tensors, path, {**given, "dtype": "float32"})


def module_names(
    architecture: Architecture, backbone: FaceBackbone, tensors: dict[str, np.ndarray]
) -> Callable[[str], str]:
    """Returns the function from a layer's name to that of the module in the file."""
    if architecture.family != "ir":
        return mapping.torch_name
    names = ir.module_names(backbone.get_config(), tensors)
    return lambda layer_name: names[mapping.torch_name(layer_name)]


def _count_units(tensors, first, path):
    """Counts `layer<stage>.<index>`, index from `first` on, in each stage."""
    units = {tuple(name.split(".", 2)[:2]) for name in tensors if name.count(".") > 1}
    counts = []
    for stage in _STAGES:
        index = first
        while (f"layer{stage}", str(index)) in units:
            index += 1
        counts.append(index - first)
    check_units(sum(counts), path)
    return tuple(counts)


def _sfnet(architecture, tensors, path, arguments):
    batch_norm = architecture.batch_norm
    if batch_norm is None:
        batch_norm = "layer1.0.bn1.weight" in tensors
    return SFNet(
        architecture.units or _count_units(tensors, 1, path),
        channels=tuple(shape_of(tensors, f"layer{stage}.0.conv1.weight", 4, path)[0] for stage in _STAGES),
        embedding_dim=shape_of(tensors, "fc.weight", 2, path)[0],
        block_order=architecture.block_order,
        batch_norm=batch_norm,
        **arguments,
    )


def _iresnet(architecture, tensors, path, arguments):
    return IResNet(
        architecture.units or tuple(max(1, count) for count in _count_units(tensors, 0, path)),
        channels=tuple(shape_of(tensors, f"layer{stage}.0.conv1.weight", 4, path)[0] for stage in _STAGES),
        embedding_dim=shape_of(tensors, "fc.weight", 2, path)[0],
        **arguments,
    )


def _ir(architecture, tensors, path, arguments):
    found = ir.arguments(tensors, path)
    if architecture.units:
        found["units"] = architecture.units
    if architecture.squeeze is not None:
        found["se_reduction"] = (found["se_reduction"] or ir.SE_REDUCTION) if architecture.squeeze else None
    return IResNet(**found, **arguments)


def _mobilefacenet(architecture, tensors, path, arguments):
    if "input_shape" not in arguments:
        kernel = shape_of(tensors, "linear7.conv.weight", 4, path)[2:]
        if kernel not in _MOBILEFACENET_INPUTS:
            raise errors.FileFormatError(
                f"{path}: the kernel of 'linear7.conv.weight' is {kernel}, neither (7, 7) of 112x112 nor (7, 6) of "
                "112x96: pass `input_shape`."
            )
        arguments["input_shape"] = _MOBILEFACENET_INPUTS[kernel]
    return MobileFaceNet(embedding_dim=shape_of(tensors, "linear1.conv.weight", 4, path)[0], **arguments)


def _vit(architecture, tensors, path, arguments):
    return ViT(**{**vit.arguments(tensors, path), **arguments, **(architecture.sizes or {})})
