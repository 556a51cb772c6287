"""ViTs in ONNX files, as LVFace releases its models: the tensors by the names of InsightFace's PyTorch checkpoints.

Each exporter writes attention and normalization in operators of its own. Their weights come in one order all the same, and
whether the network is this one the comparison at the end of the conversion tells.
"""

import numpy as np

from keras_sphereface import errors
from keras_sphereface.backbones.vit import FEATURE_NORM_EPSILON
from keras_sphereface.conversion import onnx_norms
from keras_sphereface.conversion.checkpoint import Checkpoint
from keras_sphereface.conversion.onnx_file import OnnxFile
from keras_sphereface.conversion.tensors import check_units, listing

_WITH_WEIGHTS = ("Conv", "MatMul", "Gemm", "Add", "Mul", "LayerNormalization", "BatchNormalization")
_ATTENTION = "Softmax"
_OF_EACH_BLOCK = (_ATTENTION, "Clip")  # the latter is ReLU6
_PARTS_OF_QKV = 5  # axes: images, tokens, three, heads, dimensions of a head


def read(file: OnnxFile) -> Checkpoint:
    """Reads a ViT's weights, whatever they are called.

    Exporters fold a batch normalization into the linear layer before it: it comes back as one that only adds the offset.

    Args:
        file: The opened file.

    Returns:
        A `Checkpoint` without a head; the number of heads is among its `arguments`.

    Raises:
        FileFormatError: If it holds another network.
    """
    if not any(node.operator == _ATTENTION for node in file.nodes):  # before the weights of any other network are read
        raise file.error(f"it has no attention ({_ATTENTION}): no ViT of this kind")
    reader = _Reader(file)
    return Checkpoint(file.path, file.sha256, reader.read(), head={}, ignored=(), arguments=reader.arguments)


class _Reader:
    """Goes through the operators with weights in the order of the file."""

    def __init__(self, file):
        self.file, self.tensors = file, {}
        self.arguments = {"input_shape": (*file.image_size, 3)} if all(file.image_size) else {}
        # Exporters turn a matrix by an operator of its own, and keep equal weights once: the others are named by one.
        self._made = {
            node.output: node
            for node in file.nodes
            if node.operator in ("Transpose", "Identity") and file.has_weight(node.input(0))
        }
        self._nodes = []
        for node in file.nodes:
            if node.operator not in _WITH_WEIGHTS:
                continue
            arrays = tuple(self._array(name) for name in node.inputs if name in self._made or file.has_weight(name))
            if any(array.size > 1 for array in arrays):
                self._nodes.append((node, arrays))
        self._place = 0

    def _array(self, name):
        maker = self._made.get(name)
        array = self.file.weight(maker.input(0) if maker else name)
        return array.T if maker and maker.operator == "Transpose" else array

    def read(self):
        """Returns the tensors by name."""
        self._of_layer("Conv", "patch_embed.proj")
        positions = self._take("Add")[0]
        if positions.ndim < 2:
            raise self._error("its tokens have no positions")
        self.tensors["pos_embed"] = positions.reshape(1, *positions.shape[-2:])
        dim, depth = positions.shape[-1], 0
        while (norm := self._layer_norm()) and self._inputs_of_next() == dim:
            check_units(depth := depth + 1, self.file.path)
            self._block(f"blocks.{depth - 1}", norm)
        self._named("norm", norm)
        for index in (0, 2):
            self._feature(index)
        if self._place < len(self._nodes):
            raise self._error(f"there is another {self._nodes[self._place][0].operator} behind the embeddings")
        self._check_operators(depth)
        self.arguments |= self._heads()
        return self.tensors

    def _block(self, name, norm):
        self._named(f"{name}.norm1", norm)
        self._linear(f"{name}.attn.qkv")
        self._linear(f"{name}.attn.proj")
        self._named(f"{name}.norm2", self._layer_norm())
        self._linear(f"{name}.mlp.fc1")
        self._linear(f"{name}.mlp.fc2")

    def _layer_norm(self):
        """Scale and offset; older files multiply and add them."""
        node, arrays = self._next("LayerNormalization", "Mul")
        return arrays[:2] if node.operator == "LayerNormalization" else (arrays[0], self._take("Add")[0])

    def _linear(self, name):
        """A matrix, and the offset that may be in the next operator."""
        matrix, *bias = self._matrix()
        self.tensors[f"{name}.weight"] = matrix.T
        if not bias and self._place < len(self._nodes) and self._nodes[self._place][0].operator == "Add":
            bias = self._take("Add")
        if bias:
            self.tensors[f"{name}.bias"] = bias[0].reshape(-1)

    def _matrix(self):
        """The next matrix, `(inputs, outputs)`, with the offset if it has one."""
        node, (matrix, *bias) = self._next("MatMul", "Gemm")
        return matrix.T if node.attributes.get("transB") else matrix, *bias

    def _feature(self, index):
        """A linear layer without offset and its batch normalization."""
        matrix, *bias = self._matrix()
        self.tensors[f"feature.{index}.weight"] = matrix.T
        name = f"feature.{index + 1}"
        if bias:
            self.tensors |= onnx_norms.offset(name, bias[0].reshape(-1), FEATURE_NORM_EPSILON)
            return
        node, arrays = self._next("BatchNormalization")
        epsilon = node.attributes.get("epsilon", 1e-5)
        self.tensors |= onnx_norms.tensors(name, list(arrays), epsilon, FEATURE_NORM_EPSILON)

    def _heads(self):
        """The number of heads, by the sizes that queries, keys and values are given; nothing if they do not tell."""
        makers = {node.output: node for node in self.file.nodes}
        for node in self.file.nodes:
            sizes = node.input(1)
            if node.operator != "Reshape" or not sizes:
                continue
            if self.file.has_weight(sizes):
                whole = self.file.weight(sizes).reshape(-1).tolist()
            elif sizes in makers and makers[sizes].operator == "Concat":
                whole = [self._size(name) for name in makers[sizes].inputs]
            else:
                continue
            if len(whole) == _PARTS_OF_QKV and (heads := whole[3]) and heads > 0:
                return {"num_heads": int(heads)}
        return {}

    def _size(self, name):
        """A number that is stored, or `None`."""
        value = self.file.weight(name) if self.file.has_weight(name) else np.zeros(0)
        return value.item() if value.size == 1 else None

    def _check_operators(self, depth):
        operators = [node.operator for node in self.file.nodes]
        for operator in _OF_EACH_BLOCK:
            if operators.count(operator) != depth:
                raise self._error(f"{operators.count(operator)} {operator} in {depth} blocks")

    def _of_layer(self, operator, name):
        arrays = self._take(operator)
        self.tensors |= dict(zip((f"{name}.weight", f"{name}.bias"), arrays))

    def _named(self, name, pair):
        self.tensors |= {f"{name}.weight": pair[0].reshape(-1), f"{name}.bias": pair[1].reshape(-1)}

    def _take(self, *operators):
        return self._next(*operators)[1]

    def _inputs_of_next(self):
        """How many numbers the next matrix takes; it is left to be taken."""
        place = self._place
        matrix, *_ = self._matrix()
        self._place = place
        return len(matrix)

    def _next(self, *operators):
        """The next operator with weights, which must be one of these, and its arrays."""
        found = self._nodes[self._place : self._place + 1]
        if not found or found[0][0].operator not in operators:
            after = listing([found[0][0].operator]) if found else "nothing"
            raise self._error(f"expected {' or '.join(operators)} with weights, found {after}")
        self._place += 1
        return found[0]

    def _error(self, problem):
        return self.file.error(
            f"{errors.one_line(problem)}: no ViT of this kind. Leave `architecture` away to read others"
        )
