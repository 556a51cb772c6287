"""FusedSGD: the numbers of keras.optimizers.SGD, in place, and its checkpoints."""

import keras
import numpy as np
import pytest

from keras_sphereface import fused_sgd, optimizers
from keras_sphereface.guarded_optimizer import GuardedOptimizer
from keras_sphereface.heads.constraints import UnitColumns

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others take keras.optimizers.SGD")


def train(make, guarded=False, steps=3, **arguments):
    """Weights of two sizes, of which only the larger is fused, and their momentum after some compiled steps."""
    import tensorflow as tf

    rng = np.random.default_rng(1)
    variables = [
        keras.Variable(rng.normal(size=(6, 40)), dtype="float32", name="large"),
        keras.Variable(rng.normal(size=7), dtype="float32", name="small"),
    ]
    variables[0].constraint = UnitColumns()
    optimizer = make(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5), weight_decay=0.05, **arguments)
    whole = GuardedOptimizer(optimizer) if guarded else optimizer
    whole.build(variables)
    step = tf.function(lambda *grads: whole.apply(list(grads), variables))
    for _ in range(steps):
        step(*[tf.constant(rng.normal(size=v.shape), "float32") for v in variables])
    return optimizer, [v.numpy() for v in (*variables, *optimizer.variables)]


@pytest.mark.parametrize(
    "arguments",
    [
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "guarded": True},
        {"momentum": 0.0},
        {"momentum": 0.9, "global_clipnorm": 1.0, "gradient_accumulation_steps": 2, "use_ema": True},
    ],
)
def test_trains_as_keras_sgd(arguments, monkeypatch):
    monkeypatch.setattr(fused_sgd, "LARGE", 100)
    _, expected = train(keras.optimizers.SGD, **arguments)
    _, actual = train(fused_sgd.FusedSGD, **arguments)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(actual[0], axis=0), 1.0, rtol=1e-6)


def test_excluded_weights_do_not_decay(monkeypatch):
    monkeypatch.setattr(fused_sgd, "LARGE", 100)

    def excluding(make):
        def build(*args, **kwargs):
            optimizer = make(*args, **kwargs)
            optimizer.exclude_from_weight_decay(var_names=["large"])
            return optimizer

        return build

    _, expected = train(excluding(keras.optimizers.SGD), momentum=0.9)
    _, actual = train(excluding(fused_sgd.FusedSGD), momentum=0.9)
    np.testing.assert_allclose(actual[0], expected[0], rtol=2e-6)


def test_is_what_the_papers_sgd_makes_and_has_kerass_variables():
    fused, plain = optimizers.sgd(0.1), keras.optimizers.SGD(0.1, momentum=0.9)
    assert type(fused) is fused_sgd.FusedSGD
    assert isinstance(keras.optimizers.deserialize(keras.optimizers.serialize(fused)), fused_sgd.FusedSGD)
    kernel = keras.Variable(np.ones((2, 3)), name="kernel")
    for optimizer in (fused, plain):
        optimizer.build([kernel])
    assert [v.name for v in fused.variables] == [v.name for v in plain.variables]
