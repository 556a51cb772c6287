"""Where the channels are inside a backbone: last, as in its images, or first where the backend computes so faster.

OpenVINO's convolutions want them first, and Keras turns every feature map there and back for them. On two CPU cores the
default model went from 334 to 564 images a second one by one, and from 478 to 657 in batches of 64, without those turns
(`benchmarks/inference.py`). Weights have the same shapes both ways, and a saved backbone is its class and arguments, so its
files do not know of it; those of a copy of its layers do, as `precision.with_dtype` makes one.
"""

import keras
from keras import layers

from keras_sphereface.hints import Tensor

CHANNELS_FIRST_BACKENDS = ("openvino",)


def data_format() -> str:
    """Keras's name of this backend's layout: `"channels_first"` or `"channels_last"`."""
    return "channels_first" if keras.backend.backend() in CHANNELS_FIRST_BACKENDS else "channels_last"


def channel_axis() -> int:
    """Axis of a feature map's channels."""
    return 1 if data_format() == "channels_first" else -1


def num_channels(x: Tensor) -> int:
    """Channels of a feature map."""
    return x.shape[channel_axis()]


def image_size(x: Tensor) -> tuple[int, int]:
    """Height and width of a feature map."""
    return tuple(x.shape[2:] if data_format() == "channels_first" else x.shape[1:3])


def from_channels_last(x: Tensor) -> Tensor:
    """Puts `(n, height, width, channels)` into this backend's layout."""
    return layers.Permute((3, 1, 2), name="channels_first")(x) if data_format() == "channels_first" else x


def to_channels_last(x: Tensor) -> Tensor:
    """Puts a feature map into the order `(n, height, width, channels)`."""
    return layers.Permute((2, 3, 1), name="channels_last")(x) if data_format() == "channels_first" else x
