"""The model to keep after training: images in, unit-length embeddings out."""

import keras


def build_embedder(backbone: keras.Model, name: str | None = None) -> keras.Model:
    """Puts a normalization to unit length on a backbone.

    Args:
        backbone: A `keras.Model` from images of shape `(n, height, width, 3)`, RGB 0..255, to embeddings `(n, d)`.
        name: Name of the model. Defaults to the backbone's with `_embedder`.

    Returns:
        A functional `keras.Model` made of the backbone and Keras's own layers; its output is float32 whatever the
        backbone's dtype policy, and it shares the backbone's weights.

    Example:
    >>> embedder = build_embedder(keras_sphereface.backbones.SFNet4(embedding_dim=64))
    >>> embedder.predict(np.zeros((1, 112, 112, 3), "uint8")).shape
    (1, 64)
    """
    images = keras.Input(backbone.input_shape[1:], name="images")
    embeddings = keras.layers.UnitNormalization(axis=-1, dtype="float32", name="unit_length")(backbone(images))
    return keras.Model(images, embeddings, name=name or f"{backbone.name}_embedder")
