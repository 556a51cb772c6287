"""Refuses models that ask for more weights than their file has, before any memory is taken."""

import copy
import math
import threading
from collections.abc import Callable
from typing import Any

from keras_sphereface import safe_config
from keras_sphereface.errors import FileFormatError

# Numbers that a configuration may give of its own, beside those of the weights' file.
GIVEN = 2**20


def check(config: dict, values: int, source: str) -> None:
    """Compares the number of weights that a configuration asks for with what the weights' file holds.

    Args:
        config: The configuration of a model, which `safe_config.check` has passed; how it was compiled is left out.
        values: Number of values in the file.
        source: What to call it in errors.

    Raises:
        FileFormatError: If the configuration cannot be built or asks for more.
    """
    try:
        needed, given = without_weights(lambda: _count(config))
    except Exception as error:  # Keras has no error of its own for broken configurations
        # Keras puts the configuration in front of what was wrong with it.
        reason = str(error).rpartition("Exception encountered: ")[2].strip().partition("\n")[0] or type(error).__name__
        raise FileFormatError(
            f"{source}: the configuration cannot be built ({reason}). Save the model again, or register what it has of "
            "your own before it is loaded"
        ) from error
    if needed > values or given > GIVEN:
        raise FileFormatError(
            f"{source}: Keras could not load the whole model: its configuration asks for {needed + given} weights, the "
            f"file holds {values}. Do not use this file"
        )


def without_weights(function: Callable[[], Any]) -> Any:
    """Calls a function that builds a model, without making its weights: variables have shapes only, and take no memory.

    Args:
        function: Called in a thread of its own: Keras keeps what was built but not made yet in a list of the thread, and
            would make it later.

    Returns:
        What the function returns; a model of it is good for nothing but its shapes.

    Raises:
        Exception: What the function raises.
    """
    outcome = {}

    def call():
        import keras

        try:
            with keras.StatelessScope(initialize_variables=False):
                outcome["result"] = function()
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def _count(config):
    """Numbers of weights of a configuration: those of the file, and those that it gives itself by few numbers or one."""
    import keras

    own = copy.deepcopy({**config, "compile_config": None})  # Keras empties the dictionaries that it reads
    giving = set()  # names of layers
    for node in safe_config.classes(own):
        if node["class_name"] == "Normalization" and isinstance(arguments := node.get("config"), dict):
            if arguments.get("mean") is not None:
                giving.add(arguments.get("name"))
            node.update(_of_the_same_size(arguments))
    model = keras.saving.deserialize_keras_object(own)
    sizes = [(variable.path.split("/")[-2:-1], math.prod(variable.shape)) for variable in model.weights]
    given = sum(size for layer, size in sizes if giving.intersection(layer))
    return sum(size for _, size in sizes) - given, given


def _of_the_same_size(arguments):
    """A layer with as many weights as a `Normalization`, which would at once make its own, or what it is given, in full."""
    axis, kept = arguments.get("axis", -1), {name: arguments[name] for name in ("name", "dtype") if name in arguments}
    if axis is None:
        return {"class_name": "Identity", "config": kept}
    return {"class_name": "LayerNormalization", "config": {**kept, "axis": axis}}
