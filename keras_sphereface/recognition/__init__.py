"""Answers from photos: are these two the same person, who is this.

Photos are worked on where they are: nothing is uploaded, and no picture is kept. A gallery holds names, embeddings and the
SHA-256 of each aligned crop, by which the same picture is known again.
"""

import importlib

_PUBLIC = {
    "Candidate": "results",
    "Enrollment": "results",
    "Gallery": "gallery",
    "Identification": "results",
    "Recognizer": "recognizer",
    "Thresholds": "thresholds",
    "Verification": "results",
    "write_embeddings": "embedding_files",
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
