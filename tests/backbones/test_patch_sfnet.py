"""PatchSFNet: sizes, the identity it starts as, configuration, errors."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sphereface import backbones

TINY = {"units": (1, 0, 1), "channels": (4, 6, 8), "hidden": (5, 5, 5), "embedding_dim": 6}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3)).astype("float32")


def test_default_fits_the_wheel():
    backbone = backbones.get("patch_sfnet")
    assert backbone.count_params() == 2_014_528
    assert backbone.count_params() * 2 < 5e6  # bytes as float16


def test_stages_have_mobilefacenet_shapes():
    backbone = backbones.PatchSFNet()
    shapes = [backbone.get_layer(f"stage{stage}").output.shape[1:] for stage in range(3)]
    assert shapes == [(28, 28, 64), (14, 14, 128), (7, 7, 128)]


def test_units_start_as_the_identity(images):
    with_units, without = backbones.PatchSFNet(**TINY), backbones.PatchSFNet(**{**TINY, "units": (0, 0, 0)})
    for name in ("stem_conv", "stage1_down_conv", "stage2_down_conv", "expand_conv", "global_conv", "embedding"):
        without.get_layer(name).set_weights(with_units.get_layer(name).get_weights())
    np.testing.assert_allclose(
        ops.convert_to_numpy(with_units(images)), ops.convert_to_numpy(without(images)), rtol=1e-5, atol=1e-6
    )


def test_first_map_is_the_convolution_of_padded_patches(images):
    backbone = backbones.PatchSFNet(**{**TINY, "units": (0, 0, 0)})
    stem = backbone.get_layer("stem_conv")
    kernel, bias = stem.get_weights()
    got = ops.convert_to_numpy(keras.Model(backbone.input, stem.output)(images))
    scaled = np.pad((images - 127.5) / 128, ((0, 0), (2, 2), (2, 2), (0, 0)))
    patch = scaled[1, 4 * 5 : 4 * 5 + 8, 4 * 9 : 4 * 9 + 8]
    np.testing.assert_allclose(got[1, 5, 9], np.tensordot(patch, kernel, 3) + bias, rtol=1e-3, atol=1e-4)


def test_configuration_and_file_round_trip(images, tmp_path):
    backbone = backbones.PatchSFNet(**TINY, dtype="mixed_bfloat16", name="mine")
    assert backbones.PatchSFNet.from_config(backbone.get_config()).get_config() == backbone.get_config()
    backbone.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(images)), ops.convert_to_numpy(backbone(images)))


def test_embeddings_are_float32_under_mixed_precision(images):
    embeddings = backbones.PatchSFNet(**TINY, dtype="mixed_bfloat16")(images)
    assert ops.convert_to_numpy(embeddings).dtype == np.float32


def test_every_weight_has_a_gradient_after_the_first_update():
    backbone = backbones.PatchSFNet(**TINY)
    for name in ("stage0_0_conv2", "stage2_0_conv2"):  # zero at first: the layers before them have no gradient then
        kernel, bias = backbone.get_layer(name).get_weights()
        backbone.get_layer(name).set_weights([kernel + 0.1, bias])
    backbone.compile("sgd", "mse")
    before = [ops.convert_to_numpy(v).copy() for v in backbone.trainable_variables]
    images = np.random.default_rng(1).integers(0, 256, (4, 112, 112, 3))
    backbone.train_on_batch(images, np.ones((4, 6)))
    unchanged = [
        v.path for v, old in zip(backbone.trainable_variables, before) if np.array_equal(ops.convert_to_numpy(v), old)
    ]
    assert unchanged == []


@pytest.mark.parametrize("argument", ["units", "channels", "hidden"])
def test_wrong_lengths_are_named(argument):
    with pytest.raises(ValueError, match=rf"Received: .*{argument}=\(1, 1\)"):
        backbones.PatchSFNet(**{**TINY, argument: (1, 1)})
