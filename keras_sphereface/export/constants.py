"""A model as one TensorFlow function whose weights are constants or 16-bit variables."""

import types
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_sphereface.errors import MissingDependencyError


def tensorflow() -> types.ModuleType:
    """TensorFlow, if it is Keras's backend; else an error that says what to do."""
    if keras.backend.backend() != "tensorflow":
        raise MissingDependencyError(
            "SavedModel and LiteRT are written on the TensorFlow backend. Received: backend="
            f"{keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow, or export to ONNX, which works on all that train"
        )
    import tensorflow as tf

    return tf


def weights(model: keras.Model) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Trainable and other weights as NumPy arrays, in the order of `stateless_call`."""
    groups = (model.trainable_variables, model.non_trainable_variables)
    return tuple([keras.ops.convert_to_numpy(variable.value) for variable in group] for group in groups)


def function(
    model: keras.Model, trainable: Callable[[], list], non_trainable: Callable[[], list], batch_size: int | None = None
) -> Any:
    """The model as a `tf.function` of float32 images.

    Args:
        model: A `keras.Model`.
        trainable, non_trainable: Functions that return the weights to use, lists of tensors or arrays.
        batch_size: Fixed batch size. Defaults to `None`, any.

    Returns:
        A `tf.function` from images to embeddings.
    """
    tf = tensorflow()

    @tf.function(
        input_signature=[tf.TensorSpec([batch_size, *model.input_shape[1:]], tf.float32, name="images")],
        autograph=False,
    )
    def embed(images):
        outputs, _ = model.stateless_call(trainable(), non_trainable(), images, training=False)
        return tf.identity(outputs, name="embeddings")

    return embed


def constant_function(model: keras.Model, batch_size: int | None = None) -> Any:
    """The model with its weights as constants; see `function`."""
    trainable, non_trainable = weights(model)
    return function(
        model,
        lambda: [keras.ops.convert_to_tensor(np.asarray(value)) for value in trainable],
        lambda: [keras.ops.convert_to_tensor(np.asarray(value)) for value in non_trainable],
        batch_size,
    )
