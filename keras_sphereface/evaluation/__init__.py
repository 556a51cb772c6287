"""Evaluation by the field's protocols, on scores and embeddings in NumPy; no Keras, no images."""

from keras_sphereface.evaluation.counts import AcceptCounts, OperatingPoint, accept_counts, operating_point
from keras_sphereface.evaluation.embeddings import fuse, pair_scores
from keras_sphereface.evaluation.metrics import auc, best_cut, equal_error_rate, roc
from keras_sphereface.evaluation.report import VerificationReport
from keras_sphereface.evaluation.verification import verification

__all__ = [
    "AcceptCounts",
    "OperatingPoint",
    "VerificationReport",
    "accept_counts",
    "auc",
    "best_cut",
    "equal_error_rate",
    "fuse",
    "operating_point",
    "pair_scores",
    "roc",
    "verification",
]
