"""Keras's layers as ONNX nodes."""

import functools

import keras
import numpy as np

from keras_sphereface.export import onnx_activations
from keras_sphereface.export.onnx_graph import NCHW_TO_NHWC, NHWC_TO_NCHW, Graph

_LEAST_NORM = 1e-12  # of UnitNormalization in Keras


def add(graph: Graph, layer: keras.layers.Layer, *args, **kwargs) -> keras.KerasTensor:
    """Calls a Keras layer, or an operator between tensors, on Keras tensors and adds its nodes.

    With a graph it is `clone_model`'s `call_function`.
    """
    result = layer(*args, **kwargs)
    emit = (EMITTERS if isinstance(layer, keras.layers.Layer) else OPERATORS).get(type(layer).__name__)
    if emit is _get_item:
        *args, key = args
        emit = functools.partial(emit, key=key)
    if emit is None:
        raise ValueError(
            f"The layer {layer.name!r} of class {type(layer).__name__} has no ONNX counterpart here. "
            f"Known: {', '.join(EMITTERS)}. Use model.export(path, format='onnx') of Keras for such models"
        )
    values = keras.tree.flatten(args)
    shapes = [value.shape for value in values if isinstance(value, keras.KerasTensor)]
    known = all(isinstance(value, (keras.KerasTensor, int, float)) for value in values)
    _require(known and len({len(shape) for shape in shapes}) == 1, layer, "inputs of one rank")
    graph.set_name(result, emit(graph, layer, [graph.name_of(value) for value in values], shapes[0]))
    return result


def _numpy(variable):
    return keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32"))  # or a tensor: a kernel tuned by LoRA


def _require(condition, layer, what):
    if not condition:
        config = layer.get_config() if isinstance(layer, keras.layers.Layer) else type(layer).__name__
        raise ValueError(f"The layer {layer.name!r} cannot be written as ONNX: expected {what}. Received: {config}")


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


def _cropping(graph, layer, names, shape):
    _require(layer.data_format == "channels_last", layer, "channels_last")
    (top, bottom), (left, right) = layer.cropping
    begin, end = [top, left], [shape[1] - bottom, shape[2] - right]
    return graph.node("Slice", [names[0], *(graph.weight(np.array(value, "int64")) for value in (begin, end, [2, 3]))])


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


def _convolution(graph, layer, names, shape, kernel, groups, bias=()):
    """A convolution with a layer's strides and padding, without its activation."""
    _require(layer.data_format == "channels_last", layer, "channels_last")
    return graph.node(
        "Conv",
        [names[0], graph.weight(kernel), *bias],
        strides=layer.strides,
        dilations=layer.dilation_rate,
        group=groups,
        pads=_pads(layer, shape, layer.kernel_size, layer.dilation_rate),
        kernel_shape=layer.kernel_size,
    )


def _bias(graph, layer):
    """The further input that a layer's bias is, if it has one."""
    return [graph.weight(_numpy(layer.bias))] if layer.use_bias else []


def _of_channels(kernel):
    """A depthwise kernel `(height, width, channels, multiplier)` as ONNX's of one group per channel, and their number."""
    height, width, channels, multiplier = kernel.shape
    return kernel.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width), channels


def _conv2d(graph, layer, names, shape):
    kernel = _numpy(layer.kernel).transpose(3, 2, 0, 1)
    return _activate(graph, layer, _convolution(graph, layer, names, shape, kernel, layer.groups, _bias(graph, layer)))


def _depthwise(graph, layer, names, shape):
    kernel = _of_channels(_numpy(layer.kernel))
    return _activate(graph, layer, _convolution(graph, layer, names, shape, *kernel, _bias(graph, layer)))


def _separable(graph, layer, names, shape):
    each = _convolution(graph, layer, names, shape, *_of_channels(_numpy(layer.depthwise_kernel)))
    kernel = graph.weight(_numpy(layer.pointwise_kernel).transpose(3, 2, 0, 1))
    return _activate(graph, layer, graph.node("Conv", [each, kernel, *_bias(graph, layer)]))


def _batch_norm(graph, layer, names, shape):
    fits = _axis(layer) in (-1, len(shape) - 1) and len(shape) in (2, 4)
    _require(fits, layer, "normalization of the last axis of vectors or feature maps")
    values = (*_scale_and_center(layer, shape), _numpy(layer.moving_mean), _numpy(layer.moving_variance))
    weights = [graph.weight(value, exact=True) for value in values]  # few numbers, and variances can be tiny
    return graph.node("BatchNormalization", [names[0], *weights], epsilon=layer.epsilon)


def _scale_and_center(layer, shape):
    """Gamma and beta of a normalization, where it has them."""
    gamma = _numpy(layer.gamma) if layer.scale else np.ones(shape[-1], "float32")
    return gamma, _numpy(layer.beta) if layer.center else np.zeros(shape[-1], "float32")


def _layer_norm(graph, layer, names, shape):
    plain = _axis(layer) in (-1, len(shape) - 1) and not getattr(layer, "rms_scaling", False)
    _require(plain, layer, "normalization of the last axis, without rms_scaling")
    weights = [graph.weight(value, exact=True) for value in _scale_and_center(layer, shape)]
    inputs = [_channels_last(graph, names[0], shape), *weights]
    return _channels_first(graph, graph.node("LayerNormalization", inputs, epsilon=layer.epsilon), shape)


def _axis(layer):
    return layer.axis[0] if isinstance(layer.axis, (list, tuple)) and len(layer.axis) == 1 else layer.axis


def _normalization(graph, layer, names, shape):
    _require(
        _axis(layer) in (None, (), -1, len(shape) - 1) and not layer.invert, layer, "normalization of the last axis"
    )
    mean, variance = (np.squeeze(_numpy(value)) for value in (layer.mean, layer.variance))
    spread = np.maximum(np.sqrt(variance), keras.config.epsilon())
    mean, spread = (graph.weight(_per_channel(value, shape), exact=True) for value in (mean, spread))
    return graph.node("Div", [graph.node("Sub", [names[0], mean]), spread])


def _prelu(graph, layer, names, shape):
    slope = _numpy(layer.alpha)
    if len(shape) == 4:
        slope = slope.transpose(2, 0, 1)
    return graph.node("PRelu", [names[0], graph.weight(slope)])


def _relu(graph, layer, names, shape):
    _require(not layer.threshold, layer, "a ReLU with threshold 0")
    result = _leaky_relu(graph, layer, names, shape) if layer.negative_slope else graph.node("Relu", names)
    return result if layer.max_value is None else onnx_activations.at_most(graph, result, layer.max_value)


def _leaky_relu(graph, layer, names, shape):
    return onnx_activations.leaky_relu(graph, names[0], layer.negative_slope)


def _elementwise(kind):
    return lambda graph, layer, names, shape: functools.reduce(lambda *pair: graph.node(kind, pair), names)


def _mean(graph, layer, names, shape):
    return graph.node("Mean", names)


def _concatenate(graph, layer, names, shape):
    _require(layer.axis in (-1, len(shape) - 1), layer, "concatenation along the last axis")
    return graph.node("Concat", names, axis=1 if len(shape) == 4 else len(shape) - 1)


def _get_item(graph, layer, names, shape, key):
    last = key[-1] if isinstance(key, (tuple, list)) and len(key) > 1 else None
    others = [one for one in key[:-1] if one is not Ellipsis] if isinstance(last, slice) else [None]
    in_full = set(map(str, others)) <= {str(slice(None))} and (Ellipsis in key[:-1] or len(key) == len(shape))
    _require(
        isinstance(last, slice) and in_full and last.step in (None, 1),
        layer,
        "a range of the last axis, x[..., start:end]",
    )
    start, end, _ = last.indices(shape[-1])
    bounds = [
        graph.weight(np.array([value], "int64")) for value in (start, end, 1 if len(shape) == 4 else len(shape) - 1)
    ]
    return graph.node("Slice", [names[0], *bounds])


def _reshape(graph, layer, names, shape):
    target = layer.compute_output_shape(shape)[1:]
    if target == tuple(shape[1:]):
        return names[0]
    _require(len(target) in (1, 2, 3), layer, "vectors, tokens or feature maps")
    whole = graph.weight(np.array([0, *target], "int64"))
    result = graph.node("Reshape", [_channels_last(graph, names[0], shape), whole])
    return _channels_first(graph, result, (None, *target))


def _permute(graph, layer, names, shape):
    _require(len(shape) == 4, layer, "feature maps")
    place = {1: 2, 2: 3, 3: 1}  # of Keras's rows, columns and channels in ONNX
    rows, columns, channels = (place[axis] for axis in layer.dims)
    return graph.node("Transpose", names, perm=(0, channels, rows, columns))


def _upsampling(graph, layer, names, shape):
    _require(layer.data_format == "channels_last" and layer.interpolation == "nearest", layer, "nearest, channels_last")
    scales = graph.weight(np.array([1, 1, *layer.size], "float32"), exact=True)
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.node("Resize", [names[0], "", scales], **how)


def _channels_last(graph, name, shape):
    """A value in Keras's order of rows, columns, channels."""
    return graph.node("Transpose", [name], perm=NCHW_TO_NHWC) if len(shape) == 4 else name


def _channels_first(graph, name, shape):
    """Back from Keras's order."""
    return graph.node("Transpose", [name], perm=NHWC_TO_NCHW) if len(shape) == 4 else name


def _flatten(graph, layer, names, shape):
    return graph.node("Flatten", [_channels_last(graph, names[0], shape)], axis=1)


def _pooling(kind):
    def emit(graph, layer, names, shape):
        _require(layer.data_format == "channels_last", layer, "channels_last")
        pads = _pads(layer, shape, layer.pool_size)  # padding never counts, in Keras and by ONNX's defaults
        return graph.node(kind, names, kernel_shape=layer.pool_size, strides=layer.strides, pads=pads)

    return emit


def _global_pooling(kind):
    def emit(graph, layer, names, shape):
        _require(layer.data_format == "channels_last", layer, "channels_last")
        pooled = graph.node(kind, names)
        return pooled if layer.keepdims else graph.node("Flatten", [pooled], axis=1)

    return emit


def _dense(graph, layer, names, shape):
    _require(len(shape) in (2, 3), layer, "vectors or tokens as inputs")
    inputs = [names[0], graph.weight(_numpy(layer.kernel))]
    if len(shape) == 2:
        return _activate(graph, layer, graph.node("Gemm", [*inputs, *_bias(graph, layer)]))
    result = graph.node("MatMul", inputs)
    return _activate(graph, layer, graph.node("Add", [result, *_bias(graph, layer)]) if layer.use_bias else result)


def _position_embedding(graph, layer, names, shape):
    return graph.node("Add", [names[0], graph.weight(_numpy(layer.positions))])


def _self_attention(graph, layer, names, shape):
    """Queries and values as (batch, heads, tokens, dimensions of a head), keys with the last two in the other order."""
    size = shape[2] // 3 // layer.num_heads
    by_heads = graph.weight(np.array([0, 0, 3, layer.num_heads, size], "int64"))
    parts = graph.node("Reshape", [names[0], by_heads])
    picks = (graph.weight(np.array(number, "int64")) for number in range(3))
    queries, keys, values = (graph.node("Gather", [parts, pick], axis=2) for pick in picks)
    queries, values = (graph.node("Transpose", [part], perm=(0, 2, 1, 3)) for part in (queries, values))
    scaled = graph.node("Mul", [queries, graph.name_of(size**-0.5)])
    weights = graph.node("MatMul", [scaled, graph.node("Transpose", [keys], perm=(0, 2, 3, 1))])
    attended = graph.node("MatMul", [graph.node("Softmax", [weights], axis=-1), values])
    attended = graph.node("Transpose", [attended], perm=(0, 2, 1, 3))
    return graph.node("Reshape", [attended, graph.weight(np.array([0, 0, shape[2] // 3], "int64"))])


def _activation(graph, layer, names, shape):
    return _activate(graph, layer, names[0])


def _activate(graph, layer, name):
    result = onnx_activations.apply(graph, layer.activation, name)
    _require(result is not None, layer, f"an activation of {', '.join(onnx_activations.ACTIVATIONS)}")
    return result


def _unit_normalization(graph, layer, names, shape):
    _require(len(shape) == 2 and _axis(layer) in (-1, 1), layer, "normalization of vectors")
    norm = graph.node("ReduceL2", names, axes=[1], keepdims=1)
    least = graph.weight(np.float32(_LEAST_NORM), exact=True)  # keeps a zero vector from dividing by zero
    return graph.node("Div", [names[0], graph.node("Max", [norm, least])])


OPERATORS = {  # between tensors, or a tensor and a number
    "Add": _elementwise("Add"),
    "Subtract": _elementwise("Sub"),
    "Multiply": _elementwise("Mul"),
    "TrueDivide": _elementwise("Div"),
    "Divide": _elementwise("Div"),
    "Maximum": _elementwise("Max"),
    "Minimum": _elementwise("Min"),
    "GetItem": _get_item,
}
EMITTERS = {
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    "ZeroPadding2D": _zero_padding,
    "Cropping2D": _cropping,
    "Conv2D": _conv2d,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "PReLU": _prelu,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "Activation": _activation,
    "Add": _elementwise("Add"),
    "Subtract": _elementwise("Sub"),
    "Multiply": _elementwise("Mul"),
    "Maximum": _elementwise("Max"),
    "Minimum": _elementwise("Min"),
    "Average": _mean,
    "Concatenate": _concatenate,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "UpSampling2D": _upsampling,
    "MaxPooling2D": _pooling("MaxPool"),
    "AveragePooling2D": _pooling("AveragePool"),
    "GlobalAveragePooling2D": _global_pooling("GlobalAveragePool"),
    "GlobalMaxPooling2D": _global_pooling("GlobalMaxPool"),
    "Dense": _dense,
    "Dropout": _identity,
    "SpatialDropout2D": _identity,
    "GaussianNoise": _identity,
    "Identity": _identity,
    "UnitNormalization": _unit_normalization,
    "PositionEmbedding": _position_embedding,
    "SelfAttention": _self_attention,
    **dict.fromkeys(("RandomOrder", "KeepFirst", "PutBack"), _identity),  # in training alone they do something
}
