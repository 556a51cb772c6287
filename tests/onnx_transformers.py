"""ViTs in ONNX, small, as the exporters of several projects write them."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

DIM, HEADS, PATCH, SIDE, DEPTH, EMBEDDING_DIM = 8, 2, 16, 48, 2, 6
TOKENS = (SIDE // PATCH) ** 2


class Transformer:
    """A ViT as exporters write it.

    Args:
        old: Whether normalization is nine operators, and sizes are put together from others, as before opset 17.
        folded: Whether the last batch normalizations are in the linear layers.
        turned: Whether matrices are turned by operators of their own.
        bias: Whether queries, keys and values have an offset.
        shared: Whether equal weights are stored once and given their other names, as before training.
        activation: Of the perceptron.
        heads: As the sizes say.
    """

    def __init__(self, old=False, folded=False, turned=False, bias=False, shared=False, activation="Clip", heads=HEADS):
        self.nodes, self.weights, self.random = [], [], np.random.RandomState(0)
        self.old, self.folded, self.turned, self.bias = old, folded, turned, bias
        self.shared, self.activation, self.heads = shared and self._first_norm(), activation, heads

    def node(self, kind, *inputs, output=None, **attributes):
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def stored(self, array):
        self.weights.append(numpy_helper.from_array(np.asarray(array), f"weight_{len(self.weights)}"))
        return self.weights[-1].name

    def drawn(self, *shape, low=-0.5, high=0.5):
        return self.stored(self.random.uniform(low, high, shape).astype("float32"))

    def sizes(self, *numbers):
        return self.stored(np.array(numbers, "int64"))

    def _first_norm(self):
        return self.stored(np.ones(DIM, "float32")), self.stored(np.zeros(DIM, "float32"))

    def linear(self, x, inputs, outputs, bias=True):
        if self.turned:
            x = self.node("MatMul", x, self.node("Transpose", self.drawn(outputs, inputs), perm=[1, 0]))
        else:
            x = self.node("MatMul", x, self.drawn(inputs, outputs))
        return self.node("Add", self.drawn(outputs), x) if bias else x

    def norm(self, x):
        if self.shared:
            scale, offset = (self.node("Identity", name) for name in self.shared)
        else:
            scale, offset = self.drawn(DIM, low=0.5, high=1.0), self.drawn(DIM)
        if not self.old:
            return self.node("LayerNormalization", x, scale, offset, axis=-1, epsilon=1e-5)
        centred = self.node("Sub", x, self.node("ReduceMean", x, axes=[-1]))
        variance = self.node("ReduceMean", self.node("Mul", centred, centred), axes=[-1])
        spread = self.node("Sqrt", self.node("Add", variance, self.stored(np.float32(1e-5))))
        return self.node("Add", self.node("Mul", self.node("Div", centred, spread), scale), offset)

    def attention(self, x):
        qkv = self.linear(x, DIM, 3 * DIM, self.bias)
        if self.old:  # the number of images is taken from the tensor
            images = self.node("Gather", self.node("Shape", qkv), self.stored(np.array(0)), axis=0)
            images = self.node("Unsqueeze", images, self.sizes(0))
            rest = [self.sizes(number) for number in (TOKENS, 3, self.heads, DIM // self.heads)]
            sizes = self.node("Concat", images, *rest, axis=0)
        else:
            sizes = self.sizes(-1, TOKENS, 3, self.heads, DIM // self.heads)
        parts = self.node("Transpose", self.node("Reshape", qkv, sizes), perm=[2, 0, 3, 1, 4])
        q, k, v = (self.node("Gather", parts, self.stored(np.array(part)), axis=0) for part in range(3))
        scores = self.node("MatMul", q, self.node("Transpose", k, perm=[0, 1, 3, 2]))
        scores = self.node("Mul", scores, self.stored(np.float32((DIM // self.heads) ** -0.5)))
        attended = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        attended = self.node("Transpose", attended, perm=[0, 2, 1, 3])
        return self.linear(self.node("Reshape", attended, self.sizes(-1, TOKENS, DIM)), DIM, DIM)

    def perceptron(self, x):
        x = self.linear(x, DIM, 4 * DIM)
        bounds = [self.stored(np.float32(bound)) for bound in (0, 6)] if self.activation == "Clip" else []
        return self.linear(self.node(self.activation, x, *bounds), 4 * DIM, DIM)

    def feature(self, x, inputs, outputs):
        if self.folded:
            return self.node("Gemm", x, self.drawn(outputs, inputs), self.drawn(outputs), transB=1)
        x = self.linear(x, inputs, outputs, bias=False)
        scale, variance = (self.drawn(outputs, low=0.5, high=1.0) for _ in range(2))
        return self.node(
            "BatchNormalization", x, scale, self.drawn(outputs), self.drawn(outputs), variance, epsilon=2e-5
        )

    def build(self):
        strides = {"kernel_shape": [PATCH, PATCH], "strides": [PATCH, PATCH]}
        x = self.node(
            "Conv", "images", self.drawn(DIM, 3, PATCH, PATCH, low=-0.1, high=0.1), self.drawn(DIM), **strides
        )
        x = self.node("Transpose", self.node("Reshape", x, self.sizes(0, DIM, -1)), perm=[0, 2, 1])
        x = self.node("Add", x, self.drawn(1, TOKENS, DIM))
        for _ in range(DEPTH):
            x = self.node("Add", x, self.attention(self.norm(x)))
            x = self.node("Add", x, self.perceptron(self.norm(x)))
        x = self.node("Reshape", self.norm(x), self.sizes(-1, TOKENS * DIM))
        x = self.feature(self.feature(x, TOKENS * DIM, DIM), DIM, EMBEDDING_DIM)
        self.node("Identity", x, output="embeddings")
        number = onnx.TensorProto.FLOAT
        images = helper.make_tensor_value_info("images", number, ["batch", 3, SIDE, SIDE])
        embeddings = helper.make_tensor_value_info("embeddings", number, ["batch", EMBEDDING_DIM])
        graph = helper.make_graph(self.nodes, "vit", [images], [embeddings], self.weights)
        version = helper.make_opsetid("", 13 if self.old else 17)
        return helper.make_model(graph, opset_imports=[version], ir_version=8)
