"""Two replicas on one CPU: run by `test_replicas.py` in a process of its own.

    python tests/two_replicas.py FOLDER

Logical devices can be configured only before TensorFlow starts. Prints a line for each check that held.
"""

import functools
import logging
import pathlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_classifier import SIZE, coloured_squares, make_trainer, tiny_backbone

import keras_sphereface as ksf
from keras_sphereface.callbacks.scalars import value_of

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
BATCH, BATCHES, BAD = 8, 6, 3
MANY = 50  # classes, of which the pictures show four
BAD_IMAGES = {"first replica": 1, "second replica": 6}  # the first half of a batch is the first replica's


@functools.cache  # two strategies in one process mix up their collective operations
def strategy_of(replicas):
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if replicas == 2 else tf.distribute.get_strategy()


def trainer_on(strategy):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        sgd = keras.optimizers.SGD(0.003, momentum=0.9, weight_decay=5e-3, use_ema=True, ema_momentum=0.9)
        return make_trainer(ksf.GuardedOptimizer(sgd), feature_norm="soft")


def assert_close(trainer, other):
    for variable, expected in zip(states(trainer), states(other), strict=True):
        np.testing.assert_allclose(np.array(variable), np.array(expected), atol=1e-5, err_msg=variable.path)


def states(trainer):
    """Weights, slots, averages and counters, without the norms, of which several replicas have their mean."""
    return [v for v in (*trainer.variables, *trainer.optimizer.variables) if "norm" not in v.path]


def assert_replicas_equal(trainer):
    """Every replica has the same weights, slots and counters."""
    for variable in (*trainer.weights, *trainer.optimizer.variables):
        copies = getattr(variable.value, "values", None)
        if copies:  # those that change are mirrored
            np.testing.assert_array_equal(copies[0].numpy(), copies[1].numpy(), err_msg=variable.path)
    assert len(trainer.trainable_variables[0].value.values) == 2


def another_number_of_replicas_goes_on(folder):
    """One replica, then two, then one again: as one throughout, the margin's and the rate's schedule by steps."""
    dataset = ksf.data.synthetic(4, 5, seed=1, image_size=SIZE)

    def train(replicas, last, name):
        trainer = trainer_on(strategy_of(replicas))
        checkpoint = ksf.callbacks.Checkpoint(folder / name, run={"batch_size": BATCH})
        first = checkpoint.resume(trainer)
        trainer.fit(
            dataset.batches(BATCH, seed=3, start_step=checkpoint.step),
            initial_epoch=first,
            epochs=last,
            steps_per_epoch=2,
            verbose=0,
            callbacks=[ksf.callbacks.MarginSchedule(0.1, 3), ksf.callbacks.NonFiniteGuard(), checkpoint],
        )
        return trainer, checkpoint

    whole, _ = train(1, 6, "whole")
    for replicas, last in ((1, 2), (2, 4), (1, 6)):
        trainer, checkpoint = train(replicas, last, "changing")
    assert checkpoint.step == 12
    assert_close(trainer, whole)


def a_bad_batch_is_skipped_by_all_or_none(folder):
    """Wherever its image lies, all replicas leave the batch out, and count and name it once."""
    for place, bad_image in BAD_IMAGES.items():
        images, labels = coloured_squares(np.random.default_rng(0), BATCH * BATCHES)
        images = images.astype("float32")
        images[BAD * BATCH + bad_image, 4, 4, 1] = np.inf
        data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH, drop_remainder=True)
        trainers = [trainer_on(strategy_of(replicas)) for replicas in (1, 2)]
        for trainer in trainers:
            guard = ksf.callbacks.NonFiniteGuard("skip", records=lambda step: [step])
            history = trainer.fit(data, verbose=0, callbacks=[guard]).history
            optimizer = trainer.optimizer
            counts = [value_of(count) for count in (optimizer.batches, optimizer.skipped, optimizer.iterations)]
            assert counts == [BATCHES, 1, BATCHES - 1], (place, counts)
            assert np.array(optimizer.skipped_batches).tolist() == [BAD, *[-1] * 7], place
            assert history["skipped"] == [1]
            assert 0 < history["gradient_norm"][0] <= history["gradient_norm_max"][0] < np.inf
        assert_replicas_equal(trainers[1])
        assert_close(trainers[1], trainers[0])


def stopping_leaves_the_weights_before(folder):
    """The default: an error that names the batch; nothing that is not finite in any replica or on disk."""
    images, labels = coloured_squares(np.random.default_rng(0), BATCH * BATCHES)
    images = images.astype("float32")
    images[BAD * BATCH + BAD_IMAGES["second replica"], 4, 4, 1] = np.nan
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH, drop_remainder=True)
    trainer, checkpoint = trainer_on(strategy_of(2)), ksf.callbacks.Checkpoint(folder / "stop")
    with pytest.raises(ksf.errors.DivergenceError, match=f"not finite in batch {BAD}"):
        trainer.fit(data, verbose=0, callbacks=[ksf.callbacks.NonFiniteGuard(), checkpoint])
    assert all(np.isfinite(np.array(weight)).all() for weight in trainer.weights)
    assert checkpoint.paths() == []
    assert_replicas_equal(trainer)


def they_draw_the_same_classes(folder):
    """Partial FC on two replicas is that on one: all take the classes of the whole batch, also of the last, smaller one."""
    images, labels = coloured_squares(np.random.default_rng(0), 2 * BATCH + BATCH // 2)
    for head in (ksf.heads.SphereFaceR, ksf.heads.SphereFace2):
        trainers, losses = [], []
        for replicas in (1, 2):
            keras.utils.set_random_seed(1)
            with strategy_of(replicas).scope():
                trainer = ksf.FaceClassifier(tiny_backbone(), head(MANY, scale=10.0, sample_rate=0.3, seed=5))
                trainer.compile(ksf.GuardedOptimizer(keras.optimizers.SGD(0.002, momentum=0.9, weight_decay=5e-3)))
            data = tf.data.Dataset.from_tensor_slices((images.astype("float32"), labels)).batch(BATCH)
            losses.append(trainer.fit(data, epochs=3, verbose=0).history["loss"])
            trainers.append(trainer)
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
        assert_replicas_equal(trainers[1])
        assert_close(trainers[1], trainers[0])


def they_repel_the_same_classes(folder):
    """SphereFace+ on two replicas: the penalty is that of the whole batch's classes."""
    images, labels = coloured_squares(np.random.default_rng(0), BATCH)
    losses = []
    for replicas in (1, 2):
        keras.utils.set_random_seed(1)
        with strategy_of(replicas).scope():
            trainer = ksf.FaceClassifier(tiny_backbone(), ksf.heads.SphereFacePlus(MANY, scale=10.0, repulsion=10.0))
            trainer.compile(keras.optimizers.SGD(0.002))
        data = tf.data.Dataset.from_tensor_slices((images.astype("float32"), labels)).batch(BATCH)
        losses.append(trainer.fit(data, epochs=2, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def what_keras_cannot_do_is_refused(folder):
    """Accumulated gradients and several steps at once, in one line each."""
    with strategy_of(2).scope():
        trainer = ksf.FaceClassifier(tiny_backbone(), ksf.heads.ArcFace(MANY))
        for wrap in (ksf.GuardedOptimizer, keras.optimizers.get):
            sgd = keras.optimizers.SGD(0.002, gradient_accumulation_steps=2)
            with pytest.raises(ValueError, match="Received: gradient_accumulation_steps=2"):
                trainer.compile(wrap(sgd))
        with pytest.raises(ValueError, match="Received: steps_per_execution=2"):
            trainer.compile("sgd", steps_per_execution=2)


CHECKS = (
    another_number_of_replicas_goes_on,
    a_bad_batch_is_skipped_by_all_or_none,
    stopping_leaves_the_weights_before,
    they_draw_the_same_classes,
    they_repel_the_same_classes,
    what_keras_cannot_do_is_refused,
)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    for check in CHECKS:
        check(pathlib.Path(sys.argv[1]))
        print(f"{check.__name__}: ok", flush=True)
