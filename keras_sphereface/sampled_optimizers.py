"""Optimizers that leave alone the classes that a step did not draw."""

import inspect
from typing import Any

import keras
from keras import ops

from keras_sphereface.fused_sgd import FusedSGD, decayed
from keras_sphereface.hints import Tensor


class _LeavesUndrawn:
    """Mixed into an optimizer: of a head's class weights, only the drawn classes and their slots are updated.

    The optimizer has `slots_of(variable)`, and `step` from a gradient, the learning rate, the variable and the values of
    variable and slots to their new values.
    """

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """Updates a variable, the class weights only where they have a gradient."""
        if not self._is_sampled(variable):
            super().update_step(gradient, variable, learning_rate)
            return
        gradient = ops.cast(gradient, variable.dtype)
        learning_rate = ops.cast(learning_rate, variable.dtype)
        drawn = ops.any(gradient != 0, axis=tuple(range(len(gradient.shape) - 1)), keepdims=True)
        olds = [variable, *self.slots_of(variable)]
        before = [ops.convert_to_tensor(old) for old in olds]
        for old, values, after in zip(olds, before, self.step(gradient, learning_rate, variable, *before)):
            self.assign(old, ops.where(drawn, after, values))

    def _apply_weight_decay(self, variables):
        others = [variable for variable in variables if not self._is_sampled(variable)]
        if others:
            super()._apply_weight_decay(others)

    def _is_sampled(self, variable):
        # TensorFlow hands over its own variables: the Keras variable has the head's mark.
        known = self._trainable_variables[self._get_variable_index(variable)]
        return getattr(known, "sampled_classes", False)


@keras.saving.register_keras_serializable(package="keras_sphereface")
class SampledSGD(_LeavesUndrawn, FusedSGD):
    """SGD for heads with a `sample_rate`: a class that was not drawn keeps its weights and its momentum, bit by bit.

    Plain SGD would go on moving such a class by its momentum, let the momentum fade and take weight decay from it. Only the
    head's class weights are treated so; everything else is `keras.optimizers.SGD`. A class whose gradient is exactly 0
    counts as not drawn. With `gradient_accumulation_steps` a class counts as drawn if any of the accumulated steps drew it.

    `FaceClassifier.compile` puts it in the place of a `keras.optimizers.SGD`, also inside a `GuardedOptimizer`; your own
    training loop should name it.

    Args:
        *args, **kwargs: As `keras.optimizers.SGD`.

    Example:
    >>> head = keras_sphereface.heads.ArcFace(1_000_000, sample_rate=0.1)
    >>> trainer = keras_sphereface.FaceClassifier(backbone, head)
    >>> trainer.compile(keras_sphereface.SampledSGD(0.1, momentum=0.9, weight_decay=5e-3))

    Reference: arXiv 2203.15565, section 3.
    """


@keras.saving.register_keras_serializable(package="keras_sphereface")
class SampledAdam(_LeavesUndrawn, keras.optimizers.Adam):
    """Adam for heads with a `sample_rate`: a class that was not drawn keeps its weights and both moments, bit by bit.

    With `weight_decay` it is AdamW. Otherwise as `SampledSGD`; the moments' correction counts all steps, as Keras's.
    `FaceClassifier.compile` puts it in the place of a `keras.optimizers.Adam` or `AdamW`.

    Args:
        *args, **kwargs: As `keras.optimizers.Adam`.

    Example:
    >>> trainer.compile(keras_sphereface.SampledAdam(1e-3, weight_decay=0.05))

    Reference: arXiv 1711.05101; arXiv 2203.15565, section 3.
    """

    def slots_of(self, variable: Any) -> list:
        """The variables of the moments and, with `amsgrad`, of the second one's maximum."""
        index = self._get_variable_index(variable)
        slots = [self._momentums[index], self._velocities[index]]
        return [*slots, self._velocity_hats[index]] if self.amsgrad else slots

    def step(
        self,
        gradient: Tensor,
        learning_rate: Tensor,
        variable: Any,
        values: Tensor,
        first: Tensor,
        second: Tensor,
        largest: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Returns the values after a step with their weight decay, the moments and, if given, the second one's maximum."""
        count = ops.cast(self.iterations + 1, gradient.dtype)
        correction = ops.sqrt(1 - self.beta_2**count) / (1 - self.beta_1**count)
        first = first + (gradient - first) * (1 - self.beta_1)
        second = second + (ops.square(gradient) - second) * (1 - self.beta_2)
        moments = (first, second)
        if largest is not None:
            second = ops.maximum(largest, second)
            moments = (*moments, second)
        moved = decayed(self, variable, values, learning_rate)
        return moved - learning_rate * correction * first / (ops.sqrt(second) + self.epsilon), *moments


def for_sampling(optimizer: str | keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer for a head that draws classes: one of this module in the place of Keras's SGD, Adam or AdamW.

    Args:
        optimizer: A Keras optimizer or its name; what a `GuardedOptimizer` or `LossScaleOptimizer` wraps is replaced in it.

    Returns:
        The optimizer. It shares the given one's learning rate, so that a later assignment to either holds for both.

    Raises:
        ValueError: For an optimizer of another kind, or one that is more than its arguments.
    """
    optimizer = keras.optimizers.get(optimizer)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer.inner_optimizer = for_sampling(optimizer.inner_optimizer)
        return optimizer
    if isinstance(optimizer, _LeavesUndrawn):
        return optimizer
    # Of instances, because PyTorch has a class of its own behind each name.
    sampled = {type(make()): SampledAdam for make in (keras.optimizers.Adam, keras.optimizers.AdamW)}
    sampled |= dict.fromkeys((FusedSGD, type(keras.optimizers.SGD())), SampledSGD)
    kind = sampled.get(type(optimizer))
    if kind is None or optimizer.built or hasattr(optimizer, "_exclude_from_weight_decay"):
        what = type(optimizer).__name__ if kind is None else "one that is built or excludes variables"
        raise ValueError(
            "A head with `sample_rate` needs an optimizer that leaves classes not drawn alone: keras_sphereface.SampledSGD "
            f"or SampledAdam, which Keras's SGD, Adam and AdamW become. Received: {what}"
        )
    return _made_of(optimizer, kind)


def _made_of(optimizer, kind):
    """An optimizer of another kind with the same arguments; the learning rate itself, as not every one can be copied."""
    accepted = inspect.signature(kind).parameters
    arguments = {name: value for name, value in vars(optimizer).items() if name in accepted}
    rate = optimizer._learning_rate
    if callable(rate):  # a schedule or a function
        return kind(rate, **arguments)
    made = kind(0.0, **arguments)
    made._untrack_variable(made._learning_rate)
    made._learning_rate = rate  # Keras tracks what is assigned
    return made
