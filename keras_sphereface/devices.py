"""What the machine has to compute on."""

import keras


def tensorflow_has_accelerator() -> bool:
    """Whether TensorFlow sees a GPU or a TPU."""
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))


def builds_for_tensorflow_cpu() -> bool:
    """Whether a graph of TensorFlow is being built for the CPU: where a compiled program of our own saves memory's time."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly() and not tensorflow_has_accelerator()
