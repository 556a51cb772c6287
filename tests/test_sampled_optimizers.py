"""Sampled optimizers and their constraint: classes not drawn keep every bit, the others move as by Keras's optimizer."""

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
    """The kernel and its slots."""
    optimizer = getattr(trainer.optimizer, "inner_optimizer", trainer.optimizer)
    if hasattr(trainer, "jax_state_sync"):
        trainer.jax_state_sync()
    kernel = trainer.head.kernel
    if hasattr(optimizer, "slots_of"):
        moments = optimizer.slots_of(kernel)
    else:  # Keras's SGD
        moments = [optimizer.momentums[optimizer._get_variable_index(kernel)]]
    return [numpy_of(variable) for variable in (kernel, *moments)]


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01, use_ema=True),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.05, amsgrad=True, use_ema=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("guarded", "weight_norm"), [(True, "projected"), (False, "graph")])
def test_what_was_not_drawn_keeps_every_bit(optimizer, guarded, weight_norm, rng):
    images, labels = coloured_squares(rng, 8)
    optimizer = OPTIMIZERS[optimizer]()
    trainer = trainer_of(ksf.GuardedOptimizer(optimizer) if guarded else optimizer, weight_norm=weight_norm)
    trainer.train_on_batch(images, labels)
    for _ in range(2):
        kernel, *moments = slots(trainer)
        trainer.train_on_batch(images, labels)
        new_kernel, *new_moments = slots(trainer)
        same = (new_kernel == kernel).all(axis=0)
        assert same.sum() == MANY - 15
        assert not same[labels].any()
        for moment, new_moment in zip(moments, new_moments, strict=True):
            assert (new_moment == moment)[:, same].all()
            assert moment[:, same].any(), "some of them had been drawn before"
        assert not (new_moments[0] == moments[0]).all(axis=0)[~same].any()
    if weight_norm == "projected":
        np.testing.assert_allclose(np.linalg.norm(new_kernel, axis=0), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("plain", "sampled", "arguments"),
    [
        (keras.optimizers.SGD, ksf.SampledSGD, {"momentum": 0.9, "weight_decay": 0.05}),
        (keras.optimizers.SGD, ksf.SampledSGD, {"momentum": 0.9, "weight_decay": 0.05, "nesterov": True}),
        (keras.optimizers.Adam, ksf.SampledAdam, {}),
        (keras.optimizers.AdamW, ksf.SampledAdam, {"weight_decay": 0.05, "beta_1": 0.8, "epsilon": 1e-3}),
        (keras.optimizers.AdamW, ksf.SampledAdam, {"weight_decay": 0.05, "amsgrad": True}),
    ],
)
def test_what_was_drawn_moves_as_by_keras(plain, sampled, arguments):
    results = []
    for make in (plain, sampled):
        kernel = keras.Variable(np.arange(6.0, dtype="float32").reshape(2, 3))
        kernel.sampled_classes = True
        optimizer = make(learning_rate=0.1, **arguments)
        optimizer.build([kernel])
        for gradient in ([[1.0, 0.0, 2.0], [0.0, 0.0, -1.0]], [[0.1, 0.0, 3.0], [0.2, 0.0, 0.5]]):
            optimizer.apply([ops.convert_to_tensor(gradient)], [kernel])
        slots = [numpy_of(variable) for variable in optimizer.variables if tuple(variable.shape) == (2, 3)]
        results.append([numpy_of(kernel), *slots])
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(found[:, [0, 2]], expected[:, [0, 2]], rtol=1e-6)
    np.testing.assert_array_equal(results[1][0][:, 1], [1.0, 4.0])
    if "weight_decay" in arguments:
        assert results[0][0][0, 1] < 1.0


@pytest.mark.parametrize(
    ("plain", "sampled", "arguments"),
    [
        (keras.optimizers.SGD, ksf.SampledSGD, {"momentum": 0.9, "weight_decay": 0.05}),
        (keras.optimizers.AdamW, ksf.SampledAdam, {"weight_decay": 0.05}),
    ],
)
def test_whatever_is_no_class_weight_moves_as_by_keras(plain, sampled, arguments):
    """Also where it has no gradient: by its momentum and its decay."""
    results = []
    for make in (plain, sampled):
        weights = keras.Variable(np.arange(6.0, dtype="float32").reshape(2, 3))
        classes = keras.Variable(np.ones((2, 3), "float32"))
        classes.sampled_classes = True
        optimizer = make(learning_rate=0.1, **arguments)
        optimizer.build([classes, weights])
        for gradient in ([[1.0, 3.0, 0.0], [2.0, 0.0, 0.0]], [[0.5, 0.0, 0.0], [0.2, 0.0, 0.0]]):
            optimizer.apply([ops.convert_to_tensor(gradient)] * 2, [classes, weights])
        results.append(numpy_of(weights))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)
    assert (results[0] != np.arange(6.0).reshape(2, 3))[:, 1:].all()  # neither column 1 nor 2 has stood still


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
    second = slots(trainer)[0]
    np.testing.assert_array_equal(second, first)
    trainer.train_on_batch(images, labels)
    assert 15 < (slots(trainer)[0] != second).any(axis=0).sum() < 30


def test_sphereface2_learns_from_drawn_classes(rng):
    images, labels = coloured_squares(rng, 52)
    trainer = ksf.FaceClassifier(tiny_backbone(), ksf.heads.SphereFace2(MANY, scale=10.0, sample_rate=0.3, seed=5))
    trainer.compile(ksf.GuardedOptimizer(keras.optimizers.SGD(0.002, momentum=0.9)))
    history = trainer.fit(images, labels, batch_size=16, epochs=8, verbose=0).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    kernel = slots(trainer)[0]
    trainer.train_on_batch(images[:4], labels[:4])
    assert (slots(trainer)[0] == kernel).all(axis=0).sum() == MANY - 15


def test_the_constraint_settles(rng):
    constraint = ksf.heads.constraints.SettledUnitNorm(axis=0)
    once = constraint(rng.normal(size=(512, 2000)).astype("float32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(constraint(once)), ops.convert_to_numpy(once))
    twice = ops.convert_to_numpy(constraint(ops.concatenate([once * 1.0001, once * 0.9], axis=1)))
    np.testing.assert_allclose(np.linalg.norm(twice, axis=0), 1.0, rtol=1e-6)


class HalvedAtOnce(keras.optimizers.schedules.LearningRateSchedule):
    """A user's own schedule: not registered, and without get_config."""

    def __call__(self, step):
        return 0.5 / (1.0 + ops.cast(step, "float32"))


@pytest.mark.parametrize("kind", [keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.AdamW])
@pytest.mark.parametrize(("rate", "after_a_step"), [(HalvedAtOnce(), 0.25), (lambda: 0.5, 0.5)])
def test_schedules_and_functions_of_ones_own_go_on(kind, rate, after_a_step, rng):
    images, labels = coloured_squares(rng, 8)
    optimizer = trainer_of(kind(rate, weight_decay=0.25, clipnorm=2.0, gradient_accumulation_steps=2)).optimizer
    assert float(optimizer.learning_rate) == 0.5
    assert (optimizer.weight_decay, optimizer.clipnorm, optimizer.gradient_accumulation_steps) == (0.25, 2.0, 2)
    trainer = trainer_of(kind(rate))
    kernel = numpy_of(trainer.head.kernel)
    trainer.fit(images, labels, verbose=0)
    assert (numpy_of(trainer.head.kernel) != kernel).any(axis=0).sum() == 15
    assert float(trainer.optimizer.learning_rate) == after_a_step


@pytest.mark.parametrize("guarded", [True, False])
def test_a_learning_rate_assigned_later_holds(guarded, rng):
    images, labels = coloured_squares(rng, 8)
    given = keras.optimizers.SGD(0.5, momentum=0.9)
    trainer = trainer_of(ksf.GuardedOptimizer(given) if guarded else given)
    given.learning_rate = 0.0
    kernel = numpy_of(trainer.head.kernel)
    trainer.fit(images, labels, verbose=0)
    np.testing.assert_allclose(numpy_of(trainer.head.kernel), kernel, atol=1e-6)
    trainer.fit(images, labels, verbose=0, callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch: 0.25)])
    assert np.abs(numpy_of(trainer.head.kernel) - kernel).max() > 1e-3
    assert float(given.learning_rate) == 0.25
    optimizer = getattr(trainer.optimizer, "inner_optimizer", trainer.optimizer)
    assert [variable.name for variable in optimizer.variables][:2] == ["iteration", "learning_rate"]


def test_other_optimizers_are_refused():
    with pytest.raises(ValueError, match=r"SampledSGD.* Received: RMSprop"):
        trainer_of(keras.optimizers.RMSprop())
    excluding = keras.optimizers.SGD(weight_decay=0.1)
    excluding.exclude_from_weight_decay(var_names=["bias"])
    with pytest.raises(ValueError, match="Received: one that is built or excludes variables"):
        trainer_of(excluding)
    trainer_of(keras.optimizers.RMSprop(), rate=1.0)
    assert isinstance(trainer_of("sgd").optimizer, ksf.SampledSGD)
    adam = trainer_of(keras.optimizers.AdamW(0.01, weight_decay=0.1, beta_2=0.98)).optimizer
    assert isinstance(adam, ksf.SampledAdam)
    assert (adam.weight_decay, adam.beta_2) == (0.1, 0.98)
    assert isinstance(trainer_of("adam").optimizer, ksf.SampledAdam)
