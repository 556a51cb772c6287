r"""Angular functions: psi (the target's logit) and eta (the other classes'), pure functions of angles in `[0, pi]`.

Each takes `theta`, a tensor of angles in radians, and the margin's size, and returns a tensor of `theta`'s shape. In the
paper's notation the logits are `rho(x) psi(theta_y)` and `rho(x) eta(theta_i)`, and `Delta = eta - psi` is the
characteristic function of a margin.

Reference: "SphereFace Revived: Unifying Hyperspherical Face Recognition", arXiv 2109.05565, section 3 and table 1.
"""

import math

import numpy as np
from keras import ops

from keras_sphereface.hints import Tensor

# For `sphereface_r_v2_eta_of_cosine`: the angles theta of Chebyshev's nodes u = 2 cos(theta / 2) - 1; values at the nodes to
# coefficients of Chebyshev polynomials; those to powers of u. In two steps, because one matrix would cancel.
_DEGREE = 9
_NODES = np.cos(np.pi * (np.arange(_DEGREE + 1) + 0.5) / (_DEGREE + 1))
_ANGLES_OF_NODES = 2.0 * np.arccos((_NODES + 1.0) / 2.0)
_INTERPOLATION = np.polynomial.chebyshev.chebvander(_NODES, _DEGREE).T * (2.0 / (_DEGREE + 1))
_INTERPOLATION[0] /= 2.0
_MONOMIALS = np.stack(
    [np.pad(np.polynomial.chebyshev.cheb2poly(row), (0, _DEGREE - i)) for i, row in enumerate(np.eye(_DEGREE + 1))],
    axis=1,
)


def cosine(theta: Tensor, margin: float | Tensor | None = None) -> Tensor:
    r"""The plain cosine, `cos(theta)`: psi and eta of a head without a margin.

    Args:
        theta: Float tensor of any shape, angles in radians, in `[0, pi]`.
        margin: Ignored; all angular functions are called alike. Defaults to `None`.

    Returns:
        Float tensor of `theta`'s shape, in [-1, 1].

    Example:
    >>> theta = np.float32([0.0, np.pi / 3, 2 * np.pi / 3])
    >>> np.asarray(keras_sphereface.angular.cosine(theta)).round(2)
    array([ 1. ,  0.5, -0.5], dtype=float32)
    """
    return ops.cos(theta)


def sphereface_psi(theta: Tensor, margin: float | Tensor) -> Tensor:
    r"""Original SphereFace (v0): $(-1)^k \cos(m\theta) - 2k$ with $k = \lfloor m\theta/\pi \rfloor$, for real m >= 1.

    Monotonically decreasing over `[0, pi]`, from 1 down to below -1: the cosine of `m theta` unrolled.

    Args:
        theta: Float tensor of any shape, angles in radians, in `[0, pi]`.
        margin: m, a float or scalar tensor of at least 1, which need not be whole.

    Returns:
        Float tensor of `theta`'s shape, at most 1.

    Example:
    >>> theta = np.float32([0.0, np.pi / 3, 2 * np.pi / 3])
    >>> np.asarray(keras_sphereface.angular.sphereface_psi(theta, margin=2.0)).round(2)
    array([ 1. , -0.5, -1.5], dtype=float32)
    """
    scaled = ops.multiply(theta, margin)
    folds = ops.floor(scaled / math.pi)
    sign = 1.0 - 2.0 * ops.mod(folds, 2.0)
    return sign * ops.cos(scaled) - 2.0 * folds


def sphereface_r_v1_psi(theta: Tensor, margin: float | Tensor) -> Tensor:
    r"""SphereFace-R v1: $\cos(\min(m\theta, \pi))$, m >= 1.

    Args:
        theta: Float tensor of any shape, angles in radians, in `[0, pi]`.
        margin: m, a float or scalar tensor of at least 1.

    Returns:
        Float tensor of `theta`'s shape, in [-1, 1].

    Example:
    >>> theta = np.float32([0.0, np.pi / 3, 2 * np.pi / 3])
    >>> np.asarray(keras_sphereface.angular.sphereface_r_v1_psi(theta, margin=2.0)).round(2)
    array([ 1. , -0.5, -1. ], dtype=float32)
    """
    return ops.cos(ops.minimum(ops.multiply(theta, margin), math.pi))


def sphereface_r_v2_eta(theta: Tensor, margin: float | Tensor) -> Tensor:
    r"""SphereFace-R v2: $\cos(\theta/m)$, m >= 1: the margin is put on the classes that are not the target.

    Args:
        theta: Float tensor of any shape, angles in radians, in `[0, pi]`.
        margin: m, a float or scalar tensor of at least 1.

    Returns:
        Float tensor of `theta`'s shape, in [-1, 1].

    Example:
    >>> theta = np.float32([0.0, np.pi / 3, 2 * np.pi / 3])
    >>> np.asarray(keras_sphereface.angular.sphereface_r_v2_eta(theta, margin=2.0)).round(2)
    array([1.  , 0.87, 0.5 ], dtype=float32)
    """
    return ops.cos(ops.divide(theta, margin))


def sphereface_r_v2_eta_of_cosine(cosines: Tensor, margin: float | Tensor) -> Tensor:
    r"""The values of `sphereface_r_v2_eta` without an arccos: $\cos(\arccos(c) / m)$, with an error below 1e-6, m >= 1.

    With $t = \sqrt{(1 + c) / 2} = \cos(\theta / 2)$ the value is the Chebyshev function $T_{2/m}(t)$. Its nearest
    singularity is at t = -1, so that on [0, 1] a polynomial gains a factor of $3 + \sqrt 8$ per degree. It is found
    by interpolation in Chebyshev's nodes, a few scalars that follow a margin that is a variable.

    Args:
        cosines: Float tensor of any shape, in [-1, 1].
        margin: m, a float or scalar tensor of at least 1.

    Returns:
        Float tensor of the cosines' shape, in [-1, 1].

    Example:
    >>> cosines = np.float32([1.0, 0.5, -0.5])  # of 0, 60 and 120 degrees
    >>> np.asarray(keras_sphereface.angular.sphereface_r_v2_eta_of_cosine(cosines, margin=2.0)).round(2)
    array([1.  , 0.87, 0.5 ], dtype=float32)
    """
    halves = ops.cos(ops.divide(ops.convert_to_tensor(_ANGLES_OF_NODES, "float32"), margin))
    coefficients = _product(_MONOMIALS, _product(_INTERPOLATION, halves))
    u = 2.0 * ops.sqrt(ops.maximum(0.5 + 0.5 * cosines, 0.0)) - 1.0
    result = coefficients[-1]
    for i in reversed(range(_DEGREE)):
        result = result * u + coefficients[i]
    return result


def _product(matrix, vector):
    """A matrix times a vector, by sums: accelerators round the factors of `ops.matmul` to TF32 or bfloat16."""
    return ops.sum(ops.convert_to_tensor(matrix, "float32") * vector[None, :], axis=1)


def cosface_psi(theta: Tensor, margin: float | Tensor) -> Tensor:
    r"""CosFace (arXiv 1801.09414): $\cos\theta - m$, m >= 0.

    Args:
        theta: Float tensor of any shape, angles in radians, in `[0, pi]`.
        margin: m, a float or scalar tensor of 0 or more.

    Returns:
        Float tensor of `theta`'s shape, in `[-1 - m, 1 - m]`.

    Example:
    >>> theta = np.float32([0.0, np.pi / 3, 2 * np.pi / 3])
    >>> np.asarray(keras_sphereface.angular.cosface_psi(theta, margin=0.35)).round(2)
    array([ 0.65,  0.15, -0.85], dtype=float32)
    """
    return ops.cos(theta) - margin


def arcface_psi(theta: Tensor, margin: float | Tensor) -> Tensor:
    r"""ArcFace (arXiv 1801.07698): $\cos(\min(\theta + m, \pi))$, m >= 0, in radians.

    Args:
        theta: Float tensor of any shape, angles in radians, in `[0, pi]`.
        margin: m, a float or scalar tensor of 0 or more, in radians.

    Returns:
        Float tensor of `theta`'s shape, in [-1, 1].

    Example:
    >>> theta = np.float32([0.0, np.pi / 3, 2 * np.pi / 3])
    >>> np.asarray(keras_sphereface.angular.arcface_psi(theta, margin=0.5)).round(2)
    array([ 0.88,  0.02, -0.85], dtype=float32)
    """
    return ops.cos(ops.minimum(ops.add(theta, margin), math.pi))
