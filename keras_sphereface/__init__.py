"""Hyperspherical face recognition in Keras: margin heads, training, evaluation, pretrained models.

Importing the package registers its layers and models with Keras, so that saved models load without `custom_objects`.
Everything else is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

from keras_sphereface import backbones, classifier, guarded_optimizer, heads, schedules  # noqa: F401  (registration with Keras)
from keras_sphereface.version import __version__

if TYPE_CHECKING:  # What `__getattr__` imports when it is used, for editors and type checkers.
    from keras_sphereface import (  # noqa: F401
        angular,
        callbacks,
        constraints,
        data,
        distribution,
        embedder,
        evaluation,
        export,
        feature_norms,
        hub,
        losses,
        margins,
        model_card,
        plots,
        presets,
        regularizers,
    )
    from keras_sphereface.classifier import FaceClassifier  # noqa: F401
    from keras_sphereface.conversion import convert  # noqa: F401
    from keras_sphereface.evaluator import evaluate  # noqa: F401
    from keras_sphereface.hub import load_pretrained, push_to_hub  # noqa: F401
    from keras_sphereface.ijb_evaluator import evaluate_ijb  # noqa: F401

# Public name -> (module, attribute), or (module, None) for a module itself.
_PUBLIC = {
    "angular": ("keras_sphereface.angular", None),
    "backbones": ("keras_sphereface.backbones", None),
    "callbacks": ("keras_sphereface.callbacks", None),
    "constraints": ("keras_sphereface.constraints", None),
    "data": ("keras_sphereface.data", None),
    "distribution": ("keras_sphereface.distribution", None),
    "embedder": ("keras_sphereface.embedder", None),
    "guarded_optimizer": ("keras_sphereface.guarded_optimizer", None),
    "evaluation": ("keras_sphereface.evaluation", None),
    "faces": ("keras_sphereface.faces", None),
    "recognition": ("keras_sphereface.recognition", None),
    "export": ("keras_sphereface.export", None),
    "hub": ("keras_sphereface.hub", None),
    "model_card": ("keras_sphereface.model_card", None),
    "heads": ("keras_sphereface.heads", None),
    "losses": ("keras_sphereface.losses", None),
    "margins": ("keras_sphereface.margins", None),
    "feature_norms": ("keras_sphereface.feature_norms", None),
    "plots": ("keras_sphereface.plots", None),
    "presets": ("keras_sphereface.presets", None),
    "regularizers": ("keras_sphereface.regularizers", None),
    "schedules": ("keras_sphereface.schedules", None),
    "FaceClassifier": ("keras_sphereface.classifier", "FaceClassifier"),
    "Recognizer": ("keras_sphereface.recognition", "Recognizer"),
    "GuardedOptimizer": ("keras_sphereface.guarded_optimizer", "GuardedOptimizer"),
    "SampledSGD": ("keras_sphereface.sampled_sgd", "SampledSGD"),
    "convert": ("keras_sphereface.conversion", "convert"),
    "evaluate": ("keras_sphereface.evaluator", "evaluate"),
    "evaluate_ijb": ("keras_sphereface.ijb_evaluator", "evaluate_ijb"),
    "load_pretrained": ("keras_sphereface.hub", "load_pretrained"),
    "push_to_hub": ("keras_sphereface.hub", "push_to_hub"),
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'keras_sphereface' has no attribute {name!r}")
    module_name, attribute = _PUBLIC[name]
    module = importlib.import_module(module_name)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__():
    return __all__
