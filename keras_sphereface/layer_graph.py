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
    """Unfolds models inside a model, functional ones and `keras.Sequential`, so that it has layers only.

    Args:
        model: A functional `keras.Model` or a `keras.Sequential`; others come back as they are.

    Returns:
        A functional `keras.Model` of the same layers and weights, not compiled. Where two models inside have layers of one
        name, the second's are copies, with the name of their model before their own.
    """
    import keras

    def is_marker(operation):  # what calling an inner model's graph leaves in place of its input
        return type(operation).__name__ == "ConvertToTensor"

    def unfoldable(layer):
        layer = _as_functional(layer)
        if is_functional(layer):
            layer = _with_prefix(layer, f"{layer.name}_") if taken & _names(layer) else layer
            taken.update(_names(layer))
        return layer

    def call(operation, *args, **kwargs):
        if is_marker(operation):
            return args[0]
        return operation.call(*args, **kwargs) if is_functional(operation) else operation(*args, **kwargs)

    model = _as_functional(model)
    if not is_functional(model):
        return model
    if model.compiled:  # cloning would compile again, which fails for losses that Keras does not know
        model = keras.Model(model.input, model.output, name=model.name)
    taken = _names(model)
    flat = keras.models.clone_model(model, clone_function=unfoldable, call_function=call)
    is_folded = any(is_functional(_as_functional(one)) or is_marker(one) for one in flat.operations)
    return inline(flat) if is_folded else flat


def _as_functional(layer):
    import keras

    is_sequential = isinstance(layer, keras.Sequential)
    return keras.Model(layer.inputs[0], layer.outputs[0], name=layer.name) if is_sequential else layer


def _names(model):
    """Names of a model's layers; its inputs are gone when it is unfolded."""
    import keras

    return {layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)}


def _with_prefix(model, prefix):
    """A copy of a model, with longer names of its layers."""
    import keras

    def copy(layer):
        return type(layer).from_config({**layer.get_config(), "name": prefix + layer.name})

    copied = keras.models.clone_model(keras.Model(model.input, model.output, name=model.name), clone_function=copy)
    copy_weights(model, copied)
    return copied


def copy_weights(model: "keras.Model", copied: "keras.Model") -> None:
    """Gives a copy of a model its weights, and has layers take over what they compute of them: `Normalization` its scale."""
    copied.set_weights(model.get_weights())
    for layer in copied.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def with_keras_layers(model: "keras.Model") -> "keras.Model":
    """Puts Keras's own layers in the place of this package's that compute the same and only train faster.

    Args:
        model: A functional `keras.Model` without models inside, as of `inline`; others come back as they are.

    Returns:
        A `keras.Model` of the same embeddings that Keras alone can load, if no other layer is this package's.
    """
    import keras

    from keras_sphereface.backbones import layers

    own_kinds = (
        layers.BatchNormalization,
        layers.Conv2D,
        layers.DepthwiseConv2D,
        layers.MaxPooling2D,
        layers.PReLU,
    )
    originals = {kind: getattr(keras.layers, kind.__name__) for kind in own_kinds}

    def original_of(layer):
        if type(layer) is layers.PReLU and layer.data_format == "channels_first":
            return None  # Keras's has its slopes where its channels are
        return originals.get(type(layer))

    own = [layer for layer in model.layers if original_of(layer)]
    if not own or not is_functional(model):
        return model

    def replace(layer):
        original = original_of(layer)
        return layer if original is None else original.from_config(layer.get_config())

    plain = keras.models.clone_model(model, clone_function=replace)
    for layer in own:
        plain.get_layer(layer.name).set_weights(layer.get_weights())
    return plain


def check_writes(what: str) -> None:
    """Raises `RuntimeError` on a backend whose layers, in a layout of their own, are for no other one.

    Args:
        what: What was asked for, the subject of the message's first sentence.

    Example:
    >>> check_writes("Export")
    """
    import keras

    from keras_sphereface.backbones import layout

    if layout.data_format() == "channels_first":
        raise RuntimeError(
            f"{what} needs a backend of Keras that trains. Received: Keras backend {keras.backend.backend()!r}, which only "
            "predicts. Unset KERAS_BACKEND, or set it to tensorflow, jax or torch"
        )
