"""ONNX's operators that move a window over feature maps, as Keras's layers: convolutions, padding and pooling."""

import functools
import math

import numpy as np
from keras import layers

from keras_sphereface.conversion.onnx_folding import axes_of

MAPS = 4  # axes
_POOLED = 100  # products of a convolution that take as long as a number of a pooling's window


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
    graph.spend(node, math.prod(x.shape[1:3]) * kernel.size // math.prod(strides))
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
    top, left, bottom, right = _pads(graph, node)
    if strides == (1, 1) and all(
        before == after == (size - 1) / 2 for before, after, size in ((top, bottom, reach[0]), (left, right, reach[1]))
    ):
        return x, "same" if max(reach) > 1 else "valid"
    return _zeros_around(graph, node, x, top, bottom, left, right), "valid"


def _pads(graph, node):
    """Top, left, bottom, right."""
    return graph.sizes(node, "pads", (0, 0, 0, 0), least=0)


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


def _max_pool(graph, node):
    x, window, strides, more = _window(graph, node)
    if node.input(0) in graph.not_negative:
        graph.not_negative.add(node.output)
    if any(more):
        fits = node.input(0) in graph.not_negative and node.attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
        graph.require(node, fits, "sizes rounded down, or no numbers below zero")
    top, left, bottom, right = _pads(graph, node)
    padded, padding = _pad(graph, node, x, window, strides)
    if any(more):
        padded, padding = _zeros_around(graph, node, x, top, bottom + more[0], left, right + more[1]), "valid"
    elif padded is not x and node.input(0) not in graph.not_negative:  # a zero would be the largest of negative numbers
        centred = [(size - 1) / 2 for size in window] * 2
        graph.require(node, [top, left, bottom, right] == centred, "padding by half a window, of numbers below zero")
        x = graph.layer(layers.MaxPooling2D, window, strides=1, padding="same")(x)
        return graph.layer(layers.MaxPooling2D, 1, strides=strides)(x)
    return graph.layer(layers.MaxPooling2D, window, strides=strides, padding=padding)(padded)


def _average_pool(graph, node):
    x, window, strides, more = _window(graph, node)
    graph.require(node, not any(more), "sizes rounded down")
    padded, padding = _pad(graph, node, x, window, strides)
    if padding == "same" and node.attributes.get("count_include_pad"):  # Keras never counts them
        top, left, bottom, right = _pads(graph, node)
        padded, padding = _zeros_around(graph, node, x, top, bottom, left, right), "valid"
    counts = padded is x or node.attributes.get("count_include_pad")
    graph.require(node, counts, "padding that counts, or by half a window and stride 1")
    return graph.layer(layers.AveragePooling2D, window, strides=strides, padding=padding)(padded)


def _window(graph, node):
    """What is pooled, the window, the strides, and how many rows and columns more there are with sizes rounded up."""
    x = graph.tensor(node, rank=MAPS)
    window, strides, dilations = (graph.sizes(node, name, (1, 1)) for name in ("kernel_shape", "strides", "dilations"))
    graph.require(node, dilations == (1, 1), "no dilation")
    graph.spend(node, math.prod(x.shape[1:]) * math.prod(window) * _POOLED)
    pads = _pads(graph, node)
    if not node.attributes.get("ceil_mode"):
        return x, window, strides, (0, 0)
    more = (
        _rounded_up(size, reach, stride, before, after)
        for size, reach, stride, before, after in zip(x.shape[1:3], window, strides, pads[:2], pads[2:])
    )
    return x, window, strides, tuple(more)


def _rounded_up(size, window, stride, before, after):
    """What is missing to the last window, if that begins in the map or the padding before it."""
    rest = (size + before + after - window) % stride
    begins = size + before + after - window - rest + stride
    return stride - rest if rest and begins < size + before else 0


def _global_pool(layer, graph, node):
    return graph.layer(layer, keepdims=True)(graph.tensor(node, rank=MAPS))


def _mean(graph, node):
    x = graph.tensor(node)
    rank, keepdims = len(x.shape), bool(node.attributes.get("keepdims", 1))
    graph.require(node, rank > 2 and axes_of(graph, node, rank) == (2, 3)[: rank - 2], "the mean over rows and columns")
    layer = layers.GlobalAveragePooling2D if rank == MAPS else layers.GlobalAveragePooling1D
    return graph.layer(layer, keepdims=keepdims)(x)


OPERATORS = {
    "Conv": _conv,
    "Pad": _padding,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalMaxPool": functools.partial(_global_pool, layers.GlobalMaxPooling2D),
    "GlobalAveragePool": functools.partial(_global_pool, layers.GlobalAveragePooling2D),
    "ReduceMean": _mean,
}
