"""scikit-learn's handwritten digits embedded in two or three dimensions: a real data set small enough to watch."""

import dataclasses

import keras
import numpy as np

from keras_sphereface.classifier import FaceClassifier
from keras_sphereface.errors import require
from keras_sphereface.heads import MarginHead, Softmax
from keras_sphereface.plots.margins import parse_margin

NUM_CLASSES = 10
HELD_OUT = 0.25
# Ten classes on a circle are 36 degrees apart: large scales, made for 512 dimensions, do not train there.
SCALE = 16.0
BATCH_SIZE, LEARNING_RATE = 64, 3e-3


@dataclasses.dataclass
class DigitsRun:
    """What a training on the digits left to draw.

    Attributes:
        label: Name for the picture's title.
        embeddings: `(frames, n, d)` float32: the held-out digits before training and after each epoch, not normalized.
        centers: `(frames, d, 10)` float32: the class weights at the same times.
        labels: `(n,)` integers, 0 to 9.
        accuracy: `(frames,)`: share of the held-out digits whose nearest class is the right one.

    Example:
    >>> run = keras_sphereface.plots.train_on_digits("arcface", epochs=5)
    >>> run.accuracy[-1], run.angle_to_class_mean()
    """

    label: str
    embeddings: np.ndarray
    centers: np.ndarray
    labels: np.ndarray
    accuracy: np.ndarray

    def angle_to_class_mean(self, frame: int = -1) -> float:
        """Mean angle in degrees between an embedding and the mean direction of its digit: how compact classes are."""
        directions = self.embeddings[frame] / np.linalg.norm(self.embeddings[frame], axis=1, keepdims=True)
        means = np.stack([directions[self.labels == digit].mean(axis=0) for digit in range(NUM_CLASSES)])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        cosines = np.sum(directions * means[self.labels], axis=1)
        return float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).mean())


def train_on_digits(head: str | keras.layers.Layer, dimensions: int = 2, epochs: int = 60, seed: int = 0) -> DigitsRun:
    """Trains a small network with a head on scikit-learn's 1,797 digits and records what became of the held-out quarter.

    Args:
        head: `"softmax"`, a margin as text (`"arcface"`, `"cosface=0.2"`, or one of your own), or a head of ten classes.
        dimensions: 2 or 3, the embedding's. Defaults to `2`.
        epochs: Passes over the 1,348 training digits. Defaults to `60`.
        seed: Seeds the split, the weights and the order. Defaults to `0`.

    Returns:
        A `DigitsRun`.

    Raises:
        ValueError: If `dimensions` is neither 2 nor 3, or as `parse_margin`.
        MissingDependencyError: If scikit-learn is not installed.

    Example:
    >>> run = ksf.plots.train_on_digits("sphereface_r_v2", epochs=5)  # doctest: +SKIP
    >>> ksf.plots.embedding_figure([run]).savefig("digits.png")  # doctest: +SKIP
    """
    if dimensions not in (2, 3):
        raise ValueError(f"The digits are drawn in 2 or 3 dimensions. Received: dimensions={dimensions!r}")
    images, labels = load_digits()
    keras.utils.set_random_seed(seed)
    order = np.random.default_rng(seed).permutation(len(images))
    held, used = np.split(order, [int(HELD_OUT * len(images))])
    label, head = digits_head(head)
    trainer = FaceClassifier(digits_backbone(dimensions), head)
    trainer.compile(keras.optimizers.Adam(LEARNING_RATE))
    record = _Record(images[held], labels[held])
    trainer.fit(images[used], labels[used], BATCH_SIZE, epochs, verbose=0, callbacks=[record])
    return DigitsRun(
        label, np.stack(record.embeddings), np.stack(record.centers), labels[held], np.array(record.accuracy)
    )


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns the digits: float32 `(1797, 8, 8, 1)` of 0..16 and integers `(1797,)`."""
    digits = require("sklearn.datasets", "plots").load_digits()
    return digits.images[..., None].astype("float32"), digits.target.astype("int32")


def digits_backbone(dimensions: int) -> keras.Sequential:
    """A small network from 8x8 digits to an embedding of few dimensions."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 8, offset=-1),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(dimensions),
        ],
        name="digits",
    )


def digits_head(head: str | keras.layers.Layer) -> tuple[str, keras.layers.Layer]:
    """Returns a label and the head of ten classes that a text stands for, or the head given."""
    if not isinstance(head, str):
        return head.name, head
    name, has_value, _ = head.partition("=")
    if name == "softmax":
        if has_value:
            raise ValueError(f"The softmax head has no margin: expected softmax alone. Received: {head!r}")
        return "softmax", Softmax(NUM_CLASSES)
    margin, value = parse_margin(head)
    label = margin.name if value == margin.neutral else f"{margin.name}, m = {value:g}"
    return label, MarginHead(NUM_CLASSES, margin=margin, margin_value=value, scale=SCALE)


class _Record(keras.callbacks.Callback):
    """Keeps the held-out digits' embeddings, and the class weights, before training and after each epoch."""

    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels = images, labels
        self.embeddings, self.centers, self.accuracy = [], [], []

    def on_train_begin(self, logs=None):
        self._keep()

    def on_epoch_end(self, epoch, logs=None):
        self._keep()

    def _keep(self):
        to_numpy = keras.ops.convert_to_numpy
        if hasattr(self.model, "jax_state_sync"):  # On JAX the variables are out of date within `fit`.
            self.model.jax_state_sync()
        embeddings = self.model.backbone(self.images, training=False)
        nearest = to_numpy(self.model.head(embeddings)).argmax(axis=1)
        self.embeddings.append(to_numpy(embeddings))
        self.centers.append(to_numpy(self.model.head.kernel).copy())
        self.accuracy.append(float(np.mean(nearest == self.labels)))
