"""Initial class weights on the unit sphere."""

from typing import Any

import keras
from keras import initializers

from keras_sphereface import feature_norms
from keras_sphereface.hints import Shape, Tensor

_BLOCK_NUMBERS = 2**22  # that PyTorch draws at a time
# Their columns are drawn alike whatever the shape is, but for a factor that unit length takes away.
_DRAWN_ALIKE = (
    initializers.RandomNormal,
    initializers.RandomUniform,
    initializers.TruncatedNormal,
    initializers.VarianceScaling,
)


def draw_unit_columns(initializer: Any, shape: Shape, dtype: Any = None) -> Tensor:
    """Draws class weights and puts each on the unit sphere.

    On PyTorch Keras draws a truncated normal distribution as four matrices and needs 11 times the memory of the result, so
    that a head that can be trained could not be built. There it is drawn in blocks of classes.

    Args:
        initializer: An initializer of Keras, or another function of shape and dtype.
        shape: `(embedding_dim, num_classes)`.
        dtype: As of Keras's initializers. Defaults to `None`.

    Returns:
        Tensor with columns of unit length.
    """
    size = max(1, _BLOCK_NUMBERS // shape[0])
    if keras.backend.backend() != "torch" or shape[1] <= size or not isinstance(initializer, _DRAWN_ALIKE):
        return _unit(initializer(shape, dtype=dtype))
    import torch

    first = _unit(initializer((shape[0], size), dtype=dtype))
    weights = torch.empty(tuple(shape), dtype=first.dtype, device=first.device)
    weights[:, :size] = first
    for start in range(size, shape[1], size):
        classes = min(size, shape[1] - start)
        weights[:, start : start + classes] = _unit(_reseeded(initializer, start)((shape[0], classes), dtype=dtype))
    return weights


def _unit(weights):
    return feature_norms.normalize(weights, axis=0)[0]


def _reseeded(initializer, offset):
    """An initializer with the next seed: one with a number for a seed draws the same each time, a generator goes on."""
    if not isinstance(initializer.seed, int):
        return initializer
    return type(initializer).from_config({**initializer.get_config(), "seed": initializer.seed + offset})
