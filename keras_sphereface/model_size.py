"""Refuses model configurations that ask for more weights than their file has, before any memory is taken."""

import copy
import math
import threading

from keras_sphereface.errors import FileFormatError


def check(config: dict, values: int, source: str) -> None:
    """Compares the number of weights that a configuration asks for with what the weights' file holds.

    Args:
        config: The configuration of a model, which `safe_config.check` has passed; how it was compiled is left out.
        values: Number of values in the file.
        source: What to call it in errors.

    Raises:
        FileFormatError: If the configuration cannot be built or asks for more.
    """
    outcome = {}

    def count():
        try:
            outcome["needed"] = _count(config)
        except Exception as error:  # Keras has no error of its own for broken configurations
            outcome["error"] = error

    # A thread of its own: Keras keeps what was built but not made yet in a list of the thread, and would make it later.
    thread = threading.Thread(target=count)
    thread.start()
    thread.join()
    if "error" in outcome:
        error = outcome["error"]
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise FileFormatError(
            f"{source}: the configuration cannot be built ({reason}). Save the model again"
        ) from error
    if outcome["needed"] > values:
        raise FileFormatError(
            f"{source}: Keras could not load the whole model: its configuration asks for {outcome['needed']} weights, the "
            f"file holds {values}. Do not use this file"
        )


def _count(config):
    """Number of weights of a configuration, which is built without making any."""
    import keras

    own = copy.deepcopy({**config, "compile_config": None})  # Keras empties the dictionaries that it reads
    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(own)
        return sum(math.prod(variable.shape) for variable in model.weights)
