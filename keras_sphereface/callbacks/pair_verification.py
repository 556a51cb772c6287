"""Verification on pairs while training."""

from collections.abc import Iterable

import keras
import numpy as np

from keras_sphereface.arguments import whole_number
from keras_sphereface.callbacks.parts import part_of
from keras_sphereface.data.pairs import PairSet

METRICS = ("accuracy", "accuracy_std", "best_threshold_accuracy", "best_threshold", "eer", "auc")


class PairVerification(keras.callbacks.Callback):
    """Measures verification on pairs during training and logs it as `val_<name>_<metric>`.

    Args:
        pairs: A `PairSet`, e.g. of `keras_sphereface.data.read_bin("lfw.bin")`.
        name: Name in the logs. Defaults to `None`, the pair set's own.
        every: Number of epochs between measurements; the last epoch is always measured. Defaults to `1`.
        batch_size: Images at a time. Defaults to `64`.
        metrics: Names of the report's metrics to log, of `METRICS`. Defaults to `("accuracy",)`, or
            `("best_threshold_accuracy",)` for pairs without folds, such as LFW's View 1.

    Raises:
        ValueError: If `pairs` is no set of pairs, or a metric or a number is none; when training begins, if the model is
            no `FaceClassifier` or the pairs' images are of another size than its.

    Example:
    >>> lfw = keras_sphereface.data.read_bin("faces_emore/lfw.bin")
    >>> trainer.fit(dataset, shuffle=False, callbacks=[keras_sphereface.callbacks.PairVerification(lfw, name="lfw")])
    """

    def __init__(
        self,
        pairs: PairSet,
        name: str | None = None,
        every: int = 1,
        batch_size: int = 64,
        metrics: Iterable[str] | str | None = None,
    ):
        from keras_sphereface.evaluator import check_pairs

        super().__init__()
        check_pairs(pairs)
        self.pairs, self.every = pairs, whole_number("every", every)
        self.batch_size = whole_number("batch_size", batch_size)
        self.name = name or pairs.name or "pairs"
        if metrics is None:
            has_folds = pairs.folds is not None and len(np.unique(pairs.folds)) > 1
            metrics = ("accuracy",) if has_folds else ("best_threshold_accuracy",)
        self.metric_names = (
            tuple(metrics) if isinstance(metrics, Iterable) and not isinstance(metrics, str) else (metrics,)
        )
        if not all(name in METRICS for name in self.metric_names):
            raise ValueError(f"Expected metrics of {METRICS}. Received: metrics={metrics!r}")
        self.report = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Checks the size of the pairs' images against the model's, before an epoch is spent."""
        from keras_sphereface.evaluator import check_size

        embedder = part_of(self, "embedder")
        if self.pairs.num_images:
            check_size(embedder, self.pairs.image(0)[None])

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Measures, and adds the metrics to the logs."""
        from keras_sphereface.evaluator import evaluate

        is_last = epoch + 1 >= (self.params.get("epochs") or 0)
        if (epoch + 1) % self.every and not is_last:
            return
        self.report = evaluate(self.model.embedder, self.pairs, batch_size=self.batch_size, bootstrap=0, hardest=0)
        if logs is not None:
            for metric in self.metric_names:
                value = getattr(self.report, metric)
                logs[f"val_{self.name}_{metric}"] = float("nan") if value is None else float(value)
