"""Class weights that begin where a trained backbone has the classes."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import keras
import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from keras_sphereface.arguments import whole_number

if TYPE_CHECKING:
    from keras_sphereface.classifier import FaceClassifier
    from keras_sphereface.data import FaceDataset


def imprint(
    trainer: "FaceClassifier",
    data: "FaceDataset | ArrayLike",
    labels: ArrayLike | None = None,
    batch_size: int = 64,
    progress: bool = True,
) -> int:
    """Sets each class's weights to the mean direction of its images' embeddings.

    For a backbone that is trained already: random class weights would first drive its people elsewhere, and what it knows
    with them. Classes without an image keep their random weights. The method is of "Low-Shot Learning with Imprinted
    Weights" (Qi, Brown and Lowe, CVPR 2018, section 3.2, the average embedding).

    Args:
        trainer: A `FaceClassifier`, built.
        data: A `FaceDataset`, which is read once in its own order, or images `(n, height, width, 3)`, RGB, 0..255.
        labels: Integers `(n,)`, with images. Defaults to `None`, for a data set.
        batch_size: Images at a time. Defaults to 64.
        progress: Whether to show a progress bar, on a terminal only. Defaults to `True`.

    Returns:
        How many classes had images.

    Raises:
        ValueError: If images come without labels or in another number, a label is outside the classes, or embeddings are
            not finite.

    Example:
    >>> trainer = keras_sphereface.FaceClassifier(keras_sphereface.load_pretrained(), keras_sphereface.heads.ArcFace(4))
    >>> imprint(trainer, images, labels)
    4
    """
    whole_number("batch_size", batch_size)
    total, batches = _batches_of(data, labels, batch_size)
    kernel = trainer.head.kernel
    sums = np.zeros(tuple(kernel.shape)[::-1], np.float32)
    with tqdm(total=total, desc="class weights", unit="image", disable=None if progress else True) as bar:
        for images, numbers in batches:
            numbers = _checked(np.asarray(numbers), len(sums))
            embeddings = np.asarray(trainer.embedder.predict_on_batch(images))
            if not np.isfinite(embeddings).all():
                raise ValueError("The backbone's embeddings of these images are not finite: its weights are broken")
            np.add.at(sums, numbers, embeddings)
            bar.update(len(numbers))
    norms = np.linalg.norm(sums, axis=1)
    found = norms > 0.0
    weights = keras.ops.convert_to_numpy(kernel).copy()
    weights[:, found] = (sums[found] / norms[found, None]).T
    kernel.assign(weights)
    return int(found.sum())


def _batches_of(data, labels, batch_size) -> tuple[int, Iterable]:
    """The number of images, and batches `(images, labels)` of them, each image once."""
    if hasattr(data, "sequence"):
        if labels is not None:
            raise ValueError("A data set has its own labels. Received: a data set and `labels`")
        whole = {"shuffle": False, "repeat": False, "drop_remainder": False}
        if keras.backend.backend() == "tensorflow":
            return data.num_images, data.batches(batch_size, **whole).as_numpy_iterator()
        sequence = data.sequence(batch_size, **whole)
        return data.num_images, (sequence[index] for index in range(len(sequence)))
    if labels is None:
        raise ValueError(
            "Expected a FaceDataset (keras_sphereface.data.from_folder and others), or images and labels. "
            f"Received: {type(data).__name__} without labels"
        )
    images, labels = np.asarray(data), np.asarray(labels)
    if len(images) != len(labels):
        raise ValueError(f"Expected a label for each image. Received: {len(images)} images, {len(labels)} labels")
    return len(images), _slices(images, labels, batch_size)


def _slices(images, labels, batch_size) -> Iterator:
    for start in range(0, len(images), batch_size):
        yield images[start : start + batch_size], labels[start : start + batch_size]


def _checked(labels, num_classes):
    is_class = labels.dtype.kind in "iu" and labels.ndim == 1 and ((labels >= 0) & (labels < num_classes)).all()
    if not is_class:
        raise ValueError(
            f"Labels must be integers in [0, {num_classes}), of shape (n,). Received: {labels.dtype} of shape {labels.shape}"
            + (f", {labels.min()} to {labels.max()}" if labels.size and labels.dtype.kind in "iuf" else "")
        )
    return labels
