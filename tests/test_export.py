import json
import re
import sys

import keras
import numpy as np
import pytest

from keras_sphereface import backbones, data, errors, export, load_pretrained
from keras_sphereface.cli import main
from keras_sphereface.data.pairs import PairSet
from keras_sphereface.embedder import build_embedder
from keras_sphereface.export import onnx_file
from keras_sphereface.layer_graph import inline
from keras_sphereface.recognition import Recognizer
from keras_sphereface.recognition.models import open_model

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
    if architecture == "vit":
        return backbones.ViT(2, 16, 2, patch_size=8, mask_ratio=0.3, drop_path=0.2, embedding_dim=16, input_shape=SIZE)
    options = {"shortcut": "subsample", "inner_norm": False, "se_reduction": 2} if architecture == "iresnet_se" else {}
    return backbones.IResNet((1, 1, 1, 1), channels=(8, 8, 8, 8), embedding_dim=16, input_shape=SIZE, **options)


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


@pytest.fixture
def many_pairs(images):
    """As many nonmated pairs as FAR 0.01 needs, too few for FAR 0.001."""
    left, right = np.triu_indices(len(images), k=1)
    return PairSet.from_arrays(images, left, right, mated=np.arange(len(left)) % 2 == 0, name="toy")


@pytest.mark.parametrize("architecture", ["mobilefacenet", "sfnet", "iresnet", "iresnet_se", "vit"])
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


def test_onnx_int8_with_calibration_and_pairs(tmp_path, images, many_pairs, rng):
    model = scramble(small("iresnet"), rng)
    report = export.export(model, tmp_path / "q.onnx", "onnx", "int8", calibration_images=images, pairs=many_pairs)
    assert 0.9 < report.smallest_cosine < 0.9999999  # it is quantized, and still close
    assert [row["far"] for row in report.tar] == [1e-2]
    assert (report.num_mated, report.num_nonmated) == (138, 138)
    assert "TAR at FAR 0.01 on toy (276 pairs)" in str(report)
    assert report.notes == [
        "TAR at FAR 0.001 is left out: it needs at least 1000 nonmated pairs, there are 138",
        "calibrated on 24 images: 100 or more of what the model will see are better",
    ]
    assert report.notes[0] in str(report)


def test_rates_that_pairs_can_tell():
    from keras_sphereface.export.comparison import _resolved

    assert _resolved(1100, 1100) == ([1e-2, 1e-3], [])  # a view of LFW
    assert _resolved(1, 100)[0] == [1e-2]
    assert _resolved(1, 99)[0] == []


@pytest.mark.parametrize("kind", ["mated", "nonmated"])
def test_pairs_of_one_kind(tmp_path, images, kind, capsys):
    """As in InsightFace's own small_lfw.bin: the embeddings are compared, and TAR at FAR is not defined."""
    flags = np.full(23, kind == "mated")
    data.write_bin(tmp_path / "p.bin", PairSet.from_arrays(images, np.arange(23), np.arange(1, 24), mated=flags))
    build_embedder(small("sfnet")).save(tmp_path / "m.keras")
    out = tmp_path / "m.onnx"
    assert main(["export", str(tmp_path / "m.keras"), str(out), "--pairs", str(tmp_path / "p.bin")]) == 0
    assert f"TAR at FAR is not defined: all 23 pairs are {kind}" in capsys.readouterr().out
    report = json.loads((tmp_path / "m.onnx.json").read_text())
    assert (report["tar"], report["num_images"], report["images"]) == ([], 24, "pairs")


def test_the_middle_of_larger_images(tmp_path, rng, capsys):
    """A 40x32 network takes the middle columns of 40x40 images, of pairs and of calibration images."""
    model = build_embedder(backbones.SFNet((1, 0, 0, 0), channels=(8,) * 4, embedding_dim=16, input_shape=(40, 32, 3)))
    images = rng.integers(0, 256, (6, 40, 40, 3)).astype("uint8")
    pairs = PairSet.from_arrays(images, [0, 1, 2], [3, 4, 5], mated=[True, False, False], name="wide")
    path = tmp_path / "m.onnx"
    for wrong in ({"pairs": pairs}, {"calibration_images": images}):
        with pytest.raises(ValueError, match=r"\(n, 40, 32, 3\).*images\.shape=.*crop='center'"):
            export.export(model, path, "onnx", **wrong)
    smaller = PairSet.from_arrays(images[:, :20], [0], [1], mated=[True])
    with pytest.raises(ValueError, match="at least"):
        export.export(model, path, "onnx", pairs=smaller, crop="center")
    assert not path.exists()  # nothing is written before the sizes are known to fit
    report = export.export(model, path, "onnx", "int8", calibration_images=images, pairs=pairs, crop="center")
    cut = PairSet.from_arrays(images[:, :, 4:36], pairs.left, pairs.right, pairs.mated)
    by_hand = export.export(
        model, tmp_path / "h.onnx", "onnx", "int8", calibration_images=images[:, :, 4:36], pairs=cut
    )
    assert report.largest_difference == by_hand.largest_difference
    model.save(tmp_path / "m.keras")
    data.write_bin(tmp_path / "p.bin", pairs)
    arguments = ["export", str(tmp_path / "m.keras"), str(path), "--pairs", str(tmp_path / "p.bin")]
    assert main(arguments) == 1
    assert "Expected images of p (n, 40, 32, 3)" in capsys.readouterr().err
    assert main([*arguments, "--crop", "center"]) == 0


def test_tar_is_counted_at_each_models_own_threshold(pairs):
    from keras_sphereface.export.comparison import _true_accept_rates

    angles = np.linspace(0, 3, 24) ** 2  # each neighbour is farther than the one before
    embeddings = np.stack([np.cos(angles / 9), np.sin(angles / 9)], axis=1)
    rates = _true_accept_rates(embeddings, -embeddings, pairs, [1e-2])
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
def test_litert(tmp_path, images, many_pairs, rng, precision):
    model = scramble(small("mobilefacenet"), rng)
    report = export.export(
        model, tmp_path / "m.tflite", "litert", precision, calibration_images=images, pairs=many_pairs
    )
    assert report.smallest_cosine > {"float32": 0.99999, "float16": 0.9999, "int8": 0.9}[precision]
    assert len(report.tar) == 1
    assert export.load(tmp_path / "m.tflite", "litert")(images[:1]).shape == (1, 16)


@on_tensorflow
def test_int8_of_a_layer_that_is_always_zero_runs_in_xnnpack(tmp_path, images):
    """Its calibrated range is nothing, and XNNPACK, which runs files by default, refuses the ratio of scales."""
    import tensorflow as tf

    inputs = keras.Input(SIZE)
    x = keras.layers.Conv2D(4, 3, strides=4)(keras.layers.Rescaling(1 / 127.5, -1)(inputs))
    dead = keras.layers.Conv2D(
        4, 3, padding="same", activation="relu", bias_initializer=keras.initializers.Constant(-1e3)
    )
    x = keras.layers.Add()([x, keras.layers.Conv2D(4, 3, padding="same")(dead(x))])
    model = keras.Model(inputs, keras.layers.Dense(8)(keras.layers.Flatten()(x)))
    report = export.export(model, tmp_path / "m.tflite", "litert", "int8", calibration_images=images)
    assert report.smallest_cosine > 0.99
    interpreter = tf.lite.Interpreter(str(tmp_path / "m.tflite"))
    interpreter.allocate_tensors()  # a RuntimeError before
    assert interpreter.get_output_details()[0]["shape"].tolist() == [1, 8]


@on_tensorflow
def test_statistics_beyond_float16_are_kept(tmp_path):
    """float16 ends at 65504: a variance of 1e5 would become infinity."""
    model = small("iresnet")
    last = model.get_layer("bn2")
    last.moving_variance.assign(np.full(last.moving_variance.shape, 1e5))
    last.gamma.assign(np.full(last.gamma.shape, 300.0))
    assert export.export(model, tmp_path / "saved", "saved_model", "float16").smallest_cosine > 0.999


def test_onnx_of_sequential_models(tmp_path):
    inner = keras.Sequential([keras.Input(SIZE), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3)])
    outer = keras.Sequential([inner, keras.layers.PReLU(), keras.layers.Flatten(), keras.layers.Dense(8)])
    outer.build((None, *SIZE))
    assert export.export(outer, tmp_path / "m.onnx", "onnx").smallest_cosine > 0.99999
    inputs = keras.Input(SIZE)
    around = keras.Model(inputs, keras.layers.Dense(4)(keras.Model(x := keras.Input(SIZE), outer(x))(inputs)))
    around.compile("sgd", loss="mse")
    assert export.export(around, tmp_path / "m.onnx", "onnx").smallest_cosine > 0.99999
    outer.add(keras.layers.UnitNormalization())  # an embedder already
    assert export.export(outer, tmp_path / "m.onnx", "onnx").smallest_cosine > 0.99999


def test_a_model_of_any_size_is_refused(tmp_path):
    inputs = keras.Input((None, None, 3))
    outputs = keras.layers.Dense(8)(keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs)))
    with pytest.raises(ValueError, match=r"fixed input size. Received: input_shape=\(None, None, None, 3\)"):
        export.export(keras.Model(inputs, outputs), tmp_path / "m.onnx", "onnx")


def test_a_missing_runtime_is_named_before_writing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(errors.MissingDependencyError, match="onnxruntime"):
        export.export(small("sfnet"), tmp_path / "m.onnx", "onnx")
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("path", "format", "message"),
    [
        (".", "saved_model", "must be a new folder"),
        ("..", "saved_model", "must be a new folder"),
        ("full", "saved_model", "must be a new folder"),
        ("file", "saved_model", "must be a folder"),
        ("m.keras", "saved_model", "a folder without an ending"),
        ("full.onnx", "onnx", "must be a file"),
    ],
)
def test_paths_are_checked(tmp_path, monkeypatch, path, format, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("full", "full.onnx"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "letter.txt").write_text("hello")
    (tmp_path / "file").write_text("hello")
    with pytest.raises(ValueError, match=f"{message}.*Received: path='{path}'"):
        export.export(small("sfnet"), path, format)
    assert {name.name for name in tmp_path.iterdir()} == {"full", "full.onnx", "file"}


@on_tensorflow
def test_a_saved_model_may_have_a_dot_and_is_written_over(tmp_path, capsys):
    build_embedder(small("sfnet")).save(tmp_path / "m.keras")
    arguments = ["export", str(tmp_path / "m.keras"), str(tmp_path / "v1.0")]
    assert main(arguments) == 2
    assert "Unknown ending '.0'" in capsys.readouterr().err
    for _ in range(2):
        assert main([*arguments, "--format", "saved_model"]) == 0
    assert (tmp_path / "v1.0.json").is_file()


def test_a_wrong_file_is_an_error(tmp_path, monkeypatch):
    write = onnx_file.write
    other = inline(build_embedder(small("sfnet")))  # other random weights
    monkeypatch.setattr(onnx_file, "write", lambda model, path, *rest: write(other, path, *rest))
    (tmp_path / "m.onnx").write_text("an older file")
    with pytest.raises(export.ExportError, match="not the model's"):
        export.export(small("sfnet"), tmp_path / "m.onnx", "onnx")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an older file"]


def test_a_layer_without_counterpart_is_named(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Flatten()(keras.layers.Softmax(name="shares")(inputs)))
    with pytest.raises(ValueError, match="'shares' of class Softmax"):
        export.export(model, tmp_path / "m.onnx", "onnx")


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Cropping2D(((1, 2), (0, 3)), name="Cropping2D"),
        keras.layers.SeparableConv2D(5, 3, strides=2, padding="same", depth_multiplier=2, name="SeparableConv2D"),
        keras.layers.LayerNormalization(name="LayerNormalization"),
        keras.layers.Normalization(mean=[0.5, 0.0, 1.0], variance=[4.0, 1.0, 0.0], name="Normalization"),
        keras.layers.ReLU(max_value=0.4, negative_slope=0.1, name="ReLU"),
        keras.layers.LeakyReLU(0.3, name="LeakyReLU"),
        keras.layers.GlobalMaxPooling2D(keepdims=True, name="GlobalMaxPooling2D"),
        keras.layers.Reshape((-1, 2, 9), name="Reshape_to_map"),
        keras.layers.Reshape((-1,), name="Reshape_to_vector"),
        *[
            keras.layers.Activation(kind)
            for kind in ("relu6", "leaky_relu", "elu", "selu", "hard_sigmoid", "softplus", "silu", "hard_silu", "gelu")
        ],
    ],
    ids=lambda layer: layer.activation.__name__ if isinstance(layer, keras.layers.Activation) else layer.name,
)
def test_onnx_of_layers_that_other_networks_have(tmp_path, layer, rng):
    inputs = keras.Input((6, 6, 3))
    signed = keras.layers.Rescaling([0.02, 0.03, 0.04], [-2.0, -4.0, -6.0])(inputs)
    model = keras.Model(inputs, keras.layers.Flatten()(layer(signed)))
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    report = export.export(model, tmp_path / "m.onnx", "onnx")
    assert report.smallest_cosine > 0.999999
    assert report.largest_difference < 1e-5


def test_onnx_of_several_inputs_and_operators(tmp_path):
    inputs = keras.Input((6, 6, 3))
    left = keras.layers.Conv2D(3, 3, padding="same")(keras.layers.Rescaling(1 / 255)(inputs))
    gate = keras.layers.GlobalAveragePooling2D()(left) * (1 / 6) + 0.5  # Keras's MobileNetV3 has such operators
    gated = keras.layers.Multiply()([left, keras.layers.Reshape((1, 1, 3))(1.0 - gate)])
    merged = [getattr(keras.layers, name)()([left, gated]) for name in ("Average", "Maximum", "Minimum", "Subtract")]
    merged.append(keras.ops.minimum(keras.ops.maximum(left[..., :2], left[:, :, :, -2:]), 0.1))
    pooled = keras.layers.GlobalMaxPooling2D()(keras.layers.Concatenate()([*merged, left]))
    report = export.export(
        keras.Model(inputs, keras.layers.Concatenate()([pooled[:, 1:9], gate / 2])), tmp_path / "m.onnx", "onnx"
    )
    assert report.smallest_cosine > 0.999999
    assert report.largest_difference < 1e-5


def test_onnx_of_maps_turned_and_enlarged(tmp_path):
    inputs = keras.Input((6, 8, 3))
    x = keras.layers.Permute((3, 1, 2))(keras.layers.UpSampling2D((2, 3))(keras.layers.Rescaling(1 / 255)(inputs)))
    x = keras.layers.Conv2D(4, 3)(keras.layers.Permute((2, 1, 3))(x[..., :8]))
    report = export.export(keras.Model(inputs, keras.layers.Flatten()(x)), tmp_path / "m.onnx", "onnx")
    assert report.largest_difference < 1e-5


def test_onnx_of_a_network_of_keras(tmp_path):
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None, pooling="avg")
    assert export.export(model, tmp_path / "m.onnx", "onnx").smallest_cosine > 0.999999


def test_onnx_of_a_network_of_tokens(tmp_path, rng):
    """Rows of a feature map as tokens: MLP-Mixer's layers, but for the turn between them."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 2, strides=2)(inputs)
    x = keras.layers.Reshape((-1, 6))(x)
    y = keras.layers.Dense(12, activation="gelu")(keras.layers.LayerNormalization()(x))
    x = keras.layers.Add()([x, keras.layers.Dense(6, use_bias=False)(y)])
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(x)))
    assert export.export(model, tmp_path / "m.onnx", "onnx").smallest_cosine > 0.99999
    wrong = keras.Model(inputs, keras.layers.Flatten()(keras.layers.BatchNormalization(name="norm")(x)))
    with pytest.raises(
        ValueError, match="'norm' cannot be written as ONNX: expected normalization of the last axis of"
    ):
        export.export(wrong, tmp_path / "wrong.onnx", "onnx")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            keras.layers.Reshape((8, 8, 3, 1), name="cubes"),
            "'cubes' cannot be written as ONNX: expected vectors, tokens or feature maps",
        ),
        (keras.layers.Concatenate(axis=1, name="below"), "'below' .* expected concatenation along the last axis"),
        (keras.layers.ReLU(threshold=1.0, name="late"), "'late' .* expected a ReLU with threshold 0"),
        (keras.layers.Activation(keras.activations.mish, name="mish"), "'mish' .* expected an activation of linear"),
        (keras.layers.Add(name="mixed"), "'mixed' .* expected inputs of one rank"),
        (lambda x: x[:, 1:, :, :], "'get_item.*' .* expected a range of the last axis"),
        (lambda x: x[..., ::2], "'get_item.*' .* expected a range of the last axis"),
        (lambda x: keras.ops.expand_dims(x[..., 0], -1), "'get_item.*' .* expected a range of the last axis"),
    ],
)
def test_a_layer_of_settings_without_counterpart_is_named(tmp_path, layer, message):
    inputs = keras.Input((8, 8, 3))
    other = keras.layers.GlobalMaxPooling2D()(inputs) if getattr(layer, "name", None) == "mixed" else inputs
    is_merge = isinstance(layer, (keras.layers.Add, keras.layers.Concatenate))
    model = keras.Model(inputs, keras.layers.Flatten()(layer([inputs, other] if is_merge else inputs)))
    with pytest.raises(ValueError, match=message):
        export.export(model, tmp_path / "m.onnx", "onnx")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "m.onnx", "format": "torchscript"}, "format='torchscript'"),
        ({"path": "m.onnx", "format": "onnx", "precision": "int4"}, "precision='int4'"),
        ({"path": "m.onnx", "format": "onnx", "precision": "int8"}, "calibration_images"),
        ({"path": "m", "format": "saved_model", "precision": "int8"}, "no int8"),
        ({"path": "m.tflite", "format": "onnx"}, "m.tflite"),
        ({"path": "m.onnx", "format": "onnx", "crop": "middle"}, "crop='middle'"),
    ],
)
def test_arguments_are_checked(tmp_path, arguments, message):
    path = tmp_path / arguments.pop("path")
    with pytest.raises(ValueError, match=message):
        export.export(small("sfnet"), path, **arguments)


def test_calibration_images_of_another_size(tmp_path):
    with pytest.raises(ValueError, match=r"images\.shape"):
        export.export(small("sfnet"), tmp_path / "m.onnx", "onnx", "int8", calibration_images=np.zeros((2, 8, 8, 3)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((2, *SIZE), np.nan), "finite"),
        (np.full((2, *SIZE), "x"), "finite numbers"),
        (np.full((2, *SIZE), 0.5), r"images\.max\(\)=0\.5"),
        (np.zeros((0, *SIZE)), r"images\.shape"),
    ],
)
def test_calibration_images_are_checked(tmp_path, images, message):
    with pytest.raises(ValueError, match=message):
        export.export(small("sfnet"), tmp_path / "m.onnx", "onnx", "int8", calibration_images=images)


def test_the_commands_calibration_images(tmp_path, capsys):
    from keras_sphereface.cli.export import read_images
    from keras_sphereface.data.images import encode_png

    with pytest.raises(ValueError, match="does not exist"):
        read_images(tmp_path / "nowhere", 2)
    for number, side in enumerate((8, 8, 9, 10)):
        (tmp_path / f"{number}.png").write_bytes(encode_png(np.zeros((side, 8, 3), np.uint8)))
    with pytest.raises(ValueError, match="is a file"):
        read_images(tmp_path / "0.png", 2)
    (tmp_path / "._0.png").write_bytes(b"what macOS lays beside a file")
    assert read_images(tmp_path, 1).shape == (1, 8, 8, 3)
    with pytest.raises(ValueError, match=r"2\.png has the shape \(9, 8, 3\), .*0\.png has \(8, 8, 3\)"):
        read_images(tmp_path, 4)
    for count in ("0", "-1"):
        with pytest.raises(SystemExit):
            main(["export", "m.keras", "m.onnx", "--num-calibration", count])
        assert "at least 1" in capsys.readouterr().err


def test_layers_in_16_bits_inside_a_model_inside_are_compared_in_float32(tmp_path):
    images = keras.Input(SIZE)
    maps = keras.layers.Rescaling(1 / 255)(images)
    for _ in range(4):
        maps = keras.layers.Conv2D(16, 3, activation="relu", dtype="mixed_bfloat16")(maps)
    inner = keras.Model(images, keras.layers.Dense(8)(keras.layers.GlobalAveragePooling2D(dtype="float32")(maps)))
    report = export.export(keras.Model(images, inner(images)), tmp_path / "m.onnx", format="onnx")
    assert report.largest_difference < 1e-5


def test_a_model_whose_own_embeddings_overflow_is_named(tmp_path):
    model = small("sfnet")
    model.set_weights([value * 1e12 for value in model.get_weights()])
    with pytest.raises(
        ValueError, match=r"expected embeddings of length 1 .* Received: lengths from .* Train it first"
    ):
        export.export(model, tmp_path / "m.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


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
    assert main(arguments) == 2
    assert "--calibration" in capsys.readouterr().err


@pytest.mark.parametrize("content", ['{"license": "mit"}', "[]", "not JSON"])
def test_a_file_that_is_no_report_is_not_written_over_by_the_report(tmp_path, capsys, content):
    build_embedder(small("sfnet")).save(tmp_path / "m.keras")
    arguments = ["export", str(tmp_path / "m.keras"), str(tmp_path / "card.onnx")]
    (tmp_path / "card.onnx.json").write_text(content)
    assert main(arguments) == 1
    assert "card.onnx.json, which is no report" in capsys.readouterr().err
    assert (tmp_path / "card.onnx.json").read_text() == content
    assert not (tmp_path / "card.onnx").exists()
    (tmp_path / "card.onnx.json").unlink()
    assert [main(arguments), main(arguments)] == [0, 0]  # a report is


@pytest.mark.parametrize("file", ["m.onnx", pytest.param("m.tflite", marks=on_tensorflow)])
def test_an_exported_file_is_evaluated_like_its_keras_model(tmp_path, pairs, capsys, file):
    model = build_embedder(small("sfnet"))
    model.save(tmp_path / "m.keras")
    export.export(model, tmp_path / file, "onnx" if file == "m.onnx" else "litert")
    data.write_bin(tmp_path / "pairs.bin", pairs)
    reports = []
    for name in ("m.keras", file):
        assert main(["evaluate", str(tmp_path / name), "--pairs", str(tmp_path / "pairs.bin"), "--json"]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0]["auc"] == pytest.approx(reports[1]["auc"], abs=1e-4)
    assert reports[0]["num_pairs"] == reports[1]["num_pairs"] == 23


@pytest.mark.parametrize("name", ["m.onnx", pytest.param("m.tflite", marks=on_tensorflow)])
def test_an_exported_file_recognizes_like_its_keras_model(tmp_path, images, name):
    model = build_embedder(small("sfnet"))
    export.export(model, tmp_path / name, "onnx" if name == "m.onnx" else "litert")
    photos = list(images[:5])
    ours, theirs = (Recognizer(one, detector=None) for one in (tmp_path / name, model))
    np.testing.assert_allclose(ours.embed(photos), theirs.embed(photos), atol=1e-4)
    ours.enroll("Ann", photos[:2])
    assert ours.identify(photos[0]).candidates[0].score == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match=r"size=\(112, 112\)"):
        Recognizer(tmp_path / name, detector=None, size=(112, 112))


@on_tensorflow
def test_a_litert_file_of_other_inputs_is_refused(tmp_path):
    """A network of channels first, as PyTorch's converters write them."""
    import tensorflow as tf

    function = tf.function(lambda x: tf.reduce_sum(x, axis=(2, 3)), [tf.TensorSpec((None, 3, 8, 8))])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    (tmp_path / "m.tflite").write_bytes(converter.convert())
    with pytest.raises(ValueError, match=r"m\.tflite: expected one float input.*\(None, 3, 8, 8\) of float32"):
        Recognizer(tmp_path / "m.tflite", detector=None)


@on_tensorflow
def test_the_default_model_as_int8_litert(tmp_path):
    """XNNPACK, LiteRT's default, runs it: one of its layers is always zero."""
    import tensorflow as tf

    images = np.stack([data.synthetic(8, 2).read(record)[0] for record in range(16)])
    path = tmp_path / "int8.tflite"
    model = load_pretrained()
    report = export.export(model, path, format="litert", precision="int8", calibration_images=images)
    assert report.smallest_cosine > 0.9
    assert report.size < 1.1 * model.count_params()  # a byte for each
    tf.lite.Interpreter(str(path)).allocate_tensors()


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


def test_onnx_scales_the_numbers_of_a_vector(tmp_path):
    images = keras.Input((8, 8, 3))
    vectors = keras.layers.Dense(4)(keras.layers.Flatten()(images))
    model = keras.Model(images, keras.layers.Rescaling([1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, -1.0])(vectors))
    assert export.export(model, tmp_path / "m.onnx", "onnx").smallest_cosine > 0.99999


def test_onnx_brings_the_shortest_embeddings_to_unit_length(tmp_path):
    images = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(images)
    model = keras.Model(images, keras.layers.Dense(4, kernel_initializer=keras.initializers.Constant(1e-14))(flat))
    assert export.export(model, tmp_path / "m.onnx", "onnx").largest_difference < 1e-6


@on_tensorflow
def test_a_model_in_64_bits_is_written_in_float32(tmp_path):
    images = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten(dtype="float64")(keras.layers.Rescaling(1 / 255, dtype="float64")(images))
    model = keras.Model(images, keras.layers.Dense(4, dtype="float64")(flat))
    assert export.export(model, tmp_path / "m.tflite", "litert").smallest_cosine > 0.99999


@on_tensorflow
def test_a_broken_litert_file_is_named(tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"m\.tflite: LiteRT cannot load it .* Export the model again"):
        export.load(tmp_path / "m.tflite", "litert")
    with pytest.raises(FileNotFoundError, match=r"no\.tflite"):
        export.load(tmp_path / "no.tflite", "litert")


def test_onnx_of_layers_that_were_tuned_by_lora(tmp_path):
    model = small("sfnet")
    dense = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))
    assert export.export(model, tmp_path / "m.onnx", "onnx").smallest_cosine > 0.99999


@on_tensorflow
def test_a_litert_file_that_is_cut_off_does_not_end_the_program(tmp_path):
    export.export(small("sfnet"), tmp_path / "m.tflite", "litert")
    content = (tmp_path / "m.tflite").read_bytes()
    for share in (0.02, 0.3, 0.7, 0.99):
        (tmp_path / "cut.tflite").write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=r"cut\.tflite: LiteRT cannot load it \(it is cut off or damaged\)"):
            export.load(tmp_path / "cut.tflite", "litert")


def test_a_model_of_whole_numbers_is_compared_on_such(tmp_path):
    images = keras.Input((8, 8, 3), dtype="uint8")
    model = keras.Model(images, keras.layers.Dense(4)(keras.layers.Flatten()(images)))
    assert export.export(model, tmp_path / "m.onnx", "onnx").smallest_cosine > 0.99999


def test_int8_says_what_its_figures_do_not(tmp_path, images):
    report = export.export(small("sfnet"), tmp_path / "m.onnx", "onnx", "int8", calibration_images=images)
    assert report.notes == [
        f"calibrated on {len(images)} images: 100 or more of what the model will see are better; compared on the images "
        "that it was calibrated on: pairs of others tell what it is worth"
    ]
    with pytest.raises(ValueError, match="images of the one value 0, which tell nothing"):
        export.export(small("sfnet"), tmp_path / "m.onnx", "onnx", "int8", np.zeros_like(images))


def test_a_weight_beyond_float16_is_named(tmp_path):
    images = keras.Input((8, 8, 3))
    dense = keras.layers.Dense(4, name="wide")
    model = keras.Model(images, dense(keras.layers.Flatten()(images)))
    dense.kernel.assign(1e5 * np.ones(dense.kernel.shape))
    with pytest.raises(export.ExportError, match=r"the weight wide/kernel has 1e\+05, beyond float16's 65504"):
        export.export(model, tmp_path / "m.onnx", "onnx", "float16")


@on_tensorflow
def test_a_saved_model_is_written_over_alone(tmp_path, images):
    model, path = small("sfnet"), tmp_path / "real"
    export.export(model, path)
    (tmp_path / "link").symlink_to(path)
    export.export(model, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    found = Recognizer(tmp_path / "link", detector=None).embed(list(images[:2].astype("uint8")))
    assert found.shape == (2, model.output_shape[-1])
    (path / "saved_model.pb").write_bytes(b"no")
    with pytest.raises(ValueError, match="real: TensorFlow cannot load it"):
        Recognizer(path)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"which has 'notes\.txt'\. Add a name for the new folder"):
        export.export(model, path)
    assert (path / "notes.txt").exists()


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("m.onnx", "onnx"),
        pytest.param("m.tflite", "litert", marks=on_tensorflow),
        pytest.param("saved", "saved_model", marks=on_tensorflow),
    ],
)
def test_a_file_takes_images_of_its_own_size_only(tmp_path, images, name, format):
    export.export(small("sfnet"), tmp_path / name, format)
    for run in (export.load(tmp_path / name, format), open_model(tmp_path / name).embed):
        for shape in [(5, 20, 29, 3), (32, 32, 3), (1, 32, 32, 1), (1, 32, 33, 3), (0, 32, 33, 3)]:
            message = rf"^Expected images \(n, 32, 32, 3\).*images\.shape={re.escape(str(shape))}\. Align"
            with pytest.raises(ValueError, match=message):
                run(np.zeros(shape, "uint8"))
        assert run(images[:0]).shape == (0, 16)
        assert run(images[:2]).shape == (2, 16)


@on_tensorflow
def test_an_int8_file_refuses_other_images_without_a_crash(tmp_path, images):
    export.export(small(), tmp_path / "m.tflite", "litert", "int8", calibration_images=images)
    with pytest.raises(ValueError, match=r"images\.shape=\(5, 20, 29, 3\)"):
        export.load(tmp_path / "m.tflite", "litert")(np.zeros((5, 20, 29, 3)))


def test_a_format_that_is_no_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Unknown format. Received: format=\['onnx'\]"):
        export.export(small("sfnet"), tmp_path / "m.onnx", ["onnx"])
    with pytest.raises(ValueError, match=r"Unknown format. Received: format=\['onnx'\]"):
        export.load(tmp_path / "m.onnx", ["onnx"])
