"""What the machine has to compute on."""

import os


def cpu_cores() -> int:
    """CPU cores that this process may use: fewer than the machine has where it was tied to some (`taskset`, cpusets)."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def tensorflow_has_accelerator() -> bool:
    """Whether TensorFlow sees a GPU or a TPU."""
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))


def builds_for_tensorflow_cpu() -> bool:
    """Whether a graph of TensorFlow is being built for the CPU: where a compiled program of our own saves memory's time."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly() and not tensorflow_has_accelerator()
