"""Penalties on class weights."""

from keras import ops

from keras_sphereface import margins
from keras_sphereface.hints import Tensor


def angular_repulsion(weights: Tensor, labels: Tensor) -> Tensor:
    r"""Minimum-hyperspherical-energy penalty of SphereFace+ over the classes of a batch.

    The mean over pairs a < b of the batch's distinct classes of $\theta(w_a, w_b)^{-2}$; 0 with fewer than two classes.

    Args:
        weights: Float tensor of shape `(dimensions, classes)` with unit columns.
        labels: Integer tensor of shape `(batch,)`, in `[0, classes)`.

    Returns:
        Float scalar.

    Example:
    >>> weights = np.float32([[1.0, 0.0, 0.6], [0.0, 1.0, 0.8]])  # three classes in two dimensions
    >>> round(float(keras_sphereface.regularizers.angular_repulsion(weights, np.array([0, 1, 1]))), 3)  # (pi / 2) ** -2
    0.405

    Reference: "Learning towards Minimum Hyperspherical Energy", arXiv 1805.09298.
    """
    rows = ops.transpose(ops.take(weights, labels, axis=1))
    same_class = ops.cast(ops.equal(labels[:, None], labels[None, :]), rows.dtype)
    is_first = ops.equal(ops.sum(ops.tril(same_class, k=-1), axis=1), 0.0)
    both_first = ops.cast(ops.logical_and(is_first[:, None], is_first[None, :]), rows.dtype)
    is_pair = ops.tril(both_first, k=-1) > 0.0
    cosines = ops.matmul(rows, ops.transpose(rows))
    # Entries that are no pair are replaced before the arccos, so that none of their derivatives can be infinite.
    thetas = margins.angles(ops.where(is_pair, cosines, ops.zeros_like(cosines)))
    energies = ops.where(is_pair, 1.0 / ops.square(thetas), ops.zeros_like(thetas))
    pairs = ops.sum(ops.cast(is_pair, rows.dtype))
    return ops.sum(energies) / ops.maximum(pairs, 1.0)
