"""Statistics of embeddings and angles while training."""

import keras
import numpy as np
from numpy.typing import ArrayLike


class EmbeddingStatistics(keras.callbacks.Callback):
    """Logs, on fixed images, the distribution of embedding norms and of angles to the classes at each epoch's end.

    Logged: mean and standard deviation of `embedding_norm`, of `target_angle` and of `nearest_other_angle` (degrees, the
    closest class that is not the label). Where the last two overlap, classes are confused.

    Args:
        images: Array of shape `(n, height, width, 3)`, RGB, 0..255.
        labels: Integers of shape `(n,)`.
        batch_size: Images at a time. Defaults to `64`.
    """

    def __init__(self, images: ArrayLike, labels: ArrayLike, batch_size: int = 64):
        super().__init__()
        if len(images) != len(labels):
            raise ValueError(f"Expected as many labels as images. Received: {len(images)} images, {len(labels)} labels")
        self.images, self.labels, self.batch_size = images, np.asarray(labels), batch_size

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
