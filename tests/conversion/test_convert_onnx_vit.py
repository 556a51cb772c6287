"""Conversion of ViTs in ONNX, as LVFace releases its models, beside ONNX Runtime on the file itself."""

import numpy as np
import pytest
from keras import ops

from keras_sphereface import errors
from keras_sphereface.conversion import convert

onnx = pytest.importorskip("onnx", reason="needs the extra [export]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [export]")

from onnx import helper, numpy_helper  # noqa: E402

DIM, HEADS, PATCH, SIDE, DEPTH, EMBEDDING_DIM = 8, 2, 16, 48, 2, 6
TOKENS = (SIDE // PATCH) ** 2


class Network:
    """A ViT as exporters write it.

    Args:
        old: Whether normalization is nine operators, and sizes are put together from others, as before opset 17.
        folded: Whether the last batch normalizations are in the linear layers.
        turned: Whether matrices are turned by operators of their own.
        bias: Whether queries, keys and values have an offset.
        activation: Of the perceptron.
        heads: As the sizes say.
    """

    def __init__(self, old=False, folded=False, turned=False, bias=False, activation="Clip", heads=HEADS):
        self.nodes, self.weights, self.random = [], [], np.random.RandomState(0)
        self.old, self.folded, self.turned, self.bias = old, folded, turned, bias
        self.activation, self.heads = activation, heads

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

    def linear(self, x, inputs, outputs, bias=True):
        if self.turned:
            x = self.node("MatMul", x, self.node("Transpose", self.drawn(outputs, inputs), perm=[1, 0]))
        else:
            x = self.node("MatMul", x, self.drawn(inputs, outputs))
        return self.node("Add", self.drawn(outputs), x) if bias else x

    def norm(self, x):
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


@pytest.fixture
def path(tmp_path):
    return tmp_path / "LVFace-B_Glint360K.onnx"


def save(path, model):
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"old": True},
        {"folded": True},
        {"turned": True, "old": True},
        {"bias": True, "folded": True, "turned": True},
    ],
    ids=str,
)
def test_gives_what_onnx_runtime_gives(options, path):
    save(path, Network(**options).build())
    model = convert(path, channel_order="RGB")
    images = np.random.RandomState(3).randint(0, 256, (3, SIDE, SIDE, 3)).astype("uint8")
    session = onnxruntime.InferenceSession(str(path))
    inputs = ((images.astype("float32") - 127.5) / 127.5).transpose(0, 3, 1, 2)
    (expected,) = session.run(None, {"images": inputs})
    found = ops.convert_to_numpy(model(images, training=False))
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-4
    report, config = model.conversion_report, model.get_config()
    assert (config["depth"], config["hidden_dim"], config["num_heads"]) == (DEPTH, DIM, HEADS)
    assert (config["patch_size"], config["qkv_bias"]) == (PATCH, bool(options.get("bias")))
    assert config["input_shape"] == (SIDE, SIDE, 3)
    assert report.architecture == "vit"
    assert report.max_relative_difference < 1e-4


def test_the_order_of_the_channels_must_be_given(path):
    with pytest.raises(ValueError, match="`channel_order` must be given for 'vit'"):
        convert(save(path, Network().build()))


def test_the_number_of_heads_is_the_files(path):
    """What is given goes before what the file says, and is found out by the comparison."""
    save(path, Network().build())
    with pytest.raises(errors.FileFormatError, match=r"differs from the original by .* expected at most 0\.001"):
        convert(path, "vit", channel_order="RGB", num_heads=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: drop(model, "Softmax"), r"1 Softmax in 2 blocks"),
        (lambda model: drop(model, "Clip"), r"1 Clip in 2 blocks"),
        (
            lambda model: drop(model, "LayerNormalization"),
            r"expected LayerNormalization or Mul with weights, found MatMul",
        ),
        (lambda model: drop(model, "BatchNormalization"), r"expected BatchNormalization with weights, found MatMul"),
        (lambda model: drop(model, "Conv"), r"expected Conv with weights, found Add"),
    ],
)
def test_another_transformer_is_named(change, message, path):
    model = Network().build()
    change(model)
    with pytest.raises(errors.FileFormatError, match=message + ".*: no ViT of this kind") as error:
        convert(save(path, model), "vit", channel_order="RGB")
    assert "\n" not in str(error.value)


def drop(model, kind):
    """Takes the first operator of a kind out, and passes on what it takes."""
    node = next(node for node in model.graph.node if node.op_type == kind)
    for other in model.graph.node:
        for place, name in enumerate(other.input):
            if name == node.output[0]:
                other.input[place] = node.input[0]
    model.graph.node.remove(node)


def test_another_activation_is_no_vit_of_this_kind(path):
    save(path, Network(activation="Relu").build())
    with pytest.raises(errors.FileFormatError, match=r"0 Clip in 2 blocks"):
        convert(path, "vit", channel_order="RGB")
    with pytest.raises(errors.FileFormatError, match=r"Transpose of .*: expected feature maps"):
        convert(path, channel_order="RGB")


def test_a_small_file_that_asks_for_any_memory_is_not_run(path):
    """Each sum of a column and a row is as many numbers as both multiplied."""
    network = Network()
    model = network.build()
    last = model.graph.node[-1]
    nodes = [
        helper.make_node("Reshape", [last.input[0], "column"], ["many"]),
        helper.make_node("Transpose", ["many"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Concat", ["many"] * 999, ["wide"], axis=1),
        helper.make_node("Concat", ["turned"] * 999, ["high"], axis=2),
        helper.make_node("MatMul", ["wide", "high"], ["huge"]),
        helper.make_node("ReduceMean", ["huge"], ["mean"], axes=[1, 2]),
        helper.make_node("Sub", [last.input[0], "mean"], ["embeddings"]),
    ]
    model.graph.node.remove(last)
    model.graph.node.extend(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, EMBEDDING_DIM, 1], "int64"), "column"))
    with pytest.raises(
        errors.FileFormatError, match=r"MatMul of 'huge': \(1, 5994, 5994\) are more than any face network"
    ):
        convert(save(path, model), "vit", channel_order="RGB")
