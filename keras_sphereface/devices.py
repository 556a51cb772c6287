"""What the machine has to compute on, and what was measured to be fastest there."""

import os
import pathlib

CPU_INFO = pathlib.Path("/proc/cpuinfo")  # Linux's
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}
BFLOAT16_GENERATION = 8  # compute capability from which on NVIDIA's GPUs multiply bfloat16


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


def fastest_dtype_policy() -> str:
    """The dtype policy that trains fastest here.

    Returns:
        `"mixed_bfloat16"` where the hardware multiplies bfloat16: TPUs, NVIDIA's GPUs since Ampere, and with TensorFlow
        CPUs with AMX (an SFNet-20's step in 0.70 s instead of 2.61, `benchmarks/RESULTS.md`) or AVX512-BF16. Else
        `"float32"`; so also with PyTorch and JAX on CPUs, where it was not measured.

    Example:
    >>> policy = keras_sphereface.devices.fastest_dtype_policy()
    >>> backbone = keras_sphereface.backbones.SFNet4(dtype=policy)
    """
    import keras

    asked = {"tensorflow": _tensorflow, "torch": _torch, "jax": _jax}.get(keras.backend.backend())
    return "mixed_bfloat16" if asked and asked() else "float32"


def _tensorflow():
    import tensorflow as tf

    if tf.config.list_logical_devices("TPU"):
        return True
    if gpus := tf.config.list_physical_devices("GPU"):
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return all(one.get("compute_capability", (0, 0))[0] >= BFLOAT16_GENERATION for one in details)
    return cpu_has_bfloat16()


def _torch():
    import torch

    gpus = range(torch.cuda.device_count())
    return bool(gpus) and all(torch.cuda.get_device_capability(gpu)[0] >= BFLOAT16_GENERATION for gpu in gpus)


def _jax():
    import jax

    devices = jax.devices()
    if devices[0].platform != "gpu":
        return devices[0].platform == "tpu"
    generations = [str(getattr(one, "compute_capability", "")).partition(".")[0] for one in devices]  # of "8.0"
    return all(number.isdigit() and int(number) >= BFLOAT16_GENERATION for number in generations)


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16; one that does not takes much longer than for float32."""
    return bool(BFLOAT16_FLAGS & cpu_flags())


def cpu_flags() -> set[str]:
    """What the CPU can do, in the words of Linux; empty elsewhere."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
