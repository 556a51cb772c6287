"""IResNets in ONNX files, as InsightFace releases its models: the tensors by the names of its PyTorch checkpoints."""

import collections
import dataclasses

import numpy as np

from keras_sphereface import errors
from keras_sphereface.backbones.blocks import BATCH_NORM_EPSILON
from keras_sphereface.conversion import onnx_norms
from keras_sphereface.conversion.checkpoint import Checkpoint
from keras_sphereface.conversion.onnx_file import OnnxFile
from keras_sphereface.conversion.tensors import check_units, listing

# Without a meaning for float32 in inference; PReLU's slopes are unsqueezed.
_PASSED_OVER = ("Identity", "Dropout", "Cast", "Unsqueeze")
_NORM = "BatchNormalization"


def read(file: OnnxFile) -> Checkpoint:
    """Reads an IResNet along the graph of an ONNX file, whatever its tensors are called.

    Exporters fold a batch normalization into the convolution before it: it comes back as one that only adds the offset.

    Args:
        file: The opened file.

    Returns:
        A `Checkpoint` without a head.

    Raises:
        FileFormatError: If it holds another network.
    """
    reader = _Reader(file)
    return Checkpoint(file.path, file.sha256, reader.read(), head={}, ignored=(), arguments=reader.arguments)


class _Reader:
    """Follows the tensors from the images to the embeddings, and keeps the weights that it meets."""

    def __init__(self, file):
        self.file, self.tensors = file, {}
        self.arguments = {"input_shape": (*file.image_size, 3)} if all(file.image_size) else {}
        self.consumers = collections.defaultdict(list)
        behind = {}
        for node in file.nodes:
            node = dataclasses.replace(node, inputs=tuple(behind.get(name, name) for name in node.inputs))
            if node.operator in _PASSED_OVER and node.inputs:
                behind[node.output] = node.input(0)
                continue
            for name in node.inputs:
                self.consumers[name].append(node)

    def read(self):
        """Returns the tensors by name."""
        x = self._prelu(self._conv(self.file.images, "conv1", "bn1"), "prelu")
        stage, index, count = 0, 0, 0
        while self._begins_unit(x):
            check_units(count := count + 1, self.file.path)
            begins_stage = not any(node.operator == "Add" for node in self.consumers[x])
            stage, index = (stage + 1, 0) if begins_stage else (stage, index + 1)
            x = self._unit(x, f"layer{stage}.{index}", begins_stage)
        x = self._norm(x, "bn2")
        x = self._next(x, "Flatten", "Reshape").output
        x = self._linear(x)
        if any(node.operator == _NORM for node in self.consumers[x]):
            self._norm(x, "features")
        else:
            self._offset("features", np.zeros_like(self.tensors["fc.bias"]))
        return self.tensors

    def _begins_unit(self, x):
        """Whether the normalization of a map goes into a convolution; that at the end goes into the embedding."""
        norm = self._next(x, _NORM).output
        return any(node.operator == "Conv" for node in self.consumers[norm])

    def _unit(self, x, name, begins_stage):
        y = self._norm(x, f"{name}.bn1")
        y = self._prelu(self._conv(y, f"{name}.conv1", f"{name}.bn2"), f"{name}.prelu")
        y = self._conv(y, f"{name}.conv2", f"{name}.bn3")
        if begins_stage:
            x = self._downsample(x, name)
        total = self._next(y, "Add")
        if set(total.inputs) != {x, y}:
            raise self._error(f"the sum {total.output!r} adds something else than unit {name} and what passes by")
        return total.output

    def _downsample(self, x, name):
        """What passes by the first unit of a stage: every second pixel, or a convolution of them."""
        if any(node.operator == "MaxPool" for node in self.consumers[x]):
            self.arguments["shortcut"] = "subsample"
            return self._next(x, "MaxPool").output
        return self._conv(x, f"{name}.downsample.0", f"{name}.downsample.1")

    def _conv(self, x, name, norm):
        node = self._next(x, "Conv")
        self.tensors[f"{name}.weight"] = weight = self._weight(node, 1)
        x = node.output
        if any(other.operator == _NORM for other in self.consumers[x]) and len(node.inputs) == 2:
            return self._norm(x, norm)
        self._offset(norm, self._weight(node, 2) if len(node.inputs) > 2 else np.zeros(weight.shape[:1], "float32"))
        return x

    def _offset(self, name, numbers):
        """A batch normalization that only adds."""
        self.tensors |= onnx_norms.offset(name, numbers, BATCH_NORM_EPSILON)

    def _norm(self, x, name):
        node = self._next(x, _NORM)
        epsilon = node.attributes.get("epsilon", BATCH_NORM_EPSILON)
        if not isinstance(epsilon, float):
            raise self._error(f"the epsilon of {node.output!r} is no number")
        arrays = [self._weight(node, place) for place, _ in enumerate(onnx_norms.PARTS, start=1)]
        self.tensors |= onnx_norms.tensors(name, arrays, epsilon, BATCH_NORM_EPSILON)
        return node.output

    def _prelu(self, x, name):
        node = self._next(x, "PRelu")
        self.tensors[f"{name}.weight"] = self._weight(node, 1).reshape(-1)
        return node.output

    def _linear(self, x):
        node = self._next(x, "Gemm")
        weight = self._weight(node, 1)
        self.tensors["fc.weight"] = weight if node.attributes.get("transB") else weight.T
        self.tensors["fc.bias"] = self._weight(node, 2)
        return node.output

    def _next(self, x, *operators):
        """The one node of these operators that takes a tensor."""
        nodes = [node for node in self.consumers[x] if node.operator in operators]
        if len(nodes) != 1:
            found = listing(node.operator for node in self.consumers[x]) or "nothing"
            raise self._error(f"expected one {' or '.join(operators)} behind {x!r}, found {found}")
        return nodes[0]

    def _weight(self, node, place):
        """A node's input as an array."""
        name = node.input(place)
        if not self.file.has_weight(name):
            raise self._error(f"the {node.operator} of {node.output!r} has no weights in its place {place}")
        return self.file.weight(name).astype("float32")

    def _error(self, problem):
        return self.file.error(
            f"{errors.one_line(problem)}: no IResNet. Leave `architecture` away to read other networks"
        )
