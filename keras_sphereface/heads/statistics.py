"""What is worth watching in a batch, without the margin and without gradients."""

import math

import keras
from keras import ops

from keras_sphereface import feature_norms
from keras_sphereface.heads import criteria, kernels


def target_and_rank(cosines, labels, logits=None):
    """The cosine to the label's class, and whether that class is nearer than every other, each of shape `(batch,)`.

    Args:
        cosines: `(batch, classes)`.
        labels: int32 `(batch,)`, in `[0, classes)`.
        logits: `(batch, classes)`, without the margin, where a bias per class orders them otherwise than the cosines.
            Defaults to `None`.
    """
    cosines = ops.stop_gradient(cosines)
    ranked = cosines if logits is None else ops.stop_gradient(logits)
    ours = kernels.take_targets(ranked, labels, all_inside=True)
    targets = ours if logits is None else kernels.take_targets(cosines, labels, all_inside=True)
    others = kernels.replace_targets(ranked, labels, ours - float("inf"), all_inside=True)
    return targets, ours > criteria.largest(others)


def divided_by_lengths(products, kernel, labels):
    """The cosines `(batch,)` of inner products with the labels' class weights, `(embedding_dim, classes)`."""
    _, lengths = feature_norms.normalize(ops.stop_gradient(ops.take(kernel, labels, axis=1)), axis=0)
    return products / ops.maximum(lengths, keras.config.epsilon())


def batch_statistics(target_cosines, is_nearest, norms):
    """The statistics of a batch; see `MarginHead.loss_and_statistics`.

    A tie counts as wrong: of embeddings that have all become the same, none is recognized.
    """
    return {
        "accuracy": ops.cast(is_nearest, "float32"),
        "embedding_norm": ops.stop_gradient(norms),
        "target_angle": ops.arccos(ops.clip(target_cosines, -1.0, 1.0)) * math.degrees(1.0),
    }
