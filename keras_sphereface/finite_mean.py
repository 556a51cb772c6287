"""A mean that can leave out what is not finite."""

import keras
from keras import ops

from keras_sphereface.hints import Tensor


@keras.saving.register_keras_serializable(package="keras_sphereface")
class FiniteMean(keras.metrics.Mean):
    """Keras's `Mean`, which leaves out values that are not finite while it is told to: those of batches that are skipped.

    Args:
        name: Name. Defaults to `"mean"`.
        dtype: As for `keras.metrics.Mean`. Defaults to `None`.

    Attributes:
        leaves_out: Whether values that are not finite are left out. Defaults to `False`.

    Example:
    >>> mean = keras_sphereface.finite_mean.FiniteMean()
    >>> mean.leaves_out = True
    >>> mean.update_state([1.0, float("inf"), 4.0])
    >>> float(mean.result())
    2.5
    """

    leaves_out = False

    def __init__(self, name: str = "mean", dtype: str | None = None):
        super().__init__(name=name, dtype=dtype)
        self.left_out = self.add_variable((), initializer="zeros", dtype=self.dtype, name="left_out")

    def update_state(self, values: Tensor, sample_weight: Tensor | None = None) -> None:
        """Takes the values `(batch,)`, or one, with their weights into the mean."""
        if self.leaves_out:
            values = ops.cast(values, self.dtype)
            finite = ops.isfinite(values)
            weights = ops.cast(finite, self.dtype)
            self.left_out.assign_add(ops.sum(1 - weights))
            if sample_weight is not None:
                given = ops.cast(sample_weight, self.dtype)
                given = ops.reshape(given, ops.shape(weights)) if len(given.shape) > len(weights.shape) else given
                weights = weights * given
            values, sample_weight = ops.where(finite, values, ops.zeros_like(values)), weights
        super().update_state(values, sample_weight=sample_weight)

    def reset_state(self) -> None:
        """Forgets all values."""
        super().reset_state()
        self.left_out.assign(0)

    def result(self) -> Tensor:
        """The mean; NaN where all values were left out, which is no good loss."""
        nothing = ops.logical_and(self.count == 0, self.left_out > 0)
        return ops.where(nothing, ops.cast(float("nan"), self.dtype), super().result())
