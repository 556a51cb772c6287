"""The papers' weight decay by Keras's optimizer."""

import keras
import numpy as np
import pytest

from keras_sphereface import optimizers

pytestmark = pytest.mark.core


def test_weights_shrink_as_under_decay_that_goes_through_the_momentum():
    rate, momentum, decay, steps = 0.1, 0.9, 3e-3, 200
    expected, velocity = 1.0, 0.0
    for _ in range(steps):  # the papers' update where the loss has no gradient
        velocity = momentum * velocity + decay * expected
        expected -= rate * velocity
    weight = keras.Variable([1.0])
    optimizer = optimizers.sgd(rate, momentum, decay)
    for _ in range(steps):
        optimizer.apply([keras.ops.zeros(1)], [weight])
    found = float(keras.ops.convert_to_numpy(weight.value)[0])
    assert found == pytest.approx(np.exp(-0.6), rel=1e-3)  # 200 steps of 0.1 * 3e-3 / (1 - 0.9)
    assert found == pytest.approx(expected, rel=0.03)  # the velocity has to grow first: nine steps later


def test_numbers_out_of_range_are_named():
    with pytest.raises(ValueError, match="momentum=1"):
        optimizers.sgd(0.1, momentum=1.0)
    with pytest.raises(ValueError, match="weight_decay=-1"):
        optimizers.sgd(0.1, weight_decay=-1)
    with pytest.raises(ValueError, match=r"`momentum` must be a finite number\. Received: momentum='0\.9'"):
        optimizers.sgd(0.1, momentum="0.9")


def test_no_decay_is_a_decay_of_zero():
    assert optimizers.sgd(0.1, weight_decay=None).weight_decay == 0.0


@pytest.mark.parametrize("name", ["learning_rate", "momentum", "weight_decay", "global_clipnorm", "ema_momentum"])
@pytest.mark.parametrize("value", [float("nan"), np.float32("inf")])
def test_numbers_that_are_not_finite_are_named(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be a finite number. Received: {name}="):
        optimizers.sgd(**{"learning_rate": 0.1, name: value})
