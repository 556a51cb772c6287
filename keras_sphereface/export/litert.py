"""LiteRT (TFLite) files."""

import os
import warnings

import numpy as np

from keras_sphereface.export import constants

MAX_CALIBRATION_IMAGES = 500
THREADS = 2


def write(model, path, precision, calibration_images=None):
    """Writes a `.tflite` file: float32 images in, of any batch size, float32 embeddings out.

    Args:
        model: The embedder.
        path: File.
        precision: `"float32"`, `"float16"` or `"int8"`.
        calibration_images: For int8: `(n, h, w, 3)`, of which at most 500 are used.
    """
    tf = constants.tensorflow()
    embed = constants.constant_function(model)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([embed.get_concrete_function()])
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        images = np.asarray(calibration_images[:MAX_CALIBRATION_IMAGES], "float32")
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        # The last normalization squares and sums what int8 cannot hold: it stays float, as do the inputs.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    path.write_bytes(converter.convert())


def load(path):
    """Loads a `.tflite` file; returns a function from float32 images to embeddings."""
    interpreter = _interpreter(path)
    entry, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(images):
        interpreter.resize_tensor_input(entry, images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(entry, images)
        interpreter.invoke()
        return interpreter.get_tensor(result).copy()

    return run


def _interpreter(path):
    """The runtime of its own package where installed, else TensorFlow's."""
    threads = min(THREADS, os.cpu_count() or 1)
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        Interpreter = tf.lite.Interpreter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Interpreter(model_path=str(path), num_threads=threads)
