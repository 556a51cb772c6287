"""IResNets in ONNX files, as InsightFace releases its models: the tensors by the names of its PyTorch checkpoints."""

import collections

import numpy as np

from keras_sphereface import errors
from keras_sphereface.backbones.blocks import BATCH_NORM_EPSILON
from keras_sphereface.conversion.checkpoint import Checkpoint
from keras_sphereface.conversion.tensors import check_units, listing
from keras_sphereface.files import sha256
from keras_sphereface.hints import Path

SUFFIX = ".onnx"
# Without a meaning for float32 in inference; PReLU's slopes are unsqueezed.
_PASSED_OVER = ("Identity", "Dropout", "Cast", "Unsqueeze")
_NORM = "BatchNormalization"


def read(path: Path) -> Checkpoint:
    """Reads an IResNet along the graph of an ONNX file, whatever its tensors are called.

    Exporters fold a batch normalization into the convolution before it: it comes back as one that only adds the offset.

    Args:
        path: An `.onnx` file.

    Returns:
        A `Checkpoint` without a head.

    Raises:
        FileFormatError: If the file is none, keeps its weights elsewhere, or holds another network.
        MissingDependencyError: If ONNX is not installed: extra `[export]`.
    """
    reader = _Reader(_load(path), path)
    return Checkpoint(str(path), sha256(path), reader.read(), head={}, ignored=(), arguments=reader.arguments)


def embeddings(path: Path, images: np.ndarray) -> np.ndarray:
    """Runs the file itself.

    Args:
        path: An `.onnx` file.
        images: `(n, height, width, 3)` float array, already normalized.

    Returns:
        `(n, embedding_dim)` NumPy array.

    Raises:
        FileFormatError: If ONNX Runtime refuses the file, or images of this size.
        MissingDependencyError: If ONNX Runtime is not installed: extra `[export]`.
    """
    from keras_sphereface.export.onnx_file import open_session

    errors.require("onnxruntime", "export")
    images = np.ascontiguousarray(images.transpose(0, 3, 1, 2), "float32")
    try:
        session = open_session(path)
        source = session.get_inputs()[0].name
        # One by one: a file may have been exported for one image.
        return np.concatenate(
            [session.run(None, {source: images[index : index + 1]})[0] for index in range(len(images))]
        )
    except Exception as error:  # ONNX Runtime has a class of its own for each kind of failure
        raise errors.FileFormatError(
            f"{path}: ONNX Runtime does not run it ({errors.one_line(error)}). Get the file again."
        ) from error


def _load(path):
    onnx = errors.require("onnx", "export")
    with open(path, "rb") as file:
        content = file.read()
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf has classes of its own, which differ between its implementations
        raise errors.FileFormatError(f"{path}: no ONNX file ({errors.one_line(error)}). Get it again.") from error
    if not model.graph.node:
        raise errors.FileFormatError(f"{path}: no ONNX file, it has no graph. Get it again.")
    return model.graph


class _Reader:
    """Follows the tensors from the images to the embeddings, and keeps the weights that it meets."""

    def __init__(self, graph, path):
        self.path, self.tensors, self.arguments = path, {}, {}
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        nodes = [node for node in graph.node if node.output]
        self.initializers |= {
            node.output[0]: attribute.t
            for node in nodes
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        }
        for name, tensor in self.initializers.items():  # before ONNX Runtime looks for the other file
            if tensor.data_location:
                raise self._error(f"the weights {name!r} are in another file")
        self.start = next((value.name for value in graph.input if value.name not in self.initializers), None)
        self.consumers = collections.defaultdict(list)
        self.inputs, behind = {}, {}
        for node in nodes:  # each stands after those that it takes from
            inputs = [behind.get(name, name) for name in node.input]
            if node.op_type in _PASSED_OVER and inputs:
                behind[node.output[0]] = inputs[0]
                continue
            self.inputs[node.output[0]] = inputs
            for name in inputs:
                self.consumers[name].append(node)

    def read(self):
        """Returns the tensors by name."""
        x = self._prelu(self._conv(self.start, "conv1", "bn1"), "prelu")
        stage, index, count = 0, 0, 0
        while self._begins_unit(x):
            check_units(count := count + 1, self.path)
            begins_stage = not any(node.op_type == "Add" for node in self.consumers[x])
            stage, index = (stage + 1, 0) if begins_stage else (stage, index + 1)
            x = self._unit(x, f"layer{stage}.{index}", begins_stage)
        x = self._norm(x, "bn2")
        x = self._next(x, "Flatten", "Reshape").output[0]
        x = self._linear(x)
        if any(node.op_type == _NORM for node in self.consumers[x]):
            self._norm(x, "features")
        else:
            self._offset("features", np.zeros_like(self.tensors["fc.bias"]))
        return self.tensors

    def _begins_unit(self, x):
        """Whether the normalization of a map goes into a convolution; that at the end goes into the embedding."""
        norm = self._next(x, _NORM).output[0]
        return any(node.op_type == "Conv" for node in self.consumers[norm])

    def _unit(self, x, name, begins_stage):
        y = self._norm(x, f"{name}.bn1")
        y = self._prelu(self._conv(y, f"{name}.conv1", f"{name}.bn2"), f"{name}.prelu")
        y = self._conv(y, f"{name}.conv2", f"{name}.bn3")
        if begins_stage:
            x = self._downsample(x, name)
        total = self._next(y, "Add")
        if set(self.inputs[total.output[0]]) != {x, y}:
            raise self._error(f"the sum {total.output[0]!r} adds something else than unit {name} and what passes by")
        return total.output[0]

    def _downsample(self, x, name):
        """What passes by the first unit of a stage: every second pixel, or a convolution of them."""
        if any(node.op_type == "MaxPool" for node in self.consumers[x]):
            self.arguments["shortcut"] = "subsample"
            return self._next(x, "MaxPool").output[0]
        return self._conv(x, f"{name}.downsample.0", f"{name}.downsample.1")

    def _conv(self, x, name, norm):
        node = self._next(x, "Conv")
        self.tensors[f"{name}.weight"] = weight = self._weight(node, 1)
        x = node.output[0]
        if any(other.op_type == _NORM for other in self.consumers[x]) and len(node.input) == 2:
            return self._norm(x, norm)
        self._offset(norm, self._weight(node, 2) if len(node.input) > 2 else np.zeros(len(weight), "float32"))
        return x

    def _offset(self, name, offset):
        """A batch normalization that only adds."""
        ones = np.ones_like(offset)
        self.tensors |= {
            f"{name}.weight": ones,
            f"{name}.bias": offset,
            f"{name}.running_mean": np.zeros_like(offset),
            f"{name}.running_var": ones - np.float32(BATCH_NORM_EPSILON),
        }

    def _norm(self, x, name):
        node = self._next(x, _NORM)
        epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), BATCH_NORM_EPSILON)
        for place, part in enumerate(("weight", "bias", "running_mean", "running_var"), start=1):
            self.tensors[f"{name}.{part}"] = self._weight(node, place)
        self.tensors[f"{name}.running_var"] += np.float32(epsilon - BATCH_NORM_EPSILON)
        return node.output[0]

    def _prelu(self, x, name):
        node = self._next(x, "PRelu")
        self.tensors[f"{name}.weight"] = self._weight(node, 1).reshape(-1)
        return node.output[0]

    def _linear(self, x):
        node = self._next(x, "Gemm")
        weight = self._weight(node, 1)
        is_transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        self.tensors["fc.weight"] = weight if is_transposed else weight.T
        self.tensors["fc.bias"] = self._weight(node, 2)
        return node.output[0]

    def _next(self, x, *operators):
        """The one node of these operators that takes a tensor."""
        nodes = [node for node in self.consumers[x] if node.op_type in operators]
        if len(nodes) != 1:
            # A text that is no Unicode comes as bytes.
            found = listing(str(node.op_type) for node in self.consumers[x]) or "nothing"
            raise self._error(f"expected one {' or '.join(operators)} behind {x!r}, found {found}")
        return nodes[0]

    def _weight(self, node, place):
        """A node's input as an array."""
        onnx = errors.require("onnx", "export")
        inputs = self.inputs[node.output[0]]
        name = inputs[place] if len(inputs) > place else ""
        if name not in self.initializers:
            raise self._error(f"the {node.op_type} of {node.output[0]!r} has no weights in its place {place}")
        try:
            array = onnx.numpy_helper.to_array(self.initializers[name]).astype("float32")
        except Exception as error:  # of a damaged tensor, each of its kinds another
            raise self._error(f"the weights {name!r} are damaged ({errors.one_line(error)})") from error
        if not np.isfinite(array).all():
            raise self._error(f"the weights {name!r} have values that are not finite (NaN or infinity)")
        return array

    def _error(self, problem):
        return errors.FileFormatError(
            f"{self.path}: {errors.one_line(problem)}. Of ONNX files only an IResNet is read, with its weights inside, as "
            "InsightFace releases it"
        )
