"""Callbacks: margin schedule, verification while training, logs, statistics, checkpoints, a guard against divergence."""

from keras_sphereface.callbacks.checkpoint import Checkpoint
from keras_sphereface.callbacks.embedding_statistics import EmbeddingStatistics
from keras_sphereface.callbacks.epoch_log import EpochLog
from keras_sphereface.callbacks.margin_schedule import MarginSchedule
from keras_sphereface.callbacks.nonfinite_guard import NonFiniteGuard
from keras_sphereface.callbacks.pair_verification import PairVerification
from keras_sphereface.callbacks.stop_after import StopAfter

__all__ = [
    "Checkpoint",
    "EmbeddingStatistics",
    "EpochLog",
    "MarginSchedule",
    "NonFiniteGuard",
    "PairVerification",
    "StopAfter",
]
