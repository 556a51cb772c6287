"""Batch normalizations of ONNX files as PyTorch's tensors of a network whose epsilon is its own."""

import numpy as np

PARTS = ("weight", "bias", "running_mean", "running_var")  # in the order of ONNX's inputs


def tensors(name: str, arrays: list[np.ndarray], epsilon: float, own_epsilon: float) -> dict[str, np.ndarray]:
    """The four tensors of a batch normalization.

    Args:
        name: The module's.
        arrays: Scale, offset, mean and variance.
        epsilon: What the file adds to the variance.
        own_epsilon: What the network adds.

    Returns:
        Dictionary of tensor names to arrays, with a variance that makes up for the difference.
    """
    *others, variance = arrays
    return dict(
        zip((f"{name}.{part}" for part in PARTS), (*others, variance + np.float32(epsilon - own_epsilon)), strict=True)
    )


def offset(name: str, numbers: np.ndarray, own_epsilon: float) -> dict[str, np.ndarray]:
    """A batch normalization that only adds: what is left of one that an exporter folded into the layer before it."""
    ones = np.ones_like(numbers)
    return tensors(name, [ones, numbers, np.zeros_like(numbers), ones], 0.0, own_epsilon)
