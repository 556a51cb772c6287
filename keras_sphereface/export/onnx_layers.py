"""Keras's layers as ONNX nodes. Feature maps are (n, channels, height, width) inside, as ONNX's convolutions want."""

from collections.abc import Sequence

import keras
import numpy as np

_NHWC_TO_NCHW, _NCHW_TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
_LEAST_NORM = 1e-12  # of UnitNormalization in Keras


class Graph:
    """The nodes and weights of an ONNX graph that is being built.

    Args:
        half: Whether floating weights are stored in float16, and cast to float32 in the graph.
    """

    def __init__(self, half: bool = False):
        self.nodes, self.initializers = [], []
        self._half = half
        self._names = {}  # id of a Keras tensor -> name of its ONNX value
        self._kept = []  # the tensors themselves, so that no id is used twice

    def start(self, tensor: str, name: str) -> None:
        """Takes the images, channels last, in."""
        self._set(tensor, self.node("Transpose", [name], perm=_NHWC_TO_NCHW))

    def finish(self, tensor: str, name: str) -> None:
        """Gives the last tensor its name."""
        self.node("Identity", [self._names[id(tensor)]], output=name)

    def add(self, layer: keras.layers.Layer, *args, **kwargs) -> None:
        """Calls a Keras layer on Keras tensors and adds its nodes; this is `clone_model`'s `call_function`."""
        result = layer(*args, **kwargs)
        emit = EMITTERS.get(type(layer).__name__) if isinstance(layer, keras.layers.Layer) else None
        if emit is None:
            raise ValueError(
                f"The layer {layer.name!r} of class {type(layer).__name__} has no ONNX counterpart here. "
                f"Known: {', '.join(EMITTERS)}. Use model.export(path, format='onnx') of Keras for such models"
            )
        tensors = keras.tree.flatten(args)
        self._set(result, emit(self, layer, [self._names[id(tensor)] for tensor in tensors], tensors[0].shape))
        return result

    def _set(self, tensor, name):
        self._names[id(tensor)] = name
        self._kept.append(tensor)

    def node(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes) -> str:
        """Adds a node with one output and returns the output's name."""
        import onnx

        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [output], name=f"node_{len(self.nodes)}", **attributes))
        return output

    def weight(self, values: np.ndarray, exact: bool = False) -> str:
        """Adds a weight and returns its name; with `exact` never in float16."""
        import onnx

        values = np.asarray(values)
        name = f"weight_{len(self.initializers)}"
        store_half = self._half and values.dtype.kind == "f" and not exact
        stored = values.astype("float16") if store_half else values
        self.initializers.append(onnx.numpy_helper.from_array(np.ascontiguousarray(stored), name))
        return self.node("Cast", [name], to=onnx.TensorProto.FLOAT) if store_half else name


def _numpy(variable):
    return keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32"))  # or a tensor: a kernel tuned by LoRA


def _require(condition, layer, what):
    if not condition:
        raise ValueError(
            f"The layer {layer.name!r} cannot be written as ONNX: expected {what}. Received: {layer.get_config()}"
        )


def _identity(graph, layer, names, shape):
    return names[0]


def _rescaling(graph, layer, names, shape):
    scale, offset = (graph.weight(_per_channel(value, shape), exact=True) for value in (layer.scale, layer.offset))
    return graph.node("Add", [graph.node("Mul", [names[0], scale]), offset])


def _per_channel(value, shape):
    value = np.asarray(value, "float32")
    return value.reshape(-1, 1, 1) if value.ndim and len(shape) == 4 else value


def _zero_padding(graph, layer, names, shape):
    _require(layer.data_format == "channels_last", layer, "channels_last")
    (top, bottom), (left, right) = layer.padding
    pads = np.array([0, 0, top, left, 0, 0, bottom, right], "int64")
    return graph.node("Pad", [names[0], graph.weight(pads)])


def _pads(layer, shape, window, dilations=(1, 1)):
    """Padding of a convolution or pooling as ONNX wants it: top, left, bottom, right."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    begin, end = [], []
    for size, kernel, stride, dilation in zip(shape[1:3], window, layer.strides, dilations):
        reach = (kernel - 1) * dilation + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        begin.append(total // 2)
        end.append(total - total // 2)
    return begin + end


def _convolution(graph, layer, names, shape, kernel, groups):
    _require(layer.data_format == "channels_last", layer, "channels_last")
    inputs = [names[0], graph.weight(kernel)]
    if layer.use_bias:
        inputs.append(graph.weight(_numpy(layer.bias)))
    result = graph.node(
        "Conv",
        inputs,
        strides=layer.strides,
        dilations=layer.dilation_rate,
        group=groups,
        pads=_pads(layer, shape, layer.kernel_size, layer.dilation_rate),
        kernel_shape=layer.kernel_size,
    )
    return _activate(graph, layer, result)


def _conv2d(graph, layer, names, shape):
    return _convolution(graph, layer, names, shape, _numpy(layer.kernel).transpose(3, 2, 0, 1), layer.groups)


def _depthwise(graph, layer, names, shape):
    kernel = _numpy(layer.kernel)  # (height, width, channels, multiplier)
    height, width, channels, multiplier = kernel.shape
    kernel = kernel.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    return _convolution(graph, layer, names, shape, kernel, channels)


def _batch_norm(graph, layer, names, shape):
    axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
    _require(axis in (-1, len(shape) - 1), layer, "normalization of the last axis")
    ones = np.ones(shape[-1], "float32")
    gamma = _numpy(layer.gamma) if layer.scale else ones
    beta = _numpy(layer.beta) if layer.center else 0 * ones
    values = (gamma, beta, _numpy(layer.moving_mean), _numpy(layer.moving_variance))
    weights = [graph.weight(value, exact=True) for value in values]  # few numbers, and variances can be tiny
    return graph.node("BatchNormalization", [names[0], *weights], epsilon=layer.epsilon)


def _prelu(graph, layer, names, shape):
    slope = _numpy(layer.alpha)
    if len(shape) == 4:
        slope = slope.transpose(2, 0, 1)
    return graph.node("PRelu", [names[0], graph.weight(slope)])


def _relu(graph, layer, names, shape):
    plain = layer.max_value is None and not layer.negative_slope and not layer.threshold
    _require(plain, layer, "a plain ReLU")
    return graph.node("Relu", names)


def _add(graph, layer, names, shape):
    result = names[0]
    for other in names[1:]:
        result = graph.node("Add", [result, other])
    return result


def _reshape(graph, layer, names, shape):
    _require(tuple(layer.target_shape) == tuple(shape[1:]), layer, f"target_shape={tuple(shape[1:])}, the input's own")
    return names[0]


def _flatten(graph, layer, names, shape):
    if len(shape) == 4:  # Keras flattens rows, columns, channels
        names = [graph.node("Transpose", names, perm=_NCHW_TO_NHWC)]
    return graph.node("Flatten", names, axis=1)


def _pooling(kind):
    def emit(graph, layer, names, shape):
        _require(layer.data_format == "channels_last", layer, "channels_last")
        pads = _pads(layer, shape, layer.pool_size)  # padding never counts, in Keras and by ONNX's defaults
        return graph.node(kind, names, kernel_shape=layer.pool_size, strides=layer.strides, pads=pads)

    return emit


def _global_average(graph, layer, names, shape):
    pooled = graph.node("GlobalAveragePool", names)
    if layer.keepdims:
        return pooled
    return graph.node("Flatten", [pooled], axis=1)


def _dense(graph, layer, names, shape):
    _require(len(shape) == 2, layer, "vectors as inputs")
    inputs = [names[0], graph.weight(_numpy(layer.kernel))]
    if layer.use_bias:
        inputs.append(graph.weight(_numpy(layer.bias)))
    return _activate(graph, layer, graph.node("Gemm", inputs))


def _activation(graph, layer, names, shape):
    return _activate(graph, layer, names[0])


def _activate(graph, layer, name):
    kind = getattr(layer.activation, "__name__", None)
    _require(kind in ACTIVATIONS, layer, f"an activation of {', '.join(ACTIVATIONS)}")
    return graph.node(ACTIVATIONS[kind], [name]) if ACTIVATIONS[kind] else name


def _unit_normalization(graph, layer, names, shape):
    axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
    _require(len(shape) == 2 and axis in (-1, 1), layer, "normalization of vectors")
    norm = graph.node("ReduceL2", names, axes=[1], keepdims=1)
    least = graph.weight(np.float32(_LEAST_NORM), exact=True)  # keeps a zero vector from dividing by zero
    return graph.node("Div", [names[0], graph.node("Max", [norm, least])])


ACTIVATIONS = {"linear": None, "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
EMITTERS = {
    "Rescaling": _rescaling,
    "ZeroPadding2D": _zero_padding,
    "Conv2D": _conv2d,
    "DepthwiseConv2D": _depthwise,
    "BatchNormalization": _batch_norm,
    "PReLU": _prelu,
    "ReLU": _relu,
    "Activation": _activation,
    "Add": _add,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "MaxPooling2D": _pooling("MaxPool"),
    "AveragePooling2D": _pooling("AveragePool"),
    "GlobalAveragePooling2D": _global_average,
    "Dense": _dense,
    "Dropout": _identity,
    "Identity": _identity,
    "UnitNormalization": _unit_normalization,
}
