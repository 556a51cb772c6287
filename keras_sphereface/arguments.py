"""Checks of arguments that many parts of the package take."""

import math
import numbers


def whole_number(name: str, value: object, least: int = 1) -> int:
    """Returns an argument that counts something as an int; NumPy's integers are as good as Python's.

    Args:
        name: The argument's name, for the message.
        value: What was given.
        least: Smallest value. Defaults to 1.

    Returns:
        The value as an int.

    Raises:
        ValueError: If it is no integer, or below `least`; `True` and `False` count as none.

    Example:
    >>> whole_number("top", np.int64(5))
    5
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}. Received: {name}={value!r}")
    return int(value)


def finite_number(name: str, value: object) -> float:
    """Returns an argument that measures something as a float; NumPy's numbers are as good as Python's.

    Args:
        name: The argument's name, for the message.
        value: What was given.

    Returns:
        The value as a float.

    Raises:
        ValueError: If it is no real number, or NaN, or infinite; `True` and `False` count as none.

    Example:
    >>> finite_number("image_mean", np.float32(127.5))
    127.5
    """
    try:
        is_finite = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond floats
        is_finite = False
    if not is_finite:
        raise ValueError(f"`{name}` must be a finite number. Received: {name}={value!r}")
    return float(value)
