"""Measures a model on IJB-B or IJB-C: crops and features of all images, then the protocols."""

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from keras_sphereface.arguments import whole_number
from keras_sphereface.data.ijb import read_ijb
from keras_sphereface.data.ijb_images import IJBImages
from keras_sphereface.evaluation.features import extract, open_features
from keras_sphereface.evaluation.ijb import IJBReport, ijb
from keras_sphereface.evaluator import embed_batch, input_size
from keras_sphereface.hints import Path

# The size of the crops where the model's input does not fix one.
IMAGE_SIZE = (112, 112)


def evaluate_ijb(
    model: Callable[[Any], Any],
    folder: Path,
    subset: str,
    features: Path,
    flip: bool = True,
    batch_size: int = 64,
    detector_score: bool = True,
    norm_weighting: bool = True,
    model_signature: str | None = None,
    identification: bool = True,
) -> IJBReport:
    """Measures a model on IJB-B or IJB-C.

    The features of all images go to an HDF5 file first; called again after an interruption, the extraction goes on
    where it was, and with a complete file it is skipped.

    Args:
        model: A `keras.Model`, or a callable from uint8 images `(n, h, w, 3)`, RGB, to embeddings `(n, d)`.
        folder: The folder that holds `meta` and `loose_crop`.
        subset: `"ijbb"` or `"ijbc"`.
        features: Path of the HDF5 file.
        flip: Whether mirror images are embedded and added. Defaults to `True`.
        batch_size: Images per block. Defaults to `64`.
        detector_score: Whether images are weighted by their detector score. Defaults to `True`.
        norm_weighting: Whether the norm of a feature counts. Defaults to `True`; it says nothing where the model's
            embeddings have unit length.
        model_signature: Text that tells models apart, for the HDF5 file. Defaults to a hash of the model's layers and
            weights; a callable needs one.
        identification: Whether to measure 1:N, which needs its lists. Defaults to `True`.

    Returns:
        `keras_sphereface.evaluation.IJBReport`.

    Raises:
        FileFormatError: If a meta file is broken, or the HDF5 file belongs to another model or other images.
        FileNotFoundError: If a meta file or an image is missing.
        ValueError: If embeddings are unusable, `batch_size` is not an integer of at least 1, the model takes images of
            another size than 112x112 or 112x96, or a callable comes without `model_signature`.

    Example:
    >>> model = keras_sphereface.load_pretrained()
    >>> report = keras_sphereface.evaluate_ijb(model, "IJBC", "ijbc", features="ijbc_features.h5")
    >>> print(report)
    """
    batch_size = whole_number("batch_size", batch_size)
    meta = read_ijb(folder, subset, identification=identification)
    size = input_size(model)
    images = IJBImages(meta, folder, IMAGE_SIZE if size is None or None in size else size)
    said = model_digest(model) if model_signature is None else model_signature
    crops = f"{images.image_size[0]}x{images.image_size[1]} {hashlib.sha256(meta.landmarks.tobytes()).hexdigest()}"
    extract(
        lambda block: embed_batch(model, block, batch_size, check=False),  # `extract` does, and names the image
        lambda start: images.batches(batch_size, start),
        features,
        meta.image_names,
        said,
        flip=flip,
        crops=crops,
    )
    with open_features(features, meta.image_names, said) as file:
        return ijb(
            meta,
            file["features"],
            file["flipped_features"] if flip else None,
            detector_score=detector_score,
            norm_weighting=norm_weighting,
        )


def model_digest(model: Any) -> str:
    """Returns the sha256 of a model's layers and weights, as hexadecimal digits; their names do not count.

    Raises:
        ValueError: If the model has no weights to tell it by.
    """
    if not hasattr(model, "get_weights"):
        raise ValueError("A callable needs model_signature, a text that tells it from others. Received: none")
    digest = hashlib.sha256(json.dumps(_layers_of(model), sort_keys=True, default=repr).encode())
    for weight in model.get_weights():
        digest.update(f"{weight.shape}{weight.dtype}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _layers_of(model):
    """The configuration of a model with its names numbered: Keras counts on those that it gives itself."""
    try:
        config = model.get_config()
    except NotImplementedError:  # of a subclass that does not say how it is made
        return type(model).__name__
    import keras

    config = keras.saving.serialize_keras_object(config)
    numbers = {name: f"name {number}" for number, name in enumerate(dict.fromkeys(_names_in(config)))}

    def numbered(value):
        if isinstance(value, dict):
            return {key: numbered(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [numbered(item) for item in value]
        return numbers.get(value, value) if isinstance(value, str) else value

    return numbered(config)


def _names_in(config):
    if isinstance(config, dict):
        if isinstance(config.get("name"), str):
            yield config["name"]
        config = config.values()
    if not isinstance(config, str | bytes) and isinstance(config, Iterable):
        for value in config:
            yield from _names_in(value)
