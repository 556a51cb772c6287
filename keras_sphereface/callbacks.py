"""Callbacks: the margin's schedule, verification on pairs while training, statistics of embeddings and angles."""

import contextlib
import os
import pathlib

import keras
import numpy as np


class MarginSchedule(keras.callbacks.Callback):
    r"""Raises the head's margin in steps: $m = \min(m_{final}, m_{start} + \Delta m \lfloor step / interval \rfloor)$.

    The paper starts heads without feature normalization at no margin this way. The margin is a saved variable of the head
    (`head.current_margin`) and the step is the optimizer's, so that a restarted run goes on where it was.

    Args:
        increase: What is added at each step up, above 0.
        interval: Number of optimizer steps between them, at least 1.
        start: The first margin. Defaults to `None`, the margin's neutral value (1 for multiplicative margins).
        final: The last margin. Defaults to `None`, the one that the head was made with.

    Logs `margin` at the end of every epoch.

    Example:
    >>> trainer.fit(dataset, callbacks=[keras_sphereface.callbacks.MarginSchedule(increase=0.1, interval=1000)])

    Reference: arXiv 2109.05565, section 3.3.
    """

    def __init__(self, increase, interval, start=None, final=None):
        super().__init__()
        if not increase > 0:
            raise ValueError(f"`increase` must be above 0. Received: increase={increase!r}")
        if not isinstance(interval, int) or interval < 1:
            raise ValueError(f"`interval` must be an integer of at least 1. Received: interval={interval!r}")
        self.increase, self.interval = float(increase), interval
        self.start, self.final = start, final
        self._epoch_start = 0
        self._current = None

    def margin_at(self, step):
        """The margin of an optimizer step, counted from 0."""
        head = self.model.head
        start = head.margin.neutral if self.start is None else head.margin.validate(self.start)
        final = head.margin_value if self.final is None else head.margin.validate(self.final)
        return min(final, start + self.increase * (step // self.interval))

    def on_epoch_begin(self, epoch, logs=None):
        """Reads the optimizer's step."""
        self._epoch_start = int(self.model.optimizer.iterations)
        self._current = None

    def on_train_batch_begin(self, batch, logs=None):
        """Sets the margin if it is another than before."""
        margin = self.margin_at(self._epoch_start + batch)
        if margin == self._current:
            return
        if hasattr(self.model, "jax_state_sync"):
            # On JAX the variables are out of date between the steps of an epoch, and what is assigned then is lost.
            self.model.jax_state_sync()
        self.model.head.current_margin.assign(margin)
        self._current = margin

    def on_epoch_end(self, epoch, logs=None):
        """Logs the margin."""
        if logs is not None:
            logs["margin"] = float(self.model.head.current_margin)


class PairVerification(keras.callbacks.Callback):
    """Measures verification on pairs during training and logs it as `val_<name>_<metric>`.

    Args:
        pairs: A `PairSet`, e.g. of `keras_sphereface.data.read_bin("lfw.bin")`.
        name: Name in the logs. Defaults to `None`, the pair set's own.
        every: Number of epochs between measurements; the last epoch is always measured. Defaults to `1`.
        batch_size: Images at a time. Defaults to `64`.
        metrics: Names of the report's metrics to log. Defaults to `("accuracy",)`, or `("best_threshold_accuracy",)` for
            pairs without folds, such as LFW's View 1.

    Example:
    >>> lfw = keras_sphereface.data.read_bin("faces_emore/lfw.bin")
    >>> trainer.fit(dataset, callbacks=[keras_sphereface.callbacks.PairVerification(lfw, name="lfw")])
    """

    def __init__(self, pairs, name=None, every=1, batch_size=64, metrics=None):
        super().__init__()
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"`every` must be an integer of at least 1. Received: every={every!r}")
        self.pairs, self.every, self.batch_size = pairs, every, batch_size
        self.name = name or pairs.name or "pairs"
        if metrics is None:
            metrics = ("accuracy",) if pairs.folds is not None else ("best_threshold_accuracy",)
        self.metric_names = tuple(metrics)
        self.report = None

    def on_epoch_end(self, epoch, logs=None):
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


class EmbeddingStatistics(keras.callbacks.Callback):
    """Logs, on fixed images, the distribution of embedding norms and of angles to the classes at each epoch's end.

    Logged: mean and standard deviation of `embedding_norm`, of `target_angle` and of `nearest_other_angle` (degrees, the
    closest class that is not the label). Where the last two overlap, classes are confused.

    Args:
        images: Array of shape `(n, height, width, 3)`, RGB, 0..255.
        labels: Integers of shape `(n,)`.
        batch_size: Images at a time. Defaults to `64`.
    """

    def __init__(self, images, labels, batch_size=64):
        super().__init__()
        if len(images) != len(labels):
            raise ValueError(f"Expected as many labels as images. Received: {len(images)} images, {len(labels)} labels")
        self.images, self.labels, self.batch_size = images, np.asarray(labels), batch_size

    def on_epoch_end(self, epoch, logs=None):
        """Computes the statistics, and adds them to the logs."""
        if logs is None:
            return
        values = {"embedding_norm": [], "target_angle": [], "nearest_other_angle": []}
        for start in range(0, len(self.images), self.batch_size):
            images = self.images[start : start + self.batch_size]
            embeddings = keras.ops.convert_to_numpy(self.model.backbone(images, training=False)).astype("float64")
            for name, numbers in self._statistics(embeddings, self.labels[start : start + len(images)]).items():
                values[name].append(numbers)
        for name, parts in values.items():
            if not parts:  # One class has no other.
                continue
            numbers = np.concatenate(parts)
            logs[f"stats_{name}_mean"] = float(numbers.mean())
            logs[f"stats_{name}_std"] = float(numbers.std())

    def _statistics(self, embeddings, labels):
        kernel = keras.ops.convert_to_numpy(self.model.head.kernel).astype("float64")
        norms = np.linalg.norm(embeddings, axis=1)
        cosines = embeddings @ (kernel / np.linalg.norm(kernel, axis=0)) / np.maximum(norms, 1e-12)[:, None]
        angles = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
        rows = np.arange(len(labels))
        targets = angles[rows, labels]
        angles[rows, labels] = np.inf
        statistics = {"embedding_norm": norms, "target_angle": targets}
        if angles.shape[1] > 1:
            statistics["nearest_other_angle"] = angles.min(axis=1)
        return statistics


class Checkpoint(keras.callbacks.Callback):
    """Saves weights, optimizer and margin at the end of every epoch, so that `resume` goes on from there.

    A checkpoint is written under a temporary name, flushed to the disk and renamed: a file with the final name is whole.

    Args:
        folder: Where checkpoints go; made if missing.
        keep: How many of the last ones are kept, at least 1. Defaults to `2`.

    Example:
    >>> checkpoint = keras_sphereface.callbacks.Checkpoint("run/checkpoints")
    >>> epoch = checkpoint.resume(trainer)  # 0 in a new folder
    >>> data = dataset.batches(128, seed=1, start_step=epoch * steps_per_epoch)
    >>> trainer.fit(data, initial_epoch=epoch, epochs=20, steps_per_epoch=steps_per_epoch, callbacks=[checkpoint])
    """

    SUFFIX = ".weights.h5"

    def __init__(self, folder, keep=2):
        super().__init__()
        if not isinstance(keep, int) or keep < 1:
            raise ValueError(f"`keep` must be an integer of at least 1. Received: keep={keep!r}")
        self.folder, self.keep = pathlib.Path(folder), keep

    def paths(self):
        """The checkpoints in the folder, oldest first."""
        return sorted(self.folder.glob(f"epoch-[0-9]*{self.SUFFIX}"))

    def resume(self, model):
        """Loads the newest checkpoint into a built and compiled model; returns the number of epochs done, 0 for none."""
        paths = self.paths()
        if not paths:
            return 0
        # Variables of tf.distribute can be made and loaded only in the scope of their strategy.
        strategy = getattr(model, "distribute_strategy", None)
        with strategy.scope() if strategy else contextlib.nullcontext():
            model.optimizer.build(model.trainable_variables)
            model.load_weights(paths[-1])
        return int(paths[-1].name[len("epoch-") : -len(self.SUFFIX)])

    def on_epoch_end(self, epoch, logs=None):
        """Writes a checkpoint and removes the oldest ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"unfinished{self.SUFFIX}"
        self.model.save_weights(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, self.folder / f"epoch-{epoch + 1:06d}{self.SUFFIX}")
        for path in self.paths()[: -self.keep]:
            path.unlink()
