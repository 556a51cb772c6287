"""Any convolutional network in an ONNX file, as a functional Keras model of Keras's own layers."""

import collections
import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from keras_sphereface import errors
from keras_sphereface.backbones import base
from keras_sphereface.conversion import onnx_folding, onnx_lengths, onnx_operators
from keras_sphereface.conversion.onnx_file import Node, OnnxFile
from keras_sphereface.conversion.onnx_sizes import MOST_IN_A_MAP, MOST_NUMBERS, MOST_PRODUCTS
from keras_sphereface.hints import Tensor
from keras_sphereface.model_size import without_weights

# Keras follows a network by recursion, one layer deep each.
MOST_LAYERS = 900
_LARGEST_IMAGE = 1024
_KNOWN = onnx_operators.OPERATORS.keys() | onnx_lengths.OPERATORS.keys()


def build(
    file: OnnxFile,
    input_shape: Sequence[int] | None = None,
    image_mean: float | Sequence[float] = base.IMAGE_CENTER,
    image_std: float | Sequence[float] = base.IMAGE_CENTER,
    name: str = "onnx",
) -> keras.Model:
    """Builds the network from the first input, the images, to the first output, the embeddings.

    Args:
        file: The opened file.
        input_shape: `(height, width, 3)`. Defaults to `None`: the file's; `(112, 112, 3)` if it leaves the size open.
        image_mean: Subtracted from RGB images 0..255: one number, or one for each channel. Defaults to `127.5`.
        image_std: Then divided by. Defaults to `127.5`.
        name: Name of the model. Defaults to `"onnx"`.

    Returns:
        A functional `keras.Model` from images to raw embeddings, in float32.

    Raises:
        FileFormatError: If the file has another input or output, or an operator that is not known; it names it.
        ValueError: If `image_std` is not positive.
    """
    mean, std = np.float64(image_mean), np.float64(image_std)
    if not (std > 0).all():
        raise ValueError(f"`image_std` must be positive. Received: image_std={image_std}")
    images = base.image_input(_input_shape(file, input_shape))
    graph = Graph(file)
    for node in file.nodes:  # before something is said of a shape that only such an operator has
        if node.operator not in _KNOWN and node.operator not in onnx_folding.OPERATORS:
            raise graph.unknown(node)
    scaled = graph.layer(layers.Rescaling, (1 / std).tolist(), (-mean / std).tolist())(images)
    return keras.Model(images, _embeddings(graph, scaled), name=name)


def _input_shape(file, given):
    """The size of the images, which the file may leave open."""
    given = None if given is None else base.check_input_shape(given)
    wanted = given or base.DEFAULT_INPUT_SHAPE
    height, width = (own or other for own, other in zip(file.image_size, wanted))
    if not 0 < min(height, width) <= max(height, width) <= _LARGEST_IMAGE:
        raise file.error(f"it takes images of {height}x{width}, expected 1x1 to {_LARGEST_IMAGE}x{_LARGEST_IMAGE}")
    if given not in (None, (height, width, 3)):
        raise file.error(f"it takes images of {height}x{width}, but `input_shape` is {given}")
    return height, width, 3


def check(file: OnnxFile, input_shape: Sequence[int]) -> None:
    """Raises `FileFormatError` if a file cannot be run: `build` without any weights, which takes no memory."""
    without_weights(
        lambda: _embeddings(Graph(file, with_weights=False), base.image_input(_input_shape(file, input_shape)))
    )


def _embeddings(graph, images):
    """Follows the graph from the images; returns the Keras tensor of the embeddings."""
    file = graph.file
    graph.tensors[file.images] = images
    for node in file.nodes:
        graph.add(node)
    embeddings = graph.tensors.get(file.embeddings)
    shape = getattr(embeddings, "shape", "no tensor of the images")
    if isinstance(shape, tuple) and set(shape[1:-1]) == {1}:
        return graph.layer(layers.Flatten)(embeddings)
    if len(shape) != 2:
        raise file.error(f"its first output {file.embeddings!r} should be (images, embedding length), found {shape}")
    return embeddings


class Graph:
    """The values of a graph that have become Keras tensors, channels last, or arrays.

    Args:
        file: The opened file.
        with_weights: Whether layers get their weights. Defaults to `True`.

    Attributes:
        tensors: Names to Keras tensors.
        arrays: Names to what was computed of weights and sizes alone.
        not_negative: Names of tensors without negative numbers.
        lengths: Names to the `Length`s that they are of vectors.
        squares: Names to the tensors whose squares they are.
        maps: Names of vectors to the feature maps that they are.
        channels_last: Names of maps that have their channels last in ONNX, too.
    """

    def __init__(self, file: OnnxFile, with_weights: bool = True):
        self.with_weights = with_weights
        self.file, self.tensors, self.arrays = file, {}, {}
        self.not_negative, self.lengths, self.squares, self.maps = set(), {}, {}, {}
        self.channels_last = {file.images} if file.is_channels_last else set()
        self._layers = collections.Counter()
        self._numbers_left, self._products_left = MOST_NUMBERS, MOST_PRODUCTS

    def add(self, node: Node) -> None:
        """Computes a node's values: a layer gives one, or a tuple of several."""
        try:
            if onnx_folding.is_known(self, node):
                self.arrays[node.output] = self.file.count(onnx_folding.fold(self, node))
                return
            length = onnx_lengths.length_of(self, node)
            if length is not None:
                self.lengths[node.output] = length
                return
            layer = onnx_operators.OPERATORS.get(node.operator)
            if layer is None:
                raise self.unknown(node)
            values = layer(self, node)
        except errors.FileFormatError:
            raise
        except Exception as error:  # Keras and NumPy have no class of their own for what does not fit
            raise self.error(node, errors.one_line(error)) from error
        values = values if isinstance(values, tuple) else (values,)
        for name, value in zip(node.outputs, values):
            size = math.prod(value.shape[1:])
            self._numbers_left -= size
            if size > MOST_IN_A_MAP or self._numbers_left < 0:
                raise self.error(node, f"{value.shape[1:]} of one image are more numbers than any face network has")
            self.tensors[name] = value

    def spend(self, node: Node, products: int) -> None:
        """Counts a node's products; `FileFormatError` beyond those of any face network."""
        self._products_left -= products
        if self._products_left < 0:
            raise self.error(node, "more products than any face network has")

    def layer(self, kind: type, *arguments, **options) -> layers.Layer:
        """A new layer in float32, with a name that is the same in every process."""
        name = f"{kind.__name__.lower()}_{self._count(kind)}"
        return kind(*arguments, dtype="float32", name=name, **options)

    def part(self, x: Tensor, start: int, end: int) -> Tensor:
        """Channels of a tensor."""
        self._count(slice)
        return x[..., start:end]

    def _count(self, kind):
        self._layers[kind] += 1
        if self._layers.total() > MOST_LAYERS:
            raise self.file.error(f"it needs more than {MOST_LAYERS} layers")
        return self._layers[kind]

    def call(self, layer: layers.Layer, x: Tensor, *weights: np.ndarray) -> Tensor:
        """Calls a new layer and gives it its weights."""
        result = layer(x)
        if self.with_weights:
            layer.set_weights(weights)
        return result

    def tensor(self, node: Node, place: int = 0, rank: int | None = None, any_order: bool = False) -> Tensor:
        """A node's input that is computed of the images.

        Args:
            node: The node.
            place: Of the input. Defaults to 0.
            rank: 4 for feature maps, 2 for vectors. Defaults to `None`, either.
            any_order: Whether it may have its channels last in ONNX. Defaults to `False`.
        """
        name = node.input(place)
        value = self.tensors.get(name)
        if value is None or (rank and len(value.shape) != rank):
            wanted = {4: "feature maps", 2: "vectors", None: "computed of the images"}[rank]
            raise self.error(node, f"its input {place} is not {wanted}")
        if name in self.channels_last and not any_order:
            raise self.error(node, f"its input {place} has the channels last")
        return value

    def has_array(self, node: Node, place: int) -> bool:
        """Whether a node's input is a weight, or computed of weights and sizes alone."""
        name = node.input(place)
        return name in self.arrays or self.file.has_weight(name)

    def array(self, node: Node, place: int, rank: int | None = None) -> np.ndarray:
        """A node's input as an array, of `rank` axes."""
        name = node.input(place)
        if not self.has_array(node, place):
            raise self.error(node, f"its input {place} is no weight")
        array = self.arrays[name] if name in self.arrays else self.file.weight(name)
        if rank is not None and array.ndim != rank:
            raise self.error(node, f"its weight {name!r} has the shape {array.shape}, expected {rank} axes")
        return array

    def bias(self, node: Node) -> list[np.ndarray]:
        """The offsets that a node may have in its third place, in a list."""
        return [self.array(node, 2).reshape(-1)] if node.input(2) else []

    def sizes(self, node: Node, attribute: str, default: Sequence[int], least: int = 1) -> tuple[int, ...]:
        """An attribute of a node that is as many integers as `default`."""
        values = node.attributes.get(attribute, default)
        values = tuple(values) if isinstance(values, (list, tuple)) else (values,)
        if len(values) != len(default) or not all(isinstance(one, int) and least <= one < 2**15 for one in values):
            raise self.error(node, f"its {attribute} are {values}, expected {len(default)} integers from {least} on")
        return values

    def require(self, node: Node, condition: bool, expected: str) -> None:
        """Raises `FileFormatError` that names a node and what was expected of it, unless the condition holds."""
        if not condition:
            raise self.error(node, f"expected {expected}")

    def unknown(self, node: Node) -> errors.FileFormatError:
        """The error that names a node that has no layer, and those that have."""
        return self.error(node, f"no known operator. Known: {', '.join(sorted(_KNOWN))}")

    def error(self, node: Node, problem: str) -> errors.FileFormatError:
        """The error that names a node and a problem."""
        return self.file.error_at(node, problem)
