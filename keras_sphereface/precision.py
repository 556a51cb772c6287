"""A trained model that computes in another precision."""

from typing import TYPE_CHECKING, Any

from keras_sphereface.model_folder import inline, is_functional

if TYPE_CHECKING:
    import keras


def with_dtype(model: "keras.Model", dtype: Any) -> "keras.Model":
    """Copies an embedder so that it computes in another precision.

    Image maps are computed in the new one. Vectors, that is the embedding and its normalization, stay in float32: a cosine
    has its third digit only there, and they cost next to nothing.

    Args:
        model: A functional `keras.Model` from images `(n, height, width, 3)` to embeddings `(n, d)`.
        dtype: Dtype policy, e.g. `"bfloat16"`, or `"mixed_bfloat16"` where the weights are to stay in float32.

    Returns:
        A functional `keras.Model` with weights of its own, not compiled.

    Raises:
        ValueError: If Keras has no such policy, or the model is not functional, e.g. an exported one.

    Example:
    >>> embedder = build_embedder(keras_sphereface.backbones.SFNet4(embedding_dim=64))
    >>> with_dtype(embedder, "bfloat16").predict(np.zeros((1, 112, 112, 3), "uint8")).dtype
    dtype('float32')
    """
    import keras

    try:
        policy = keras.dtype_policies.get(dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected dtype as a dtype policy, e.g. 'bfloat16' or 'float32'. Received: dtype={dtype!r}"
        ) from error
    if not is_functional(model):
        raise ValueError(
            f"Only functional Keras models compute in another dtype. Received: a {type(model).__name__} with "
            f"dtype={dtype!r}. An exported file has its precision from `keras-sphereface export --precision`"
        )
    flat = inline(model)

    def copy(layer):
        if isinstance(layer, keras.layers.InputLayer):
            return keras.layers.InputLayer.from_config(layer.get_config())
        is_map = len(layer.output.shape) > 2
        own = keras.dtype_policies.serialize(policy if is_map else keras.dtype_policies.get("float32"))
        return type(layer).from_config({**layer.get_config(), "dtype": own})

    copied = keras.models.clone_model(flat, clone_function=copy)
    copied.set_weights(flat.get_weights())
    return copied
