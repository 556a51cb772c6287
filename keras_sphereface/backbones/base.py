"""What all backbones share: a functional graph inside a `keras.Model`, with the arguments that made it beside it."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import layers

from keras_sphereface.arguments import finite_number, is_whole, positive_number, whole_number
from keras_sphereface.backbones import layout
from keras_sphereface.errors import did_you_mean
from keras_sphereface.hints import Tensor

DEFAULT_INPUT_SHAPE = (112, 112, 3)
IMAGE_CENTER = 127.5  # the middle of 0..255
_IN_WORDS = {3: "three", 4: "four"}
_OF_MODEL = ("name", "trainable")  # arguments of `keras.Model` that a backbone takes
FROZEN, QUANTIZED = "frozen", "quantized"  # what a configuration says of layers that were changed one by one
_REDUCED_PRECISION = ("float16", "bfloat16")


class FaceBackbone(keras.Model):
    """Base class of the backbones: images in, raw (not normalized) embeddings out.

    A subclass builds its graph in `__init__` and hands it over together with the arguments that made it.

    Args:
        inputs: `keras.Input` of images.
        outputs: Keras tensor of embeddings, `(batch, embedding_dim)`.
        config: Dictionary of the subclass's constructor arguments, plain Python values only.
        dtype: Dtype policy of the model. Defaults to `None`, Keras's global policy.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        TypeError: On any other argument.

    Example:
    >>> class TinyNet(keras_sphereface.backbones.FaceBackbone):
    ...     def __init__(self, embedding_dim=8, **kwargs):
    ...         images = keras.Input((112, 112, 3))
    ...         x = keras.layers.Rescaling(1 / 127.5, offset=-1)(images)
    ...         x = keras.layers.Dense(embedding_dim)(keras.layers.GlobalAveragePooling2D()(x))
    ...         super().__init__(images, x, {"embedding_dim": embedding_dim}, **kwargs)
    >>> TinyNet(16).output_shape
    (None, 16)
    """

    def __init__(self, inputs: Any, outputs: Any, config: dict, dtype: Any = None, **kwargs):
        _check_further(kwargs, type(self).__name__, config)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.dtype_policy = keras.dtype_policies.get(dtype)  # a functional model's constructor would not keep it
        self._dtype_of_layers = self.dtype_policy  # one that is set on the model later does not reach them
        # An immutable tuple, because Keras wraps dictionaries that are set on a model.
        self._constructor_arguments = tuple(config.items())

    @property
    def embedding_dim(self) -> int:
        """Length of an embedding."""
        return dict(self._constructor_arguments)["embedding_dim"]

    def get_config(self) -> dict:
        """Returns the constructor's arguments as plain values; with them, if there are such, frozen and quantized layers."""
        config = {
            **dict(self._constructor_arguments),
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self._dtype_of_layers),
        }
        frozen = [layer.name for layer in self.layers if self.trainable and not layer.trainable]
        quantized = {
            layer.name: keras.dtype_policies.serialize(layer.dtype_policy)
            for layer in self.layers
            if getattr(layer, "quantization_mode", None)
        }
        return {**config, **{name: value for name, value in ((FROZEN, frozen), (QUANTIZED, quantized)) if value}}

    @classmethod
    def from_config(cls, config: dict) -> "FaceBackbone":
        """Builds the backbone from the result of `get_config`."""
        backbone = cls(**{name: value for name, value in config.items() if name not in (FROZEN, QUANTIZED)})
        for name, policy in config.get(QUANTIZED, {}).items():  # gives layers the variables whose values are loaded
            backbone.get_layer(name).dtype_policy = policy
        for name in config.get(FROZEN, ()):
            backbone.get_layer(name).trainable = False
        return backbone


def _check_further(kwargs, backbone, config):
    """Refuses what would be dropped without a word: Keras ignores arguments that it does not know."""
    for name, value in kwargs.items():
        if name not in _OF_MODEL:
            known = (*config, "dtype", *_OF_MODEL)
            raise TypeError(
                f"{backbone} has no such argument. Received: {name}={value!r}. Known: {', '.join(known)}."
                f"{did_you_mean(name, known)}"
            )


def check_input_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    """Returns `input_shape` as a tuple, or raises `ValueError` unless it is three positive integers, the last one 3."""
    shape = tuple(input_shape) if isinstance(input_shape, (list, tuple)) else ()
    valid = len(shape) == 3 and all(is_whole(size, 1) for size in shape)
    if not valid or shape[-1] != 3:
        raise ValueError(
            f"`input_shape` must be (height, width, 3), positive integers, channels last. Received: {input_shape}"
        )
    return tuple(int(size) for size in shape)


def stage_numbers(name: str, values: Iterable[int], stages: int, least: int = 1) -> tuple[int, ...]:
    """Returns an argument that has one number for each stage of a network.

    Args:
        name: The argument's name, for the message.
        values: What was given.
        stages: How many there must be, 3 or 4.
        least: Smallest number. Defaults to 1.

    Returns:
        A tuple of ints.

    Raises:
        ValueError: If these are not so many integers of at least `least`.
    """
    numbers_of_stages = tuple(values) if isinstance(values, Iterable) else ()
    if len(numbers_of_stages) != stages or not all(is_whole(value, least) for value in numbers_of_stages):
        raise ValueError(
            f"`{name}` must be an integer of at least {least} for each of the {_IN_WORDS[stages]} stages. "
            f"Received: {name}={values!r}"
        )
    return tuple(int(value) for value in numbers_of_stages)


def image_input(input_shape: tuple[int, int, int]) -> Tensor:
    """Returns the `keras.Input` of images."""
    return keras.Input(shape=input_shape, dtype="float32", name="images")


def rescale(images: Tensor, image_mean: float, image_std: float) -> Tensor:
    """Maps 0..255 to `(images - image_mean) / image_std`, in float32 whatever the policy, and to the layout of inside.

    A pixel's 8 bits survive bfloat16, but `x / 127.5 - 1` computed in bfloat16 does not.
    """
    image_mean, image_std = finite_number("image_mean", image_mean), positive_number("image_std", image_std)
    x = layers.Rescaling(1.0 / image_std, offset=-image_mean / image_std, dtype="float32", name="rescale")(images)
    return layout.from_channels_last(x)


def check_rate(name: str, value: float) -> float:
    """Returns a share that is dropped as a float, or raises `ValueError` unless it is from 0 to below 1."""
    rate = finite_number(name, value)
    if not 0 <= rate < 1:
        raise ValueError(f"`{name}` must be at least 0 and below 1. Received: {name}={value}")
    return rate


def check_embedding_dim(embedding_dim: int) -> int:
    """Returns `embedding_dim` as an int, or raises `ValueError` unless it is a positive integer."""
    return whole_number("embedding_dim", embedding_dim)


def embedding_dtype(dtype: Any) -> Any:
    """The policy of the last layers: float32 where `dtype` computes in 16 bits, because angles need the digits."""
    policy = keras.dtype_policies.get(dtype)
    return "float32" if policy.compute_dtype in _REDUCED_PRECISION else dtype
