"""Statistics of embeddings and angles while training."""

import keras
import numpy as np
from numpy.typing import ArrayLike

from keras_sphereface.arguments import whole_number
from keras_sphereface.callbacks.parts import part_of


class EmbeddingStatistics(keras.callbacks.Callback):
    """Logs, on fixed images, the distribution of embedding norms and of angles to the classes at each epoch's end.

    Logged: mean and standard deviation of `embedding_norm`, of `target_angle` and of `nearest_other_angle` (degrees, the
    closest class that is not the label). Where the last two overlap, classes are confused.

    Args:
        images: Array of shape `(n, height, width, 3)`, RGB, 0..255.
        labels: Class numbers of shape `(n,)` or `(n, 1)`, -1 for an image of nobody in the classes, which is left out.
        batch_size: Images at a time. Defaults to `64`.

    Raises:
        ValueError: If the labels are no class numbers or `batch_size` is no integer of at least 1; when training begins, if
            the model is no `FaceClassifier`, images are of another size than its, or labels are not among its classes.

    Example:
    >>> statistics = keras_sphereface.callbacks.EmbeddingStatistics(images, labels)
    >>> history = trainer.fit(dataset, epochs=20, shuffle=False, callbacks=[statistics])
    >>> history.history["stats_target_angle_mean"]  # degrees, one number per epoch
    """

    def __init__(self, images: ArrayLike, labels: ArrayLike, batch_size: int = 64):
        super().__init__()
        if len(images) != len(labels):
            raise ValueError(f"Expected as many labels as images. Received: {len(images)} images, {len(labels)} labels")
        self.images = images if hasattr(images, "shape") else np.asarray(images)
        self.labels = _class_numbers(labels)
        self.batch_size = whole_number("batch_size", batch_size)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Checks the images against the model's size and the labels against its classes, before an epoch is spent."""
        from keras_sphereface.evaluator import check_size

        num_classes = part_of(self, "head").num_classes
        if len(self.images.shape) == 4:  # a head may be on a model of anything
            check_size(self.model.backbone, self.images)
        outside = self.labels[self.labels >= num_classes]
        if len(outside):
            raise ValueError(
                f"Labels of EmbeddingStatistics must be below the head's {num_classes} classes, or -1. "
                f"Received: {outside[:8].tolist()}"
            )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
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
            numbers = np.concatenate(parts or [[]])
            if not len(numbers):  # One class has no other, and labels may all be -1.
                continue
            logs[f"stats_{name}_mean"] = float(numbers.mean())
            logs[f"stats_{name}_std"] = float(numbers.std())

    def _statistics(self, embeddings, labels):
        known = labels >= 0
        embeddings, labels = embeddings[known], labels[known]
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


def _class_numbers(labels):
    numbers = np.asarray(labels)
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    if numbers.ndim != 1 or numbers.dtype.kind not in "iuf":
        raise ValueError(
            "Expected labels that are class numbers of shape (n,) or (n, 1). "
            f"Received: shape {numbers.shape}, dtype {numbers.dtype}"
        )
    bad = ~((numbers >= -1) & (numbers == np.floor(numbers)))
    if bad.any():
        raise ValueError(f"Expected labels that are class numbers, or -1. Received: {numbers[bad][:8].tolist()}")
    return numbers.astype("int64")
