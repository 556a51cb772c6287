"""Optimizers as the papers state them, made from Keras's own."""

import math
import numbers

import keras

from keras_sphereface.fused_sgd import FusedSGD


def sgd(
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    momentum: float = 0.9,
    weight_decay: float | None = 5e-4,
    **kwargs,
) -> keras.optimizers.SGD:
    """Makes SGD whose weight decay is the papers'.

    They add the decay to the gradient, before the momentum, which multiplies it by 1 / (1 - momentum) in the long run. Keras
    takes its decay from the weights directly, so that it has to be as much larger.

    Args:
        learning_rate: A number or a schedule, e.g. of `schedules.learning_rate`.
        momentum: From 0 to below 1. Defaults to `0.9`.
        weight_decay: As papers state it; `None` is 0. Defaults to `5e-4`.
        **kwargs: Further arguments of `keras.optimizers.SGD`.

    Returns:
        A `keras.optimizers.SGD`; on TensorFlow a `FusedSGD`, which is quicker with many classes on the CPU.

    Raises:
        ValueError: If the momentum or the decay is no number or out of range, or a number is not finite.

    Example:
    >>> f"{sgd(0.1, momentum=0.9, weight_decay=5e-4).weight_decay:.4f}"
    '0.0050'
    """
    weight_decay = 0.0 if weight_decay is None else weight_decay
    arguments = {"learning_rate": learning_rate, "momentum": momentum, "weight_decay": weight_decay, **kwargs}
    for name, value in arguments.items():  # Keras takes them, and the weights become NaN.
        is_number = isinstance(value, numbers.Real)
        if (is_number and not math.isfinite(value)) or (not is_number and name in ("momentum", "weight_decay")):
            raise ValueError(f"`{name}` must be a finite number. Received: {name}={value!r}")
    if not 0 <= momentum < 1 or weight_decay < 0:
        raise ValueError(
            "Expected momentum from 0 to below 1 and weight_decay of at least 0. "
            f"Received: momentum={momentum}, weight_decay={weight_decay}"
        )
    make = FusedSGD if keras.backend.backend() == "tensorflow" else keras.optimizers.SGD
    return make(learning_rate, momentum=momentum, weight_decay=weight_decay / (1.0 - momentum), **kwargs)
