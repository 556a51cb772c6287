"""ONNX operators on weights and sizes alone: they are computed once, by NumPy.

PyTorch's exporter writes `x.view(x.size(0), -1)` as five nodes, of which one, `Reshape`, computes anything of the images.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from keras_sphereface.conversion.onnx_file import Node

if TYPE_CHECKING:
    from keras_sphereface.conversion.onnx_network import Graph

_LARGEST = 4096  # numbers that are made of others, which weights are not
AS_IT_IS = 0  # a size that is not known, of images in a batch; in `Reshape` it means just that


def is_known(graph: "Graph", node: Node) -> bool:
    """Whether a node depends on weights and on the sizes of tensors alone."""
    if node.operator == "Shape":
        return True
    given = [place for place, name in enumerate(node.inputs) if name]
    return node.operator in _FUNCTIONS and bool(given) and all(graph.has_array(node, place) for place in given)


def fold(graph: "Graph", node: Node) -> np.ndarray:
    """Computes a node's value.

    Args:
        graph: The values known.
        node: A node for which `is_known`.

    Returns:
        NumPy array, no larger than the inputs together or of a few thousand numbers.
    """
    if node.operator == "Shape":
        return _shape(graph, node)
    arrays = [graph.array(node, place) for place, name in enumerate(node.inputs) if name]
    return np.asarray(_FUNCTIONS[node.operator](graph, node, *arrays))


def axes_of(graph: "Graph", node: Node, rank: int) -> tuple[int, ...]:
    """The axes that a node names, in an attribute or, of late, in its second input; from 0 on, `()` if it names none."""
    return tuple(sorted(axis % rank for axis in _named_axes(graph, node)))


def axes_to_come(graph: "Graph", node: Node, rank: int) -> tuple[int, ...]:
    """The axes that a node adds to `rank` others, as they are numbered then."""
    return axes_of(graph, node, rank + len(_named_axes(graph, node)))


def _named_axes(graph, node):
    axes = graph.array(node, 1).reshape(-1).tolist() if graph.has_array(node, 1) else node.attributes.get("axes", ())
    return [int(axis) for axis in axes]


def _shape(graph, node):
    if graph.has_array(node, 0):
        return np.array(graph.array(node, 0).shape, "int64")
    sizes = [size or AS_IT_IS for size in graph.tensor(node, any_order=True).shape]
    in_order = sizes if node.input(0) in graph.channels_last else [sizes[0], sizes[-1], *sizes[1:-1]]
    return np.array(in_order, "int64")[node.attributes.get("start", 0) : node.attributes.get("end")]


def _same(graph, node, array, *others):
    return array


def _gather(graph, node, array, indices):
    axis = node.attributes.get("axis", 0)
    graph.require(node, indices.size <= array.shape[axis], "no more indices than there are numbers")
    return np.take(array, indices, axis=axis)


def _unsqueeze(graph, node, array, *others):
    return np.expand_dims(array, axes_to_come(graph, node, array.ndim))


def _squeeze(graph, node, array, *others):
    return np.squeeze(array, axes_of(graph, node, array.ndim) or None)


def _concat(graph, node, *arrays):
    size = sum(array.size for array in arrays)
    named_once = sum({id(array): array.size for array in arrays}.values())
    graph.require(node, size <= max(named_once, _LARGEST), "each weight once")
    return np.concatenate(arrays, axis=node.attributes.get("axis", 0))


def _slice(graph, node, array, starts, ends, *others):
    axes = others[0].tolist() if others else range(starts.size)
    steps = others[1].tolist() if len(others) > 1 else [1] * starts.size
    index = [slice(None)] * array.ndim
    for axis, *bounds in zip(axes, starts.tolist(), ends.tolist(), steps):
        index[axis] = slice(*bounds)
    return array[tuple(index)]


def _transpose(graph, node, array):
    return np.transpose(array, node.attributes.get("perm"))


def _constant(graph, node, sizes):
    value = node.attributes.get("value")
    graph.require(node, math.prod(sizes.tolist()) <= _LARGEST, f"at most {_LARGEST} numbers")
    return np.full(sizes.tolist(), 0.0 if value is None else graph.file.array(value, node.output).item())


def _arithmetic(function):
    def fold(graph, node, *pair):
        graph.require(node, pair[0].size * pair[1].size <= _LARGEST, f"at most {_LARGEST} numbers")
        with np.errstate(all="ignore"):
            return function(*pair)

    return fold


def _divide(a, b):
    return a // b if a.dtype.kind == b.dtype.kind == "i" else a / b


def _reshape(graph, node, array, sizes):
    return array.reshape([size or own for size, own in zip(sizes.tolist(), (*array.shape, *[1] * sizes.size))])


_FUNCTIONS = {
    "Identity": _same,
    "Cast": _same,
    "Gather": _gather,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Concat": _concat,
    "Slice": _slice,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "ConstantOfShape": _constant,
    "Add": _arithmetic(np.add),
    "Sub": _arithmetic(np.subtract),
    "Mul": _arithmetic(np.multiply),
    "Div": _arithmetic(_divide),
}
OPERATORS = {"Shape", *_FUNCTIONS}
