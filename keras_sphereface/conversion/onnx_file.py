"""ONNX files of networks: the nodes between images and embeddings, the weights as arrays, and the file itself run."""

import dataclasses
import math
import os
import pathlib
from typing import Any

import numpy as np

from keras_sphereface import errors
from keras_sphereface.export.onnx_file import session_of
from keras_sphereface.export.onnx_graph import NHWC_TO_NCHW
from keras_sphereface.files import sha256
from keras_sphereface.hints import Path

SUFFIX = ".onnx"
CHANNELS = 3
# Of weights per byte that is stored: 16-bit weights become 32-bit ones, exporters store equal ones once, and a file may be
# read twice. Without a limit, one weight named by all layers would fill the memory.
_MOST_COPIES = 8
_SLACK = 1 << 20
MOST_NODES = 2400  # 24 blocks of a ViT have 1,509 as older exporters write them, IResNet-200 has 688
_LARGEST_FILE = 2**31  # of protobuf
_LONGEST_NAME = 255  # bytes of a file's name; looking for a longer one raises
_LONGEST_PROBLEM = 1000  # letters; a file may hold anything as a name
_IR_VERSION = 8  # of 2021: weights need not be inputs, and ONNX Runtime 1.18 reads it
_DOMAINS = ("", "ai.onnx")
_OTHER_NUMBERS = (10, 11, 16)  # ONNX's float16, float64 and bfloat16


@dataclasses.dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        operator: Its type, e.g. `"Conv"`.
        inputs: Names of the values that it takes; an optional one that is left away has the name `""`.
        outputs: Names of the values that it gives, at least one.
        attributes: Names to Python values; a tensor is an `onnx.TensorProto`.
        proto: The `onnx.NodeProto`.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict
    proto: Any = dataclasses.field(repr=False, compare=False)

    @property
    def output(self) -> str:
        """The name of the first value, which most operators have alone."""
        return self.outputs[0]

    def input(self, place: int) -> str:
        """The name of an input; `""` for one that is left away."""
        return self.inputs[place] if len(self.inputs) > place else ""


class OnnxFile:
    """An opened file.

    Args:
        path: An `.onnx` file.

    Attributes:
        path: The file.
        sha256: Of the file.
        nodes: The `Node`s that the embeddings are computed by, without constants, each behind those that it takes from.
        images: Name of the first input that is no weight; `None` without one.
        image_size: `(height, width)` of it, with `None` for one that is not fixed.
        is_channels_last: Whether its channels are the last axis.
        embeddings: Name of the first output; `None` without one.

    Raises:
        FileFormatError: If the file is none, keeps its weights elsewhere, or does not take images.
        MissingDependencyError: If ONNX is not installed: extra `[export]`.
    """

    def __init__(self, path: Path):
        self.path, self.sha256 = str(path), sha256(path)
        model = self._model()
        graph = model.graph
        nodes = [self._node(node) for node in graph.node if node.output]
        constants = {node.output: _constant(node) for node in nodes if node.operator == "Constant"}
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._tensors |= {name: tensor for name, tensor in constants.items() if tensor is not None}
        self._outside = {
            name: self._place(name, tensor) for name, tensor in self._tensors.items() if tensor.data_location
        }
        images = next((value for value in graph.input if value.name not in self._tensors), None)
        self.images = None if images is None else images.name
        sizes = () if images is None else _shape(images)
        self.is_channels_last = len(sizes) == 4 and sizes[3] == CHANNELS and sizes[1] != CHANNELS
        if len(sizes) != 4 or not (self.is_channels_last or sizes[1] in (CHANNELS, None)):
            raise self.error(
                f"its first input should be (images, 3, height, width). Received: {self.images!r}, {sizes}"
            )
        if images.type.tensor_type.elem_type in _OTHER_NUMBERS:
            raise self.error(f"{self.images!r} are not float32 numbers. Export the network in float32")
        self.image_size = sizes[1:3] if self.is_channels_last else sizes[2:]
        self.embeddings = graph.output[0].name if graph.output else None
        self.nodes = self._needed([node for node in nodes if node.output not in self._tensors])
        self._versions = model.opset_import
        self._bytes_left = _SLACK + _MOST_COPIES * sum(map(os.path.getsize, {path, *self._files()}))

    def has_weight(self, name: str) -> bool:
        """Whether a value is stored in the file."""
        return name in self._tensors

    def has_sizes(self, name: str, most: int) -> bool:
        """Whether a value is stored in the file and at most so many integers."""
        onnx = errors.require("onnx", "export")
        tensor = self._tensors.get(name)
        is_whole = tensor is not None and tensor.data_type in (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
        return is_whole and math.prod(tensor.dims) <= most

    def weight(self, name: str) -> np.ndarray:
        """A stored value as an array, floating numbers as float32.

        Raises:
            FileFormatError: If it is damaged or not finite, or if weights are asked for more often than any network does.
        """
        tensor = self._tensors[name]
        return self.array(_inside(tensor, *self._outside[name]) if name in self._outside else tensor, name)

    def array(self, tensor: Any, name: str) -> np.ndarray:
        """As `weight`, of an `onnx.TensorProto` that has its numbers inside, by its name for errors."""
        onnx = errors.require("onnx", "export")
        try:
            array = onnx.numpy_helper.to_array(tensor)
            array = array if array.dtype.kind in "iu" else array.astype("float32")
        except Exception as error:  # of a damaged tensor, each of its kinds another
            raise self.error(f"the weights {name!r} are damaged ({errors.one_line(error)}). Get it again") from error
        if not np.isfinite(array).all():
            raise self.error(f"the weights {name!r} have values that are not finite (NaN or infinity). Get it again")
        return self.count(array)

    def count(self, array: np.ndarray) -> np.ndarray:
        """Returns an array that was made of the weights; `FileFormatError` if there are many times as many as are stored."""
        self._bytes_left -= array.nbytes
        if self._bytes_left < 0:
            raise self.error("its layers have many times the weights that are stored. Do not use this file")
        return array

    def run(self, images: np.ndarray) -> np.ndarray:
        """Runs the nodes of the embeddings, and no others, in ONNX Runtime.

        Args:
            images: `(n, height, width, 3)` float array, already normalized.

        Returns:
            The embeddings as a NumPy array.

        Raises:
            FileFormatError: If ONNX Runtime refuses the file, or images of this size.
            MissingDependencyError: If ONNX Runtime is not installed: extra `[export]`.
        """
        errors.require("onnxruntime", "export")
        images = np.ascontiguousarray(images if self.is_channels_last else images.transpose(NHWC_TO_NCHW), "float32")
        try:
            session = session_of(self._of_needed(images[:1].shape).SerializeToString())
            # One by one: a file may have been exported for one image.
            runs = [session.run(None, {self.images: images[i : i + 1]})[0] for i in range(len(images))]
        except Exception as error:  # ONNX Runtime has a class of its own for each kind of failure
            raise self.error(f"ONNX Runtime does not run it ({errors.one_line(error)}). Get it again") from error
        return np.concatenate(runs)

    def _of_needed(self, shape):
        """A `ModelProto` without what the embeddings do not need, weights of other files inside."""
        return self._model_of(shape, self.nodes, [self._stored(name) for name in self._needed_weights()], [])

    def _needed_weights(self):
        return {name for node in self.nodes for name in node.inputs if name in self._tensors}

    def _stored(self, name):
        """A value's tensor, its numbers inside."""
        onnx = errors.require("onnx", "export")
        stored, tensor = self._tensors[name], onnx.TensorProto()
        tensor.CopyFrom(_inside(stored, *self._outside[name]) if name in self._outside else stored)
        tensor.name = name  # a constant's tensor has none
        return tensor

    def _model_of(self, shape, nodes, weights, further):
        """Nodes with some weights stored and others, as inputs, left open."""
        onnx = errors.require("onnx", "export")
        number = onnx.TensorProto.FLOAT
        graph = onnx.helper.make_graph(
            [node.proto for node in nodes],
            "network",
            [onnx.helper.make_tensor_value_info(self.images, number, shape), *further],
            [onnx.helper.make_tensor_value_info(self.embeddings, number, None)],
            weights,
        )
        return onnx.helper.make_model(graph, opset_imports=self._versions, ir_version=_IR_VERSION)

    def shapes(self, images: tuple[int, ...], known: dict[str, np.ndarray]) -> dict[str, tuple]:
        """The shapes of values, by ONNX's own inference, which knows of the weights no more than shapes and integers.

        Args:
            images: Shape of the first input.
            known: Names to values that the caller has computed.

        Returns:
            Dictionary of names to sizes, `None` for one that it cannot tell; a value of which it can tell nothing is not
            in it.

        Raises:
            FileFormatError: If the shapes do not fit.
        """
        onnx = errors.require("onnx", "export")
        weights = [onnx.numpy_helper.from_array(value, name) for name, value in known.items()]
        others = []
        for name in self._needed_weights():
            tensor = self._tensors[name]
            if tensor.data_type in (onnx.TensorProto.INT32, onnx.TensorProto.INT64):
                weights.append(self._stored(name))
            else:
                others.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
        nodes = [node for node in self.nodes if node.output not in known]
        try:
            graph = onnx.shape_inference.infer_shapes(self._model_of(images, nodes, weights, others)).graph
        except Exception as error:  # ONNX has a class of its own for each kind of failure
            raise self.error(f"its shapes do not fit ({errors.one_line(error)}). Get it again") from error
        values = (*graph.input, *graph.value_info, *graph.output)
        return {value.name: _shape(value) for value in values if value.type.tensor_type.HasField("shape")}

    def error(self, problem: str) -> errors.FileFormatError:
        """The error that names the file and a problem."""
        problem = errors.one_line(problem).rstrip(".")
        shown = problem if len(problem) <= _LONGEST_PROBLEM else f"{problem[:_LONGEST_PROBLEM]}..."
        return errors.FileFormatError(f"{self.path}: {shown}.")

    def error_at(self, node: Node, problem: str) -> errors.FileFormatError:
        """The error that names the file, a node and a problem."""
        return self.error(f"{node.operator} of {node.output!r}: {problem}")

    def _model(self):
        onnx = errors.require("onnx", "export")
        if os.path.getsize(self.path) > _LARGEST_FILE:
            raise self.error("no ONNX file, which has at most 2 GiB. Get it again")
        with open(self.path, "rb") as file:
            content = file.read()
        try:
            model = onnx.ModelProto.FromString(content)
        except Exception as error:  # protobuf has classes of its own, which differ between its implementations
            raise self.error(f"no ONNX file ({errors.one_line(error)}). Get it again") from error
        if not model.graph.node:
            raise self.error("no ONNX file, it has no graph. Get it again")
        return model

    def _place(self, name, tensor):
        """Where PyTorch's newer exporter puts weights: `(path, offset, length)` in a file beside this one, nowhere else."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        path = pathlib.Path(self.path).parent / location
        if (
            not 0 < len(location.encode()) <= _LONGEST_NAME
            or str(pathlib.PurePath(location)) != path.name
            or "\\" in location
            or path.is_symlink()
        ):
            raise self.error(f"the weights {name!r} are in {location!r}, expected the name of a file beside it")
        if not path.is_file():
            raise self.error(f"the weights {name!r} are in {location!r}, which should be beside it and is not there")
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries.get("length", os.path.getsize(path) - offset))
        except ValueError:
            offset, length = -1, 0
        if not 0 <= offset <= offset + length <= os.path.getsize(path):
            raise self.error(f"the weights {name!r} are not in {location!r}, which is too short. Get both again")
        return path, offset, length

    def _files(self):
        return {path for path, *_ in self._outside.values()}

    def _node(self, node):
        onnx = errors.require("onnx", "export")
        try:
            attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        except Exception as error:  # ONNX's own, of an attribute of no known type
            raise self.error(f"{node.op_type} has an unreadable attribute. Get it again") from error
        # A text that is no Unicode comes as bytes.
        operator = str(node.op_type) if node.domain in _DOMAINS else f"{node.domain}.{node.op_type}"
        return Node(operator, tuple(node.input), tuple(node.output), attributes, node)

    def _needed(self, nodes):
        """The nodes that the embeddings are computed by, in order."""
        needed, kept = {self.embeddings}, []
        for node in reversed(nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                kept.append(node)
        if len(kept) > MOST_NODES:
            raise self.error(f"it has {len(kept)} operators, expected at most {MOST_NODES}")
        return tuple(kept[::-1])


def _constant(node):
    """The tensor that a node without inputs stands for; `None` if it is no numbers."""
    value = next(iter(node.attributes.values()), None)
    if hasattr(value, "data_location"):
        return value
    onnx = errors.require("onnx", "export")
    array = np.asarray(value)
    return onnx.numpy_helper.from_array(array) if array.dtype.kind in "if" else None


def _inside(tensor, path, offset, length):
    """A tensor with its numbers, which are in another file."""
    with open(path, "rb") as file:
        file.seek(offset)
        numbers = file.read(length)
    onnx = errors.require("onnx", "export")
    return onnx.TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, raw_data=numbers)


def _shape(value):
    sizes = value.type.tensor_type.shape.dim
    return tuple(size.dim_value if size.dim_value > 0 else None for size in sizes)
