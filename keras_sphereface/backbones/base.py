"""What all backbones share: a functional graph inside a `keras.Model`, with the arguments that made it beside it."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from keras_sphereface.backbones import layout
from keras_sphereface.hints import Tensor

DEFAULT_INPUT_SHAPE = (112, 112, 3)
IMAGE_CENTER = 127.5  # the middle of 0..255
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
    """

    def __init__(self, inputs: Any, outputs: Any, config: dict, dtype: Any = None, **kwargs):
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.dtype_policy = keras.dtype_policies.get(dtype)  # a functional model's constructor would not keep it
        # An immutable tuple, because Keras wraps dictionaries that are set on a model.
        self._constructor_arguments = tuple(config.items())

    @property
    def embedding_dim(self) -> int:
        """Length of an embedding."""
        return dict(self._constructor_arguments)["embedding_dim"]

    def get_config(self) -> dict:
        """Returns the constructor's arguments as plain values."""
        return {
            **dict(self._constructor_arguments),
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config: dict) -> "FaceBackbone":
        """Builds the backbone from the result of `get_config`."""
        return cls(**config)


def check_input_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    """Returns `input_shape` as a tuple, or raises `ValueError` unless it is three positive integers, the last one 3."""
    shape = tuple(input_shape) if isinstance(input_shape, (list, tuple)) else ()
    valid = len(shape) == 3 and all(isinstance(size, int) and size > 0 for size in shape)
    if not valid or shape[-1] != 3:
        raise ValueError(
            f"`input_shape` must be (height, width, 3), positive integers, channels last. Received: {input_shape}"
        )
    return shape


def image_input(input_shape: tuple[int, int, int]) -> Tensor:
    """Returns the `keras.Input` of images."""
    return keras.Input(shape=input_shape, dtype="float32", name="images")


def rescale(images: Tensor, image_mean: float, image_std: float) -> Tensor:
    """Maps 0..255 to `(images - image_mean) / image_std`, in float32 whatever the policy, and to the layout of inside.

    A pixel's 8 bits survive bfloat16, but `x / 127.5 - 1` computed in bfloat16 does not.
    """
    if not image_std > 0:
        raise ValueError(f"`image_std` must be positive. Received: image_std={image_std}")
    x = layers.Rescaling(1.0 / image_std, offset=-image_mean / image_std, dtype="float32", name="rescale")(images)
    return layout.from_channels_last(x)


def check_embedding_dim(embedding_dim: int) -> int:
    """Returns `embedding_dim` as an int, or raises `ValueError` unless it is a positive integer."""
    if int(embedding_dim) != embedding_dim or embedding_dim < 1:
        raise ValueError(f"`embedding_dim` must be a positive integer. Received: embedding_dim={embedding_dim}")
    return int(embedding_dim)


def embedding_dtype(dtype: Any) -> Any:
    """The policy of the last layers: float32 where `dtype` computes in 16 bits, because angles need the digits."""
    policy = keras.dtype_policies.get(dtype)
    return "float32" if policy.compute_dtype in _REDUCED_PRECISION else dtype
