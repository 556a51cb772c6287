"""Conversion of IResNets in ONNX, as InsightFace releases its models, beside ONNX Runtime on the file itself."""

import numpy as np
import pytest
from keras import ops

from keras_sphereface import backbones, cli, errors
from keras_sphereface import export as exports
from keras_sphereface.conversion import convert

onnx = pytest.importorskip("onnx", reason="needs the extra [export]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [export]")

import onnx_networks  # noqa: E402
from onnx_networks import CHANNELS, DIM, SMALL, UNITS, Network  # noqa: E402


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w600k_r50.onnx"


def save(path, model):
    path.write_bytes(model.SerializeToString())
    return path


def embeddings(path, images):
    session = onnxruntime.InferenceSession(str(path))
    inputs = ((images.astype("float32") - 127.5) / 127.5).transpose(0, 3, 1, 2)
    return np.concatenate([session.run(None, {"images": one[None]})[0] for one in inputs])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"folded": False},
        {"folded": False, "epsilon": 2e-5, "unsqueezed": True},
        {"subsample": True, "transposed": False},
        {"subsample": True, "folded": False},
    ],
    ids=str,
)
def test_gives_what_onnx_runtime_gives(options, path, tmp_path):
    save(path, Network(**options).build())
    model = convert(path, "iresnet", **SMALL)
    images = np.random.RandomState(3).randint(0, 256, (3, 32, 32, 3)).astype("uint8")
    expected = embeddings(path, images)
    found = ops.convert_to_numpy(model(images, training=False))
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-4
    report, config = model.conversion_report, model.get_config()
    assert (config["units"], config["channels"], config["embedding_dim"]) == (UNITS, CHANNELS, DIM)
    assert config["shortcut"] == ("subsample" if options.get("subsample") else "projection")
    assert report.max_relative_difference < 1e-4
    assert report.reference == f"ONNX Runtime {onnxruntime.__version__}"
    assert len(report.sha256) == 64


def test_a_network_trained_on_bgr(path):
    save(path, Network().build())
    model = convert(path, "iresnet", channel_order="BGR", **SMALL)
    images = np.random.RandomState(3).randint(0, 256, (3, 32, 32, 3)).astype("uint8")
    found = ops.convert_to_numpy(model(images[..., ::-1], training=False))
    np.testing.assert_allclose(found, embeddings(path, images), atol=1e-5)


def test_the_converted_model_is_exported_again(path, tmp_path):
    save(path, Network().build())
    model = convert(path, "iresnet", **SMALL)
    assert exports.export(model, tmp_path / "again.onnx", format="onnx").smallest_cosine > 0.99999


def changed(change):
    model = Network().build()
    change(model.graph)
    return model.SerializeToString()


def put_before(graph, operator):
    """Another node between the images and the first convolution."""
    graph.node.insert(0, onnx.helper.make_node(operator, ["images", graph.initializer[-1].name], ["shifted"]))
    graph.node[1].input[0] = "shifted"


def put_elsewhere(graph):
    graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL


def damage(graph):
    graph.initializer[0].raw_data = graph.initializer[0].raw_data[:-3]


def make_nan(graph):
    first = onnx.numpy_helper.to_array(graph.initializer[0]) * np.nan
    graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(first, graph.initializer[0].name))


def add_something_else(graph):
    total = next(node for node in graph.node if node.op_type == "Add")
    total.input[1] = "images"


def go_in_circles(graph):
    """Two nodes that pass on each other's output, in the place of the images."""
    graph.node[0].input[0] = "a"
    for source, target in (("a", "b"), ("b", "a")):
        graph.node.append(onnx.helper.make_node("Identity", [source], [target]))


def name_one_output_twice(graph):
    """A unit's sum goes back to its entry."""
    totals = [node for node in graph.node if node.op_type == "Add"]
    totals[2].output[0] = totals[1].output[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no ONNX file, it has no graph"),
        (b"\xff" * 100, r"no ONNX file \("),
        (Network().build().SerializeToString()[:-100], r"no ONNX file \("),
        (changed(lambda graph: put_before(graph, "Sub")), "expected one Conv behind 'images', found Sub"),
        (changed(lambda graph: graph.node.pop()), "expected one Conv behind 'images', found nothing"),
        (changed(put_elsewhere), "the weights 'w0' are in '', expected the name of a file beside it"),
        (changed(damage), r"the weights 'w[0-9]+' are damaged"),
        (changed(make_nan), r"the weights 'w[0-9]+' have values that are not finite"),
        (changed(add_something_else), "expected one Conv behind 'x1', found BatchNormalization: no IResNet"),
        (changed(go_in_circles), "expected one Conv behind"),
        (changed(name_one_output_twice), "expected one Conv behind 'images', found nothing: no IResNet"),
        (changed(lambda graph: graph.node[0].ClearField("output")), "expected one Conv behind 'images', found nothing"),
        (
            changed(lambda graph: graph.ClearField("input")),
            "first input should be \\(images, 3, height, width\\). Received: None",
        ),
    ],
)
def test_files_that_hold_something_else(content, message, path):
    path.write_bytes(content)
    with pytest.raises(errors.FileFormatError, match=message) as error:
        convert(path, "iresnet", **SMALL)
    assert "\n" not in str(error.value)


def test_a_hundred_units_too_many_build_no_network(path, monkeypatch):
    monkeypatch.setattr(onnx_networks, "UNITS", (121, 1, 1, 1))
    with pytest.raises(errors.FileFormatError, match="of 121 residual units, expected at most 120"):
        convert(save(path, Network().build()), "iresnet", **SMALL)


def test_another_size_or_depth_is_named(path):
    save(path, Network().build())
    with pytest.raises(errors.FileFormatError, match=r"for 112x112 images; .*fc\.weight"):
        convert(path, "iresnet", input_shape=(112, 112, 3))
    with pytest.raises(errors.FileFormatError, match=r"does not fit iresnet50 .*missing tensors: layer1\.1"):
        convert(path, "iresnet50", **SMALL)
    with pytest.raises(
        ValueError, match=r"IResNets and ViTs are read, and any network as 'onnx'. Received: architecture='sfnet20'"
    ):
        convert(path, "sfnet20")
    with pytest.raises(FileNotFoundError):
        convert(path.with_name("absent.onnx"), "iresnet")


def test_a_file_that_onnx_runtime_refuses(path):
    """Its weights are read, but the parity cannot be shown."""
    model = Network().build()
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("unheard_of", 1))
    with pytest.raises(errors.FileFormatError, match="ONNX Runtime does not run it"):
        convert(save(path, model), "iresnet", **SMALL)


def test_strides_of_another_network_show_in_the_parity(path):
    """Weights of the same shapes, read along the same nodes, in a network that computes something else."""
    model = Network().build()
    pads = next(attribute for attribute in model.graph.node[0].attribute if attribute.name == "pads")
    pads.ints[:] = [2, 2, 0, 0]
    with pytest.raises(errors.FileFormatError, match="differs from the original by"):
        convert(save(path, model), "iresnet", **SMALL)


def test_command_line(path, tmp_path, capsys):
    save(path, Network().build())
    words = ["convert", str(path), "--architecture", "iresnet", "--input-shape", "32", "32", "3"]
    assert cli.main([*words, "--output", str(tmp_path / "model.keras")]) == 0
    assert "against ONNX Runtime" in capsys.readouterr().out


def test_inference_needs_no_more_than_it_is_given():
    """A normalization that only adds gives its input back to the bit where the offset is zero."""
    backbone = backbones.IResNet((1, 1, 1, 1), (4, 4, 4, 4), embedding_dim=4, input_shape=(16, 16, 3))
    layer = backbone.get_layer("bn1")
    one = np.float32(1) - np.float32(1e-5)
    layer.set_weights([np.ones(4), np.zeros(4), np.zeros(4), np.full(4, one)])
    x = np.random.RandomState(0).standard_normal((1, 2, 2, 4)).astype("float32")
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x, training=False)), x, rtol=2e-7)
