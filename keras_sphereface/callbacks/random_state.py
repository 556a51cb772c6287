"""The state of Python's and NumPy's random numbers, as JSON values. Layers keep theirs in variables."""

import random

import numpy as np


def capture() -> dict:
    """Returns the states, a dictionary of JSON values."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {"python": list(random.getstate()), "numpy": [kind, keys.tolist(), position, has_gauss, cached]}


def restore(states: dict) -> None:
    """Sets the states that `capture` read."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
