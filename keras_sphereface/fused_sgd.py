"""SGD that updates large weights in one pass over memory, on TensorFlow's CPU."""

import math
from typing import Any

import keras
from keras import ops

from keras_sphereface.devices import builds_for_tensorflow_cpu
from keras_sphereface.hints import Tensor

# Weights of fewer values than this (16 MB in float32) stay near the processor's caches: compiling would not pay.
LARGE = 2**22


@keras.saving.register_keras_serializable(package="keras_sphereface")
class FusedSGD(keras.optimizers.SGD):
    """`keras.optimizers.SGD`, whose update of large weights is one compiled program that works in place.

    TensorFlow's own operations read and write the class weights of a head a dozen times an update, each time into memory
    that is new. The arithmetic and the variables are Keras's, so that checkpoints of one go on with the other. Small
    weights, accelerators, several replicas and other backends are left to `keras.optimizers.SGD`.

    `keras_sphereface.optimizers.sgd` makes one.

    Args:
        *args, **kwargs: As `keras.optimizers.SGD`.

    Example:
    >>> trainer.compile(keras_sphereface.fused_sgd.FusedSGD(0.1, momentum=0.9, weight_decay=5e-3))
    """

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """Updates a variable, a large one with its weight decay."""
        if not _is_fused(variable):
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        variables = [variable, *self.slots_of(variable)]
        gradient, learning_rate = (tf.cast(tf.convert_to_tensor(x), variable.dtype) for x in (gradient, learning_rate))

        @tf.function(jit_compile=True)
        def update():
            values = [ops.convert_to_tensor(old) for old in variables]
            for old, new in zip(variables, self.step(gradient, learning_rate, variable, *values)):
                old.assign(new)

        update()

    def slots_of(self, variable: Any) -> list:
        """The momentum's variable, if there is one."""
        return [self.momentums[self._get_variable_index(variable)]] if self.momentum != 0 else []

    def step(
        self, gradient: Tensor, learning_rate: Tensor, variable: Any, values: Tensor, velocity: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Returns the values after a step with their weight decay and, with momentum, the velocity."""
        moved = decayed(self, variable, values, learning_rate)
        step = -learning_rate * gradient
        if velocity is None:
            return (moved + step,)
        velocity = velocity * self.momentum + step
        return moved + (velocity * self.momentum + step if self.nesterov else velocity), velocity

    def _apply_weight_decay(self, variables):
        others = [variable for variable in variables if not _is_fused(variable)]
        if others:
            super()._apply_weight_decay(others)


def decayed(optimizer: keras.optimizers.Optimizer, variable: Any, values: Tensor, learning_rate: Tensor) -> Tensor:
    """A variable's values less the optimizer's weight decay, as Keras takes it."""
    if optimizer.weight_decay is None or not optimizer._use_weight_decay(variable):
        return values
    return values - values * ops.cast(optimizer.weight_decay, values.dtype) * learning_rate


def _is_fused(variable):
    if math.prod(variable.shape) < LARGE or not builds_for_tensorflow_cpu():
        return False
    import tensorflow as tf

    return not tf.distribute.has_strategy()
