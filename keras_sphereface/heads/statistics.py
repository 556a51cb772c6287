"""What is worth watching in a batch, without the margin and without gradients."""

import math

from keras import ops

from keras_sphereface.heads import criteria, kernels


def target_and_nearest(cosines, labels):
    """The cosine to the label's class and the largest to any other, each of shape `(batch,)`.

    Args:
        cosines: `(batch, classes)`.
        labels: int32 `(batch,)`, in `[0, classes)`.
    """
    cosines = ops.stop_gradient(cosines)
    targets = kernels.take_targets(cosines, labels, all_inside=True)
    others = kernels.replace_targets(cosines, labels, targets - float("inf"), all_inside=True)
    return targets, ops.max(others, axis=1, initial=criteria.LOWEST)


def batch_statistics(target_cosines, nearest, norms):
    """The statistics of a batch; see `MarginHead.loss_and_statistics`.

    A tie counts as wrong: of embeddings that have all become the same, none is recognized.
    """
    return {
        "accuracy": ops.cast(target_cosines > nearest, "float32"),
        "embedding_norm": ops.stop_gradient(norms),
        "target_angle": ops.arccos(ops.clip(target_cosines, -1.0, 1.0)) * math.degrees(1.0),
    }
