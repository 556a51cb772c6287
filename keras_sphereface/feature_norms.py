r"""Feature-normalization modes: what becomes of an embedding's norm in the logits, rho(x), and in the loss.

| name | rho(x) | loss of an example |
| --- | --- | --- |
| `"none"` (NFN) | norm, gradient flows | loss_weight * CE |
| `"hard"` (HFN) | scale | loss_weight / scale * CE |
| `"soft"` (SFN) | norm, gradient flows | loss_weight / scale * CE + norm_penalty * abs(norm - scale) |

Reference: arXiv 2109.05565, section 3.3. The absolute penalty is that of the authors' code; the squared one is ring loss
(arXiv 1803.00130).
"""

import dataclasses

from keras import ops

from keras_sphereface.hints import Tensor

# Squared norms below this count as zero: such an embedding has no direction, and gets cosine 0 and gradient 0 instead
# of a gradient of the size 1 / norm.
MIN_SQUARED_NORM = 1e-12


@dataclasses.dataclass(frozen=True)
class FeatureNorm:
    """A feature-normalization mode.

    Args:
        name: `"none"`, `"hard"` or `"soft"`.
        keeps_norm: Whether rho(x) is the embedding's own norm (otherwise it is the scale).
        divides_by_scale: Whether the loss weight is divided by the scale.
        penalizes: Whether the loss has the norm penalty.

    Example:
    >>> mode = keras_sphereface.feature_norms.get("soft")
    >>> mode.keeps_norm, mode.loss_factor(loss_weight=50.0, scale=25.0)
    (True, 2.0)
    """

    name: str
    keeps_norm: bool
    divides_by_scale: bool
    penalizes: bool

    def magnitude(self, norms: Tensor, scale: float) -> Tensor:
        """rho(x): shape `(batch,)` for norms of shape `(batch,)`."""
        return norms if self.keeps_norm else ops.full_like(norms, scale)

    def loss_factor(self, loss_weight: float | None, scale: float) -> float:
        """The factor of the cross-entropy, a float; `loss_weight=None` means 1."""
        if loss_weight is None:
            return 1.0
        return loss_weight / scale if self.divides_by_scale else loss_weight


_TABLE = {
    mode.name: mode
    for mode in (
        FeatureNorm("none", keeps_norm=True, divides_by_scale=False, penalizes=False),
        FeatureNorm("hard", keeps_norm=False, divides_by_scale=True, penalizes=False),
        FeatureNorm("soft", keeps_norm=True, divides_by_scale=True, penalizes=True),
    )
}


def names() -> list[str]:
    """Returns the names of the modes.

    Example:
    >>> keras_sphereface.feature_norms.names()
    ['none', 'hard', 'soft']
    """
    return list(_TABLE)


def get(name: str) -> FeatureNorm:
    """Returns a mode by its name.

    Args:
        name: `"none"`, `"hard"` or `"soft"`.

    Returns:
        The `FeatureNorm`.

    Raises:
        ValueError: If no mode has this name.

    Example:
    >>> keras_sphereface.feature_norms.get("hard").keeps_norm
    False
    """
    if isinstance(name, str) and name in _TABLE:
        return _TABLE[name]
    raise ValueError(f"`feature_norm` must be one of {names()}. Received: feature_norm={name!r}")


def normalize(vectors: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Splits vectors into directions and norms, with zero gradient (not NaN) at a vector of zeros.

    Args:
        vectors: Float tensor.
        axis: The axis along which a vector lies.

    Returns:
        `(directions, norms)`: a tensor of `vectors`' shape with unit vectors (zeros for a zero vector) and the norms,
        with `axis` removed. Both are NaN for a vector that is not finite, or so long that its squared norm is not (in
        float32 above 1.8e19).

    Example:
    >>> vectors = keras.ops.convert_to_tensor([[3.0, 4.0], [0.0, 0.0]])
    >>> directions, norms = keras_sphereface.feature_norms.normalize(vectors, axis=1)
    >>> np.asarray(norms)
    array([5., 0.], dtype=float32)
    """
    squared = ops.sum(ops.square(vectors), axis=axis, keepdims=True)
    # Divided by an infinite norm, a finite vector would be one of zeros.
    squared = ops.where(ops.isfinite(squared), squared, float("nan"))
    # NaN is no zero. Asked this way round, because TensorFlow's graphs take `not (a <= b)` for `a > b`, also of NaN.
    is_zero = squared <= MIN_SQUARED_NORM
    # The inner `where` keeps the square root's infinite derivative at 0 out of the backward pass.
    safe_norms = ops.sqrt(ops.where(is_zero, ops.ones_like(squared), squared))
    directions = ops.where(is_zero, ops.zeros_like(vectors), vectors / safe_norms)
    norms = ops.where(is_zero, ops.zeros_like(safe_norms), safe_norms)
    return directions, ops.squeeze(norms, axis=axis)


def norm_penalty(norms: Tensor, scale: float, power: int = 1) -> Tensor:
    """How far norms are from the scale: `abs(norms - scale)` for power 1, its square (ring loss) for power 2.

    Args:
        norms: Float tensor of any shape, 0 or more.
        scale: Radius of the sphere, positive.
        power: 1 or 2. Defaults to `1`.

    Returns:
        Float tensor of the norms' shape, 0 or more: the penalty of each example, before its weight.

    Example:
    >>> np.asarray(keras_sphereface.feature_norms.norm_penalty(np.float32([20.0, 33.0]), scale=30.0))
    array([10.,  3.], dtype=float32)
    """
    distance = norms - scale
    return ops.abs(distance) if power == 1 else ops.square(distance)
