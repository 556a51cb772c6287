"""Which PyTorch tensor each variable of a backbone comes from, and how its axes are turned."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from keras_sphereface import errors
from keras_sphereface.backbones import tokens
from keras_sphereface.conversion.tensors import listing
from keras_sphereface.hints import Path

COUNTER = ".num_batches_tracked"  # of PyTorch's batch normalization, without a meaning for the network's output
MASK_TOKEN = "mask_token"  # of a ViT's training, which the network's output does not know
_OF_SEVERAL_WORDS = ("dw_conv1", "patch_embed", "pos_embed", MASK_TOKEN)  # modules whose names have an underscore
EMBEDDING_CONV = "linear1_conv"  # MobileFaceNet's embedding: a 1x1 convolution in PyTorch, a dense layer here


@dataclasses.dataclass(frozen=True)
class Slot:
    """One variable to fill: the shape of its tensor in PyTorch and the function to Keras's layout."""

    variable: keras.Variable
    shape: tuple
    to_keras: Callable = np.asarray


def torch_name(layer_name: str) -> str:
    """The PyTorch module's name of a layer: `layer1_0_conv1` is `layer1.0.conv1`."""
    name = layer_name.replace("_", ".")
    for module in _OF_SEVERAL_WORDS:
        name = name.replace(module.replace("_", "."), module)
    return name


def slots(backbone: keras.Model, module_name: Callable[[str], str] = torch_name) -> dict[str, Slot]:
    """All variables of a backbone.

    Args:
        backbone: An `SFNet`, `IResNet`, `MobileFaceNet` or `ViT`.
        module_name: Function from a layer's name to its module's in PyTorch. Defaults to `torch_name`.

    Returns:
        Dictionary of tensor names to `Slot`s.
    """
    found = {}
    for layer in backbone.layers:
        if isinstance(layer, (tokens.PositionEmbedding, tokens.PutBack)):  # a parameter of the whole network
            found[module_name(layer.name)] = _parameter(layer.weights[0])
        for suffix, slot in _layer_slots(layer, backbone):
            found[f"{module_name(layer.name)}.{suffix}"] = slot
    return found


def _layer_slots(layer, backbone):
    """Pairs of name suffix and `Slot` of one layer."""
    if isinstance(layer, layers.BatchNormalization):
        return _batch_norm(layer)
    if isinstance(layer, layers.LayerNormalization):
        shape = tuple(layer.gamma.shape)
        return [("weight", Slot(layer.gamma, shape)), ("bias", Slot(layer.beta, shape))]
    if isinstance(layer, layers.PReLU):
        channels = layer.alpha.shape[-1]
        return [("weight", Slot(layer.alpha, (channels,), lambda x: x[None, None, :]))]
    if isinstance(layer, layers.DepthwiseConv2D):
        height, width, channels, _ = layer.kernel.shape
        kernel = Slot(layer.kernel, (channels, 1, height, width), lambda x: x.transpose(2, 3, 0, 1))
        return [("weight", kernel), *_bias(layer)]
    if isinstance(layer, layers.Conv2D):
        height, width, inputs, outputs = layer.kernel.shape
        kernel = Slot(layer.kernel, (outputs, inputs, height, width), lambda x: x.transpose(2, 3, 1, 0))
        return [("weight", kernel), *_bias(layer)]
    if isinstance(layer, layers.Dense):
        return [("weight", _dense_slot(layer, backbone)), *_bias(layer)]
    return []


def _bias(layer):
    return [("bias", Slot(layer.bias, tuple(layer.bias.shape)))] if layer.use_bias else []


def _batch_norm(layer):
    shape = tuple(layer.gamma.shape)
    return [
        ("weight", Slot(layer.gamma, shape)),
        ("bias", Slot(layer.beta, shape)),
        ("running_mean", Slot(layer.moving_mean, shape)),
        ("running_var", Slot(layer.moving_variance, shape)),
    ]


def _parameter(variable):
    """A parameter that PyTorch keeps with leading axes of one."""
    shape = tuple(variable.shape)
    return Slot(variable, (1,) * (3 - len(shape)) + shape, lambda x: x.reshape(shape))


def _dense_slot(layer, backbone):
    """A matrix; the embedding's of feature maps PyTorch has by channels, rows, columns, Keras by rows, columns, channels."""
    flattened = backbone.get_layer("flatten").input.shape[1:]
    if len(flattened) != 3:  # a ViT's tokens, which both have one after the other
        return Slot(layer.kernel, tuple(layer.kernel.shape)[::-1], np.transpose)
    height, width, channels = flattened
    outputs = layer.units

    def to_keras(x):
        return x.reshape(outputs, channels, height, width).transpose(2, 3, 1, 0).reshape(-1, outputs)

    shape = (outputs, channels * height * width)
    return Slot(layer.kernel, (*shape, 1, 1) if layer.name == EMBEDDING_CONV else shape, to_keras)


def check(
    backbone: keras.Model,
    tensors: dict[str, np.ndarray],
    source: Path,
    module_name: Callable[[str], str] = torch_name,
) -> dict[str, Slot]:
    """Compares the tensors with a backbone's variables, by names and shapes.

    Args:
        backbone: The backbone.
        tensors: Tensor names to arrays; the counters of batch normalizations that the backbone has are passed over.
        source: Where they come from, for error messages.
        module_name: As in `slots`.

    Returns:
        The backbone's `slots`.

    Raises:
        FileFormatError: If tensors are missing, unknown, or of another shape; it names them.
    """
    expected = slots(backbone, module_name)
    counters = {name.removesuffix(".running_var") + COUNTER for name in expected if name.endswith(".running_var")}
    tensors = {name: value for name, value in tensors.items() if name not in counters}
    wrong_shapes = [
        f"{name} (has {tuple(tensors[name].shape)}, expected {slot.shape})"
        for name, slot in expected.items()
        if name in tensors and tuple(tensors[name].shape) != slot.shape
    ]
    problems = {
        "missing tensors": expected.keys() - tensors.keys(),
        "unknown tensors": tensors.keys() - expected.keys(),
        "tensors of another shape": wrong_shapes,
    }
    found = [f"{title}: {listing(names)}" for title, names in problems.items() if names]
    if found:
        raise errors.FileFormatError(
            f"{source}: does not fit {backbone.name} for {backbone.input_shape[1]}x{backbone.input_shape[2]} images; "
            f"{'; '.join(found)}. Is `architecture` (or `input_shape`) another?"
        )
    return expected


def assign(
    backbone: keras.Model,
    tensors: dict[str, np.ndarray],
    source: Path,
    module_name: Callable[[str], str] = torch_name,
) -> None:
    """Fills a backbone's variables, all of them or, on any disagreement, none; arguments and errors as of `check`."""
    for name, slot in check(backbone, tensors, source, module_name).items():
        slot.variable.assign(slot.to_keras(tensors[name]))


def turn_channels(backbone: keras.Model) -> None:
    """Makes a backbone take RGB where it took BGR, or the other way: its first convolution's weights change places.

    Raises:
        ValueError: If it has no convolution.
    """
    first = next((layer for layer in backbone.layers if isinstance(layer, layers.Conv2D)), None)
    if first is None:
        raise ValueError(
            "`channel_order`: a network without a convolution is not turned. Leave it away, and turn the images"
        )
    first.kernel.assign(keras.ops.flip(first.kernel, axis=2))
