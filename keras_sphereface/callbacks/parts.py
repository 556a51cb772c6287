"""What callbacks need of the model that is trained."""

import keras


def part_of(callback: keras.callbacks.Callback, name: str) -> keras.layers.Layer:
    """Returns a part of the model whose embeddings a callback measures.

    Args:
        callback: A callback at work.
        name: `"head"` or `"embedder"`.

    Returns:
        The layer, or model.

    Raises:
        ValueError: If the model has no such part, as one that is no `FaceClassifier`.
    """
    if not hasattr(callback.model, name):
        raise ValueError(
            f"{type(callback).__name__} measures the embeddings of a FaceClassifier. "
            f"Received: a {type(callback.model).__name__}; build the trainer with keras_sphereface.FaceClassifier"
        )
    return getattr(callback.model, name)
