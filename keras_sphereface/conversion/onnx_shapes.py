"""ONNX's operators that move numbers, as Keras's layers: flattening, reshaping, turning, parts and their joining.

ONNX has (images, channels, rows, columns), the Keras tensors have (images, rows, columns, channels).
"""

import itertools
import math

from keras import layers

from keras_sphereface.conversion.onnx_folding import axes_of, axes_to_come
from keras_sphereface.conversion.onnx_windows import MAPS
from keras_sphereface.export.onnx_graph import NCHW_TO_NHWC, NHWC_TO_NCHW

VECTORS, _GROUPED = 2, 5  # axes; with channels in groups (images, groups, channels, rows, columns), the groups first
_GROUPS_TURNED = (0, 2, 1, 3, 4)  # a channel shuffle


def _flatten(graph, node):
    x = graph.tensor(node, any_order=True)
    graph.require(node, node.attributes.get("axis", 1) in (1, 1 - len(x.shape)), "one vector per image")
    return _as_vectors(graph, node, x)


def _as_vectors(graph, node, x):
    """Flattens in the order that ONNX has the numbers in."""
    if len(x.shape) == VECTORS:
        return x
    if len(x.shape) == _GROUPED:  # exporters join the step back to channels with this one
        x = graph.layer(layers.Reshape, (*x.shape[1:3], -1))(x)
    if set(x.shape[1:-1]) == {1} or node.input(0) in graph.channels_last:
        return graph.layer(layers.Flatten)(x)
    graph.maps[node.output] = x
    return graph.layer(layers.Flatten)(graph.layer(layers.Permute, (3, 1, 2))(x))


def _reshape(graph, node):
    x, sizes = graph.tensor(node, any_order=True), graph.array(node, 1, rank=1).tolist()
    length = math.prod(x.shape[1:])
    graph.require(node, len(sizes) > 1 and sizes[0] in (-1, 0, 1), f"sizes of whole images, not {sizes}")
    rest = _resolved(graph, node, sizes, x, length)
    if len(rest) == 1:
        return _as_vectors(graph, node, x)
    graph.require(node, node.input(0) not in graph.channels_last, "channels first")
    channels, *maps = rest
    of_vectors = set(x.shape[1:-1]) | set(maps) <= {1}  # one pixel in either
    in_place = len(x.shape) == MAPS and channels == x.shape[-1]  # rows and columns become one axis
    if of_vectors or in_place:
        return graph.layer(layers.Reshape, (*maps, channels))(x)
    if len(x.shape) == MAPS and tuple(rest[2:]) == x.shape[1:3]:  # channels in groups
        return graph.layer(layers.Reshape, (*rest[2:], *rest[:2]))(x)
    graph.require(
        node, len(x.shape) == _GROUPED and tuple(maps) == x.shape[1:3], f"the order of numbers kept, not {sizes}"
    )
    return graph.layer(layers.Reshape, (*maps, channels))(x)


def _resolved(graph, node, sizes, x, length):
    """The sizes behind the first, which is of images: 0 is an axis as it is, -1 the rest."""
    own = (x.shape[-1], *x.shape[1:-1]) if len(x.shape) < _GROUPED else (*x.shape[3:], *x.shape[1:3])
    rest = [size or (own[place] if place < len(own) else 0) for place, size in enumerate(sizes[1:])]
    known = math.prod(size for size in rest if size != -1)
    fits = rest.count(-1) + (sizes[0] == -1) < 2 and known > 0
    if fits and -1 in rest:
        rest[rest.index(-1)] = length // known
    graph.require(node, fits and math.prod(rest) == length, f"{length} numbers per image, not {sizes}")
    return rest


def _transpose(graph, node):
    x, perm = graph.tensor(node, any_order=True), tuple(node.attributes.get("perm", ()))
    if len(x.shape) == _GROUPED and perm == _GROUPS_TURNED:
        return graph.layer(layers.Permute, (1, 2, 4, 3))(x)
    graph.require(node, len(x.shape) == MAPS, "feature maps")
    to_last, is_last = perm == NCHW_TO_NHWC, node.input(0) in graph.channels_last
    graph.require(node, perm in (NCHW_TO_NHWC, NHWC_TO_NCHW) and to_last != is_last, "channels moved first or last")
    if to_last:
        graph.channels_last.add(node.output)
    return x


def _squeeze(graph, node):
    x = graph.tensor(node)
    return _with_pixel_axes(graph, node, x, axes_of(graph, node, len(x.shape)), -1)


def _unsqueeze(graph, node):
    x = graph.tensor(node)
    return _with_pixel_axes(graph, node, x, axes_to_come(graph, node, len(x.shape)), 1)


def _with_pixel_axes(graph, node, x, axes, sign):
    """A vector with fewer or more axes of one row and column."""
    rank = len(x.shape) + sign * len(axes)
    is_pixel = set(x.shape[1:-1]) <= {1} and set(axes) <= {2, 3} and len(set(axes)) == len(axes)
    graph.require(node, is_pixel and VECTORS <= rank <= MAPS, "rows and columns of one pixel")
    return graph.layer(layers.Reshape, (*[1] * (rank - VECTORS), x.shape[-1]))(x)


def _concat(graph, node):
    tensors = [graph.tensor(node, place) for place in range(len(node.inputs))]
    ranks = {len(x.shape) for x in tensors}
    graph.require(node, len(ranks) == 1 and node.attributes.get("axis") in (1, 1 - min(ranks)), "channels")
    return graph.layer(layers.Concatenate, axis=-1)(tensors)


def _slice(graph, node):
    """In an attribute each, or, of late, in an input each: starts, ends, axes, steps."""
    x, names = graph.tensor(node), ("starts", "ends", "axes", "steps")
    given = {
        name: graph.array(node, place).tolist() for place, name in enumerate(names, 1) if graph.has_array(node, place)
    }
    starts, ends = ([*given.get(name, node.attributes.get(name, ()))] for name in ("starts", "ends"))
    axes = given.get("axes", node.attributes.get("axes", list(range(len(starts)))))
    plain = len(starts) == len(ends) == 1 and list(axes) in ([1], [1 - len(x.shape)]) and given.get("steps", [1]) == [1]
    graph.require(node, plain, "one range of channels")
    return _channels(graph, node, x, *slice(starts[0], ends[0]).indices(x.shape[-1])[:2])


def _split(graph, node):
    x, count = graph.tensor(node), len(node.outputs)
    graph.require(node, node.attributes.get("axis", 0) in (1, 1 - len(x.shape)), "channels")
    equal = [-(-x.shape[-1] // count)] * (count - 1)
    sizes = graph.array(node, 1).tolist() if graph.has_array(node, 1) else node.attributes.get("split")
    sizes = sizes or [*equal, x.shape[-1] - sum(equal)]
    graph.require(node, len(sizes) == count and sum(sizes) == x.shape[-1], f"{count} parts of {x.shape[-1]} channels")
    ends = [*itertools.accumulate(sizes)]
    return tuple(_channels(graph, node, x, end - size, end) for size, end in zip(sizes, ends))


def _channels(graph, node, x, start, end):
    graph.require(node, 0 <= start < end, "at least one channel")
    return graph.part(x, start, end)


OPERATORS = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
}
