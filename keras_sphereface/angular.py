r"""Angular functions: psi (the target's logit) and eta (the other classes'), pure functions of angles in `[0, pi]`.

Each takes `theta`, a tensor of angles in radians, and the margin's size, and returns a tensor of `theta`'s shape. In the
paper's notation the logits are `rho(x) psi(theta_y)` and `rho(x) eta(theta_i)`, and `Delta = eta - psi` is the
characteristic function of a margin.

Reference: "SphereFace Revived: Unifying Hyperspherical Face Recognition", arXiv 2109.05565, section 3 and table 1.
"""

import math

from keras import ops


def cosine(theta, margin=None):
    r"""The plain cosine, `cos(theta)`: psi and eta of a head without a margin. `margin` is ignored."""
    return ops.cos(theta)


def sphereface_psi(theta, margin):
    r"""Original SphereFace (v0): $(-1)^k \cos(m\theta) - 2k$ with $k = \lfloor m\theta/\pi \rfloor$, for real m >= 1.

    Monotonically decreasing over `[0, pi]`, from 1 down to below -1: the cosine of `m theta` unrolled.
    """
    scaled = ops.multiply(theta, margin)
    folds = ops.floor(scaled / math.pi)
    sign = 1.0 - 2.0 * ops.mod(folds, 2.0)
    return sign * ops.cos(scaled) - 2.0 * folds


def sphereface_r_v1_psi(theta, margin):
    r"""SphereFace-R v1: $\cos(\min(m\theta, \pi))$, m >= 1."""
    return ops.cos(ops.minimum(ops.multiply(theta, margin), math.pi))


def sphereface_r_v2_eta(theta, margin):
    r"""SphereFace-R v2: $\cos(\theta/m)$, m >= 1: the margin is put on the classes that are not the target."""
    return ops.cos(ops.divide(theta, margin))


def cosface_psi(theta, margin):
    r"""CosFace (arXiv 1801.09414): $\cos\theta - m$, m >= 0."""
    return ops.cos(theta) - margin


def arcface_psi(theta, margin):
    r"""ArcFace (arXiv 1801.07698): $\cos(\min(\theta + m, \pi))$, m >= 0, in radians."""
    return ops.cos(ops.minimum(ops.add(theta, margin), math.pi))
