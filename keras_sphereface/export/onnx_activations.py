"""Keras's activations as ONNX nodes: functions of the graph and a value's name, which return the result's name."""

import math
from collections.abc import Callable

import keras
import numpy as np

from keras_sphereface.export.onnx_graph import Graph


def apply(graph: Graph, activation: Callable, name: str) -> str | None:
    """Adds an activation function of Keras; returns `None` if it has no counterpart here."""
    kind = getattr(activation, "__name__", "")
    if activation is not getattr(keras.activations, kind, None):  # somebody's own of the same name
        return None
    return ACTIVATIONS[kind](graph, name) if kind in ACTIVATIONS else None


def leaky_relu(graph: Graph, name: str, slope: float = 0.2) -> str:
    """Adds x where x is positive, slope * x elsewhere; Keras's default slope."""
    return graph.node("LeakyRelu", [name], alpha=float(slope))


def at_most(graph: Graph, name: str, maximum: float) -> str:
    """Adds the smaller one of x and a number."""
    return graph.node("Min", [name, graph.name_of(float(maximum))])


def _node(kind, **attributes):
    return lambda graph, name: graph.node(kind, [name], **attributes)


def _relu6(graph, name):
    return at_most(graph, graph.node("Relu", [name]), 6.0)


def _silu(graph, name):
    return graph.node("Mul", [name, graph.node("Sigmoid", [name])])


def _gelu(graph, name):
    """The exact one: x (1 + erf(x / sqrt 2)) / 2."""
    error = graph.node("Erf", [graph.node("Mul", [name, graph.name_of(math.sqrt(0.5))])])
    return graph.node(
        "Mul", [graph.node("Mul", [name, graph.name_of(0.5)]), graph.node("Add", [error, graph.name_of(1.0)])]
    )


ACTIVATIONS = {
    "linear": lambda graph, name: name,
    "relu": _node("Relu"),
    "relu6": _relu6,
    "leaky_relu": leaky_relu,
    "elu": _node("Elu"),
    "selu": _node("Selu", alpha=1.6732632423543772, gamma=1.0507009873554805),
    "sigmoid": _node("Sigmoid"),
    "hard_sigmoid": _node("HardSigmoid", alpha=float(np.float32(1 / 6)), beta=0.5),
    "tanh": _node("Tanh"),
    "softplus": _node("Softplus"),
    "silu": _silu,
    "hard_silu": _node("HardSwish"),
    "gelu": _gelu,
}
