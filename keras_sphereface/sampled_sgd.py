"""SGD that leaves alone the classes that a step did not draw."""

from typing import Any

import keras
from keras import ops

from keras_sphereface.fused_sgd import FusedSGD
from keras_sphereface.hints import Tensor


@keras.saving.register_keras_serializable(package="keras_sphereface")
class SampledSGD(FusedSGD):
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

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """Updates a variable, the class weights only where they have a gradient."""
        if not self._is_sampled(variable):
            super().update_step(gradient, variable, learning_rate)
            return
        gradient = ops.cast(gradient, variable.dtype)
        learning_rate = ops.cast(learning_rate, variable.dtype)
        drawn = ops.any(gradient != 0, axis=tuple(range(len(gradient.shape) - 1)), keepdims=True)
        olds = [old for old in (variable, self.velocity_of(variable)) if old is not None]
        before = [ops.convert_to_tensor(old) for old in olds]
        for old, values, after in zip(olds, before, self.step(gradient, learning_rate, variable, *before)):
            self.assign(old, ops.where(drawn, after, values))

    def decays_itself(self, variable: Any) -> bool:
        """Whether `update_step` takes the weight decay of a variable."""
        return self._is_sampled(variable) or super().decays_itself(variable)

    def _is_sampled(self, variable):
        # TensorFlow hands over its own variables: the Keras variable has the head's mark.
        known = self._trainable_variables[self._get_variable_index(variable)]
        return getattr(known, "sampled_classes", False)


def for_sampling(optimizer: str | keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer for a head that draws classes: `SampledSGD` in the place of `keras.optimizers.SGD`.

    Args:
        optimizer: A Keras optimizer or its name; what a `GuardedOptimizer` or `LossScaleOptimizer` wraps is replaced in it.

    Returns:
        The optimizer.

    Raises:
        ValueError: For an optimizer of another kind, or one that is more than its arguments.
    """
    optimizer = keras.optimizers.get(optimizer)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer.inner_optimizer = for_sampling(optimizer.inner_optimizer)
        return optimizer
    if isinstance(optimizer, SampledSGD):
        return optimizer
    # PyTorch has a class of its own behind the name.
    is_plain = type(optimizer) in (FusedSGD, type(keras.optimizers.SGD()))
    if not is_plain or optimizer.built or hasattr(optimizer, "_exclude_from_weight_decay"):
        what = "one that is built or excludes variables" if is_plain else type(optimizer).__name__
        raise ValueError(
            "A head with `sample_rate` needs an optimizer that leaves classes not drawn alone: "
            f"keras_sphereface.SampledSGD, or keras.optimizers.SGD, which becomes one. Received: {what}"
        )
    return SampledSGD.from_config(optimizer.get_config())
