"""The nodes and weights of an ONNX graph that is being built; of Keras it knows only the tensors' ids."""

from collections.abc import Sequence
from typing import Any

import numpy as np

NHWC_TO_NCHW, NCHW_TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


class Graph:
    """A graph whose feature maps are (n, channels, height, width), as ONNX's convolutions want.

    Args:
        half: Whether floating weights are stored in float16, and cast to float32 in the graph.
    """

    def __init__(self, half: bool = False):
        self.nodes, self.initializers = [], []
        self._half = half
        self._names = {}  # id of a Keras tensor -> name of its ONNX value
        self._kept = []  # the tensors themselves, so that no id is used twice

    def start(self, tensor: Any, name: str) -> None:
        """Takes the images, channels last, in."""
        self.set_name(tensor, self.node("Transpose", [name], perm=NHWC_TO_NCHW))

    def finish(self, tensor: Any, name: str) -> None:
        """Gives the last tensor its name."""
        self.node("Identity", [self.name_of(tensor)], output=name)

    def set_name(self, tensor: Any, name: str) -> None:
        """Says which ONNX value a Keras tensor is."""
        self._names[id(tensor)] = name
        self._kept.append(tensor)

    def name_of(self, tensor: Any) -> str:
        """The ONNX value of a Keras tensor, or a constant of a number."""
        if isinstance(tensor, (int, float)):
            return self.weight(np.float32(tensor), exact=True)
        return self._names[id(tensor)]

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
        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(stored, order="C"), name))
        return self.node("Cast", [name], to=onnx.TensorProto.FLOAT) if store_half else name
