"""A traced backbone trains as Keras would, to the bit, and stands back where it could not."""

import shutil

import keras
import numpy as np
import pytest

import keras_sphereface as ksf
from keras_sphereface import traced_backbone
from keras_sphereface.backbones import IResNet, MobileFaceNet, SFNet, ViT

pytestmark = pytest.mark.core
on_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="needs the PyTorch backend, which alone is traced"
)

BACKBONES = {
    "iresnet": lambda **k: IResNet((1, 1, 1, 1), (4, 4, 8, 8), embedding_dim=8, input_shape=(32, 32, 3), **k),
    "iresnet_se": lambda **k: IResNet((1, 1, 1, 1), (4, 4, 8, 8), 8, 0.0, (32, 32, 3), se_reduction=2, **k),
    "sfnet": lambda **k: SFNet((1, 0, 0, 0), (4, 4, 8, 8), embedding_dim=8, input_shape=(32, 32, 3), **k),
    "mobilefacenet": lambda **k: MobileFaceNet(width=0.125, embedding_dim=8, input_shape=(32, 32, 3), **k),
    "vit": lambda **k: ViT(2, 8, 2, patch_size=8, embedding_dim=8, input_shape=(32, 32, 3), **k),
}


def make_trainer(name="iresnet", jit_compile="auto", **arguments):
    trainer = ksf.FaceClassifier(BACKBONES[name](**arguments), ksf.heads.SphereFaceR(5, scale=8.0))
    trainer.compile(keras.optimizers.SGD(0.05, momentum=0.9), jit_compile=jit_compile)
    return trainer


def batches(rng, sizes=(4, 4, 3)):
    return [(rng.integers(0, 256, (size, 32, 32, 3), np.uint8), rng.integers(0, 5, size)) for size in sizes]


def train(trainer, data):
    return [trainer.train_on_batch(images, labels) for images, labels in data]


def make_pair(*arguments, **keywords):
    """A traced trainer and one that Keras calls layer after layer, with the same weights."""
    pair = make_trainer(*arguments, **keywords), make_trainer(*arguments, jit_compile=False, **keywords)
    pair[1].set_weights(pair[0].get_weights())
    return pair


def assert_same(traced, plain):
    for one, other in zip(traced.variables, plain.variables, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (one, other)), err_msg=one.path)


@on_torch
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", BACKBONES)
def test_trains_as_keras_does(name, dtype, rng):
    """Losses, weights, moving averages, momentum; the last batch is smaller."""
    traced, plain = make_pair(name, dtype=dtype)
    data = batches(rng)
    assert train(traced, data) == train(plain, data)
    assert_same(traced, plain)
    assert traced._traced is not None
    assert plain._traced is None


@on_torch
def test_a_program_is_recorded_once_for_each_shape(rng, monkeypatch):
    recorded = []
    record = traced_backbone.TracedBackbone._record

    def count(self, images):
        recorded.append(tuple(images.shape))
        return record(self, images)

    monkeypatch.setattr(traced_backbone.TracedBackbone, "_record", count)
    train(make_trainer(), batches(rng, (4, 3, 4, 3)))
    assert recorded == [(4, 32, 32, 3), (3, 32, 32, 3)]


@on_torch
def test_layers_that_are_frozen_between_two_steps_stay(rng):
    traced, plain = make_pair()
    data = batches(rng, (4, 4))
    for trainer in (traced, plain):
        train(trainer, data[:1])
        trainer.backbone.get_layer("bn1").trainable = False
        trainer.backbone.get_layer("layer1_0_conv1").trainable = False
        train(trainer, data[1:])
    assert_same(traced, plain)


@on_torch
def test_evaluation_and_prediction_are_not_traced(rng):
    traced, plain = make_pair()
    (images, labels), *_ = data = batches(rng)
    for trainer in (traced, plain):
        train(trainer, data)
    assert traced.test_on_batch(images, labels) == plain.test_on_batch(images, labels)
    np.testing.assert_array_equal(traced.predict(images, verbose=0), plain.predict(images, verbose=0))


@on_torch
def test_training_without_side_effects_has_none(rng):
    """`stateless_call` returns the moving averages, and leaves the model's."""
    traced, plain = make_pair()
    (images, _), *_ = batches(rng)
    before = traced.get_weights()
    results = []
    for trainer in (traced, plain):
        values = [variable.value for variable in trainer.non_trainable_variables]
        weights = [variable.value for variable in trainer.trainable_variables]
        results.append(trainer.stateless_call(weights, values, images, training=True)[1])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (one, other)))
    for one, other in zip(before, traced.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@on_torch
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_compiled_is_close(rng):
    traced, plain = make_trainer("sfnet", jit_compile=True), make_trainer("sfnet", jit_compile=False)
    plain.set_weights(traced.get_weights())
    data = batches(rng, (4, 4))
    np.testing.assert_allclose(train(traced, data), train(plain, data), rtol=1e-4)


def with_hook(backbone):
    backbone.get_layer("bn1").register_forward_hook(lambda *arguments: None)
    return backbone


def with_loss(backbone):
    backbone.get_layer("bn1").activity_regularizer = keras.regularizers.L2(0.1)
    return backbone


class OfSomebody(IResNet):
    """Whose `call` may do anything."""


def computed_again():
    with keras.RematScope(mode="full"):
        return BACKBONES["iresnet"]()


@on_torch
@pytest.mark.parametrize(
    "make",
    [
        lambda: BACKBONES["iresnet"](dropout=0.5),
        lambda: with_hook(BACKBONES["iresnet"]()),
        lambda: with_loss(BACKBONES["iresnet"]()),
        computed_again,
        lambda: OfSomebody((1, 1, 1, 1), (4, 4, 8, 8), embedding_dim=8, input_shape=(32, 32, 3)),
        lambda: keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(8)]),
    ],
    ids=["dropout", "hook", "loss", "remat", "another class", "another model"],
)
def test_what_is_not_the_same_in_each_step_is_left_to_keras(make):
    assert traced_backbone.can_trace(BACKBONES["iresnet"]())
    assert not traced_backbone.can_trace(make())


@on_torch
def test_layer_after_layer_where_it_is_asked_for():
    trainer = make_trainer()
    trainer.compile("sgd", run_eagerly=True)
    assert trainer._traced is None


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch is traced")
def test_other_backends_compile_by_themselves():
    assert not traced_backbone.can_trace(BACKBONES["iresnet"]())


@pytest.mark.parametrize("jit_compile", ["auto", False])
def test_a_saved_trainer_compiles_as_the_next_device_likes_best(jit_compile, rng, tmp_path):
    """Keras would save what "auto" meant here, and JAX then run uncompiled what PyTorch saved."""
    trainer = make_trainer(jit_compile=jit_compile)
    train(trainer, batches(rng)[:1])
    trainer.save(tmp_path / "trainer.keras")
    again = keras.saving.load_model(tmp_path / "trainer.keras")
    assert again.get_compile_config()["jit_compile"] == jit_compile
    assert again.jit_compile == trainer.jit_compile
