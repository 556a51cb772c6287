"""What running an ONNX file would cost, before it is run: a small file may ask for any memory and any time."""

import math

import numpy as np

from keras_sphereface import errors
from keras_sphereface.conversion import onnx_folding
from keras_sphereface.conversion.onnx_file import Node, OnnxFile
from keras_sphereface.conversion.tensors import MOST_UNITS

# IResNet-200 has 0.2e9 numbers and 24e9 products for an image of 112x112.
MOST_IN_A_MAP, MOST_NUMBERS = 2**24, 2**30
MOST_PRODUCTS = 10**12
# No larger than what they take, whatever its shape.
_NO_LARGER = ("BatchNormalization", "LayerNormalization", "Softmax", "Clip", "Cast", "Identity", "Dropout", "Shape")
_PRODUCTS = ("Conv", "MatMul", "Gemm")
_MOST_SIZES = 64  # numbers of a value that other values' shapes are made of


def check(file: OnnxFile, image_size: tuple[int, int]) -> None:
    """Raises `FileFormatError` if one image is more numbers or products than any face network needs, or nobody can tell.

    Args:
        file: The opened file.
        image_size: `(height, width)`.
    """
    shapes = _Sizes(file).shapes((1, *image_size, 3) if file.is_channels_last else (1, 3, *image_size))
    numbers = products = 0
    for node in file.nodes:
        for name in node.outputs:
            shape = shapes.get(name, (None,))
            if None in shape:
                if node.operator in _NO_LARGER:
                    continue
                raise file.error(f"{node.operator} of {name!r}: ONNX cannot tell its size")
            size, inner = math.prod(shape), _inner(node, shapes)
            if inner is None:
                raise file.error(f"{node.operator} of {name!r}: ONNX cannot tell the size of what it multiplies by")
            numbers, products = numbers + size, products + size * inner
            if size > MOST_IN_A_MAP or numbers > MOST_NUMBERS or products > MOST_PRODUCTS:
                raise file.error(f"{node.operator} of {name!r}: {shape} are more than any face network has")


def _inner(node: Node, shapes: dict[str, tuple]) -> int | None:
    """How many products each number of a node's output takes; `None` if that is not known."""
    if node.operator not in _PRODUCTS:
        return 1
    shape = shapes.get(node.input(1), (None,))
    if None in shape:
        return None
    if node.operator == "Conv":
        return math.prod(shape[1:])
    is_turned = len(shape) == 1 or (node.operator == "Gemm" and node.attributes.get("transB"))
    return shape[-1 if is_turned else -2] if shape else 1


class _Sizes:
    """The values that are sizes of others, computed in turn with the shapes: each needs the other."""

    def __init__(self, file):
        self.file, self.arrays, self._stored = file, {}, {}

    def shapes(self, images):
        """As `OnnxFile.shapes`, with all that can be known; each block of a network needs a turn of its own."""
        for _ in range(2 * MOST_UNITS):
            shapes, before = self.file.shapes(images, self.arrays), len(self.arrays)
            for node in self.file.nodes:
                if node.output not in self.arrays:
                    self._add(node, shapes)
            if len(self.arrays) == before:
                return shapes | {name: array.shape for name, array in self.arrays.items()}
        raise self.file.error("the shapes of its values depend on each other more often than any network's")

    def _add(self, node, shapes):
        if node.operator == "Shape":
            shape = shapes.get(node.input(0), (None,))
            if None in shape:
                return
            array = np.array(shape, "int64")[node.attributes.get("start", 0) : node.attributes.get("end")]
        elif onnx_folding.is_known(self, node):
            try:
                array = onnx_folding.fold(self, node)
            except errors.FileFormatError:
                raise
            except Exception as error:  # NumPy has no class of its own for what does not fit
                raise self.file.error_at(node, errors.one_line(error)) from error
        else:
            return
        if array.dtype.kind == "i" and array.size <= _MOST_SIZES:
            self.arrays[node.output] = array

    def has_array(self, node: Node, place: int) -> bool:
        """Whether a node's input is sizes that are known."""
        name = node.input(place)
        return name in self.arrays or self.file.has_sizes(name, _MOST_SIZES)

    def array(self, node: Node, place: int) -> np.ndarray:
        """A node's input."""
        name = node.input(place)
        if name not in self.arrays and name not in self._stored:
            self._stored[name] = self.file.weight(name)
        return self.arrays[name] if name in self.arrays else self._stored[name]

    def require(self, node: Node, condition: bool, expected: str) -> None:
        """Raises `FileFormatError` unless the condition holds."""
        if not condition:
            raise self.file.error_at(node, f"expected {expected}")
