"""`convert`: a PyTorch checkpoint or an ONNX file in, a Keras model with a parity report out."""

import dataclasses
import os
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_sphereface import errors
from keras_sphereface.arguments import finite_number, whole_number
from keras_sphereface.backbones.base import IMAGE_CENTER
from keras_sphereface.conversion import architecture as table
from keras_sphereface.conversion import (
    checkpoint,
    mapping,
    onnx_file,
    onnx_iresnet,
    onnx_network,
    onnx_sizes,
    onnx_vit,
    torch_reference,
)
from keras_sphereface.conversion.checkpoint import Checkpoint
from keras_sphereface.conversion.head import head_weights
from keras_sphereface.conversion.report import ConversionReport
from keras_sphereface.conversion.tensors import listing
from keras_sphereface.model_size import without_weights

PARITY_IMAGES = 4
PARITY_SEED = 2109
# Ten times what float32 in another order of summation gives in the deepest network; a wrong axis gives about 1.
PARITY_TOLERANCE = 1e-3
PREPROCESSING = ("image_mean", "image_std")
CHANNEL_ORDERS = ("RGB", "BGR")
_IN_ONNX = {"iresnet": onnx_iresnet.read, "vit": onnx_vit.read}  # families of the package that are known by their graph
ANY_VIT = "vit"  # the name of those that are not InsightFace's
ANY_ONNX = "onnx"  # the name and the family of networks that are none of the package's


def convert(
    path: str | os.PathLike,
    architecture: str | None = None,
    input_shape: Sequence[int] | None = None,
    image_mean: float | Sequence[float] | None = None,
    image_std: float | Sequence[float] | None = None,
    include_head: bool = True,
    head_layout: str | None = None,
    channel_order: str | None = None,
    num_heads: int | None = None,
) -> keras.Model:
    """Converts somebody else's checkpoint, of PyTorch or in ONNX, to a Keras model and compares the two.

    Known are OpenSphere's SFNet and IResNet (both of its versions), InsightFace's `arcface_torch` IResNet, the IR and
    IR-SE of AdaFace, CVLface, face.evoLVe and InsightFace_Pytorch, the ViT of `arcface_torch`, LVFace and CVLface, and
    MobileFaceNet in the naming of its usual PyTorch implementation (`conv1`, `dw_conv1`, `blocks`, `conv2`, `linear7`,
    `linear1`). The file is read with `weights_only`: nothing in it is run. Needs the extra `convert` (PyTorch). Of ONNX
    files, which need the extra `export` instead, an IResNet and a ViT of this kind are known whichever exporter of PyTorch
    wrote them, and any other convolutional network becomes Keras's own layers.

    Args:
        path: A `.pth`, `.pt` or `.ckpt` file: a state dict, alone or in the entries of the known trainers; or a
            `.safetensors` file of one; or an `.onnx` file.
        architecture: One of `architectures()`, e.g. `"iresnet100"`. Channels and embedding length are read off the
            tensors' shapes; `"sfnet"`, `"iresnet"` and `"ir"` also count the residual units. Defaults to `None`: as the
            file's names, or its graph, tell; an SFNet without normalization must be told.
        input_shape: `(height, width, 3)`. Defaults to `None`: `(112, 112, 3)`; for MobileFaceNet what its kernel says,
            for `"onnx"` what the file says.
        image_mean: Preprocessing, `(image - image_mean) / image_std` of RGB images 0..255. For `"onnx"` it may be three
            numbers, of red, green and blue. Defaults to `None`: 127.5.
        image_std: See `image_mean`. Defaults to `None`: 127.5, for MobileFaceNet 128.
        include_head: Whether to read the head's class weights, where the file has them. Defaults to `True`.
        head_layout: `"features_first"` or `"classes_first"`, needed only where a head has as many classes as
            dimensions. Defaults to `None`.
        channel_order: `"RGB"` or `"BGR"`: what the checkpoint's network was trained on, which the file does not tell. The
            model takes RGB in either case. Defaults to `None`: `"RGB"`, but for the IR networks and `"vit"`, which must be
            told: AdaFace's take BGR, CVLface's what `color_space` in their configuration says.
        num_heads: Heads of attention, for `"vit"` alone, whose file does not tell them: CVLface's small one has 8, its base
            16. Defaults to `None`: 8 for `"vit_t"` to `"vit_l"`, InsightFace's and LVFace's.

    Returns:
        A `keras.Model` in float32 from RGB images 0..255 to raw embeddings, the architecture's backbone or, of `"onnx"`, a
        functional model. Its attribute `conversion_report` is a `ConversionReport`: print it. The class weights are in
        `conversion_report.head_weights`.

    Raises:
        FileFormatError: If the file is no checkpoint of plain tensors, or has tensors that are missing, unknown,
            of another shape or not finite; it names them. If an ONNX file has an operator that is not known; it names it.
        ValueError: If the architecture is unknown, `image_mean` or `image_std` is no finite number, `include_head` is
            neither true nor false, `channel_order` is none of these, or not given for an IR network or a `"vit"`, or
            `num_heads` is missing or not wanted.
        TypeError: If `path` is no path.
        MissingDependencyError: If PyTorch is not installed, or for an `.onnx` file ONNX and ONNX Runtime.

    Example:
    >>> model = convert("backbone.pth")  # doctest: +SKIP
    >>> print(model.conversion_report)  # doctest: +SKIP
    """
    if architecture is not None:
        table.get(architecture)
    if not isinstance(path, (str, os.PathLike)):  # an integer would open a file descriptor
        raise TypeError(f"`path` must be the path of a file. Received: path={path!r}")
    if not isinstance(include_head, (bool, np.bool_)):
        raise ValueError(f"`include_head` must be True or False. Received: include_head={include_head!r}")
    given = dict(zip(PREPROCESSING, map(_numbers, PREPROCESSING, (image_mean, image_std))), input_shape=input_shape)
    given = {name: value for name, value in given.items() if value is not None}
    if channel_order is not None and channel_order not in CHANNEL_ORDERS:
        raise ValueError(f"`channel_order` must be one of {CHANNEL_ORDERS}. Received: channel_order={channel_order!r}")
    if num_heads is not None:
        given["num_heads"] = whole_number("num_heads", num_heads)
    further = (given, include_head, head_layout, channel_order)
    if architecture is not None or not _is_onnx(path):
        return _convert(path, architecture, *further)
    # The package's own networks have one number for all channels.
    if not any(isinstance(given.get(name), list) for name in PREPROCESSING):
        for known in _IN_ONNX:
            try:
                return _convert(path, known, *further)
            except errors.FileFormatError:
                pass
    return _convert(path, ANY_ONNX, *further)


def _convert(path, architecture, given, include_head, head_layout, channel_order):
    """`convert` with checked arguments."""
    architecture, content, file = _read(path, architecture, include_head)
    channel_order = channel_order or _usual_order(architecture)
    _check_heads(architecture, given.get("num_heads"), content)
    if architecture == ANY_ONNX:
        backbone = onnx_network.build(file, **given, name=architecture)
        config = {"image_mean": IMAGE_CENTER, "image_std": IMAGE_CENTER, **given}
        config["embedding_dim"] = backbone.output_shape[-1]
    else:
        backbone = _backbone(architecture, content, given)
        config = backbone.get_config()
        if file is not None and table.get(architecture).family == ANY_VIT:
            onnx_sizes.check(file, backbone.input_shape[1:3])
        elif file is not None:
            onnx_network.check(file, backbone.input_shape[1:])
    if channel_order == "BGR":
        mapping.turn_channels(backbone)
    weights = head_weights(content.head, config["embedding_dim"], path, head_layout)
    report = _report(backbone, config, architecture, content, file, weights, channel_order)
    if not report.max_relative_difference <= PARITY_TOLERANCE:
        raise errors.FileFormatError(
            f"{path}: the converted model differs from the original by {report.max_relative_difference:.1e} (relative), "
            f"expected at most {PARITY_TOLERANCE}: {_why_different(architecture, channel_order)}."
        )
    backbone.conversion_report = report
    return backbone


def _numbers(argument, value):
    """A finite number, or three, or `ValueError`."""
    if isinstance(value, (list, tuple, np.ndarray)) and len(value) == 3:
        return [finite_number(argument, one) for one in value]
    return value if value is None else finite_number(argument, value)


def _usual_order(name):
    """The order that nobody needs to be told, or `ValueError`: a wrong one costs accuracy without a word."""
    if table.get(name).family == "ir" or name == ANY_VIT:
        networks = "IR networks" if name != ANY_VIT else f"{ANY_VIT!r}"
        raise ValueError(
            f"`channel_order` must be given for {networks}, one of {CHANNEL_ORDERS}: files do not tell it, and both are "
            "about. AdaFace's own are trained on BGR, CVLface's on what `color_space` in their configuration says"
        )
    return "RGB"


def _check_heads(name, num_heads, content):
    """A checkpoint does not tell the number of heads, and parity would not see a wrong one."""
    if name == ANY_VIT and num_heads is None and "num_heads" not in content.arguments:
        raise ValueError(
            f"`num_heads` must be given for {ANY_VIT!r}: a file does not tell it, and these sizes are not InsightFace's. "
            "CVLface's small ViT has 8, its base 16"
        )
    if name != ANY_VIT and num_heads is not None:
        raise ValueError(f"`num_heads` is for {ANY_VIT!r}. Received: num_heads={num_heads}, architecture={name!r}")


def _read(path, architecture, include_head):
    """The architecture's name, a `Checkpoint` by its names, and the opened file if it is an ONNX one."""
    family = architecture and table.get(architecture).family
    if not _is_onnx(path):
        if family == ANY_ONNX:
            raise ValueError(f"{ANY_ONNX!r} is for .onnx files. Received: path={str(path)!r}")
        content = checkpoint.read(path, include_head)
        architecture = architecture or table.recognize(content.backbone, path)
        tensors = table.canonical_names(table.get(architecture), content.backbone, path)
        unused = content.backbone.keys() & {mapping.MASK_TOKEN}
        return architecture, dataclasses.replace(content, backbone=tensors, ignored=(*content.ignored, *unused)), None
    if family not in (*_IN_ONNX, ANY_ONNX):
        raise ValueError(
            f"Of .onnx files IResNets and ViTs are read, and any network as {ANY_ONNX!r}. "
            f"Received: architecture={architecture!r}, path={str(path)!r}"
        )
    file = onnx_file.OnnxFile(path)
    if family == ANY_ONNX:
        return architecture, Checkpoint(file.path, file.sha256, backbone={}, head={}, ignored=()), file
    content = _IN_ONNX[family](file)
    if architecture == ANY_VIT:
        architecture = table.recognize(content.backbone, path)
        if content.arguments.get("num_heads") != (table.get(architecture).sizes or {}).get("num_heads"):
            architecture = ANY_VIT
    return architecture, content, file


def _is_onnx(path):
    return os.fspath(path).lower().endswith(onnx_file.SUFFIX)


def _backbone(name, content, given):
    """The backbone of an architecture, filled with a checkpoint's tensors."""
    for argument in PREPROCESSING:
        if isinstance(given.get(argument), list):
            raise ValueError(
                f"`{argument}` must be one finite number for {name!r}, three are for {ANY_ONNX!r}. "
                f"Received: {argument}={given[argument]}"
            )
    known, arguments = table.get(name), {**content.arguments, **given, "name": name}
    tensors, path = content.backbone, content.path

    def build():
        return table.build(known, tensors, path, **arguments)

    def module_names(backbone):
        return table.module_names(known, backbone, tensors)

    def check():
        backbone = build()
        mapping.check(backbone, tensors, path, module_names(backbone))

    # The sizes are those of some tensors; whether the others have them too is known before there is memory for all.
    without_weights(check)
    backbone = build()
    mapping.assign(backbone, tensors, path, module_names(backbone))
    return backbone


def _report(backbone, config, name, content, file, weights, channel_order):
    images = _parity_images(backbone.input_shape[1:])
    inputs = (images - np.float64(config["image_mean"])) / np.float64(config["image_std"])
    as_trained = inputs[..., ::-1] if channel_order == "BGR" else inputs
    original, reference = _original(content, file, name, as_trained, config)
    if not np.isfinite(original).all():
        raise errors.FileFormatError(
            f"{content.path}: the original's own embeddings are not finite: {_cause(content.backbone)}."
        )
    together = len(images) if file is None else 1  # a network of any file may have maps of any size
    parts = [images[start : start + together] for start in range(0, len(images), together)]
    converted = np.concatenate([ops.convert_to_numpy(backbone(part, training=False)) for part in parts])
    difference = float(np.abs(converted - original).max())
    counters = sum(key.endswith(mapping.COUNTER) for key in content.backbone)
    height, width = backbone.input_shape[1:3]
    turned = ", the first layer turned from BGR" if channel_order == "BGR" else ""
    mean, std = (_shown(config[key]) for key in PREPROCESSING)
    return ConversionReport(
        checkpoint=content.path,
        sha256=content.sha256,
        architecture=name,
        backbone={"class_name": type(backbone).__name__, **_plain(config)},
        parameters=backbone.count_params(),
        preprocessing=f"(RGB - {mean}) / {std}, {height}x{width}{turned}",
        images=len(images),
        max_difference=difference,
        max_relative_difference=difference / max(float(np.abs(original).max()), np.finfo(np.float32).tiny),
        min_cosine=_min_cosine(original, converted),
        reference=reference,
        ignored=(*content.ignored, *([f"{counters} counters *{mapping.COUNTER}"] if counters else [])),
        head_weights=weights,
    )


def _shown(numbers):
    """One number, or those of red, green and blue."""
    return f"({', '.join(f'{one:g}' for one in numbers)})" if isinstance(numbers, list) else f"{numbers:g}"


def _original(content, file, name, inputs, config):
    """The embeddings by what the file was made for, and its name and version."""
    if file is not None:
        embeddings = file.run(inputs).reshape(len(inputs), -1)
        return embeddings, f"ONNX Runtime {errors.require('onnxruntime', 'export').__version__}"
    embeddings = torch_reference.embeddings(table.get(name).family, content.backbone, inputs, config)
    return embeddings, f"PyTorch {errors.require('torch', 'convert').__version__}"


def _why_different(architecture, channel_order):
    """What is left to cause a difference."""
    if (architecture, channel_order) == (ANY_ONNX, "BGR"):
        return (
            "its first convolution, which was turned from BGR, is not what takes the images. Leave `channel_order` away"
        )
    return "its weights leave the range in which float32 is exact"


def _cause(tensors):
    """Why a network whose weights are finite gives NaN or infinity; of an ONNX file nothing is known."""
    if not tensors:
        return "its weights overflow float32, or have variances below zero. Look at image_mean and image_std"
    negative = [name for name, value in tensors.items() if name.endswith(".running_var") and (value < 0).any()]
    if negative:
        return f"variances below zero in {listing(negative)}. The file is damaged, get it again"
    return "its weights overflow float32. Look at the training, or at image_mean and image_std"


def _plain(config):
    return {name: value for name, value in config.items() if name not in ("name", "trainable", "dtype")}


def _parity_images(input_shape):
    return np.random.default_rng(PARITY_SEED).integers(0, 256, (PARITY_IMAGES, *input_shape)).astype("float32")


def _min_cosine(a, b):
    a, b = a.astype("float64"), b.astype("float64")
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.min((a * b).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)))
