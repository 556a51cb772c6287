"""Hyperspherical face recognition in Keras: margin heads, training, evaluation, pretrained models.

Importing the package registers its layers and models with Keras, so that saved models load without `custom_objects`.
Everything else is imported when it is first used.
"""

import sys
from typing import TYPE_CHECKING

from keras_sphereface.lazy import attach
from keras_sphereface.version import __version__

if TYPE_CHECKING:  # The same names, for editors and type checkers.
    from keras_sphereface import angular as angular
    from keras_sphereface import backbones as backbones
    from keras_sphereface import callbacks as callbacks
    from keras_sphereface import conversion as conversion
    from keras_sphereface import data as data
    from keras_sphereface import demo as demo
    from keras_sphereface import devices as devices
    from keras_sphereface import distribution as distribution
    from keras_sphereface import embedder as embedder
    from keras_sphereface import errors as errors
    from keras_sphereface import evaluation as evaluation
    from keras_sphereface import export as export
    from keras_sphereface import faces as faces
    from keras_sphereface import feature_norms as feature_norms
    from keras_sphereface import guarded_optimizer as guarded_optimizer
    from keras_sphereface import heads as heads
    from keras_sphereface import hub as hub
    from keras_sphereface import imprinting as imprinting
    from keras_sphereface import losses as losses
    from keras_sphereface import margins as margins
    from keras_sphereface import model_card as model_card
    from keras_sphereface import optimizers as optimizers
    from keras_sphereface import plots as plots
    from keras_sphereface import precision as precision
    from keras_sphereface import presets as presets
    from keras_sphereface import recognition as recognition
    from keras_sphereface import regularizers as regularizers
    from keras_sphereface import schedules as schedules
    from keras_sphereface.classifier import FaceClassifier as FaceClassifier
    from keras_sphereface.conversion import convert as convert
    from keras_sphereface.evaluator import evaluate as evaluate
    from keras_sphereface.guarded_optimizer import GuardedOptimizer as GuardedOptimizer
    from keras_sphereface.hub import load_pretrained as load_pretrained
    from keras_sphereface.hub import push_to_hub as push_to_hub
    from keras_sphereface.ijb_evaluator import evaluate_ijb as evaluate_ijb
    from keras_sphereface.imprinting import imprint as imprint
    from keras_sphereface.recognition import Recognizer as Recognizer
    from keras_sphereface.sampled_optimizers import SampledAdam as SampledAdam
    from keras_sphereface.sampled_optimizers import SampledSGD as SampledSGD

__getattr__, __dir__, _names = attach(
    __name__,
    {
        "classifier": ["FaceClassifier"],
        "conversion": ["convert"],
        "evaluator": ["evaluate"],
        "guarded_optimizer": ["GuardedOptimizer"],
        "hub": ["load_pretrained", "push_to_hub"],
        "ijb_evaluator": ["evaluate_ijb"],
        "imprinting": ["imprint"],
        "recognition": ["Recognizer"],
        "sampled_optimizers": ["SampledAdam", "SampledSGD"],
    },
    submodules=[
        "angular",
        "backbones",
        "callbacks",
        "conversion",
        "data",
        "demo",
        "devices",
        "distribution",
        "embedder",
        "errors",
        "evaluation",
        "export",
        "faces",
        "feature_norms",
        "guarded_optimizer",
        "heads",
        "hub",
        "imprinting",
        "losses",
        "margins",
        "model_card",
        "optimizers",
        "plots",
        "precision",
        "presets",
        "recognition",
        "regularizers",
        "schedules",
    ],
)
__all__ = ["__version__", *_names]

# The command of `keras_sphereface_command` registers once its arguments are understood, so that `--help` needs no Keras.
if "keras_sphereface_command" not in sys.modules:
    from keras_sphereface import registration  # noqa: F401
