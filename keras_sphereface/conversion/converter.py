"""`convert`: a PyTorch checkpoint or an ONNX file in, a Keras model with a parity report out."""

import os
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_sphereface import errors
from keras_sphereface.arguments import finite_number
from keras_sphereface.conversion import architecture as table
from keras_sphereface.conversion import checkpoint, mapping, onnx_graph, torch_reference
from keras_sphereface.conversion.head import head_weights
from keras_sphereface.conversion.report import ConversionReport
from keras_sphereface.conversion.tensors import listing
from keras_sphereface.model_size import without_weights

PARITY_IMAGES = 4
PARITY_SEED = 2109
# Ten times what float32 in another order of summation gives in the deepest network; a wrong axis gives about 1.
PARITY_TOLERANCE = 1e-3
CHANNEL_ORDERS = ("RGB", "BGR")


def convert(
    path: str | os.PathLike,
    architecture: str,
    input_shape: Sequence[int] | None = None,
    image_mean: float | None = None,
    image_std: float | None = None,
    include_head: bool = True,
    head_layout: str | None = None,
    channel_order: str | None = None,
) -> keras.Model:
    """Converts somebody else's checkpoint, of PyTorch or in ONNX, to a Keras model and compares the two.

    Known are OpenSphere's SFNet and IResNet (both of its versions), InsightFace's `arcface_torch` IResNet, the IR and
    IR-SE of AdaFace, CVLface, face.evoLVe and InsightFace_Pytorch, and MobileFaceNet in the naming of its usual PyTorch
    implementation (`conv1`, `dw_conv1`, `blocks`, `conv2`, `linear7`, `linear1`). The file is read with `weights_only`:
    nothing in it is run. Needs the extra `convert` (PyTorch); for an IResNet in ONNX, as InsightFace releases its models,
    the extra `export` instead.

    Args:
        path: A `.pth`, `.pt` or `.ckpt` file: a state dict, alone or in the entries of the known trainers; or a
            `.safetensors` file of one; or an `.onnx` file of an IResNet.
        architecture: One of `architectures()`, e.g. `"iresnet100"`. Channels and embedding length are read off the
            tensors' shapes; `"sfnet"`, `"iresnet"` and `"ir"` also count the residual units.
        input_shape: `(height, width, 3)`. Defaults to `None`: `(112, 112, 3)`; for MobileFaceNet what its kernel says.
        image_mean: Preprocessing, `(image - image_mean) / image_std` of RGB images 0..255. Defaults to `None`: 127.5.
        image_std: See `image_mean`. Defaults to `None`: 127.5, for MobileFaceNet 128.
        include_head: Whether to read the head's class weights, where the file has them. Defaults to `True`.
        head_layout: `"features_first"` or `"classes_first"`, needed only where a head has as many classes as
            dimensions. Defaults to `None`.
        channel_order: `"RGB"` or `"BGR"`: what the checkpoint's network was trained on, which the file does not tell. The
            model takes RGB in either case. Defaults to `None`: `"RGB"`, but for the IR networks, which must be told:
            AdaFace's take BGR, CVLface's what `color_space` in their configuration says.

    Returns:
        The backbone, a `keras.Model` in float32 from RGB images 0..255 to raw embeddings. Its attribute
        `conversion_report` is a `ConversionReport`: print it. The class weights are in `conversion_report.head_weights`.

    Raises:
        FileFormatError: If the file is no checkpoint of plain tensors, or has tensors that are missing, unknown,
            of another shape or not finite; it names them.
        ValueError: If the architecture is unknown, `image_mean` or `image_std` is no finite number, `include_head` is
            neither true nor false, or `channel_order` is none of these, or not given for an IR network.
        TypeError: If `path` is no path.
        MissingDependencyError: If PyTorch is not installed, or for an `.onnx` file ONNX and ONNX Runtime.

    Example:
    >>> model = convert("backbone.pth", architecture="iresnet100")  # doctest: +SKIP
    >>> print(model.conversion_report)  # doctest: +SKIP
    """
    known = table.get(architecture)
    if not isinstance(path, (str, os.PathLike)):  # an integer would open a file descriptor
        raise TypeError(f"`path` must be the path of a file. Received: path={path!r}")
    if not isinstance(include_head, (bool, np.bool_)):
        raise ValueError(f"`include_head` must be True or False. Received: include_head={include_head!r}")
    for argument, value in {"image_mean": image_mean, "image_std": image_std}.items():
        if value is not None:
            finite_number(argument, value)
    channel_order = _channel_order(channel_order, known)
    content = _read(path, known, architecture, include_head)
    tensors = table.canonical_names(known, content.backbone, path)
    given = {"input_shape": input_shape, "image_mean": image_mean, "image_std": image_std, "name": architecture}

    def build():
        return table.build(known, tensors, path, **given, **content.arguments)

    # The sizes are those of some tensors; whether the others have them too is known before there is memory for all.
    without_weights(lambda: _check(build(), known, tensors, path))
    backbone = build()
    mapping.assign(backbone, tensors, path, table.module_names(known, backbone, tensors))
    if channel_order == "BGR":
        mapping.turn_channels(backbone)
    weights = head_weights(content.head, backbone.embedding_dim, path, head_layout)
    report = _report(backbone, architecture, known, content, tensors, weights, channel_order)
    if not report.max_relative_difference <= PARITY_TOLERANCE:
        raise errors.FileFormatError(
            f"{path}: the converted model differs from the original by {report.max_relative_difference:.1e} (relative), "
            f"expected at most {PARITY_TOLERANCE}: its weights leave the range in which float32 is exact."
        )
    backbone.conversion_report = report
    return backbone


def _channel_order(given, architecture):
    """The order that the network was trained on, or `ValueError`: a wrong one costs accuracy without a word."""
    if given in CHANNEL_ORDERS:
        return given
    if given is not None:
        raise ValueError(f"`channel_order` must be one of {CHANNEL_ORDERS}. Received: channel_order={given!r}")
    if architecture.family == "ir":
        raise ValueError(
            f"`channel_order` must be given for IR networks, one of {CHANNEL_ORDERS}: files do not tell it, and both are "
            "about. AdaFace's own are trained on BGR, CVLface's on what `color_space` in their configuration says"
        )
    return "RGB"


def _read(path, architecture, name, include_head):
    if not _is_onnx(path):
        return checkpoint.read(path, include_head)
    if architecture.family != "iresnet":
        raise ValueError(f"Of .onnx files only IResNets are read. Received: architecture={name!r}, path={str(path)!r}")
    return onnx_graph.read(path)


def _is_onnx(path):
    return os.fspath(path).lower().endswith(onnx_graph.SUFFIX)


def _check(backbone, architecture, tensors, path):
    mapping.check(backbone, tensors, path, table.module_names(architecture, backbone, tensors))


def _report(backbone, name, architecture, content, tensors, weights, channel_order):
    config = backbone.get_config()
    images = _parity_images(backbone.input_shape[1:])
    as_trained = images[..., ::-1] if channel_order == "BGR" else images
    inputs = (as_trained - config["image_mean"]) / config["image_std"]
    original, reference = _original(content.path, architecture, tensors, inputs, config)
    if not np.isfinite(original).all():
        raise errors.FileFormatError(
            f"{content.path}: the original's own embeddings are not finite: {_cause(tensors)}."
        )
    converted = ops.convert_to_numpy(backbone(images, training=False))
    difference = float(np.abs(converted - original).max())
    counters = sum(key.endswith(mapping.COUNTER) for key in tensors)
    height, width = backbone.input_shape[1:3]
    turned = ", the first layer turned from BGR" if channel_order == "BGR" else ""
    return ConversionReport(
        checkpoint=content.path,
        sha256=content.sha256,
        architecture=name,
        backbone={"class_name": type(backbone).__name__, **_plain(config)},
        parameters=backbone.count_params(),
        preprocessing=f"(RGB - {config['image_mean']:g}) / {config['image_std']:g}, {height}x{width}{turned}",
        images=len(images),
        max_difference=difference,
        max_relative_difference=difference / max(float(np.abs(original).max()), np.finfo(np.float32).tiny),
        min_cosine=_min_cosine(original, converted),
        reference=reference,
        ignored=(*content.ignored, *([f"{counters} counters *{mapping.COUNTER}"] if counters else [])),
        head_weights=weights,
    )


def _original(path, architecture, tensors, inputs, config):
    """The embeddings by what the file was made for, and its name and version."""
    if _is_onnx(path):
        embeddings = onnx_graph.embeddings(path, inputs)
        return embeddings, f"ONNX Runtime {errors.require('onnxruntime', 'export').__version__}"
    units, block_order = config.get("units"), config.get("block_order")
    embeddings = torch_reference.embeddings(architecture.family, tensors, inputs, units, block_order)
    return embeddings, f"PyTorch {errors.require('torch', 'convert').__version__}"


def _cause(tensors):
    """Why a network whose weights are finite gives NaN or infinity."""
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
