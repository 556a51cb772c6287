"""Reads variables that hold one number."""

import keras


def value_of(variable: keras.Variable) -> int | float:
    """The number in a scalar variable; `int` and `float` refuse one that tf.distribute mirrors.

    Args:
        variable: Keras variable of shape `()`.

    Returns:
        Python int or float.
    """
    return keras.ops.convert_to_numpy(variable).item()
