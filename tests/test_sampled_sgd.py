"""SampledSGD and its constraint: classes not drawn keep every bit of weights and momentum; the others move as by SGD."""

import keras
import numpy as np
import pytest
from keras import ops
from test_classifier import coloured_squares, tiny_backbone

import keras_sphereface as ksf

pytestmark = pytest.mark.core

MANY = 50  # Classes, of which the pictures show four


def trainer_of(optimizer, rate=0.3, **head):
    head = ksf.heads.SphereFaceR(MANY, margin=1.2, scale=10.0, sample_rate=rate, seed=5, **head)
    trainer = ksf.FaceClassifier(tiny_backbone(), head)
    trainer.compile(optimizer)
    return trainer


def numpy_of(variable):
    return ops.convert_to_numpy(variable).copy()


def slots(trainer):
    """The kernel and its momentum."""
    optimizer = getattr(trainer.optimizer, "inner_optimizer", trainer.optimizer)
    if hasattr(trainer, "jax_state_sync"):
        trainer.jax_state_sync()
    kernel = trainer.head.kernel
    return numpy_of(kernel), numpy_of(optimizer.momentums[optimizer._get_variable_index(kernel)])


@pytest.mark.parametrize(("guarded", "weight_norm"), [(True, "projected"), (False, "graph")])
def test_what_was_not_drawn_keeps_every_bit(guarded, weight_norm, rng):
    images, labels = coloured_squares(rng, 8)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01, use_ema=True)
    trainer = trainer_of(ksf.GuardedOptimizer(optimizer) if guarded else optimizer, weight_norm=weight_norm)
    trainer.train_on_batch(images, labels)
    for _ in range(2):
        kernel, momentum = slots(trainer)
        trainer.train_on_batch(images, labels)
        new_kernel, new_momentum = slots(trainer)
        same = (new_kernel == kernel).all(axis=0)
        np.testing.assert_array_equal((new_momentum == momentum).all(axis=0), same)
        assert same.sum() == MANY - 15
        assert not same[labels].any()
        assert momentum[:, same].any(), "some of them had been drawn before"
    if weight_norm == "projected":
        np.testing.assert_allclose(np.linalg.norm(new_kernel, axis=0), 1.0, rtol=1e-5)


@pytest.mark.parametrize("nesterov", [False, True])
def test_what_was_drawn_moves_as_by_sgd(nesterov):
    arguments = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.05, "nesterov": nesterov}
    results = []
    for make in (keras.optimizers.SGD, ksf.SampledSGD):
        kernel = keras.Variable(np.arange(6.0, dtype="float32").reshape(2, 3))
        kernel.sampled_classes = True
        optimizer = make(**arguments)
        optimizer.build([kernel])
        for _ in range(2):
            optimizer.apply([ops.convert_to_tensor([[1.0, 0.0, 2.0], [0.0, 0.0, -1.0]])], [kernel])
        results.append((numpy_of(kernel), numpy_of(optimizer.momentums[0])))
    (plain, plain_momentum), (sampled, sampled_momentum) = results
    np.testing.assert_allclose(sampled[:, [0, 2]], plain[:, [0, 2]], rtol=1e-6)
    np.testing.assert_allclose(sampled_momentum[:, [0, 2]], plain_momentum[:, [0, 2]], rtol=1e-6)
    np.testing.assert_array_equal(sampled[:, 1], [1.0, 4.0])
    assert plain[0, 1] < 1.0


def test_rate_one_trains_as_the_dense_head(rng):
    images, labels = coloured_squares(rng, 32)
    trained = []
    for rate in (None, 1.0):
        keras.utils.set_random_seed(3)
        trainer = trainer_of(keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=0.01), rate=rate)
        trainer.fit(images, labels, batch_size=8, shuffle=False, verbose=0)
        trained.append(slots(trainer))
    for actual, expected in zip(trained[1], trained[0]):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_learns_with_batches_of_any_size(rng):
    """52 pictures in batches of 16: the last has 4, and 16 is more than 0.1 of the classes."""
    images, labels = coloured_squares(rng, 52)
    trainer = trainer_of(ksf.GuardedOptimizer(keras.optimizers.SGD(0.01, momentum=0.9)), rate=0.1)
    history = trainer.fit(images, labels, batch_size=16, epochs=8, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    results = trainer.evaluate(images, labels, verbose=0, return_dict=True)
    logits = ops.convert_to_numpy(trainer.head(trainer.predict(images, verbose=0)))
    assert results["accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean())


def test_accumulated_steps_move_what_any_of_them_drew(rng):
    images, labels = coloured_squares(rng, 8)
    trainer = trainer_of(keras.optimizers.SGD(0.05, momentum=0.9, gradient_accumulation_steps=2), weight_norm="graph")
    first = numpy_of(trainer.head.kernel)
    trainer.train_on_batch(images, labels)
    second, _ = slots(trainer)
    np.testing.assert_array_equal(second, first)
    trainer.train_on_batch(images, labels)
    assert 15 < (slots(trainer)[0] != second).any(axis=0).sum() < 30


def test_sphereface2_learns_from_drawn_classes(rng):
    images, labels = coloured_squares(rng, 52)
    trainer = ksf.FaceClassifier(tiny_backbone(), ksf.heads.SphereFace2(MANY, scale=10.0, sample_rate=0.3, seed=5))
    trainer.compile(ksf.GuardedOptimizer(keras.optimizers.SGD(0.002, momentum=0.9)))
    history = trainer.fit(images, labels, batch_size=16, epochs=8, verbose=0).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    kernel, _ = slots(trainer)
    trainer.train_on_batch(images[:4], labels[:4])
    assert (slots(trainer)[0] == kernel).all(axis=0).sum() == MANY - 15


def test_the_constraint_settles(rng):
    constraint = ksf.heads.constraints.SettledUnitNorm(axis=0)
    once = constraint(rng.normal(size=(512, 2000)).astype("float32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(constraint(once)), ops.convert_to_numpy(once))
    twice = ops.convert_to_numpy(constraint(ops.concatenate([once * 1.0001, once * 0.9], axis=1)))
    np.testing.assert_allclose(np.linalg.norm(twice, axis=0), 1.0, rtol=1e-6)


def test_other_optimizers_are_refused():
    with pytest.raises(ValueError, match=r"SampledSGD.* Received: AdamW"):
        trainer_of(keras.optimizers.AdamW())
    excluding = keras.optimizers.SGD(weight_decay=0.1)
    excluding.exclude_from_weight_decay(var_names=["bias"])
    with pytest.raises(ValueError, match="Received: one that is built or excludes variables"):
        trainer_of(excluding)
    trainer_of(keras.optimizers.AdamW(), rate=1.0)
    assert isinstance(trainer_of("sgd").optimizer, ksf.SampledSGD)
