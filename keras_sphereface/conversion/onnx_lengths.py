"""Lengths of vectors in an ONNX graph, which vectors are divided by.

`torch.nn.functional.normalize` is one node and its bounds. TensorFlow squares, adds, bounds, takes the root and its
inverse, and multiplies. In Keras either is `UnitNormalization`: what comes before the division is followed, not computed.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from keras_sphereface.conversion.onnx_file import Node
from keras_sphereface.conversion.onnx_folding import axes_of, axes_to_come
from keras_sphereface.conversion.onnx_shapes import VECTORS

if TYPE_CHECKING:
    from keras_sphereface.conversion.onnx_network import Graph

NO_BOUND = 1e37  # a larger number, which exporters write for none
_NO_LENGTH = 1e-5


class Length(NamedTuple):
    """A value that is a power of the lengths of vectors.

    Args:
        vectors: Their name.
        power: 2 of the sum of squares, 1 of the length, -1 of its inverse.
        is_column: Whether it has the vectors' axes, the second of them 1. Defaults to `True`.
    """

    vectors: str
    power: int
    is_column: bool = True


def length_of(graph: "Graph", node: Node) -> Length | None:
    """What a node computes, if that is a length; `None` if it is another value.

    Raises:
        FileFormatError: If it would be of something else than vectors, or is kept from being short.
    """
    function = OPERATORS.get(node.operator)
    return function(graph, node) if function else None


def divides(graph: "Graph", node: Node, place: int, power: int) -> bool:
    """Whether a node's input is a power of the length of the vectors that are its other input.

    Raises:
        FileFormatError: If it is of others.
    """
    length = graph.lengths.get(node.input(place))
    if length is None:
        return False
    graph.require(node, length == Length(node.input(1 - place), power), "vectors and their own lengths")
    return True


def _root_of_squares(graph, node):
    return _of_vectors(graph, node, node.input(0), 1)


def _sum_of_squares(graph, node):
    return _of_vectors(graph, node, node.input(0), 2)


def _sum(graph, node):
    graph.require(node, node.input(0) in graph.squares, "the sum of vectors' squares")
    return _of_vectors(graph, node, graph.squares[node.input(0)], 2)


def _of_vectors(graph, node, vectors, power):
    graph.tensor(node, rank=VECTORS)
    graph.require(node, axes_of(graph, node, VECTORS) == (1,), "the vectors' lengths")
    return Length(vectors, power, bool(node.attributes.get("keepdims", 1)))


def _root(graph, node):
    length = graph.lengths.get(node.input(0))
    graph.require(node, length is not None and length.power == 2, "the root of a sum of squares")
    return length._replace(power=1)


def _inverse(graph, node):
    length = graph.lengths.get(node.input(0))
    graph.require(node, length is not None and length.power == 1, "the inverse of a length")
    return length._replace(power=-1)


def _quotient(graph, node):
    length = graph.lengths.get(node.input(1))
    if length is None or not graph.has_array(node, 0):
        return None
    graph.require(node, length.power == 1 and (graph.array(node, 0) == 1).all(), "the inverse of a length")
    return length._replace(power=-1)


def _power(graph, node):
    length = graph.lengths.get(node.input(0))
    if length is None:
        return None
    exponent = graph.array(node, 1).item()
    graph.require(node, length.power == 2 and abs(exponent) == 0.5, "the root of a sum of squares, or its inverse")
    return length._replace(power=1 if exponent > 0 else -1)


def _same(graph, node):
    return graph.lengths.get(node.input(0))


def _clipped(graph, node):
    length = graph.lengths.get(node.input(0))
    if length is None:
        return None
    highest = graph.array(node, 2).item() if node.input(2) else node.attributes.get("max", np.inf)
    graph.require(node, highest > NO_BOUND, "no upper bound of a length")
    least = graph.array(node, 1).item() if node.input(1) else node.attributes.get("min", 0)
    return _no_shorter(graph, node, length, least)


def _with_constant(graph, node):
    """The larger of a length and a number, or their sum."""
    place = next((place for place in (0, 1) if node.input(place) in graph.lengths), None)
    if place is None:
        return None
    graph.require(node, len(node.inputs) == 2, "a length and a number")
    return _no_shorter(graph, node, graph.lengths[node.input(place)], graph.array(node, 1 - place).max())


def _no_shorter(graph, node, length, least):
    """A length that is kept from being zero."""
    graph.require(node, length.power > 0, "a length before its inverse")
    least = max(float(least), 0.0) ** (1 / length.power)
    graph.require(node, np.float32(least) <= np.float32(_NO_LENGTH), f"a least length of at most {_NO_LENGTH}")
    return length


def _repeated(graph, node):
    """A length along its vector."""
    length = graph.lengths.get(node.input(0))
    if length is None:
        return None
    size = graph.tensors[length.vectors].shape[-1]
    fits = length.is_column and graph.array(node, 1, rank=1).tolist() in ([0, size], [1, size])
    graph.require(node, fits, "a length for each number of its vector")
    return length


def _as_column(graph, node):
    length = graph.lengths.get(node.input(0))
    if length is None:
        return None
    graph.require(node, not length.is_column and axes_to_come(graph, node, 1) == (1,), "one length for each vector")
    return length._replace(is_column=True)


OPERATORS = {
    "ReduceL2": _root_of_squares,
    "ReduceSumSquare": _sum_of_squares,
    "ReduceSum": _sum,
    "Sqrt": _root,
    "Reciprocal": _inverse,
    "Div": _quotient,
    "Pow": _power,
    "Clip": _clipped,
    "Max": _with_constant,
    "Add": _with_constant,
    "Expand": _repeated,
    "Unsqueeze": _as_column,
    "Identity": _same,
    "Cast": _same,
}
