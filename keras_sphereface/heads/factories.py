"""The heads by the names of their papers: short factories over `MarginHead` and `BinaryHead`.

Every factory takes `num_classes`, the paper's parameters with the authors' defaults, and passes further keyword arguments
(`detach`, `weight_norm`, `kernel_initializer`, `name`, ...) on to the head.
"""

from keras_sphereface.heads.binary_head import BinaryHead
from keras_sphereface.heads.margin_head import MarginHead

SPHEREFACE_R_VARIANTS = {"v0": "sphereface", "v1": "sphereface_r_v1", "v2": "sphereface_r_v2"}


def Softmax(num_classes: int, **kwargs) -> MarginHead:
    """Plain softmax: inner products with class weights that aren't normalized, a bias per class, no margin."""
    defaults = {"feature_norm": "none", "weight_norm": "none", "use_bias": True}
    return MarginHead(num_classes, margin="normface", **{**defaults, **kwargs})


def NormFace(num_classes: int, scale: float = 64.0, **kwargs) -> MarginHead:
    """NormFace: scaled cosines, no margin (arXiv 1704.06369)."""
    return MarginHead(num_classes, margin="normface", scale=scale, **kwargs)


def CosFace(num_classes: int, margin: float = 0.35, scale: float = 64.0, **kwargs) -> MarginHead:
    """CosFace: the target's cosine minus a margin (arXiv 1801.09414)."""
    return MarginHead(num_classes, margin="cosface", margin_value=margin, scale=scale, **kwargs)


def ArcFace(num_classes: int, margin: float = 0.5, scale: float = 64.0, **kwargs) -> MarginHead:
    """ArcFace: the target's angle plus a margin in radians (arXiv 1801.07698)."""
    return MarginHead(num_classes, margin="arcface", margin_value=margin, scale=scale, **kwargs)


def SphereFace(num_classes: int, margin: float = 1.5, scale: float = 30.0, **kwargs) -> MarginHead:
    """SphereFace as the authors train it today: the original margin (v0), hard feature normalization, detachment
    (arXiv 1704.08063).
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
    """SphereFace-R: a multiplicative margin of variant `"v0"`, `"v1"` or `"v2"` (arXiv 2109.05565).

    Example:
    >>> head = keras_sphereface.heads.SphereFaceR(1000, variant="v1", feature_norm="soft", scale=30.0)

    Raises:
        ValueError: For an unknown variant, and as `MarginHead`.
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
    """SphereFace+: SphereFace with a penalty on small angles between the batch's classes (arXiv 1805.09298)."""
    return SphereFace(num_classes, margin=margin, scale=scale, repulsion=repulsion, **kwargs)


def SphereFace2(num_classes: int, variant: str = "C", margin: float = 0.4, scale: float = 40.0, **kwargs) -> BinaryHead:
    """SphereFace2: one-vs-all binary classification of variant `"C"`, `"A"` or `"M"` (arXiv 2108.01513).

    The default margin suits `"C"` and `"A"`; that of `"M"`, which multiplies the angle, is at least 1.
    """
    return BinaryHead(num_classes, variant=variant, margin_value=margin, scale=scale, **kwargs)
