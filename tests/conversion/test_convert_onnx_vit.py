"""Conversion of ViTs in ONNX, as LVFace releases its models, beside ONNX Runtime on the file itself."""

import numpy as np
import pytest
from keras import ops

from keras_sphereface import errors
from keras_sphereface.conversion import convert

onnx = pytest.importorskip("onnx", reason="needs the extra [export]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [export]")

from onnx import helper, numpy_helper  # noqa: E402
from onnx_transformers import DEPTH, DIM, EMBEDDING_DIM, HEADS, PATCH, SIDE, Transformer  # noqa: E402


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
        {"shared": True},
        {"shared": True, "old": True},
        {"bias": True, "folded": True, "turned": True},
    ],
    ids=str,
)
def test_gives_what_onnx_runtime_gives(options, path):
    save(path, Transformer(**options).build())
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
        convert(save(path, Transformer().build()))


def test_the_number_of_heads_is_the_files(path):
    """What is given goes before what the file says, and is found out by the comparison."""
    save(path, Transformer().build())
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
    model = Transformer().build()
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
    save(path, Transformer(activation="Relu").build())
    with pytest.raises(errors.FileFormatError, match=r"0 Clip in 2 blocks"):
        convert(path, "vit", channel_order="RGB")
    with pytest.raises(errors.FileFormatError, match=r"LayerNormalization of .*: no known operator"):
        convert(path, channel_order="RGB")


def test_a_small_file_that_asks_for_any_memory_is_not_run(path):
    """Each sum of a column and a row is as many numbers as both multiplied."""
    network = Transformer()
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


def test_sizes_that_only_the_numbers_tell_are_not_run(path):
    model = Transformer().build()
    last = model.graph.node[-1]
    nodes = [
        helper.make_node("NonZero", [last.input[0]], ["places"]),
        helper.make_node("Cast", ["places"], ["factor"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Transpose", ["factor"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["factor", "turned"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["mean"], axes=[0, 1]),
        helper.make_node("Sub", [last.input[0], "mean"], ["embeddings"]),
    ]
    model.graph.node.remove(last)
    model.graph.node.extend(nodes)
    with pytest.raises(errors.FileFormatError, match="NonZero of 'places': ONNX cannot tell its size"):
        convert(save(path, model), "vit", channel_order="RGB")


def test_how_many_products_a_number_takes():
    from keras_sphereface.conversion import onnx_sizes
    from keras_sphereface.conversion.onnx_file import Node

    def inner(operator, shape, **attributes):
        return onnx_sizes._inner(Node(operator, ("x", "factor"), ("y",), attributes, None), {"factor": shape})

    assert inner("Conv", (8, 3, 5, 5)) == 75
    assert inner("MatMul", (2, 7, 9)) == 7
    assert inner("MatMul", (7,)) == 7
    assert (inner("Gemm", (7, 9)), inner("Gemm", (9, 7), transB=1)) == (7, 7)
    assert inner("Add", (7, 9)) == 1
    assert inner("MatMul", (None, 9)) is inner("Conv", (8, None, 5, 5)) is None
