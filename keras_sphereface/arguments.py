"""Checks of arguments that many parts of the package take."""

import math
import numbers
from collections.abc import Callable
from typing import Any

from keras_sphereface.errors import shown


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
    if not is_whole(value, least):
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
    if not is_number(value):
        raise ValueError(f"`{name}` must be a finite number. Received: {name}={value!r}")
    return float(value)


def positive_number(name: str, value: object, zero_allowed: bool = False) -> float:
    """Returns an argument that is a size or a weight as a float.

    Args:
        name: The argument's name, for the message.
        value: What was given.
        zero_allowed: Whether 0 will do. Defaults to `False`.

    Returns:
        The value as a float.

    Raises:
        ValueError: If it is no finite number (see `finite_number`), or not above 0.

    Example:
    >>> positive_number("scale", 64)
    64.0
    """
    if not is_number(value) or value < 0 or (value == 0 and not zero_allowed):
        wanted = "a finite number of at least 0" if zero_allowed else "a finite number above 0"
        raise ValueError(f"`{name}` must be {wanted}. Received: {name}={value!r}")
    return float(value)


def list_of(
    name: str, values: object, is_one: Callable[[Any], bool], expected: str, empty_allowed: bool = False
) -> tuple:
    """Returns an argument of several values as a tuple, whether it came as a list, an array or one by one.

    Args:
        name: The argument's name, for the message.
        values: What was given.
        is_one: Tells of a value whether it is one of those expected.
        expected: What was expected, with an example, for the message.
        empty_allowed: Whether no value at all will do. Defaults to `False`.

    Returns:
        The values, as they were given.

    Raises:
        ValueError: If it is a single value or a text, or holds something else than what was expected.

    Example:
    >>> list_of("ranks", iter([1, 5]), is_whole, "integers, e.g. [1, 5]")
    (1, 5)
    """
    try:
        iterator = None if isinstance(values, str | bytes) else iter(values)
    except TypeError:  # a single value
        iterator = None
    items = None if iterator is None else tuple(iterator)
    if items is None or not (items or empty_allowed) or not all(is_one(item) for item in items):
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={shown(values if items is None else items)}")
    return items


def is_whole(value: object, least: float = -math.inf) -> bool:
    """Whether this is an integer of at least `least`, of Python or NumPy; `True` and `False` are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> bool:
    """Whether this is a finite real number, of Python or NumPy; `True` and `False` are none."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond floats
        return False
