"""What puts class weights back on the sphere after an update."""

import keras
import numpy as np
from keras import ops

from keras_sphereface.heads import kernels

# Rounding of a sum of n squares, in units of sqrt(n) * the type's resolution: no column on the sphere is further off.
ROUNDINGS = 4.0


@keras.saving.register_keras_serializable(package="keras_sphereface")
class UnitColumns(keras.constraints.Constraint):
    """Puts the columns of a matrix on the unit sphere: `keras.constraints.UnitNorm(axis=0)`, at the speed of memory."""

    def __call__(self, matrix):
        """Returns the matrix `(dim, classes)` with unit columns."""
        return kernels.unit_columns(matrix)


@keras.saving.register_keras_serializable(package="keras_sphereface")
class SettledUnitNorm(keras.constraints.UnitNorm):
    """`UnitNorm` that changes no bit of what has unit length already, to within the rounding of that length.

    Dividing by a norm of 1 that was rounded would move class weights that took part in no update.

    Args:
        axis: The axis, or axes, along which a vector lies. Defaults to `0`.

    Example:
    >>> constraint = keras_sphereface.heads.constraints.SettledUnitNorm(axis=0)
    >>> once = constraint(np.random.normal(size=(512, 10)).astype("float32"))
    >>> bool(np.all(constraint(once) == once))
    True
    """

    def __call__(self, w):
        """Returns the projected weights."""
        w = ops.convert_to_tensor(w)
        squares = ops.sum(ops.square(w), axis=self.axis, keepdims=True)
        is_settled = ops.abs(squares - 1.0) <= _tolerance(np.prod(w.shape) / np.prod(squares.shape))
        return ops.where(is_settled, w, super().__call__(w))


def settled_columns(matrix: np.ndarray) -> np.ndarray:
    """A matrix `(dim, classes)` as `SettledUnitNorm` leaves it: itself, and no memory taken, where all columns are on the
    sphere.
    """
    squares = np.einsum("ij,ij->j", matrix, matrix, dtype=np.float64)
    off = np.abs(squares - 1.0) > _tolerance(len(matrix))
    if not off.any():
        return matrix
    return matrix / np.where(off, keras.config.epsilon() + np.sqrt(squares), 1.0).astype(matrix.dtype)


def _tolerance(count):
    """How far the sum of `count` squares may be off 1 by rounding."""
    return ROUNDINGS * np.finfo("float32").eps * count**0.5
