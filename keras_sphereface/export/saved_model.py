"""TensorFlow SavedModel."""

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from keras_sphereface.errors import MissingDependencyError, one_line
from keras_sphereface.export import constants
from keras_sphereface.export.file_input import checked
from keras_sphereface.hints import Path

if TYPE_CHECKING:
    import keras


def write(
    model: "keras.Model", path: pathlib.Path, precision: str, calibration_images: np.ndarray | None = None
) -> None:
    """Writes a SavedModel with one signature, `serving_default`: images (n, h, w, 3) float32 to embeddings.

    Args:
        model: The embedder.
        path: Folder.
        precision: `"float32"`, or `"float16"`: the stored kernels, cast when the model runs.
        calibration_images: Not used.
    """
    tf = constants.tensorflow()
    module = tf.Module()
    groups = constants.weights(model)
    stored = "float16" if precision == "float16" else None
    module.trainable, module.others = (
        [tf.Variable(_stored(value, stored), trainable=False) for value in group] for group in groups
    )

    def read(variables, values):
        return lambda: [tf.cast(variable, value.dtype) for variable, value in zip(variables, values)]

    module.embed = constants.function(model, read(module.trainable, groups[0]), read(module.others, groups[1]))
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.embed})


def _stored(value, dtype):
    """A weight as it is written. Vectors stay: they are few numbers, and variances go beyond float16's 65504."""
    return value.astype(dtype) if dtype and value.dtype.kind == "f" and value.ndim > 1 else value


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Loads a SavedModel; returns a function from float32 images to embeddings.

    Raises:
        MissingDependencyError: If TensorFlow is not installed.
        ValueError: If the folder is broken, or not of this package.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise MissingDependencyError(
            f"A SavedModel is run by TensorFlow, which could not be imported ({error})"
        ) from error
    try:
        module = tf.saved_model.load(str(path))
        signature = module.signatures["serving_default"]
        (images,) = signature.structured_input_signature[1].values()
        (embeddings,) = signature.structured_outputs.values()
        shapes = tuple(images.shape), tuple(embeddings.shape)
    except Exception as error:  # protocol buffers, variables and TensorFlow's own: each has errors of its kind
        raise ValueError(
            f"{path}: TensorFlow cannot load it ({one_line(error)[:200]}). Export the model again"
        ) from error

    def run(images):
        (embeddings,) = signature(tf.constant(images)).values()
        return embeddings.numpy()

    embed = checked(run, *shapes)
    embed.module = module  # its variables live as long as it does
    return embed


def input_of(run: Callable[[np.ndarray], np.ndarray]) -> tuple[tuple[int | None, ...], np.dtype]:
    """`(shape, dtype)` of the images that a function of `load` takes."""
    (images,) = run.module.signatures["serving_default"].structured_input_signature[1].values()
    return tuple(images.shape), images.dtype.as_numpy_dtype
