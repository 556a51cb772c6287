"""PatchSFNet, a small residual network of plain convolutions that is quick to train and to run on CPUs."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import initializers, layers

from keras_sphereface.arguments import finite_number
from keras_sphereface.backbones import base, blocks, layout
from keras_sphereface.backbones.layers import Conv2D, DepthwiseConv2D

STEM_KERNEL, STEM_STRIDE, STEM_PADDING = 8, 4, 2  # overlapping patches: four times fewer pixels at once
PAPER_IMAGE_STD = 128.0  # MobileFaceNet's, so that the two are exchangeable
EXPANSION_CHANNELS = 512  # before the global depthwise convolution, as in MobileFaceNet


@keras.saving.register_keras_serializable(package="keras_sphereface")
class PatchSFNet(base.FaceBackbone):
    """SFNet without normalization on patches: three stages of residual units, then MobileFaceNet's embedding.

    Depthwise convolutions and batch normalization are bound by memory, so a CPU trains MobileFaceNet several times slower
    than a network of 3x3 convolutions with as many multiplications. Here an 8x8 convolution of stride 4 makes the first
    feature map (28x28 of 112x112 images), a 3x3 convolution of stride 2 each further one (14x14, 7x7), and a unit is

        x + conv(relu(conv(relu(x))))

    whose last convolution starts at zero: the network begins as four convolutions and trains without normalization. The
    stages' ends are linear and named `stage0`, `stage1`, `stage2`; with the default channels they have the shapes of
    MobileFaceNet's, whose features may teach them.

    Args:
        units: Residual units of each stage. Defaults to `(2, 2, 2)`.
        channels: Channels of the stages. Defaults to `(64, 128, 128)`.
        hidden: Channels between the two convolutions of a unit. Defaults to `(64, 128, 192)`.
        embedding_dim: Length of an embedding. Defaults to `128`.
        input_shape: `(height, width, 3)`. Defaults to `(112, 112, 3)`.
        image_mean: Subtracted from the images, which come as 0..255. Defaults to `127.5`.
        image_std: Then divided by. Defaults to `128.0`.
        dtype: Dtype policy. The embedding is computed in float32 under 16-bit policies. Defaults to `None`.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: If lengths or shapes do not fit.
        TypeError: On an argument that is not known.

    Example:
    >>> backbone = PatchSFNet(units=(0, 0, 0), channels=(8, 8, 8), hidden=(8, 8, 8))
    >>> backbone(np.zeros((2, 112, 112, 3), "uint8")).shape
    (2, 128)

    Reference:
        - SphereFace (arXiv 1704.08063), Table 2: units without normalization
        - MobileFaceNets (arXiv 1804.07573): the global depthwise convolution
    """

    def __init__(
        self,
        units: Sequence[int] = (2, 2, 2),
        channels: Sequence[int] = (64, 128, 128),
        hidden: Sequence[int] = (64, 128, 192),
        embedding_dim: int = 128,
        input_shape: tuple[int, int, int] = base.DEFAULT_INPUT_SHAPE,
        image_mean: float = base.IMAGE_CENTER,
        image_std: float = PAPER_IMAGE_STD,
        dtype: Any = None,
        **kwargs,
    ):
        kwargs.setdefault("name", "patch_sfnet")
        config = {
            "units": base.stage_numbers("units", units, 3, least=0),
            "channels": base.stage_numbers("channels", channels, 3),
            "hidden": base.stage_numbers("hidden", hidden, 3),
            "embedding_dim": base.check_embedding_dim(embedding_dim),
            "input_shape": base.check_input_shape(input_shape),
            "image_mean": finite_number("image_mean", image_mean),
            "image_std": finite_number("image_std", image_std),
        }
        _check_size(config["input_shape"])
        images = base.image_input(config["input_shape"])
        x = base.rescale(images, image_mean, image_std)
        for stage, (count, filters, inner) in enumerate(zip(config["units"], config["channels"], config["hidden"])):
            x = _first(x, filters, stage, dtype)
            for index in range(count):
                x = _unit(x, inner, f"stage{stage}_{index}", dtype)
            x = layers.Identity(dtype=dtype, name=f"stage{stage}")(x)
        embeddings = _embedding(x, config["embedding_dim"], dtype)
        super().__init__(inputs=images, outputs=embeddings, config=config, dtype=dtype, **kwargs)


def _check_size(input_shape):
    least = STEM_KERNEL - 2 * STEM_PADDING
    if min(input_shape[:2]) < least:
        raise ValueError(
            f"`input_shape` of a PatchSFNet must be at least ({least}, {least}, 3), one patch. Received: {input_shape}"
        )


def _conv(x, filters, kernel_size, strides, padding, initializer, dtype, name):
    if padding != "same":
        x = layers.ZeroPadding2D(padding, data_format=layout.data_format(), dtype=dtype, name=f"{name}_pad")(x)
        padding = "valid"
    return Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        data_format=layout.data_format(),
        kernel_initializer=initializer,
        dtype=dtype,
        name=name,
    )(x)


def _first(x, filters, stage, dtype):
    """The convolution that makes a stage's feature map smaller than the one before."""
    if stage == 0:
        return _conv(x, filters, STEM_KERNEL, STEM_STRIDE, STEM_PADDING, "he_normal", dtype, "stem_conv")
    return _conv(x, filters, 3, 2, 1, "he_normal", dtype, f"stage{stage}_down_conv")


def _unit(x, hidden, name, dtype):
    """A residual unit that starts as the identity."""
    residual = blocks.relu(x, dtype, f"{name}_relu1")
    residual = _conv(residual, hidden, 3, 1, "same", "he_normal", dtype, f"{name}_conv1")
    residual = blocks.relu(residual, dtype, f"{name}_relu2")
    residual = _conv(residual, layout.num_channels(x), 3, 1, "same", "zeros", dtype, f"{name}_conv2")
    # Changes nothing, but parts convolution and sum: TensorFlow's graph optimizer stumbles over such sums in a chain, and
    # prints an error at the first prediction.
    residual = layers.Reshape(x.shape[1:], dtype=dtype, name=f"{name}_same")(residual)
    return layers.Add(dtype=dtype, name=f"{name}_add")([x, residual])


def _embedding(x, embedding_dim, dtype):
    x = blocks.conv(x, EXPANSION_CHANNELS, 1, use_bias=True, initializer="he_normal", dtype=dtype, name="expand_conv")
    x = blocks.relu(x, dtype, "expand_relu")
    height, width = layout.image_size(x)
    x = DepthwiseConv2D(
        (height, width),
        data_format=layout.data_format(),
        depthwise_initializer=initializers.RandomNormal(stddev=(height * width) ** -0.5),  # keeps the variance
        dtype=dtype,
        name="global_conv",
    )(x)
    x = blocks.flatten(x, dtype)
    return blocks.dense(x, embedding_dim, dtype=base.embedding_dtype(dtype), name="embedding")
