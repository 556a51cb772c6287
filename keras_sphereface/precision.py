"""A trained model that computes in another precision."""

from typing import TYPE_CHECKING, Any

from keras_sphereface.errors import shown
from keras_sphereface.layer_graph import copy_weights, inline, is_functional

if TYPE_CHECKING:
    import keras


FLOATS = ("float16", "bfloat16", "float32", "float64")


def float_policy(dtype: Any) -> "keras.DTypePolicy":
    """The dtype policy of a name, one in which an embedder can compute.

    Args:
        dtype: Dtype policy or its name, e.g. `"bfloat16"`, `"mixed_bfloat16"`.

    Returns:
        The `keras.DTypePolicy`.

    Raises:
        ValueError: If Keras has no such policy, or it does not compute and keep weights in one of `FLOATS`: an embedder of
            integers, complex numbers or quantized weights is none.

    Example:
    >>> float_policy("mixed_bfloat16").variable_dtype
    'float32'
    """
    import keras

    quantized = (keras.dtype_policies.QuantizedDTypePolicy, keras.dtype_policies.DTypePolicyMap)
    try:
        policy = keras.dtype_policies.get(dtype)
        is_float = {policy.compute_dtype, policy.variable_dtype} <= set(FLOATS) and not isinstance(policy, quantized)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise _no_float(dtype) from error
    if not is_float:
        raise _no_float(dtype)
    return policy


def _no_float(dtype):
    return ValueError(
        f"Expected dtype as a dtype policy of {', '.join(FLOATS)}, e.g. 'bfloat16' or 'mixed_bfloat16'. "
        f"Received: dtype={shown(dtype)}"
    )


def with_dtype(model: "keras.Model", dtype: Any) -> "keras.Model":
    """Copies an embedder so that it computes in another precision.

    Image maps are computed in the new one. Preprocessing (`Rescaling`, `Normalization`) stays in float32, as in a backbone
    that was built in the new one. So do vectors, that is the embedding and its normalization: a cosine has its third digit
    only there. Both cost next to nothing.

    Args:
        model: A functional or sequential `keras.Model` from images `(n, height, width, 3)` to embeddings `(n, d)`.
        dtype: Dtype policy, e.g. `"bfloat16"`, or `"mixed_bfloat16"` where the weights are to stay in float32.

    Returns:
        A functional `keras.Model` with weights of its own, not compiled.

    Raises:
        ValueError: If it is not a policy of floating-point numbers (see `float_policy`), or the model is not functional,
            e.g. an exported one, or has models inside that `layer_graph.inline` does not unfold.

    Example:
    >>> embedder = build_embedder(keras_sphereface.backbones.SFNet4(embedding_dim=64))
    >>> with_dtype(embedder, "bfloat16").predict(np.zeros((1, 112, 112, 3), "uint8")).dtype
    dtype('float32')
    """
    import keras

    policy, preprocessing = float_policy(dtype), (keras.layers.Rescaling, keras.layers.Normalization)
    flat = inline(model)
    if not is_functional(flat) or any(isinstance(layer, keras.Model) for layer in flat.layers):
        raise ValueError(
            f"Only functional Keras models, of layers, compute in another dtype. Received: a {type(model).__name__} with "
            f"dtype={dtype!r}. An exported file has its precision from `keras-sphereface export --precision`"
        )
    if quantized := next((layer.name for layer in flat.layers if getattr(layer, "quantization_mode", None)), None):
        raise ValueError(
            f"A quantized model has its precision from model.quantize. Received: {model.name!r}, whose layer {quantized!r} "
            f"is quantized, with dtype={dtype!r}. Leave dtype out, or load the model that was not quantized"
        )

    def copy(layer):
        if not isinstance(layer, keras.layers.Layer):  # `x + y`, which computes in what it is given
            return layer
        if isinstance(layer, keras.layers.InputLayer):
            return keras.layers.InputLayer.from_config(layer.get_config())
        is_exact = len(layer.output.shape) <= 2 or isinstance(layer, preprocessing)
        own = keras.dtype_policies.serialize(keras.dtype_policies.get("float32") if is_exact else policy)
        return type(layer).from_config({**layer.get_config(), "dtype": own})

    copied = keras.models.clone_model(flat, clone_function=copy)
    copy_weights(flat, copied)
    return copied
