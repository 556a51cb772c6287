"""Networks in ONNX as PyTorch's exporters write them, made of seeded tensors by ONNX's own helper."""

import numpy as np
import onnx

UNITS, CHANNELS, DIM = (1, 2, 1, 1), (4, 6, 8, 10), 5
SMALL = {"input_shape": (32, 32, 3)}  # 2 x 2 before the embedding


class Builder:
    """Nodes and seeded weights of a graph."""

    def __init__(self):
        self.random = np.random.RandomState(2109)
        self.nodes, self.weights = [], []

    def weight(self, array):
        name = f"w{len(self.weights)}"
        self.weights.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    def normal(self, *shape):
        return (self.random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype("float32")

    def uniform(self, size):
        return self.random.uniform(0.5, 1.0, size).astype("float32")

    def node(self, operator, *inputs, **attributes):
        self.nodes.append(onnx.helper.make_node(operator, inputs, [f"x{len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def model(self, size=(1, 3, 32, 32), dim=DIM, opset=17):
        """Returns the `ModelProto` whose embeddings are the last node's value."""
        value = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            self.nodes,
            "network",
            [value("images", onnx.TensorProto.FLOAT, size)],
            [value(self.nodes[-1].output[0], onnx.TensorProto.FLOAT, [size[0], dim])],
            self.weights,
        )
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


class Network(Builder):
    """Builds the graph of an IResNet.

    Args:
        folded: Whether a normalization is folded into the convolution, or the matrix, before it. Defaults to `True`.
        subsample: Whether the first stage's first unit has no convolution beside it; its channels stay as many. Defaults
            to `False`.
        epsilon: Of the normalizations. Defaults to PyTorch's 1e-5.
        transposed: Whether the embedding's matrix is stored as in PyTorch. Defaults to `True`.
        unsqueezed: Whether slopes are given their two further axes by a node. Defaults to `False`.
    """

    def __init__(self, folded=True, subsample=False, epsilon=1e-5, transposed=True, unsqueezed=False):
        super().__init__()
        self.folded, self.subsample, self.epsilon = folded, subsample, epsilon
        self.transposed, self.unsqueezed = transposed, unsqueezed

    def build(self):
        """Returns the `ModelProto`."""
        channels = (CHANNELS[0], *CHANNELS)
        x = self.prelu(self.conv_norm("images", 3, channels[0], 3, 1), channels[0])
        for before, after, count in zip(channels, channels[1:], UNITS):
            for index in range(count):
                x = self.unit(x, before if index == 0 else after, after, 2 if index == 0 else 1)
        x = self.node("Flatten", self.norm(x, channels[-1]))
        self.linear(x, channels[-1] * 4)
        return self.model()

    def conv_norm(self, x, before, after, size, stride):
        kernel, attributes = self.normal(after, before, size, size), {"strides": [stride] * 2, "pads": [size // 2] * 4}
        if not self.folded:
            return self.norm(self.node("Conv", x, self.weight(kernel), **attributes), after)
        bias = self.weight(self.normal(after, 100)[:, 0])
        return self.node("Conv", x, self.weight(kernel), bias, **attributes)

    def norm(self, x, size):
        numbers = (self.uniform(size), self.normal(size, 100)[:, 0], self.normal(size, 100)[:, 0], self.uniform(size))
        return self.node("BatchNormalization", x, *map(self.weight, numbers), epsilon=self.epsilon)

    def prelu(self, x, size):
        slopes = self.uniform(size) / 2
        if not self.unsqueezed:
            return self.node("PRelu", x, self.weight(slopes[:, None, None]))
        axes = self.weight(np.array([1, 2], "int64"))
        return self.node("PRelu", x, self.node("Unsqueeze", self.weight(slopes), axes))

    def unit(self, x, before, after, stride):
        y = self.prelu(self.conv_norm(self.norm(x, before), before, after, 3, 1), after)
        y = self.conv_norm(y, after, after, 3, stride)
        if stride == 2 and self.subsample and before == after:
            x = self.node("MaxPool", x, kernel_shape=[1, 1], strides=[2, 2])
        elif stride == 2:
            x = self.conv_norm(x, before, after, 1, 2)
        return self.node("Add", y, x)

    def linear(self, x, inputs):
        matrix = self.normal(DIM, inputs)
        stored = self.weight(matrix if self.transposed else matrix.T.copy())
        x = self.node("Gemm", x, stored, self.weight(self.normal(DIM, 100)[:, 0]), transB=int(self.transposed))
        return x if self.folded else self.norm(x, DIM)
