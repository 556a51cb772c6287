"""The layers of a functional model: unfolded from models inside it, and Keras's own in the place of this package's."""

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def is_functional(model: Any) -> bool:
    """Whether something is a functional `keras.Model`, whose graph of layers is known."""
    return isinstance(model, _functional_class())


@functools.cache
def _functional_class():
    import keras

    return type(keras.Model(x := keras.Input((1,)), x))


def inline(model: "keras.Model") -> "keras.Model":
    """Unfolds functional models inside a functional model, so that its configuration has Keras's own layers only.

    Args:
        model: A functional `keras.Model`.

    Returns:
        A functional `keras.Model` of the same layers and weights, not compiled.
    """
    import keras

    def is_marker(operation):  # what calling an inner model's graph leaves in place of its input
        return type(operation).__name__ == "ConvertToTensor"

    def call(operation, *args, **kwargs):
        if is_marker(operation):
            return args[0]
        return operation.call(*args, **kwargs) if is_functional(operation) else operation(*args, **kwargs)

    if not is_functional(model):
        return model
    if model.compiled:  # cloning would compile again, which fails for losses that Keras does not know
        model = keras.Model(model.input, model.output, name=model.name)
    flat = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)
    is_folded = any(is_functional(operation) or is_marker(operation) for operation in flat.operations)
    return inline(flat) if is_folded else flat


def with_keras_layers(model: "keras.Model") -> "keras.Model":
    """Puts Keras's own layers in the place of this package's that compute the same and only train faster.

    Args:
        model: A functional `keras.Model` without models inside, as of `inline`; others come back as they are.

    Returns:
        A `keras.Model` of the same embeddings that Keras alone can load, if no other layer is this package's.
    """
    import keras

    from keras_sphereface.backbones import layers

    originals = {
        layers.BatchNormalization: keras.layers.BatchNormalization,
        layers.PReLU: keras.layers.PReLU,
    }
    own = [layer for layer in model.layers if type(layer) in originals]
    if not own or not is_functional(model):
        return model

    def replace(layer):
        original = originals.get(type(layer))
        return layer if original is None else original.from_config(layer.get_config())

    plain = keras.models.clone_model(model, clone_function=replace)
    for layer in own:
        plain.get_layer(layer.name).set_weights(layer.get_weights())
    return plain
