"""Losses per example as pure functions of logits, and the loss object that hands a head's loss to Keras."""

from typing import Any

import keras
from keras import ops

from keras_sphereface.hints import Tensor
from keras_sphereface.margins import target_mask


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Softmax cross-entropy, $\log\sum_i e^{z_i} - z_y$, computed stably.

    Args:
        logits: Float tensor of shape `(batch, classes)`.
        labels: Integer tensor of shape `(batch,)`.

    Returns:
        Float tensor of shape `(batch,)`.

    Example:
    >>> logits, labels = keras.ops.convert_to_tensor([[2.0, 0.0], [2.0, 0.0]]), keras.ops.convert_to_tensor([0, 1])
    >>> np.asarray(keras_sphereface.losses.cross_entropy(logits, labels)).round(3)
    array([0.127, 2.127], dtype=float32)
    """
    return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def one_vs_all(logits: Tensor, labels: Tensor, positive_weight: float, class_weights: Tensor | None = None) -> Tensor:
    r"""Weighted sum over the classes of binary cross-entropies: the target against 1, every other class against 0.

    $\lambda \log(1 + e^{-z_y}) + (1 - \lambda) \sum_{i \ne y} \log(1 + e^{z_i})$

    Args:
        logits: Float tensor of shape `(batch, classes)`.
        labels: Integer tensor of shape `(batch,)`.
        positive_weight: lambda, the weight of the target's term, in (0, 1).
        class_weights: What each class counts among the others, `(classes,)`. Defaults to `None`, once.

    Returns:
        Float tensor of shape `(batch,)`.

    Example:
    >>> logits, labels = keras.ops.convert_to_tensor([[2.0, 0.0], [2.0, 0.0]]), keras.ops.convert_to_tensor([0, 1])
    >>> np.asarray(keras_sphereface.losses.one_vs_all(logits, labels, positive_weight=0.5)).round(3)
    array([0.41, 1.41], dtype=float32)

    Reference: SphereFace2, arXiv 2108.01513, equation 5.
    """
    is_target = target_mask(labels, ops.shape(logits)[-1])
    # As tensors, because `where` takes numbers for floatx.
    ours, others = (ops.convert_to_tensor(weight, logits.dtype) for weight in (positive_weight, 1.0 - positive_weight))
    weights = ops.where(is_target, ours, others if class_weights is None else others * class_weights)
    return ops.sum(weights * ops.softplus(ops.where(is_target, -logits, logits)), axis=1)


@keras.saving.register_keras_serializable(package="keras_sphereface")
class HeadLoss(keras.losses.Loss):
    """Averages losses that a head has computed already.

    With it the sample weights, the loss tracker, regularization and the scaling over replicas are Keras's own.

    Args:
        name: Name of the loss. Defaults to `"head_loss"`.
        reduction: As in `keras.losses.Loss`. Defaults to `"sum_over_batch_size"`, the mean.
        dtype: As in `keras.losses.Loss`. Defaults to `None`, Keras's `floatx`.

    Example:
    >>> losses = np.float32([0.5, 1.5])  # as `head.loss(embeddings, labels)` gives them
    >>> float(keras_sphereface.losses.HeadLoss()(np.array([3, 1]), losses))
    1.0
    """

    def __init__(self, name: str = "head_loss", reduction: str = "sum_over_batch_size", dtype: Any = None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns `y_pred`, the losses per example of shape `(batch,)`; `y_true`, the labels, are not used."""
        return y_pred
