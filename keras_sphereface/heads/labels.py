"""Checks of labels. A label outside the classes must never train on a wrong column, on any backend, jitted or not."""

import keras
import numpy as np
from keras import ops

NARROW = ("int8", "uint8", "int16", "uint16")


def check_labels(labels, num_classes, batch_size=None):
    """Checks labels, and returns them in a form that is safe to index with.

    Values that can be read now (eager execution) raise at once. Inside a traced TensorFlow graph an assertion raises
    when the step runs. Where a compiled program can't raise (JAX, XLA), `valid` is False for a bad label, and the head
    turns that example's loss and logits into NaN.

    Args:
        labels: Integers of shape `(batch,)` or `(batch, 1)`.
        num_classes: The number of classes.
        batch_size: The number of examples that the labels are for. Defaults to `None`, where it isn't known.

    Returns:
        `(labels, valid)`: int32 labels clipped to `[0, num_classes)`, and a boolean tensor, both of shape `(batch,)`.

    Raises:
        ValueError: If the shape, the number or the dtype is wrong, or a readable label is outside `[0, num_classes)`.
    """
    _check_array(labels, num_classes)
    labels = ops.convert_to_tensor(labels)
    if getattr(labels.shape, "rank", 0) is None:  # in TensorFlow, as from a Python function in a pipeline
        labels = ops.reshape(labels, (-1 if batch_size is None else batch_size,))
    if len(labels.shape) == 2 and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    if len(labels.shape) != 1:
        raise ValueError(
            f"Labels must be class numbers of shape (batch,), not one-hot vectors. Received: shape {tuple(labels.shape)}"
        )
    if None not in (batch_size, labels.shape[0]) and labels.shape[0] != batch_size:
        raise ValueError(
            f"There must be a label for each of {batch_size} embeddings. Received: {labels.shape[0]} labels"
        )
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if dtype in ("bool", "string") or "complex" in dtype:
        raise ValueError(f"Labels must be integer class numbers. Received: dtype {dtype}")
    if dtype in NARROW:
        labels = ops.cast(labels, "int32")  # the number of classes may be beyond the type's range
    numbers = ops.cast(labels, "int32")
    valid = ops.logical_and(labels >= 0, labels < num_classes)
    if "float" in dtype:
        valid = ops.logical_and(valid, ops.equal(ops.cast(numbers, labels.dtype), labels))
    valid = _raise_where_possible(labels, valid, num_classes)
    return ops.clip(numbers, 0, num_classes - 1), valid


def _check_array(labels, num_classes):
    """Refuses what backends don't take, with words of their own, and what JAX would wrap to 32 bits."""
    if labels is None:
        raise ValueError("A loss needs labels, class numbers of shape (batch,). Received: labels=None")
    if isinstance(labels, (list, tuple)) and any(isinstance(label, str) for label in labels):
        labels = np.asarray(labels)
    if not isinstance(labels, np.ndarray):
        return
    if labels.dtype.kind in "OSUMm":
        raise ValueError(f"Labels must be integer class numbers. Received: dtype {labels.dtype}")
    if labels.dtype.kind in "iu" and labels.dtype.itemsize > 4:
        outside = (labels < 0) | (labels >= num_classes)
        if outside.any():
            raise ValueError(f"{_message(num_classes)} Received: {labels[outside][:8].tolist()}")


def _message(num_classes):
    return f"Labels must be integers in [0, {num_classes})."


def _raise_where_possible(labels, valid, num_classes):
    """Returns `valid`, on which loss and logits depend."""
    message = _message(num_classes)
    if keras.backend.backend() == "tensorflow" and not isinstance(labels, keras.KerasTensor):
        import tensorflow as tf

        if not tf.executing_eagerly():
            first_bad = tf.gather(labels, tf.argsort(tf.cast(valid, "int32"), stable=True)[:1])
            assertion = tf.debugging.Assert(tf.reduce_all(valid), [message, "Received:", first_bad])
            # Without an edge to the loss, the weights could be updated, with NaN, before the step ends.
            with tf.control_dependencies([assertion]):
                return tf.identity(valid)
    if is_readable(labels):
        ok = ops.convert_to_numpy(valid)
        if not ok.all():
            bad = ops.convert_to_numpy(labels)[~ok][:8].tolist()
            raise ValueError(f"{message} Received: {bad}")
    return valid


def is_readable(tensor):
    """Whether a tensor's values can be read now: it is neither symbolic nor traced."""
    if isinstance(tensor, keras.KerasTensor):
        return False
    if keras.backend.backend() == "jax":
        import jax

        return not isinstance(tensor, jax.core.Tracer)
    if keras.backend.backend() == "torch":
        import torch

        return tensor.device.type != "meta" and not torch.compiler.is_compiling()
    return True
