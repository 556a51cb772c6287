"""The heads by the names of their papers: short factories over `MarginHead` and `BinaryHead`.

Every factory takes `num_classes`, the paper's parameters with the authors' defaults, and passes further keyword arguments
(`detach`, `weight_norm`, `kernel_initializer`, `name`, ...) on to the head.
"""

from keras_sphereface.heads.binary_head import BinaryHead
from keras_sphereface.heads.margin_head import MarginHead

SPHEREFACE_R_VARIANTS = {"v0": "sphereface", "v1": "sphereface_r_v1", "v2": "sphereface_r_v2"}


def Softmax(num_classes: int, **kwargs) -> MarginHead:
    """Plain softmax: inner products with class weights that aren't normalized, a bias per class, no margin.

    Args:
        num_classes: Number of classes.
        **kwargs: As in `MarginHead`.

    Returns:
        A `MarginHead`.

    Raises:
        ValueError: As `MarginHead`.

    Example:
    >>> keras_sphereface.heads.Softmax(10)(np.ones((4, 16))).shape
    (4, 10)
    """
    defaults = {"feature_norm": "none", "weight_norm": "none", "use_bias": True}
    return MarginHead(num_classes, margin="normface", **{**defaults, **kwargs})


def NormFace(num_classes: int, scale: float = 64.0, **kwargs) -> MarginHead:
    """NormFace: scaled cosines, no margin (arXiv 1704.06369).

    Args:
        num_classes: Number of classes.
        scale: Radius of the sphere, positive. Defaults to `64.0`.
        **kwargs: As in `MarginHead`.

    Returns:
        A `MarginHead`.

    Raises:
        ValueError: As `MarginHead`.

    Example:
    >>> head = keras_sphereface.heads.NormFace(10, scale=32.0)
    """
    return MarginHead(num_classes, margin="normface", scale=scale, **kwargs)


def CosFace(num_classes: int, margin: float = 0.35, scale: float = 64.0, **kwargs) -> MarginHead:
    """CosFace: the target's cosine minus a margin (arXiv 1801.09414, eq. 4).

    Args:
        num_classes: Number of classes.
        margin: Taken from the target's cosine, 0 or more. Defaults to `0.35`.
        scale: Radius of the sphere, positive. Defaults to `64.0`.
        **kwargs: As in `MarginHead`.

    Returns:
        A `MarginHead`.

    Raises:
        ValueError: As `MarginHead`.

    Example:
    >>> head = keras_sphereface.heads.CosFace(10, margin=0.4, scale=30.0)
    """
    return MarginHead(num_classes, margin="cosface", margin_value=margin, scale=scale, **kwargs)


def ArcFace(num_classes: int, margin: float = 0.5, scale: float = 64.0, **kwargs) -> MarginHead:
    """ArcFace: the target's angle plus a margin (arXiv 1801.07698, eq. 3).

    Args:
        num_classes: Number of classes.
        margin: Added to the target's angle, in radians, 0 or more. Defaults to `0.5`.
        scale: Radius of the sphere, positive. Defaults to `64.0`.
        **kwargs: As in `MarginHead`.

    Returns:
        A `MarginHead`.

    Raises:
        ValueError: As `MarginHead`.

    Example:
    >>> head = keras_sphereface.heads.ArcFace(10, margin=0.4)
    """
    return MarginHead(num_classes, margin="arcface", margin_value=margin, scale=scale, **kwargs)


def SphereFace(num_classes: int, margin: float = 1.5, scale: float = 30.0, **kwargs) -> MarginHead:
    """SphereFace as the authors train it today: the original margin (v0), hard feature normalization, detachment
    (arXiv 1704.08063, eq. 7).

    Args:
        num_classes: Number of classes.
        margin: Factor of the target's angle, any number of at least 1. Defaults to `1.5`.
        scale: Radius of the sphere, positive. Defaults to `30.0`.
        **kwargs: As in `MarginHead`.

    Returns:
        A `MarginHead`.

    Raises:
        ValueError: As `MarginHead`.

    Example:
    >>> head = keras_sphereface.heads.SphereFace(10, margin=1.7)
    """
    return MarginHead(num_classes, margin="sphereface", margin_value=margin, scale=scale, **kwargs)


def SphereFaceR(
    num_classes: int,
    variant: str = "v2",
    feature_norm: str = "hard",
    margin: float = 1.4,
    scale: float = 60.0,
    loss_weight: float | None = 50.0,
    norm_penalty: float = 0.01,
    detach: bool = True,
    weight_norm: str = "projected",
    **kwargs,
) -> MarginHead:
    """SphereFace-R: a multiplicative margin with characteristic gradient detachment (arXiv 2109.05565, sections 3.1 to 3.4).

    Args:
        num_classes: Number of classes.
        variant: `"v0"`, the original SphereFace's margin; `"v1"`, which enlarges the target's angle; or `"v2"`, which makes
            the other classes' smaller. Defaults to `"v2"`.
        feature_norm: `"none"`, `"hard"` or `"soft"`. For `"none"` and `"soft"` let the margin grow, after a wait
            (`keras_sphereface.callbacks.MarginSchedule`). Defaults to `"hard"`.
        margin: Factor between the angles, at least 1. Defaults to `1.4`.
        scale: Radius of the sphere, positive; unused for `"none"`. Defaults to `60.0`.
        loss_weight: Weight of the cross-entropy, divided by the scale for `"hard"` and `"soft"` but not for `"none"`, which
            takes a weight of about 1; `None` for a plain factor of 1. Defaults to `50.0`.
        norm_penalty: Weight of the penalty on norms of `"soft"`. Defaults to `0.01`.
        detach: Whether to use characteristic gradient detachment. Defaults to `True`.
        weight_norm: `"projected"` or `"graph"`, see `MarginHead`. Defaults to `"projected"`.
        **kwargs: As in `MarginHead`.

    Returns:
        A `MarginHead`.

    Raises:
        ValueError: For an unknown variant, and as `MarginHead`.

    Example:
    >>> head = keras_sphereface.heads.SphereFaceR(1000, variant="v1", feature_norm="soft", scale=30.0)
    """
    if not isinstance(variant, str) or variant not in SPHEREFACE_R_VARIANTS:
        raise ValueError(f"`variant` must be one of {list(SPHEREFACE_R_VARIANTS)}. Received: variant={variant!r}")
    return MarginHead(
        num_classes,
        margin=SPHEREFACE_R_VARIANTS[variant],
        margin_value=margin,
        feature_norm=feature_norm,
        scale=scale,
        loss_weight=loss_weight,
        norm_penalty=norm_penalty,
        detach=detach,
        weight_norm=weight_norm,
        **kwargs,
    )


def SphereFacePlus(
    num_classes: int, margin: float = 1.5, scale: float = 30.0, repulsion: float = 1.0, **kwargs
) -> MarginHead:
    """SphereFace+: SphereFace with a penalty on small angles between the batch's classes (arXiv 1805.09298).

    Args:
        num_classes: Number of classes.
        margin: Factor of the target's angle, at least 1. Defaults to `1.5`.
        scale: Radius of the sphere, positive. Defaults to `30.0`.
        repulsion: Weight of the penalty, 0 or more. Defaults to `1.0`.
        **kwargs: As in `MarginHead`.

    Returns:
        A `MarginHead`.

    Raises:
        ValueError: As `MarginHead`.

    Example:
    >>> head = keras_sphereface.heads.SphereFacePlus(10, repulsion=0.5)
    """
    return SphereFace(num_classes, margin=margin, scale=scale, repulsion=repulsion, **kwargs)


def SphereFace2(num_classes: int, variant: str = "C", margin: float = 0.4, scale: float = 40.0, **kwargs) -> BinaryHead:
    """SphereFace2: one-vs-all binary classification (arXiv 2108.01513, section 3).

    Args:
        num_classes: Number of classes.
        variant: Where the margin is: `"C"` on the cosine, `"A"` added to the angle, `"M"` a factor of it. Defaults to `"C"`.
        margin: 0 or more for `"C"` and `"A"`, which the default suits; at least 1 for `"M"`. Defaults to `0.4`.
        scale: Factor of the similarities, positive. Defaults to `40.0`.
        **kwargs: As in `BinaryHead`.

    Returns:
        A `BinaryHead`.

    Raises:
        ValueError: As `BinaryHead`.

    Example:
    >>> head = keras_sphereface.heads.SphereFace2(10, variant="A", margin=0.3)
    """
    return BinaryHead(num_classes, variant=variant, margin_value=margin, scale=scale, **kwargs)
