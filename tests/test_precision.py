"""A model in another precision: maps in 16 bits, vectors in float32, nearly the same embeddings, weights of its own."""

import keras
import numpy as np
import pytest

import keras_sphereface as ksf
from keras_sphereface.cli import main
from keras_sphereface.precision import FLOATS, float_policy, with_dtype

pytestmark = pytest.mark.core
IMAGES = np.random.default_rng(5).integers(0, 256, (4, 112, 112, 3)).astype("uint8")
VECTORS = ("flatten", "embedding", "unit_length")
PREPROCESSING = ("images", "rescale")


def embed(model):
    return keras.ops.convert_to_numpy(model(IMAGES))


@pytest.fixture(scope="module")
def default():
    return ksf.load_pretrained()


@pytest.mark.parametrize(
    ("dtype", "compute", "stored"),
    [
        ("bfloat16", "bfloat16", "bfloat16"),
        ("mixed_bfloat16", "bfloat16", "float32"),
        ("float16", "float16", "float16"),
    ],
)
def test_maps_are_computed_in_it_and_vectors_in_float32(default, dtype, compute, stored):
    model = ksf.load_pretrained(dtype=dtype)
    conv, dense = model.get_layer("stage1_0_conv1"), model.get_layer("embedding")
    assert (conv.compute_dtype, conv.variable_dtype) == (compute, stored)
    assert (dense.compute_dtype, dense.variable_dtype) == ("float32", "float32")
    assert {layer.name for layer in model.layers if layer.compute_dtype == "float32"} == {*PREPROCESSING, *VECTORS}
    embeddings = embed(model)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    cosines = np.sum(embeddings * embed(default), axis=1)
    assert (cosines > 0.9995).all()
    assert (cosines < 1 - 1e-9).any(), "nothing was computed in another precision"


def test_float32_gives_the_model_itself(default):
    np.testing.assert_allclose(embed(ksf.load_pretrained(dtype="float32")), embed(default), atol=1e-6)


def test_back_to_float32_is_float32_throughout():
    quick = ksf.embedder.build_embedder(
        ksf.backbones.SFNet4(embedding_dim=8, channels=(4, 4, 8, 8), dtype="mixed_bfloat16")
    )
    exact = with_dtype(quick, "float32")
    assert {layer.compute_dtype for layer in exact.layers} == {"float32"}
    assert (np.sum(embed(exact) * embed(quick), axis=1) > 0.99).all()


def test_the_copy_has_weights_of_its_own(default):
    before = embed(default)
    copy = with_dtype(default, "float32")
    copy.get_layer("embedding").kernel.assign(copy.get_layer("embedding").kernel * 0.5 + 1.0)
    np.testing.assert_array_equal(embed(default), before)
    assert np.abs(embed(copy) - before).max() > 0.01


def test_moving_averages_of_normalization_layers_come_along():
    backbone = ksf.backbones.MobileFaceNet(embedding_dim=8)
    rng = np.random.default_rng(0)
    backbone.set_weights([rng.uniform(0.5, 1.0, value.shape) for value in backbone.get_weights()])
    copy = with_dtype(ksf.embedder.build_embedder(backbone), "mixed_bfloat16")
    layers = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert layers
    for layer in layers:
        copied = copy.get_layer(layer.name)
        np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(bn.moving_mean) for bn in (layer, copied)))
        np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(bn.moving_variance) for bn in (layer, copied)))


def test_a_copy_is_saved_loaded_and_in_a_folder(default, tmp_path):
    copy = with_dtype(default, "bfloat16")
    copy.save(tmp_path / "model.keras")
    again = ksf.load_pretrained(tmp_path / "model.keras")
    assert again.get_layer("stem_conv").compute_dtype == "bfloat16"
    np.testing.assert_array_equal(embed(again), embed(copy))


@pytest.mark.parametrize("dtype", ["float64", "mixed_float16", np.float16, keras.DTypePolicy("bfloat16")])
def test_policies_of_floats_are_taken(dtype):
    assert float_policy(dtype).compute_dtype in FLOATS


OTHER_POLICIES = [
    *(
        "uint8",
        "int32",
        "int8",
        "bool",
        "string",
        "complex64",
        "int8_from_float32",
        "float8_from_float32",
        "mixed_int8",
        "",
    ),
    *([], {"class_name": "Lambda"}),
    *(keras.DTypePolicy("int32"), keras.dtype_policies.DTypePolicyMap()),
]


@pytest.mark.parametrize(
    "dtype", OTHER_POLICIES, ids=lambda dtype: dtype if isinstance(dtype, str) else type(dtype).__name__
)
def test_policies_of_other_numbers_are_refused(dtype):
    with pytest.raises(ValueError, match=r"^Expected dtype as a dtype policy of float16, [^\n]*Received: dtype="):
        ksf.load_pretrained(dtype=dtype)


@pytest.mark.parametrize("dtype", ["bfloat17", 16, "float"])
def test_an_unknown_dtype_is_named(dtype):
    with pytest.raises(ValueError, match=f"dtype={dtype!r}"):
        ksf.load_pretrained(dtype=dtype)


def test_what_is_no_functional_model_is_refused():
    with pytest.raises(ValueError, match="--precision"):
        ksf.Recognizer(lambda images: images[:, 0, 0], dtype="bfloat16", detector=None, thresholds=())


def test_a_gallery_may_be_used_in_either_precision(tmp_path):
    gallery = tmp_path / "people.db"
    ksf.Recognizer(detector=None, gallery=gallery).enroll("Ann", IMAGES[0])
    found = ksf.Recognizer(detector=None, gallery=gallery, dtype="bfloat16").identify(IMAGES[0])
    assert found.name == "Ann"
    assert found.candidates[0].score > 0.999


def test_the_command_takes_it(tmp_path, capsys):
    pairs = tmp_path / "pairs.bin"
    ksf.data.write_bin(pairs, ksf.data.synthetic_pairs(num_identities=20, images_per_identity=2, num_pairs=20))
    arguments = ["evaluate", "patch_sfnet_celeba", "--pairs", str(pairs), "--bootstrap", "0", "--json"]
    assert main([*arguments, "--dtype", "bfloat16"]) == 0
    assert '"accuracy"' in capsys.readouterr().out


def test_models_of_any_kind_inside_compute_in_it():
    images = keras.Input((16, 16, 3))
    inner = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(5)])
    whole = keras.Sequential([images, *inner.layers])
    for backbone in (whole, keras.Model(images, inner(keras.layers.Rescaling(1 / 255)(images)))):
        copy = with_dtype(ksf.embedder.build_embedder(backbone), "bfloat16")
        (conv,) = (layer for layer in copy.layers if isinstance(layer, keras.layers.Conv2D))
        assert (conv.compute_dtype, copy.layers[-1].compute_dtype) == ("bfloat16", "float32")


def test_two_networks_of_one_architecture_side_by_side(tmp_path):
    """Their layers have the same names, which one model does not take twice."""
    sizes = {"embedding_dim": 8, "channels": (4, 4, 4, 4), "input_shape": (16, 16, 3)}
    first, second = (ksf.backbones.SFNet4(name=name, **sizes) for name in "ab")
    images = keras.Input((16, 16, 3))
    both = ksf.embedder.build_embedder(keras.Model(images, keras.layers.Concatenate()([first(images), second(images)])))
    crops = IMAGES[:, :16, :16]
    expected = keras.ops.convert_to_numpy(both(crops))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(with_dtype(both, "float32")(crops)), expected, atol=1e-6)
    ksf.model_folder.write(both, tmp_path / "folder")
    for load in (ksf.load_pretrained, keras.saving.load_model):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(load(tmp_path / "folder")(crops)), expected, atol=1e-6)
    assert {layer.name for layer in first.layers} == {layer.name for layer in second.layers}  # as they were


def test_models_that_do_not_unfold_are_refused():
    class Inner(keras.Model):
        def call(self, images):
            return keras.ops.mean(images, axis=(1, 2))

    images = keras.Input((16, 16, 3))
    with pytest.raises(ValueError, match="functional Keras models"):
        with_dtype(keras.Model(images, Inner()(images)), "bfloat16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_statistics_of_a_normalization_layer_come_along(dtype, rng):
    """The layer computes with what it made of its weights when it was built."""
    crops = rng.uniform(0, 255, (16, 16, 16, 3)).astype("float32") * np.array([1.0, 0.5, 0.2], "float32")
    normalization = keras.layers.Normalization()
    normalization.adapt(crops)
    images = keras.Input((16, 16, 3))
    maps = keras.layers.Conv2D(8, 3, activation="relu")(normalization(images))
    inner = keras.Model(images, keras.layers.GlobalAveragePooling2D()(maps))
    again = keras.Model.from_config(
        {**inner.get_config(), "name": "again"}
    )  # same layers' names: unfolding copies them
    again.set_weights(inner.get_weights())
    again.get_layer(normalization.name).finalize_state()
    both = ksf.embedder.build_embedder(keras.Model(images, keras.layers.Concatenate()([inner(images), again(images)])))
    expected, found = (keras.ops.convert_to_numpy(model(crops)) for model in (both, with_dtype(both, dtype)))
    assert (expected * found).sum(axis=1).min() > 0.999


def test_preprocessing_keeps_its_digits():
    """Grey levels that lie close together are one and the same in bfloat16 once the mean is subtracted there."""
    backbone = ksf.backbones.SFNet(
        (0, 0, 0, 0), (4, 4, 4, 4), embedding_dim=8, input_shape=(32, 32, 3), image_mean=100.0, image_std=0.5
    )
    exact = ksf.embedder.build_embedder(backbone)
    crops = np.random.default_rng(0).integers(200, 204, (4, 32, 32, 3)).astype("float32") + 0.25
    layers = [with_dtype(exact, dtype).get_layer("rescale") for dtype in ("mixed_bfloat16", "bfloat16")]
    for layer in layers:
        np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(crops)), (crops - 100) / 0.5, rtol=1e-5)
