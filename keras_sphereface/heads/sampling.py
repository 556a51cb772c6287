r"""Partial FC: a training step's loss over the batch's classes and a random part of the others.

Reference: "Partial FC: Training 10 Million Identities on a Single Machine", arXiv 2010.05222, and "Killing Two Birds with
One Stone: Efficient and Robust Training of Face Recognition CNNs by Partial FC", arXiv 2203.15565, section 3.
"""

import keras
from keras import ops

from keras_sphereface.arguments import is_number, is_whole

# Above every random score, which is below 1: a class of the batch is always drawn.
RAISED = 2.0


def check_sample_rate(sample_rate):
    """Returns `sample_rate` as a float in (0, 1], or None; raises ValueError."""
    if sample_rate is None:
        return None
    if not is_number(sample_rate) or not 0.0 < sample_rate <= 1.0:
        raise ValueError(
            "`sample_rate` must be None (all classes) or a share of the classes in (0, 1]. "
            f"Received: sample_rate={sample_rate!r}"
        )
    return float(sample_rate)


def check_seed(seed):
    """Returns `seed` as an int, or None; raises ValueError."""
    if seed is None:
        return None
    if not is_whole(seed, 0) or seed >= 2**31:  # for every backend
        raise ValueError(f"`seed` must be None or an integer from 0 to 2**31 - 1. Received: seed={seed!r}")
    return int(seed)


def number_drawn(sample_rate, num_classes, batch_size):
    """How many classes a step draws: `sample_rate * num_classes`, but at least one more than the batch has examples.

    A batch of as many classes as are drawn would leave none to stand for the others (`weights_of_drawn`).

    Args:
        sample_rate: In (0, 1].
        num_classes: Number of classes.
        batch_size: An integer, or a scalar tensor where TensorFlow traces batches of any size.

    Returns:
        An integer, or a tensor if `batch_size` is one.
    """
    wanted = max(1, round(sample_rate * num_classes))
    if isinstance(batch_size, int):
        return min(num_classes, max(wanted, batch_size + 1))
    return ops.minimum(ops.maximum(batch_size + 1, wanted), num_classes)


def draw_classes(labels, num_classes, sample_rate, seed):
    """Draws the classes of a training step: those of the labels, filled up with others, each set equally likely.

    One random number a class and a selection among them: `num_classes` scalars, beside the optimizer's passes over
    `embedding_dim * num_classes`.

    Args:
        labels: int32 `(batch,)`, in `[0, num_classes)`.
        num_classes: Number of classes.
        sample_rate: In (0, 1]; see `number_drawn`.
        seed: A `keras.random.SeedGenerator`.

    Returns:
        `(classes, positions)`: the distinct classes drawn in rising order, `(drawn,)`, and the place among them of each
        label, `(batch,)`. The replicas of `tf.distribute` draw the same classes, with the labels of all of them.
    """
    own = of_all_replicas(labels)
    batch_size = own.shape[0] if own.shape[0] is not None else ops.shape(own)[0]
    scores = keras.random.uniform((num_classes,), dtype="float32", seed=seed)  # 16 bits of floatx have ties
    scores = ops.scatter_update(scores, own[:, None], ops.full_like(ops.cast(own, scores.dtype), RAISED))
    _, classes = ops.top_k(scores, number_drawn(sample_rate, num_classes, batch_size), sorted=False)
    classes = ops.sort(ops.cast(classes, "int32"))
    return classes, ops.cast(ops.searchsorted(classes, labels), "int32")


def weights_of_drawn(classes, labels, num_classes):
    """What each drawn class counts in a sum over classes, so that its expectation is the sum over all.

    The batch's own are always drawn and count once; each of the others stands for as many as there are for one that is
    drawn.

    Args:
        classes: The classes drawn, `(drawn,)`.
        labels: Their places in it, of the batch, int32 `(batch,)`.
        num_classes: Number of all classes.

    Returns:
        A float32 tensor of shape `(drawn,)`.
    """
    drawn = ops.cast(ops.shape(classes)[0], "float32")
    labels = of_all_replicas(labels)
    own = ops.scatter_update(
        ops.zeros_like(classes, dtype="float32"), labels[:, None], ops.ones_like(labels, dtype="float32")
    )
    distinct = ops.sum(own)
    stands_for = (num_classes - distinct) / ops.maximum(drawn - distinct, 1.0)
    return ops.where(own > 0, ops.ones_like(own), stands_for)


def of_all_replicas(labels):
    """The labels of the whole batch, of which each replica of `tf.distribute` has a part."""
    if keras.backend.backend() != "tensorflow":
        return labels
    import tensorflow as tf

    replicas = tf.distribute.get_replica_context()
    if replicas is None or replicas.num_replicas_in_sync == 1:
        return labels
    return replicas.all_gather(labels, axis=0)
