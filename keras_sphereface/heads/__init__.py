"""Margin heads: one layer composed from functions, and a factory per paper."""

from keras_sphereface.heads.binary_head import BinaryHead
from keras_sphereface.heads.factories import (
    ArcFace,
    CosFace,
    NormFace,
    Softmax,
    SphereFace,
    SphereFace2,
    SphereFacePlus,
    SphereFaceR,
)
from keras_sphereface.heads.margin_head import MarginHead

__all__ = [
    "ArcFace",
    "BinaryHead",
    "CosFace",
    "MarginHead",
    "NormFace",
    "Softmax",
    "SphereFace",
    "SphereFace2",
    "SphereFacePlus",
    "SphereFaceR",
]
