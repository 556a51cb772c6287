"""ONNX's operators as Keras's layers: each function takes the graph and a node, and returns a Keras tensor.

Here are normalizations, activations, arithmetic and products; `OPERATORS` has those of windows and shapes, too.
"""

import functools

import numpy as np
from keras import layers

from keras_sphereface.conversion import onnx_lengths, onnx_shapes, onnx_windows
from keras_sphereface.conversion.onnx_lengths import NO_BOUND
from keras_sphereface.conversion.onnx_shapes import VECTORS
from keras_sphereface.conversion.onnx_windows import MAPS

_HARD_SIGMOID = (1 / 6, 0.5)  # Keras's slope and offset


def _batch_norm(graph, node):
    x = graph.tensor(node)
    weights = _of_channels(graph, node, x, range(1, 5))
    graph.require(node, not node.attributes.get("training_mode"), "inference")
    return graph.call(
        graph.layer(layers.BatchNormalization, momentum=0.9, epsilon=node.attributes.get("epsilon", 1e-5)), x, *weights
    )


def _instance_norm(graph, node):
    x = graph.tensor(node, rank=MAPS)
    layer = graph.layer(layers.GroupNormalization, groups=-1, epsilon=node.attributes.get("epsilon", 1e-5))
    return graph.call(layer, x, *_of_channels(graph, node, x, (1, 2)))


def _of_channels(graph, node, x, places):
    """The weights of a normalization, a number for each channel."""
    weights = [graph.array(node, place, rank=1) for place in places]
    graph.require(node, {len(weight) for weight in weights} == {x.shape[-1]}, f"{x.shape[-1]} numbers of each kind")
    return weights


def _prelu(graph, node):
    x = graph.tensor(node)
    slopes = _per_channel(graph, node, graph.array(node, 1), x)
    shared = list(range(1, len(x.shape) - (slopes.size > 1)))
    return graph.call(
        graph.layer(layers.PReLU, shared_axes=shared or None), x, slopes.reshape([1] * (len(x.shape) - 2) + [-1])
    )


def _per_channel(graph, node, array, x):
    """A constant beside a tensor as one number, or as one for each channel."""
    channels, rank = x.shape[-1], len(x.shape)
    is_last = rank == VECTORS or node.output in graph.channels_last
    by_place = array.shape[-1:] == (channels,) if is_last else array.shape[-3:] == (channels, 1, 1) and rank == MAPS
    fits = array.ndim <= rank and (array.size == 1 or (array.size == channels and by_place))
    graph.require(node, fits, f"one number, or {channels} for channels")
    return array.reshape(-1)


def _each(graph, node, place=0):
    """An input whose numbers are changed each for itself, so that they stay in the order that they have in ONNX."""
    if node.input(place) in graph.channels_last:
        graph.channels_last.add(node.output)
    return graph.tensor(node, place, any_order=True)


def _relu(graph, node):
    graph.not_negative.add(node.output)
    return graph.layer(layers.ReLU)(_each(graph, node))


def _leaky_relu(graph, node):
    return graph.layer(layers.LeakyReLU, negative_slope=node.attributes.get("alpha", 0.01))(_each(graph, node))


def _clip(graph, node):
    lowest, highest = (_bound(graph, node, place, name) for place, name in ((1, "min"), (2, "max")))
    x = _each(graph, node)
    if lowest is None and highest is None:
        return _same(graph, node)
    if lowest is None:  # highest - relu(highest - x)
        return _rescale(graph, graph.layer(layers.ReLU)(_rescale(graph, x, -1.0, highest)), -1.0, highest)
    graph.require(node, highest is None or highest > lowest, "bounds in order")
    if lowest >= 0:
        graph.not_negative.add(node.output)
    if lowest == 0:
        return graph.layer(layers.ReLU, max_value=highest)(x)
    height = None if highest is None else highest - lowest
    return _rescale(graph, graph.layer(layers.ReLU, max_value=height)(_rescale(graph, x, 1.0, -lowest)), 1.0, lowest)


def _bound(graph, node, place, name):
    value = graph.array(node, place).item() if node.input(place) else node.attributes.get(name)
    return None if value is None or abs(value) > NO_BOUND else float(value)


def _activation(name):
    return lambda graph, node: graph.layer(layers.Activation, name)(_each(graph, node))


def _neg(graph, node):
    return _rescale(graph, _each(graph, node), -1.0, 0.0)


def _elu(graph, node):
    alpha = node.attributes.get("alpha", 1.0)
    layer = graph.layer(layers.Activation, "elu") if alpha == 1 else graph.layer(layers.ELU, alpha=alpha)
    return layer(_each(graph, node))


def _gelu(graph, node):
    graph.require(node, node.attributes.get("approximate", b"none") == b"none", "the exact one")
    return graph.layer(layers.Activation, "gelu")(_each(graph, node))


def _sigmoid(graph, node):
    graph.not_negative.add(node.output)
    return graph.layer(layers.Activation, "sigmoid")(_each(graph, node))


def _hard_sigmoid(graph, node):
    numbers = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    graph.not_negative.add(node.output)
    if np.allclose(numbers, _HARD_SIGMOID, atol=1e-6):
        return graph.layer(layers.Activation, "hard_sigmoid")(_each(graph, node))
    return graph.layer(layers.ReLU, max_value=1.0)(_rescale(graph, _each(graph, node), *numbers))


def _add(graph, node):
    return _of_two(graph, node, layers.Add, lambda constant: (1.0, constant))


def _mul(graph, node):
    for place in (0, 1):
        if onnx_lengths.divides(graph, node, place, power=-1):
            return _unit_vectors(graph, node, 1 - place)
    if node.input(0) == node.input(1):
        graph.squares[node.output] = node.input(0)
    return _of_two(graph, node, layers.Multiply, lambda constant: (constant, 0.0))


def _sub(graph, node):
    if graph.has_array(node, 0):
        return _of_two(graph, node, layers.Subtract, lambda constant: (-1.0, constant))
    return _of_two(graph, node, layers.Subtract, lambda constant: (1.0, -constant))


def _div(graph, node):
    if onnx_lengths.divides(graph, node, 1, power=1):
        return _unit_vectors(graph, node, 0)
    x = _each(graph, node)
    constant = _per_channel(graph, node, graph.array(node, 1), x)
    graph.require(node, constant.all(), "no division by zero")
    return _rescale(graph, x, 1.0 / constant, 0.0)


def _of_two(graph, node, layer, scale_and_offset):
    """Two tensors by a layer, or a tensor and a constant by `Rescaling`."""
    constants = [place for place in (0, 1) if graph.has_array(node, place)]
    if not constants:
        pair = graph.tensor(node, 0), graph.tensor(node, 1)
        graph.require(node, len(pair[0].shape) == len(pair[1].shape), "two tensors of as many axes")
        return graph.layer(layer)(list(pair))
    x = _each(graph, node, 1 - constants[0])
    return _rescale(graph, x, *scale_and_offset(_per_channel(graph, node, graph.array(node, constants[0]), x)))


def _rescale(graph, x, scale, offset):
    plain = [value.item() if np.size(value) == 1 else value.tolist() for value in map(np.asarray, (scale, offset))]
    return graph.layer(layers.Rescaling, *plain)(x)


def _pow(graph, node):
    graph.require(node, (graph.array(node, 1) == 2).all(), "the square")
    graph.squares[node.output] = node.input(0)
    x = graph.tensor(node)
    return graph.layer(layers.Multiply)([x, x])


def _of_several(layer, graph, node):
    return graph.layer(layer)([graph.tensor(node, place) for place in range(len(node.inputs))])


def _gemm(graph, node):
    alpha, beta = (np.float32(node.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    graph.require(node, not node.attributes.get("transA"), "vectors as they are")
    matrix = graph.array(node, 1, rank=2) * alpha
    matrix = matrix.T if node.attributes.get("transB") else matrix
    bias = [np.broadcast_to(bias, matrix.shape[1:]) * beta for bias in graph.bias(node)]
    return _dense(graph, node, matrix, bias)


def _matmul(graph, node):
    return _dense(graph, node, graph.array(node, 1, rank=2), [])


def _dense(graph, node, matrix, bias):
    x = graph.tensor(node, rank=VECTORS)
    graph.require(node, len(matrix) == x.shape[-1] and matrix.size > 0, f"a matrix for {x.shape[-1]} numbers")
    if node.input(0) in graph.maps:  # the matrix takes the numbers in Keras's order, and the map need not be turned
        x = graph.maps[node.input(0)]
        height, width, channels = x.shape[1:]
        matrix = matrix.reshape(channels, height, width, -1).transpose(1, 2, 0, 3).reshape(matrix.shape)
        x = graph.layer(layers.Flatten)(x)
    return graph.call(graph.layer(layers.Dense, matrix.shape[1], use_bias=bool(bias)), x, matrix, *bias)


def _expand(graph, node):
    """A pixel over a map."""
    sizes = graph.array(node, 1, rank=1).tolist()
    x = graph.tensor(node, rank=MAPS)
    graph.require(node, x.shape[1:3] == (1, 1) and len(sizes) == MAPS, "one pixel, expanded to a map")
    graph.require(node, sizes[1] in (1, x.shape[-1]) and sizes[0] in (0, 1), "as many channels and images")
    return graph.layer(layers.UpSampling2D, tuple(sizes[2:]))(x)


def _unit_length(graph, node):
    graph.require(node, node.attributes.get("p", 2) == 2 and node.attributes.get("axis", -1) in (1, -1), "unit length")
    return _unit_vectors(graph, node, 0)


def _unit_vectors(graph, node, place):
    x = graph.tensor(node, place, rank=VECTORS)
    return graph.layer(layers.UnitNormalization, axis=-1)(x)


def _same(graph, node):
    if node.input(0) in graph.not_negative:
        graph.not_negative.add(node.output)
    if node.input(0) in graph.maps:
        graph.maps[node.output] = graph.maps[node.input(0)]
    return _each(graph, node)


OPERATORS = (
    onnx_windows.OPERATORS
    | onnx_shapes.OPERATORS
    | {
        "BatchNormalization": _batch_norm,
        "InstanceNormalization": _instance_norm,
        "PRelu": _prelu,
        "Relu": _relu,
        "LeakyRelu": _leaky_relu,
        "Clip": _clip,
        "Neg": _neg,
        "Sigmoid": _sigmoid,
        "Tanh": _activation("tanh"),
        "HardSigmoid": _hard_sigmoid,
        "HardSwish": _activation("hard_silu"),
        "Elu": _elu,
        "Gelu": _gelu,
        "Mish": _activation("mish"),
        "Selu": _activation("selu"),
        "Softplus": _activation("softplus"),
        "Add": _add,
        "Sub": _sub,
        "Mul": _mul,
        "Div": _div,
        "Expand": _expand,
        "Pow": _pow,
        "Max": functools.partial(_of_several, layers.Maximum),
        "Min": functools.partial(_of_several, layers.Minimum),
        "Sum": functools.partial(_of_several, layers.Add),
        "LpNormalization": _unit_length,
        "Gemm": _gemm,
        "MatMul": _matmul,
        "Identity": _same,
        "Dropout": _same,
        "Cast": _same,
    }
)
