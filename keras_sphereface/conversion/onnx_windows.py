"""ONNX's operators that move a window over feature maps, as Keras's layers: convolutions, padding and pooling."""

import functools

import numpy as np
from keras import layers

from keras_sphereface.conversion.onnx_folding import axes_of

MAPS = 4  # axes


def _conv(graph, node):
    x, kernel = graph.tensor(node, rank=MAPS), graph.array(node, 1, rank=4)
    bias = graph.bias(node)
    groups, (outputs, inputs, *window) = *graph.sizes(node, "group", (1,)), kernel.shape
    channels = x.shape[-1]
    graph.require(node, min(kernel.shape) > 0 and inputs * groups == channels, f"a kernel for {channels} channels")
    strides, dilations = graph.sizes(node, "strides", (1, 1)), graph.sizes(node, "dilations", (1, 1))
    x, padding = _pad(graph, node, x, [(size - 1) * rate + 1 for size, rate in zip(window, dilations)], strides)
    if tuple(window) == (1, 1) and strides == (2, 2):
        x, strides = graph.layer(layers.MaxPooling2D, 1, strides=2)(x), (1, 1)  # see `blocks.pick_every_second`
    options = {"strides": strides, "padding": padding, "dilation_rate": dilations, "use_bias": bool(bias)}
    if groups == channels > 1:
        graph.require(node, strides[0] == strides[1], "the same stride in both directions")
        layer = graph.layer(layers.DepthwiseConv2D, window, depth_multiplier=outputs // channels, **options)
        return graph.call(layer, x, kernel.reshape(channels, -1, *window).transpose(2, 3, 0, 1), *bias)
    layer = graph.layer(layers.Conv2D, outputs, window, groups=groups, **options)
    return graph.call(layer, x, kernel.transpose(2, 3, 1, 0), *bias)


def _pad(graph, node, x, reach, strides):
    """Zeros around a map, by a layer unless Keras's "same" adds as many.

    Returns:
        `(x, padding)`
    """
    automatic = node.attributes.get("auto_pad", b"NOTSET")
    if automatic == b"SAME_UPPER":
        return x, "same"
    graph.require(node, automatic in (b"NOTSET", b"VALID"), "explicit padding")
    top, left, bottom, right = graph.sizes(node, "pads", (0, 0, 0, 0), least=0)
    if strides == (1, 1) and all(
        before == after == (size - 1) / 2 for before, after, size in ((top, bottom, reach[0]), (left, right, reach[1]))
    ):
        return x, "same" if max(reach) > 1 else "valid"
    return _zeros_around(graph, node, x, top, bottom, left, right), "valid"


def _zeros_around(graph, node, x, top, bottom, left, right):
    graph.require(
        node, max(top, bottom) <= x.shape[1] and max(left, right) <= x.shape[2], "padding within a map's size"
    )
    return graph.layer(layers.ZeroPadding2D, ((top, bottom), (left, right)))(x) if top or bottom or left or right else x


def _padding(graph, node):
    x = graph.tensor(node, rank=MAPS)
    sizes = graph.array(node, 1).tolist() if graph.has_array(node, 1) else list(graph.sizes(node, "pads", (0,) * 8, 0))
    value = graph.array(node, 2) if graph.has_array(node, 2) else np.float32(node.attributes.get("value", 0))
    plain = node.attributes.get("mode", b"constant") == b"constant" and not value.any()
    plain = plain and len(sizes) == 8 and min(sizes) >= 0 and not any(sizes[i] for i in (0, 1, 4, 5))
    graph.require(node, plain and not graph.has_array(node, 3), "zeros around rows and columns")
    return _zeros_around(graph, node, x, sizes[2], sizes[6], sizes[3], sizes[7])


def _pool(layer, graph, node):
    x = graph.tensor(node, rank=MAPS)
    window = graph.sizes(node, "kernel_shape", (1, 1))
    strides = graph.sizes(node, "strides", (1, 1))
    graph.require(node, not node.attributes.get("ceil_mode"), "sizes rounded down")
    graph.require(node, graph.sizes(node, "dilations", (1, 1)) == (1, 1), "no dilation")
    padded, padding = _pad(graph, node, x, window, strides)
    if padded is not x or padding == "same":  # Keras's own padding counts neither way: it is of no number
        by_zeros = padding == "valid" and layer is layers.MaxPooling2D and node.input(0) in graph.not_negative
        graph.require(node, by_zeros or (padding == "same" and layer is layers.MaxPooling2D), "no padding")
    return graph.layer(layer, window, strides=strides, padding=padding)(padded)


def _global_pool(layer, graph, node):
    return graph.layer(layer, keepdims=True)(graph.tensor(node, rank=MAPS))


def _mean(graph, node):
    x = graph.tensor(node, rank=MAPS)
    graph.require(node, axes_of(graph, node, 4) == (2, 3), "the mean over rows and columns")
    return graph.layer(layers.GlobalAveragePooling2D, keepdims=bool(node.attributes.get("keepdims", 1)))(x)


OPERATORS = {
    "Conv": _conv,
    "Pad": _padding,
    "MaxPool": functools.partial(_pool, layers.MaxPooling2D),
    "AveragePool": functools.partial(_pool, layers.AveragePooling2D),
    "GlobalMaxPool": functools.partial(_global_pool, layers.GlobalMaxPooling2D),
    "GlobalAveragePool": functools.partial(_global_pool, layers.GlobalAveragePooling2D),
    "ReduceMean": _mean,
}
