"""A gradient that is not finite reaches neither weights nor checkpoints; what it came from is named."""

import logging
import re

import keras
import numpy as np
import pytest
from test_classifier import coloured_squares, make_trainer

import keras_sphereface as ksf
from keras_sphereface import callbacks
from keras_sphereface.errors import DivergenceError
from keras_sphereface.finite_mean import FiniteMean

pytestmark = pytest.mark.core

BATCH, BAD = 8, 3


def numpy_of(variable):
    return keras.ops.convert_to_numpy(variable).copy()


def weights_of(trainer):
    return [numpy_of(weight) for weight in trainer.trainable_weights]


def guarded_trainer(**arguments):
    return make_trainer(ksf.GuardedOptimizer(keras.optimizers.SGD(0.003, momentum=0.9, **arguments)))


def spoilt(rng, batches=6, bad=(BAD,)):
    """Images of which one in each bad batch is infinite."""
    images, labels = coloured_squares(rng, batches * BATCH)
    images = images.astype("float32")
    for batch in bad:
        images[batch * BATCH + 2, 4, 4, 1] = np.inf
    return images, labels


def fit(trainer, images, labels, *more, epochs=1):
    arguments = {"batch_size": BATCH, "shuffle": False, "verbose": 0, "epochs": epochs}
    return trainer.fit(images, labels, callbacks=list(more), **arguments).history


def test_a_guarded_optimizer_changes_nothing_of_a_sound_training(rng):
    images, labels = coloured_squares(rng, 32)
    plain, guarded = make_trainer(), guarded_trainer()
    guarded.set_weights(plain.get_weights())
    fit(plain, images, labels, epochs=2)
    history = fit(guarded, images, labels, callbacks.NonFiniteGuard(), epochs=2)
    for weight, expected in zip(weights_of(guarded), weights_of(plain)):
        np.testing.assert_allclose(weight, expected, atol=1e-7)
    assert history["skipped"] == [0, 0]
    assert history["loss_scale"] == [1.0, 1.0]
    assert 0 < history["gradient_norm"][0] <= history["gradient_norm_max"][0]


def test_the_norm_is_that_of_all_gradients():
    grads = [keras.ops.convert_to_tensor([[3.0]]), None, keras.ops.convert_to_tensor([0.0, 4.0])]
    assert float(ksf.guarded_optimizer.gradient_norm(grads)) == pytest.approx(5.0)


def test_a_mean_leaves_out_only_what_it_is_told_to():
    """By hand: of 1, NaN and 4, with weights 1, 5 and 2, the mean is 9 / 3; of nothing but NaN there is none."""
    mean = FiniteMean()
    mean.update_state([1.0, np.nan])
    assert np.isnan(float(mean.result()))
    mean.reset_state()
    mean.leaves_out = True
    mean.update_state([1.0, np.nan, 4.0], [1.0, 5.0, 2.0])
    assert float(mean.result()) == 3.0
    mean.reset_state()
    mean.update_state([np.nan, np.inf])
    assert np.isnan(float(mean.result()))
    mean.update_state([2.0])
    assert float(mean.result()) == 2.0
    mean.reset_state()
    assert float(mean.result()) == 0.0  # as Keras's, before the first batch


def test_the_counters_of_sound_and_of_skipped_batches():
    """Gradients of norm 5, 10 and 5 between nine that are NaN, of which the last eight are remembered."""
    optimizer, variable = ksf.GuardedOptimizer(keras.optimizers.SGD(0.1)), keras.Variable([10.0, 10.0])
    optimizer.build([variable])

    def apply(*gradient):
        gradients = [keras.ops.convert_to_tensor(gradient, dtype="float32")]
        if keras.backend.backend() != "jax":
            optimizer.apply(gradients, [variable])
            return
        state = [counter.value for counter in optimizer.variables]
        weights, state = optimizer.stateless_apply(
            state, gradients, [variable.value]
        )  # `apply` of Keras's leaks tracers
        for old, new in zip([variable, *optimizer.variables], [*weights, *state]):
            old.assign(new)

    sound = {0: (3.0, 4.0), 3: (-6.0, 8.0), 11: (4.0, 3.0)}
    for batch in range(12):
        apply(*sound.get(batch, (float("nan"), 1.0)))
        if batch == 2:
            assert sorted(numpy_of(optimizer.skipped_batches)) == [-1] * 6 + [1, 2]
            assert np.isnan(float(optimizer.gradient_norm))
    assert (int(optimizer.batches), int(optimizer.skipped)) == (12, 9)
    assert sorted(numpy_of(optimizer.skipped_batches)) == [2, 4, 5, 6, 7, 8, 9, 10]
    norms = [float(value) for value in (optimizer.gradient_norm, optimizer.norm_sum, optimizer.norm_max)]
    assert norms == pytest.approx([5.0, 20.0, 10.0])
    np.testing.assert_allclose(numpy_of(variable), [10 - 0.1 * (3 - 6 + 4), 10 - 0.1 * (4 + 8 + 3)], rtol=1e-6)


def test_a_bad_batch_is_skipped_counted_and_named(rng, caplog):
    images, labels = spoilt(rng)
    trainer, without = guarded_trainer(weight_decay=0.01), guarded_trainer(weight_decay=0.01)
    without.set_weights(trainer.get_weights())
    guard = callbacks.NonFiniteGuard("skip", records=lambda step: np.arange(BATCH) + BATCH * step)
    with caplog.at_level(logging.WARNING):
        history = fit(trainer, images, labels, guard)
    keep = np.arange(len(images)) // BATCH != BAD
    fit(without, images[keep], labels[keep])
    for weight, expected in zip(weights_of(trainer), weights_of(without)):
        np.testing.assert_allclose(weight, expected, atol=1e-7)
    assert history["skipped"] == [1]
    assert history["loss_scale"] == [1.0]
    assert np.isfinite(history["gradient_norm_max"]).all()
    assert (
        "not finite in batch 3; records 24, 25, 26, 27, 28, 29, 30, 31; head: margin sphereface_r_v2 1.2" in caplog.text
    )


@pytest.mark.parametrize("bad", [(BAD,), (5,)])
def test_the_logs_of_an_epoch_are_the_means_of_the_batches_that_count(rng, bad):
    images, labels = spoilt(rng, bad=bad)
    trainer, without = guarded_trainer(), guarded_trainer()
    without.set_weights(trainer.get_weights())
    history = fit(trainer, images, labels, callbacks.NonFiniteGuard("skip"))
    keep = ~np.isin(np.arange(len(images)) // BATCH, bad)
    expected = fit(without, images[keep], labels[keep])
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    for name in ("accuracy", "embedding_norm", "target_angle"):
        assert np.isfinite(history[name]).all()


def test_what_is_evaluated_counts_as_it_is(rng):
    images, labels = spoilt(rng, batches=2, bad=(1,))
    trainer = guarded_trainer()
    assert np.isnan(trainer.evaluate(images, labels, batch_size=BATCH, verbose=0, return_dict=True)["loss"])
    history = trainer.fit(images, labels, batch_size=BATCH, verbose=0, validation_data=(images, labels)).history
    assert np.isfinite(history["loss"]).all()
    assert np.isnan(history["val_loss"]).all()


@pytest.mark.parametrize("make", [make_trainer, guarded_trainer])
def test_weights_of_examples_may_be_a_column_and_all_zero(rng, make):
    images, labels = coloured_squares(rng, BATCH)
    weights = rng.uniform(size=BATCH).astype("float32")
    results, start = [], None
    for given in (weights, weights[:, None], 0 * weights):  # TensorFlow compiles one rank of weights alone
        trainer = make()
        start = start or trainer.get_weights()
        trainer.set_weights(start)
        trained = trainer.fit(images, labels, sample_weight=given, verbose=0).history
        results.append({**trained, "evaluated": trainer.evaluate(images, labels, sample_weight=given, verbose=0)})
        assert all(np.isfinite(values).all() for values in results[-1].values())
    for name, values in results[0].items():
        assert results[1][name] == pytest.approx(values, rel=1e-5)


def test_an_epoch_of_which_nothing_counts_has_no_loss(rng):
    images, labels = spoilt(rng, batches=2, bad=(0, 1))
    history = fit(guarded_trainer(), images, labels, callbacks.NonFiniteGuard("skip"))
    assert np.isnan(history["loss"]).all()


def test_without_a_guard_the_loss_tells_of_a_bad_batch(rng):
    images, labels = spoilt(rng, batches=2, bad=(1,))
    assert not np.isfinite(fit(make_trainer(), images, labels)["loss"]).any()


def test_a_fixed_scale_outlives_any_number_of_skipped_batches(rng):
    images, labels = spoilt(rng, batches=2, bad=(0,))
    trainer = guarded_trainer()
    fit(trainer, images, labels, epochs=160)  # halved 160 times it would be 0 in float32
    if hasattr(trainer, "jax_state_sync"):
        trainer.jax_state_sync()
    optimizer = trainer.optimizer
    counts = [int(keras.ops.convert_to_numpy(v)) for v in (optimizer.batches, optimizer.skipped, optimizer.iterations)]
    assert counts == [320, 160, 160]
    assert float(keras.ops.convert_to_numpy(optimizer.dynamic_scale)) == 1.0


def test_a_guard_that_has_no_variables_yet_says_so(rng, tmp_path):
    images, labels = spoilt(rng, batches=2, bad=())
    trainer = guarded_trainer()
    fit(trainer, images, labels)
    trainer.save_weights(tmp_path / "w.weights.h5")
    with pytest.warns(UserWarning, match="for it has no variables yet: train the model a step"):
        guarded_trainer().load_weights(tmp_path / "w.weights.h5")


def test_weights_of_another_optimizers_file_load(rng, tmp_path):
    images, labels = spoilt(rng, batches=2, bad=())
    plain, guarded = make_trainer(), guarded_trainer()
    fit(plain, images, labels)
    plain.save_weights(tmp_path / "plain.weights.h5")
    fit(guarded, images, labels)
    with pytest.warns(UserWarning, match="optimizer's state is not loaded"):
        guarded.load_weights(tmp_path / "plain.weights.h5")
    for weight, expected in zip(weights_of(guarded), weights_of(plain)):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("every", [1, 4])
def test_stop_leaves_the_weights_before_the_bad_batch(rng, tmp_path, every):
    images, labels = spoilt(rng)
    trainer = guarded_trainer()
    checkpoint = callbacks.Checkpoint(tmp_path)
    with pytest.raises(DivergenceError, match=r"batch 3; records 3; head: margin .* length 1 to 1"):
        fit(trainer, images, labels, callbacks.NonFiniteGuard(records=lambda step: [step], every=every), checkpoint)
    assert checkpoint.paths() == []
    if hasattr(trainer, "jax_state_sync"):
        trainer.jax_state_sync()
    assert all(np.isfinite(weight).all() for weight in weights_of(trainer))


def test_too_many_skipped_batches_are_an_error(rng):
    images, labels = spoilt(rng, bad=(1, 2, 4))
    with pytest.raises(DivergenceError, match="3 batches skipped, more than max_skipped=2"):
        fit(guarded_trainer(), images, labels, callbacks.NonFiniteGuard("skip", max_skipped=2))


@pytest.mark.parametrize("bad", [BAD, 5])
def test_spoilt_statistics_of_a_layer_are_put_back(rng, bad):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, strides=4)(keras.layers.BatchNormalization(momentum=0.5)(inputs))
    backbone = keras.Model(inputs, keras.layers.Dense(6)(keras.layers.Flatten()(x)))
    trainer = ksf.FaceClassifier(backbone, ksf.heads.SphereFaceR(4))
    trainer.compile(ksf.GuardedOptimizer(keras.optimizers.SGD(0.003)))
    images, labels = spoilt(rng, bad=(bad,))
    more = {"validation_data": (images[:BATCH], labels[:BATCH]), "batch_size": BATCH, "shuffle": False, "verbose": 0}
    history = trainer.fit(images, labels, callbacks=[callbacks.NonFiniteGuard("skip")], **more).history
    assert np.isfinite(history["val_loss"]).all()
    assert np.isfinite(trainer.predict(images[:2], verbose=0)).all()
    trainer.evaluate(images, labels, batch_size=BATCH, verbose=0, callbacks=[callbacks.NonFiniteGuard()])


def test_weights_that_are_not_finite_are_not_saved_without_a_guard_either(rng, tmp_path):
    images, labels = spoilt(rng)
    checkpoint = callbacks.Checkpoint(tmp_path)
    with pytest.raises(DivergenceError, match=r"After step 6 the variable .* is not finite: no checkpoint is written"):
        fit(make_trainer(), images, labels, checkpoint)
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_was_skipped_last_in_an_epoch_is_no_reason_not_to_save(rng, tmp_path):
    images, labels = spoilt(rng, bad=(5,))
    trainer, checkpoint = guarded_trainer(), callbacks.Checkpoint(tmp_path)
    history = fit(trainer, images, labels, callbacks.NonFiniteGuard("skip"), checkpoint, epochs=2)
    assert history["skipped"] == [1, 2]
    assert len(checkpoint.paths()) == 2
    resumed = guarded_trainer()
    assert callbacks.Checkpoint(tmp_path).resume(resumed) == 2
    for weight, expected in zip(weights_of(resumed), weights_of(trainer)):
        np.testing.assert_array_equal(weight, expected)


def test_an_overflow_of_a_dynamic_loss_scale_stops_nothing(rng, caplog):
    images, labels = coloured_squares(rng, 32)
    trainer = make_trainer(ksf.GuardedOptimizer(keras.optimizers.SGD(0.003), initial_scale=2.0**127))
    with caplog.at_level(logging.INFO):
        history = fit(trainer, images, labels, callbacks.NonFiniteGuard())
    assert history["skipped"][0] > 0
    assert history["loss_scale"][0] < 2.0**127
    assert "Loss scale" in caplog.text


def test_mixed_float16_skips_an_overflow_and_logs_its_scale(rng, caplog):
    images, labels = spoilt(rng)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        trainer = guarded_trainer()
    finally:
        keras.config.set_dtype_policy("float32")
    with caplog.at_level(logging.INFO):
        history = fit(trainer, images, labels, callbacks.NonFiniteGuard(), epochs=2)
    assert history["loss_scale"] == [2.0**15 / 2**skipped for skipped in history["skipped"]], "halved at each overflow"
    for batch in (BAD, 6 + BAD):
        assert re.search(rf"Loss scale \d+, before \d+, after batch {batch}\n", caplog.text)
    assert np.isfinite(history["gradient_norm"]).all()
    assert max(history["gradient_norm_max"]) < 1000, "unscaled: with the scale it is 70,000 and more"
    assert all(np.isfinite(weight).all() for weight in weights_of(trainer))


class OwnNetwork(keras.Model):
    """A class of one's own, which the first batch builds."""

    def __init__(self):
        super().__init__()
        self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(6)

    def call(self, images):
        return self.dense(self.flatten(keras.ops.cast(images, "float32") / 255.0))


def test_a_network_that_the_first_batch_builds(rng):
    images, labels = spoilt(rng)
    trainer = ksf.FaceClassifier(OwnNetwork(), ksf.heads.SphereFaceR(4))
    trainer.compile(ksf.GuardedOptimizer(keras.optimizers.SGD(0.003)))
    margin = callbacks.MarginSchedule(0.1, interval=2)
    history = fit(trainer, images, labels, callbacks.NonFiniteGuard("skip"), margin)
    assert history["skipped"] == [1]
    assert np.isfinite(history["loss"]).all()
    assert trainer.embedder.predict(images[:2], verbose=0).shape == (2, 6)


def test_a_plain_model_that_the_first_batch_builds(rng):
    model = keras.Sequential([keras.layers.Dense(8), ksf.heads.CosFace(3)])
    model.compile(ksf.GuardedOptimizer("sgd"), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = rng.normal(size=(12, 5)).astype("float32"), np.arange(12) % 3
    history = fit(model, x, y, callbacks.NonFiniteGuard(), epochs=2)
    assert history["skipped"] == [0, 0]
    assert min(history["gradient_norm"]) > 0
    x[5] = np.nan
    with pytest.raises(DivergenceError, match="not finite in batch 4"):
        fit(model, x, y, callbacks.NonFiniteGuard())


def test_misuse_is_refused(rng):
    images, labels = coloured_squares(rng, 8)
    with pytest.raises(ValueError, match=r"compiled with keras_sphereface\.GuardedOptimizer"):
        fit(make_trainer(), images, labels, callbacks.NonFiniteGuard())
    with pytest.raises(ValueError, match=r"`action` must be one of .* Received: action='ignore'"):
        callbacks.NonFiniteGuard("ignore")
    with pytest.raises(ValueError, match="`every` must be"):
        callbacks.NonFiniteGuard(every=0)


def test_without_any_gradient_it_does_as_the_optimizer_inside():
    weight = keras.Variable([1.0])
    for optimizer in (keras.optimizers.SGD(0.1), ksf.GuardedOptimizer("sgd")):
        assert optimizer.apply([], []) is None
        with pytest.raises(ValueError, match="No gradients provided for any variable"):
            optimizer.apply([None], [weight])


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="has no stateless optimizers")
def test_without_any_gradient_nothing_changes_statelessly_either():
    optimizer = ksf.GuardedOptimizer(keras.optimizers.SGD(0.1))
    optimizer.build([])
    before = [keras.ops.convert_to_tensor(variable) for variable in optimizer.variables]
    trained, after = optimizer.stateless_apply(before, [], [])
    assert list(trained) == []
    for variable, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), keras.ops.convert_to_numpy(expected))


def test_what_is_no_optimizer_and_no_scale_is_refused():
    with pytest.raises(ValueError, match=r"Expected a keras\.optimizers\.Optimizer.* Received: inner_optimizer=0\.1"):
        ksf.GuardedOptimizer(0.1)
    for wrong in (0, -1.0, float("nan"), float("inf"), "1", True):
        with pytest.raises(ValueError, match=r"must be a finite number above 0\. Received: initial_scale="):
            ksf.GuardedOptimizer("sgd", initial_scale=wrong)


def test_counters_are_saved_with_the_optimizer(rng, tmp_path):
    images, labels = spoilt(rng)
    trainer = guarded_trainer()
    fit(trainer, images, labels, callbacks.NonFiniteGuard("skip"))
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    assert isinstance(loaded.optimizer, ksf.GuardedOptimizer)
    assert (int(loaded.optimizer.batches), int(loaded.optimizer.skipped), int(loaded.optimizer.iterations)) == (6, 1, 5)
    for variable, expected in zip(loaded.optimizer.variables, trainer.optimizer.variables):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), keras.ops.convert_to_numpy(expected))
