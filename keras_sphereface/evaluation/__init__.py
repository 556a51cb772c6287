"""Evaluation by the field's protocols, on scores and embeddings in NumPy; no Keras, no images."""

from keras_sphereface.evaluation.blocks import top_k
from keras_sphereface.evaluation.counts import AcceptCounts, OperatingPoint, accept_counts, operating_point
from keras_sphereface.evaluation.distractors import Distractors, distractors
from keras_sphereface.evaluation.embeddings import fuse, pair_scores
from keras_sphereface.evaluation.features import extract, open_features
from keras_sphereface.evaluation.identification import Identification, identification
from keras_sphereface.evaluation.ijb import IJBReport, ijb
from keras_sphereface.evaluation.metrics import auc, best_cut, equal_error_rate, roc
from keras_sphereface.evaluation.report import VerificationReport
from keras_sphereface.evaluation.templates import template_embeddings
from keras_sphereface.evaluation.verification import verification

__all__ = [
    "AcceptCounts",
    "Distractors",
    "IJBReport",
    "Identification",
    "OperatingPoint",
    "VerificationReport",
    "accept_counts",
    "auc",
    "best_cut",
    "distractors",
    "equal_error_rate",
    "extract",
    "fuse",
    "identification",
    "ijb",
    "open_features",
    "operating_point",
    "pair_scores",
    "roc",
    "template_embeddings",
    "top_k",
    "verification",
]
