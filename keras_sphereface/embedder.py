"""The model to keep after training: images in, unit-length embeddings out."""

import pathlib
from typing import Any

import keras

from keras_sphereface.files import draft
from keras_sphereface.hints import Path, Shape, Tensor


def build_embedder(backbone: keras.Model, name: str | None = None) -> keras.Model:
    """Puts a normalization to unit length on a backbone.

    Args:
        backbone: A `keras.Model` from images of shape `(n, height, width, 3)`, RGB 0..255, to embeddings `(n, d)`. One of
            your own class must have seen images.
        name: Name of the model. Defaults to the backbone's with `_embedder`.

    Returns:
        A functional `keras.Model` made of the backbone and Keras's own layers; its output is float32 whatever the
        backbone's dtype policy, and it shares the backbone's weights.

    Raises:
        TypeError: If the backbone is no `keras.Model`.
        ValueError: If the shape of its images isn't known.

    Example:
    >>> embedder = build_embedder(keras_sphereface.backbones.SFNet4(embedding_dim=64))
    >>> embedder.predict(np.zeros((1, 112, 112, 3), "uint8"), verbose=0).shape
    (1, 64)
    """
    if not isinstance(backbone, keras.Model):
        raise TypeError(f"`backbone` must be a keras.Model from images to embeddings. Received: backbone={backbone!r}")
    shape = images_shape(backbone)
    if shape is None:
        raise ValueError(
            "The size of the images must be known: train the model, or call it on a batch of them, first. "
            f"Received: {backbone.name!r}, which has seen none"
        )
    images = keras.Input(shape[1:], name="images")
    raw = only_tensor(backbone(images))
    embeddings = keras.layers.UnitNormalization(axis=-1, dtype="float32", name="unit_length")(raw)
    return keras.Model(images, embeddings, name=name or f"{backbone.name}_embedder")


def save(model: keras.Model, path: Path) -> None:
    """Saves a model as `model.save` does, whole or not at all: an older file stays until the new one is on the disk.

    Args:
        model: The `keras.Model`.
        path: The file, ending in `.keras`; its folder exists.

    Raises:
        ValueError: If the file's name has another ending.
        OSError: If it cannot be written.

    Example:
    >>> save(trainer.embedder, "model.keras")  # doctest: +SKIP
    """
    if pathlib.Path(path).suffix != ".keras":
        raise ValueError(f"Expected a file name ending in .keras. Received: {path}")
    with draft(path) as unfinished:
        model.save(unfinished)


def images_shape(model: keras.Model) -> Shape | None:
    """The shape `(None, height, width, 3)` of a model's images; None for a subclassed one that has seen none. Raises
    ValueError for a model of more than one input.
    """
    inputs = getattr(model, "inputs", None) or [None]
    if len(inputs) != 1:
        raise ValueError(
            "A backbone takes one tensor, the images: make a keras.Model of one input of it. "
            f"Received: {model.name!r}, of {len(inputs)} inputs: {', '.join(tensor.name for tensor in inputs)}"
        )
    if hasattr(model, "input_shape"):
        return model.input_shape
    shape = (model.get_build_config() or {}).get("input_shape")  # the first batch's
    return None if shape is None else (None, *shape[1:])


def batch_shape(data: Any) -> Shape | None:
    """The shape `(None, height, width, 3)` of the images that `fit` takes as `x`; None where only the first batch tells."""
    if hasattr(data, "element_spec"):
        first = keras.tree.flatten(data.element_spec)[0]
    else:
        first = data[0][0] if isinstance(data, keras.utils.PyDataset) else data
    shape = getattr(first, "shape", None)
    if shape is None or getattr(shape, "rank", len(shape)) != 4 or None in tuple(shape)[1:]:
        return None
    return (None, *tuple(shape)[1:])


def only_tensor(outputs: Any) -> Tensor:
    """The tensor of a model's output, which is a list of one for a model made of lists; raises ValueError for more."""
    tensors = keras.tree.flatten(outputs)
    if len(tensors) != 1:
        raise ValueError(
            "A backbone gives one tensor, the embeddings: choose it with keras.Model(backbone.input, backbone.output[0]). "
            f"Received: {len(tensors)} outputs, of shapes {[tuple(tensor.shape) for tensor in tensors]}"
        )
    return tensors[0]


def as_embedder(model: keras.Model) -> keras.Model:
    """Makes the model that is kept and shared of a model: images in, embeddings of unit length out.

    Args:
        model: A `FaceClassifier` (its embedder is taken), a backbone, or an embedder.

    Returns:
        A `keras.Model` that shares the weights.

    Raises:
        ValueError: If the model does not map images `(n, height, width, 3)` to vectors.

    Example:
    >>> backbone = keras_sphereface.backbones.SFNet4(embedding_dim=16)
    >>> embedder = keras_sphereface.embedder.as_embedder(backbone)
    >>> embedder.output_shape
    (None, 16)
    """
    if hasattr(model, "embedder") and hasattr(model, "head"):
        return model.embedder
    if isinstance(model, keras.Model) and not hasattr(model, "input_shape"):  # of a class of its own
        model = build_embedder(model)
    inputs, outputs = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    maps_images = isinstance(inputs, tuple) and len(inputs) == 4 and inputs[-1] == 3
    if not maps_images or not isinstance(outputs, tuple) or len(outputs) != 2:
        raise ValueError(
            "Expected a model from images (n, height, width, 3) to embeddings (n, d). "
            f"Received: {getattr(model, 'name', model)!r} from {inputs} to {outputs}"
        )
    return model if _has_unit_length(model) else build_embedder(model)


def as_backbone(model: keras.Model) -> keras.Model:
    """Makes the model that is trained of a model: the inverse of `as_embedder`.

    Args:
        model: An embedder, of which all but the normalization to unit length is taken; a `FaceClassifier` (its backbone is
            taken); any other comes back as it is.

    Returns:
        A `keras.Model` that shares the weights.

    Example:
    >>> backbone = keras_sphereface.backbones.SFNet4(embedding_dim=16)
    >>> as_backbone(build_embedder(backbone)) is backbone
    True
    """
    if hasattr(model, "embedder") and hasattr(model, "head"):
        return model.backbone
    last = _unit_length_of(model)
    if last is None:
        return model
    if len(model.layers) == 3 and isinstance(model.layers[1], keras.Model):  # `build_embedder`'s
        return model.layers[1]
    return keras.Model(model.inputs[0], last.input, name=model.name)


def _has_unit_length(model):
    """Whether the last that a model does is to normalize its embeddings, in float32."""
    last = _unit_length_of(model)
    return last is not None and last.compute_dtype == "float32"


def _unit_length_of(model):
    """The layer that normalizes a model's embeddings, if that is the last that it does; else None."""
    if isinstance(model, keras.Sequential):
        last = model.layers[-1] if model.layers else None
    else:
        last = getattr(getattr(getattr(model, "output", None), "_keras_history", None), "operation", None)
    is_unit = isinstance(last, keras.layers.UnitNormalization) and keras.tree.flatten(last.axis) in ([-1], [1])
    return last if is_unit else None
