"""From photos to aligned faces: detection, choice among several faces, alignment.

Photos are worked on where they are: nothing is uploaded, and no picture is kept.
"""

import importlib

_PUBLIC = {
    "CHOICES": "choice",
    "DETECTORS": "detectors",
    "Detector": "detectors",
    "Face": "detectors",
    "FaceAligner": "aligner",
    "MTCNN": "mtcnn",
    "choose": "choice",
    "get": "detectors",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
