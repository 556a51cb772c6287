"""Partial FC: which classes are drawn, the loss over them, and that nothing else moves."""

import keras
import numpy as np
import pytest
from keras import ops
from test_closed_form import BATCH, CLASSES, DIM, assert_close, loss_and_gradients, make_head

import keras_sphereface as ksf
from keras_sphereface import heads
from keras_sphereface.heads.sampling import draw_classes, number_drawn, weights_of_drawn

pytestmark = pytest.mark.core


@pytest.fixture
def batch(rng):
    labels = rng.integers(0, CLASSES, BATCH)
    labels[:4] = (0, CLASSES - 1, 4, 4)
    return rng.normal(size=(BATCH, DIM)).astype("float32"), labels.astype("int32")


def draw(labels, num_classes, rate, seed):
    labels = ops.convert_to_tensor(np.asarray(labels, "int32"), dtype="int32")
    return [ops.convert_to_numpy(tensor) for tensor in draw_classes(labels, num_classes, rate, seed)]


def test_every_class_of_the_batch_is_drawn_and_the_number_is_kept():
    seed = keras.random.SeedGenerator(1)
    labels = np.array([7, 99, 7, 0, 7])
    for _ in range(5):
        classes, positions = draw(labels, 100, 0.2, seed)
        assert len(np.unique(classes)) == len(classes) == 20
        assert classes.min() >= 0
        assert classes.max() < 100
        np.testing.assert_array_equal(classes[positions], labels)
    assert number_drawn(0.2, 100, 64) == 65  # One more than the batch may need.
    assert number_drawn(0.2, 50, 64) == 50
    assert number_drawn(0.001, 100, 1) == 2
    assert int(number_drawn(0.2, 100, ops.convert_to_tensor(64))) == 65


def test_the_others_are_drawn_uniformly_and_by_the_seed():
    seed, times = keras.random.SeedGenerator(3), 400
    draws = [draw([5, 5], 40, 0.25, seed)[0] for _ in range(times)]
    counts = np.bincount(np.concatenate(draws), minlength=40)
    assert counts[5] == times
    share = np.delete(counts, 5) / times  # 9 of the 39 others each time
    assert abs(share - 9 / 39).max() < 4.5 * np.sqrt(9 / 39 * 30 / 39 / times)
    again = keras.random.SeedGenerator(3)
    np.testing.assert_array_equal(draw([5, 5], 40, 0.25, again)[0], draws[0])
    np.testing.assert_array_equal(draw([5, 5], 40, 0.25, again)[0], draws[1])
    assert any((one != draws[0]).any() for one in draws[1:])


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("sphereface_r_v2-hard", {}),
        ("arcface-soft", {"class_block": 5}),
        ("graph", {"detach": False}),
        ("repulsion", {}),
        ("bias-eta", {"class_block": 5}),
    ],
)
def test_the_loss_is_the_dense_loss_of_the_classes_drawn(case, options, batch):
    """Its value and its gradients; those to classes that were not drawn are exactly 0."""
    embeddings, labels = batch
    head = make_head(case, sample_rate=0.6, seed=11, **options)
    classes, positions = draw(labels, CLASSES, 0.6, keras.random.SeedGenerator(11))
    value, to_embeddings, to_kernel, *to_bias = loss_and_gradients(head, batch)
    small = make_head(case, **options)
    config = {**small.get_config(), "num_classes": len(classes)}
    small = type(small).from_config(config)
    small.build((None, DIM))
    small.kernel.assign(ops.convert_to_numpy(head.kernel)[:, classes])
    expected = loss_and_gradients(small, (embeddings, positions))
    assert_close([value, to_embeddings, to_kernel[:, classes], *[g[classes] for g in to_bias]], expected, 2e-6)
    others = np.setdiff1d(np.arange(CLASSES), classes)
    assert len(others) == 9
    assert not to_kernel[:, others].any()


def test_drawn_classes_stand_for_those_that_were_not():
    labels = np.array([7, 99, 7, 0, 7])
    classes, positions = draw(labels, 100, 0.2, keras.random.SeedGenerator(1))
    weights = ops.convert_to_numpy(weights_of_drawn(ops.convert_to_tensor(classes), positions, 100))
    own = np.isin(classes, labels)
    np.testing.assert_allclose(weights[own], 1.0)
    np.testing.assert_allclose(weights[~own], (100 - 3) / (20 - 3), rtol=1e-6)
    all_own = ops.convert_to_tensor(np.array([0, 1], "int32"))
    np.testing.assert_allclose(ops.convert_to_numpy(weights_of_drawn(all_own, all_own, 100)), 1.0)


@pytest.mark.parametrize("variant", ["C", "A", "M"])
def test_one_vs_all_weighs_the_negatives_that_were_drawn(variant, batch, monkeypatch):
    """The loss from the logits of all classes, and the gradient that differentiation finds, at once and in blocks."""
    embeddings, labels = batch
    case = f"sphereface2-{variant}"
    head = make_head(case, sample_rate=0.6, seed=11)
    classes, positions = draw(labels, CLASSES, 0.6, keras.random.SeedGenerator(11))
    weights = ops.convert_to_numpy(weights_of_drawn(ops.convert_to_tensor(classes), positions, CLASSES))
    logits = ops.convert_to_numpy(head(embeddings, labels))[:, classes].astype("float64")
    target = positions[:, None] == np.arange(len(classes))
    terms = np.where(target, 0.7 * np.logaddexp(0.0, -logits), 0.3 * weights * np.logaddexp(0.0, logits))
    closed = loss_and_gradients(head, batch)
    factor = head.loss_weight / head.scale
    np.testing.assert_allclose(closed[0], factor * terms.sum(axis=1) @ np.arange(1, BATCH + 1), rtol=1e-5)
    assert not closed[2][:, np.setdiff1d(np.arange(CLASSES), classes)].any()
    blocks = make_head(case, sample_rate=0.6, seed=11, class_block=5)
    assert_close(loss_and_gradients(blocks, batch), closed, 2e-6)
    monkeypatch.setattr(type(head), "has_closed_form", lambda self: False)
    differentiated = loss_and_gradients(make_head(case, sample_rate=0.6, seed=11), batch)
    assert_close(closed, differentiated, 2e-5)


def test_a_batch_of_more_classes_than_are_drawn_loses_no_negatives():
    """Where all angles are the same, those that were drawn stand for the others exactly."""
    head = make_head("sphereface2-C", sample_rate=0.1)  # 2 classes of 23
    head.kernel.assign(np.eye(DIM)[:, [0] * CLASSES])
    embeddings, labels = np.tile(np.eye(DIM)[1], (BATCH, 1)), np.arange(BATCH)
    drawn, dense = (ops.convert_to_numpy(head.loss(embeddings, labels, training)) for training in (True, False))
    np.testing.assert_allclose(drawn, dense, rtol=1e-5)


@pytest.mark.parametrize("rate", [1, 1.0, None])
def test_rate_one_is_the_dense_head(rate, batch):
    assert_close(
        loss_and_gradients(make_head("arcface-hard", sample_rate=rate), batch),
        loss_and_gradients(make_head("arcface-hard"), batch),
        0.0,
    )
    assert not heads.ArcFace(5, sample_rate=rate).samples
    assert not heads.SphereFace2(5, sample_rate=rate).samples


def test_outside_training_all_classes_count(batch):
    embeddings, labels = batch
    head, dense = make_head("arcface-hard", sample_rate=0.6), make_head("arcface-hard")
    for actual, expected in zip(
        [head.loss(embeddings, labels, training=False), head(embeddings, labels)],
        [dense.loss(embeddings, labels), dense(embeddings, labels)],
    ):
        np.testing.assert_array_equal(ops.convert_to_numpy(actual), ops.convert_to_numpy(expected))


def test_the_state_of_the_draws_is_saved(batch, tmp_path):
    embeddings, labels = batch
    inputs = keras.Input((DIM,))
    trainer = ksf.FaceClassifier(
        keras.Model(inputs, keras.layers.Dense(DIM)(inputs)), heads.ArcFace(CLASSES, sample_rate=0.6, seed=4)
    )
    trainer.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    trainer.train_on_batch(embeddings, labels)
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    assert isinstance(loaded.optimizer, ksf.SampledSGD)
    assert (loaded.head.sample_rate, loaded.head.seed) == (0.6, 4)
    for one in (trainer, loaded):
        one.train_on_batch(embeddings, labels)
    state = ops.convert_to_numpy(trainer.head.seed_generator.state)
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded.head.seed_generator.state), state)
    assert state[1] == 2
    np.testing.assert_allclose(
        ops.convert_to_numpy(loaded.head.kernel), ops.convert_to_numpy(trainer.head.kernel), atol=1e-6
    )


def test_wrong_rates_are_refused():
    for wrong in (0, -0.1, 1.5, True, "half", float("nan")):
        with pytest.raises(ValueError, match=r"share of the classes in \(0, 1\]. Received: sample_rate="):
            heads.ArcFace(10, sample_rate=wrong)


@pytest.fixture
def floatx(request):
    before = keras.config.floatx()
    keras.config.set_floatx(request.param)
    yield
    keras.config.set_floatx(before)


@pytest.mark.usefixtures("floatx")
@pytest.mark.parametrize("floatx", ["bfloat16"], indirect=True)
def test_the_draw_is_uniform_whatever_keras_takes_by_default():
    labels = ops.convert_to_tensor([5], dtype="int32")
    drawn = np.concatenate([draw(labels, 20_000, 0.02, seed)[0] for seed in range(5)])
    by_fifth = np.histogram(drawn, 5, (0, 20_000))[0]  # 400 each of 2,000; of bfloat16's few values the first ones won
    assert by_fifth.min() > 300
    assert by_fifth.max() < 500


@pytest.mark.usefixtures("floatx")
@pytest.mark.parametrize("floatx", ["float16", "bfloat16", "float64"], indirect=True)
@pytest.mark.parametrize("options", [{}, {"detach": False}, {"sample_rate": 0.6}])
@pytest.mark.parametrize("factory", [heads.SphereFaceR, heads.SphereFace2])
def test_losses_are_float32_whatever_keras_takes_by_default(factory, options):
    head = factory(5, scale=8.0, loss_weight=8.0, **options)
    head.build((None, 4))
    head.kernel.assign(np.eye(4)[:, [0] * 5])
    embeddings, labels = ops.ones((2, 4), dtype="float32"), ops.convert_to_tensor([0, 1], dtype="int32")
    losses = head.loss(embeddings, labels)
    assert keras.backend.standardize_dtype(losses.dtype) == "float32"
    if factory is heads.SphereFace2:  # all at 60 degrees: no rounding of 0.7 to 16 bits
        bias, adjusted = head.initial_bias(), 8.0 * (2.0 * 0.75**3 - 1.0)
        terms = np.logaddexp(0.0, [-(adjusted - 3.2 + bias), adjusted + 3.2 + bias])
        np.testing.assert_allclose(ops.convert_to_numpy(losses), terms @ [0.7, 4 * 0.3], rtol=1e-5)
