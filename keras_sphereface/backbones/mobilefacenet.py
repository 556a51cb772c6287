"""MobileFaceNet, a network of one million parameters for phones."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from keras_sphereface.arguments import finite_number, is_whole, positive_number
from keras_sphereface.backbones import base, blocks, layout

# Expansion, output channels, repetitions and first stride of each group of bottlenecks: arXiv 1804.07573, Table 1.
BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
STEM_CHANNELS = 64
LAST_CHANNELS = 512
PAPER_IMAGE_STD = 128.0
_CHANNEL_MULTIPLE = 8  # widths that vector instructions like


@keras.saving.register_keras_serializable(package="keras_sphereface")
class MobileFaceNet(base.FaceBackbone):
    """MobileFaceNet: inverted bottlenecks, a global depthwise convolution and a linear embedding.

    Args:
        embedding_dim: Length of an embedding. Defaults to `128`, the paper's.
        width: Factor on all channels, rounded to multiples of 8. Defaults to `1.0`.
        bottlenecks: Groups of bottlenecks, each `(expansion, channels, repetitions, first stride)`.
            Defaults to the paper's Table 1.
        input_shape: `(height, width, 3)`; the paper has 112x112 and 112x96. Defaults to `(112, 112, 3)`.
        image_mean: Subtracted from the images, which come as 0..255. Defaults to `127.5`.
        image_std: Then divided by. Defaults to `128.0`, the paper's.
        dtype: Dtype policy. The embedding is computed in float32 under 16-bit policies. Defaults to `None`.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: If an argument has no meaning.
        TypeError: On an argument that is not known.

    Example:
    >>> backbone = MobileFaceNet(width=0.25)
    >>> backbone(np.zeros((2, 112, 112, 3), "uint8")).shape
    (2, 128)

    Reference:
        - MobileFaceNets (arXiv 1804.07573), Table 1
    """

    def __init__(
        self,
        embedding_dim: int = 128,
        width: float = 1.0,
        bottlenecks: Sequence = BOTTLENECKS,
        input_shape: tuple[int, int, int] = base.DEFAULT_INPUT_SHAPE,
        image_mean: float = base.IMAGE_CENTER,
        image_std: float = PAPER_IMAGE_STD,
        dtype: Any = None,
        **kwargs,
    ):
        kwargs.setdefault("name", "mobilefacenet")
        config = {
            "embedding_dim": base.check_embedding_dim(embedding_dim),
            "width": positive_number("width", width),
            "bottlenecks": _groups(bottlenecks),
            "input_shape": base.check_input_shape(input_shape),
            "image_mean": finite_number("image_mean", image_mean),
            "image_std": finite_number("image_std", image_std),
        }
        images = base.image_input(config["input_shape"])
        x = base.rescale(images, image_mean, image_std)
        x = _stem(x, scale_channels(STEM_CHANNELS, width), dtype)
        x = _bottlenecks(x, config["bottlenecks"], width, dtype)
        embeddings = _embedding(x, scale_channels(LAST_CHANNELS, width), config["embedding_dim"], dtype)
        super().__init__(inputs=images, outputs=embeddings, config=config, dtype=dtype, **kwargs)


def scale_channels(channels, width):
    """Multiplies channels by `width` and rounds to the nearest positive multiple of 8."""
    return max(_CHANNEL_MULTIPLE, int(channels * width / _CHANNEL_MULTIPLE + 0.5) * _CHANNEL_MULTIPLE)


def _groups(bottlenecks):
    """The groups of bottlenecks as tuples of ints, or `ValueError`."""
    groups = bottlenecks if isinstance(bottlenecks, Sequence) else [bottlenecks]
    for group in groups:
        if not isinstance(group, (list, tuple)) or len(group) != 4 or not all(is_whole(value, 1) for value in group):
            raise ValueError(
                "Each of `bottlenecks` must be (expansion, channels, repetitions, first stride), all positive integers. "
                f"Received: {group!r}"
            )
    return tuple(tuple(int(value) for value in group) for group in groups)


def _stem(x, channels, dtype):
    x = blocks.conv(x, channels, 3, 2, dtype=dtype, name="conv1_conv")
    x = blocks.prelu(blocks.batch_norm(x, dtype, "conv1_bn"), dtype, "conv1_prelu")
    x = blocks.depthwise_conv(x, 3, 1, dtype, "dw_conv1_conv")
    return blocks.prelu(blocks.batch_norm(x, dtype, "dw_conv1_bn"), dtype, "dw_conv1_prelu")


def _bottlenecks(x, groups, width, dtype):
    index = 0
    for expansion, channels, repetitions, first_stride in groups:
        for repetition in range(repetitions):
            strides = first_stride if repetition == 0 else 1
            x = _bottleneck(x, scale_channels(channels, width), expansion, strides, dtype, f"blocks_{index}")
            index += 1
    return x


def _bottleneck(x, channels, expansion, strides, dtype, name):
    """Widen, filter, narrow: the narrow end is linear. Numbers in names are those of the reference's `Sequential`."""
    inputs, name = x, f"{name}_conv"
    x = blocks.conv(x, layout.num_channels(x) * expansion, 1, dtype=dtype, name=f"{name}_0")
    x = blocks.prelu(blocks.batch_norm(x, dtype, f"{name}_1"), dtype, f"{name}_2")
    x = blocks.depthwise_conv(x, 3, strides, dtype, f"{name}_3")
    x = blocks.prelu(blocks.batch_norm(x, dtype, f"{name}_4"), dtype, f"{name}_5")
    x = blocks.conv(x, channels, 1, dtype=dtype, name=f"{name}_6")
    x = blocks.batch_norm(x, dtype, f"{name}_7")
    if strides == 1 and layout.num_channels(inputs) == channels:
        x = layers.Add(dtype=dtype, name=f"{name}_add")([inputs, x])
    return x


def _embedding(x, channels, embedding_dim, dtype):
    x = blocks.conv(x, channels, 1, dtype=dtype, name="conv2_conv")
    x = blocks.prelu(blocks.batch_norm(x, dtype, "conv2_bn"), dtype, "conv2_prelu")
    x = blocks.global_depthwise_conv(x, dtype, "linear7_conv")
    x = blocks.flatten(blocks.batch_norm(x, dtype, "linear7_bn"), dtype)
    last = base.embedding_dtype(dtype)
    x = blocks.dense(x, embedding_dim, use_bias=False, dtype=last, name="linear1_conv")
    return blocks.batch_norm(x, last, "linear1_bn")
