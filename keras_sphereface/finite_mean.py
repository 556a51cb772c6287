"""A mean over the numbers that are finite."""

import keras
from keras import ops

from keras_sphereface.hints import Tensor


@keras.saving.register_keras_serializable(package="keras_sphereface")
class FiniteMean(keras.metrics.Mean):
    """The (weighted) mean of the values that are finite: a batch that a training skips leaves no NaN in the epoch's mean.

    Args:
        name: Name. Defaults to `"mean"`.
        dtype: As for `keras.metrics.Mean`. Defaults to `None`.

    Example:
    >>> mean = keras_sphereface.finite_mean.FiniteMean()
    >>> mean.update_state([1.0, float("inf"), 4.0])
    >>> float(mean.result())
    2.5
    """

    def update_state(self, values: Tensor, sample_weight: Tensor | None = None) -> None:
        """Takes the values `(batch,)`, or one, into the mean, those that are not finite with weight 0."""
        values = ops.cast(values, self.dtype)
        finite = ops.isfinite(values)
        weights = ops.cast(finite, self.dtype)
        if sample_weight is not None:
            weights = weights * ops.cast(sample_weight, self.dtype)
        super().update_state(ops.where(finite, values, ops.zeros_like(values)), sample_weight=weights)

    def result(self) -> Tensor:
        """The mean; NaN where no value was finite, which is no good loss."""
        return self.total / self.count
