import json

import keras
import numpy as np
import pytest

from keras_sphereface import backbones, data, export, load_pretrained
from keras_sphereface.cli import main
from keras_sphereface.data.pairs import PairSet
from keras_sphereface.embedder import build_embedder
from keras_sphereface.export import onnx_file
from keras_sphereface.model_folder import inline

SIZE = (32, 32, 3)
pytest.importorskip("onnx", reason="needs the extra [export]")
pytest.importorskip("onnxruntime", reason="needs the extra [export]")
on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs the TensorFlow backend")


def small(architecture="mobilefacenet"):
    if architecture == "mobilefacenet":
        bottlenecks = ((2, 16, 2, 2), (2, 16, 1, 1))
        return backbones.MobileFaceNet(embedding_dim=16, width=0.25, bottlenecks=bottlenecks, input_shape=SIZE)
    if architecture == "sfnet":
        return backbones.SFNet((1, 0, 0, 0), channels=(8, 8, 8, 8), embedding_dim=16, input_shape=SIZE)
    if architecture == "patch_sfnet":
        return backbones.PatchSFNet((1, 1, 1), channels=(8, 8, 8), hidden=(8, 8, 8), embedding_dim=16)
    return backbones.IResNet((1, 1, 1, 1), channels=(8, 8, 8, 8), embedding_dim=16, input_shape=SIZE)


def scramble(model, rng):
    """Statistics and slopes that differ, so that a wrong axis or order shows."""
    for variable in model.variables:
        if "variance" in variable.name or "gamma" in variable.name:
            variable.assign(rng.uniform(0.5, 1.5, size=variable.shape))
        elif "seed" not in variable.path and len(variable.shape) == 1:
            variable.assign(rng.normal(0, 0.1, size=variable.shape))
    return model


@pytest.fixture
def images(rng):
    coarse = rng.uniform(0, 255, size=(24, 4, 4, 3))
    return coarse.repeat(8, axis=1).repeat(8, axis=2).astype("uint8")


@pytest.fixture
def pairs(images):
    left, right = np.arange(23), np.arange(1, 24)
    return PairSet.from_arrays(images, left, right, mated=left % 2 == 0, name="toy")


@pytest.mark.parametrize("architecture", ["mobilefacenet", "sfnet", "iresnet"])
def test_onnx_gives_the_same_embeddings(tmp_path, images, rng, architecture):
    model = scramble(small(architecture), rng)
    report = export.export(model, tmp_path / "face.onnx", format="onnx")
    assert report.largest_difference < 1e-5
    exported = export.load(tmp_path / "face.onnx", "onnx")(images)
    np.testing.assert_allclose(exported, build_embedder(model).predict(images, verbose=0), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(exported, axis=1), 1, atol=1e-5)


def test_onnx_of_the_default_architecture(tmp_path, rng):
    model = small("patch_sfnet")
    for variable in model.variables:  # the units begin as the identity
        variable.assign(rng.normal(0, 0.1, size=variable.shape))
    assert export.export(model, tmp_path / "face.onnx", format="onnx").smallest_cosine > 0.99999


def test_onnx_pads_same_convolutions_like_keras(tmp_path, rng):
    inputs = keras.Input((9, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(inputs)
    x = keras.layers.DepthwiseConv2D(3, strides=1, padding="same", depth_multiplier=2)(x)
    x = keras.layers.Conv2D(4, 2, strides=2, padding="same", dilation_rate=1, groups=2)(x)
    x = keras.layers.MaxPooling2D(2, strides=1, padding="same")(x)
    x = keras.layers.AveragePooling2D(2, strides=2, padding="same")(x)
    model = keras.Model(inputs, keras.layers.Dense(5, activation="tanh")(keras.layers.GlobalAveragePooling2D()(x)))
    images = rng.uniform(0, 255, size=(3, 9, 8, 3)).astype("float32")
    assert export.export(model, tmp_path / "m.onnx", format="onnx").smallest_cosine > 0.99999
    np.testing.assert_allclose(
        export.load(tmp_path / "m.onnx", "onnx")(images), build_embedder(model).predict(images, verbose=0), atol=1e-5
    )


def test_onnx_float16_halves_the_file(tmp_path):
    model = small("sfnet")
    full = export.export(model, tmp_path / "full.onnx", format="onnx")
    half = export.export(model, tmp_path / "half.onnx", format="onnx", precision="float16")
    assert half.smallest_cosine > 0.9999
    assert half.size < 0.65 * full.size


def test_onnx_int8_with_calibration_and_pairs(tmp_path, images, pairs, rng):
    model = scramble(small("iresnet"), rng)
    report = export.export(model, tmp_path / "q.onnx", "onnx", "int8", calibration_images=images, pairs=pairs)
    assert 0.9 < report.smallest_cosine < 0.9999999  # it is quantized, and still close
    assert [row["far"] for row in report.tar] == [1e-2, 1e-3]
    assert "TAR at FAR 0.01 on toy (23 pairs)" in str(report)


def test_tar_is_counted_at_each_models_own_threshold(pairs):
    from keras_sphereface.export.exporter import _true_accept_rates

    angles = np.linspace(0, 3, 24) ** 2  # each neighbour is farther than the one before
    embeddings = np.stack([np.cos(angles / 9), np.sin(angles / 9)], axis=1)
    rates = _true_accept_rates(embeddings, -embeddings, pairs)
    # Mated pairs 0, 2, ..., 22 and nonmated 1, 3, ..., 21: only pair 0 is closer than nonmated pair 1.
    assert rates[0] == {"far": 1e-2, "keras": pytest.approx(1 / 12), "exported": pytest.approx(1 / 12)}


@on_tensorflow
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_saved_model(tmp_path, images, precision):
    model = small("sfnet")
    report = export.export(model, tmp_path / "saved", "saved_model", precision)
    assert report.smallest_cosine > (0.999999 if precision == "float32" else 0.9999)
    exported = export.load(tmp_path / "saved", "saved_model")(images[:3])
    np.testing.assert_allclose(exported, build_embedder(model).predict(images[:3], verbose=0), atol=2e-3)


@on_tensorflow
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_litert(tmp_path, images, pairs, rng, precision):
    model = scramble(small("mobilefacenet"), rng)
    report = export.export(model, tmp_path / "m.tflite", "litert", precision, calibration_images=images, pairs=pairs)
    assert report.smallest_cosine > {"float32": 0.99999, "float16": 0.9999, "int8": 0.9}[precision]
    assert len(report.tar) == 2
    assert export.load(tmp_path / "m.tflite", "litert")(images[:1]).shape == (1, 16)


def test_a_wrong_file_is_an_error(tmp_path, monkeypatch):
    write = onnx_file.write
    other = inline(build_embedder(small("sfnet")))  # other random weights
    monkeypatch.setattr(onnx_file, "write", lambda model, path, *rest: write(other, path, *rest))
    with pytest.raises(export.ExportError, match="not the model's"):
        export.export(small("sfnet"), tmp_path / "m.onnx", "onnx")


def test_a_layer_without_counterpart_is_named(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Flatten()(keras.layers.UpSampling2D(name="larger")(inputs)))
    with pytest.raises(ValueError, match="'larger' of class UpSampling2D"):
        export.export(model, tmp_path / "m.onnx", "onnx")


def test_a_reshape_to_another_shape_is_refused(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Flatten()(keras.layers.Reshape((64, 3), name="rows")(inputs)))
    with pytest.raises(ValueError, match=r"'rows' cannot be written as ONNX: expected target_shape=\(8, 8, 3\)"):
        export.export(model, tmp_path / "m.onnx", "onnx")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "m.onnx", "format": "torchscript"}, "format='torchscript'"),
        ({"path": "m.onnx", "format": "onnx", "precision": "int4"}, "precision='int4'"),
        ({"path": "m.onnx", "format": "onnx", "precision": "int8"}, "calibration_images"),
        ({"path": "m", "format": "saved_model", "precision": "int8"}, "no int8"),
        ({"path": "m.tflite", "format": "onnx"}, "m.tflite"),
    ],
)
def test_arguments_are_checked(tmp_path, arguments, message):
    path = tmp_path / arguments.pop("path")
    with pytest.raises(ValueError, match=message):
        export.export(small("sfnet"), path, **arguments)


def test_calibration_images_of_another_size(tmp_path):
    with pytest.raises(ValueError, match=r"images\.shape"):
        export.export(small("sfnet"), tmp_path / "m.onnx", "onnx", "int8", calibration_images=np.zeros((2, 8, 8, 3)))


def test_command_line(tmp_path, images, capsys):
    from keras_sphereface.data.images import encode_png

    (tmp_path / "crops" / "a").mkdir(parents=True)
    for number, image in enumerate(images[:6]):
        (tmp_path / "crops" / "a" / f"{number}.png").write_bytes(encode_png(image))
    model = small("sfnet")
    build_embedder(model).save(tmp_path / "m.keras")
    out = tmp_path / "m.onnx"
    arguments = ["export", str(tmp_path / "m.keras"), str(out), "--precision", "int8"]
    assert main([*arguments, "--calibration", str(tmp_path / "crops"), "--num-calibration", "4"]) == 0
    assert "smallest cosine" in capsys.readouterr().out
    assert json.loads((tmp_path / "m.onnx.json").read_text())["images"] == "calibration"
    assert main(arguments) == 1
    assert "calibration_images" in capsys.readouterr().err


def test_an_onnx_file_is_evaluated_like_its_keras_model(tmp_path, pairs, capsys):
    model = build_embedder(small("sfnet"))
    model.save(tmp_path / "m.keras")
    export.export(model, tmp_path / "m.onnx", "onnx")
    data.write_bin(tmp_path / "pairs.bin", pairs)
    reports = []
    for name in ("m.keras", "m.onnx"):
        assert main(["evaluate", str(tmp_path / name), "--pairs", str(tmp_path / "pairs.bin"), "--json"]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0]["auc"] == pytest.approx(reports[1]["auc"], abs=1e-4)
    assert reports[0]["num_pairs"] == reports[1]["num_pairs"] == 23


@on_tensorflow
def test_the_default_model_as_int8_litert(tmp_path):
    """XNNPACK, LiteRT's default, refuses this file: the built-in operators run it."""
    images = np.stack([data.synthetic(8, 2).read(record)[0] for record in range(16)])
    path = tmp_path / "int8.tflite"
    report = export.export(load_pretrained(), path, format="litert", precision="int8", calibration_images=images)
    assert report.smallest_cosine > 0.9
    assert report.size < 2_200_000


def test_onnx_runtime_takes_no_more_threads_than_the_process_may_use(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    export.export(small(), path, format="onnx")
    monkeypatch.setattr(onnx_file, "cpu_cores", lambda: 1)
    monkeypatch.setattr(onnx_file.os, "cpu_count", lambda: 8)
    assert onnx_file.open_session(path).get_session_options().intra_op_num_threads == 1
    monkeypatch.setattr(onnx_file, "cpu_cores", lambda: 8)
    assert onnx_file.open_session(path).get_session_options().intra_op_num_threads == 0  # its own choice


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["face.onnx", pytest.param("face.tflite", marks=on_tensorflow)])
def test_a_model_in_16_bits_is_written_in_float32(tmp_path, rng, name, dtype):
    model = load_pretrained(dtype=dtype)
    format = "onnx" if name.endswith("onnx") else "litert"
    assert export.export(model, tmp_path / name, format=format).smallest_cosine > 0.99999
    crops = rng.integers(0, 256, (4, 112, 112, 3)).astype("uint8")
    embeddings, expected = export.load(tmp_path / name, format)(crops), model.predict(crops, verbose=0)
    assert (np.sum(embeddings * expected, axis=1) > 0.999).all()
