"""SFNet, the plain residual network of SphereFace, as in the authors' OpenSphere."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import initializers, layers

from keras_sphereface.arguments import finite_number
from keras_sphereface.backbones import base, blocks

# Residual units of the four stages, by the number that is in the networks' names.
UNITS = {4: (0, 0, 0, 0), 10: (0, 1, 2, 0), 20: (1, 2, 4, 1), 36: (2, 4, 8, 2), 64: (3, 8, 16, 3)}
BLOCK_ORDERS = ("add_relu", "relu_add")
UNIT_STDDEV = 0.01  # of a residual unit's weights in SphereFace's own networks: units begin close to the identity


@keras.saving.register_keras_serializable(package="keras_sphereface")
class SFNet(base.FaceBackbone):
    """SFNet: four stages, each one stride-2 convolution and some residual units of two 3x3 convolutions.

    With F the two convolutions of a unit, a unit of order `"relu_add"` (the paper's; OpenSphere calls it
    `sfnet20_deprecated` and so on) computes `x + relu(conv(relu(conv(x))))`, one of order `"add_relu"` (OpenSphere's
    `sfnet20`, as in ResNet) computes `relu(x + conv(relu(conv(x))))`.

    Initial weights: with batch normalization He's, as OpenSphere. Without it Glorot's for the stages' first convolution
    and a normal distribution of standard deviation 0.01 in the units, as SphereFace: the units then begin close to
    the identity, where He's would double the variance with every unit.

    Args:
        units: Residual units of each of the four stages, e.g. `(1, 2, 4, 1)` for SFNet-20.
        channels: Channels of the stages. Defaults to `(64, 128, 256, 512)`.
        embedding_dim: Length of an embedding. Defaults to `512`.
        block_order: `"add_relu"` or `"relu_add"`. Defaults to `"add_relu"`.
        batch_norm: Whether batch normalization follows every convolution (which then has no bias) and the embedding.
            Defaults to `False`.
        dropout: Rate of dropout before the embedding. Defaults to `0.0`.
        input_shape: `(height, width, 3)`. Defaults to `(112, 112, 3)`.
        image_mean: Subtracted from the images, which come as 0..255. Defaults to `127.5`.
        image_std: Then divided by. Defaults to `127.5`, so that the network sees -1..1.
        dtype: Dtype policy. The embedding is computed in float32 under 16-bit policies. Defaults to `None`.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: On an unknown block order, or lengths and shapes that do not fit.
        TypeError: On an argument that is not known.

    Example:
    >>> backbone = SFNet(units=(0, 0, 0, 0), channels=(8, 16, 32, 64), embedding_dim=32)
    >>> backbone(np.zeros((2, 112, 112, 3), "uint8")).shape
    (2, 32)

    Reference:
        - SphereFace (arXiv 1704.08063), Table 2
    """

    def __init__(
        self,
        units: Sequence[int],
        channels: Sequence[int] = (64, 128, 256, 512),
        embedding_dim: int = 512,
        block_order: str = "add_relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
        input_shape: tuple[int, int, int] = base.DEFAULT_INPUT_SHAPE,
        image_mean: float = base.IMAGE_CENTER,
        image_std: float = base.IMAGE_CENTER,
        dtype: Any = None,
        **kwargs,
    ):
        config = {
            "units": base.stage_numbers("units", units, 4, least=0),
            "channels": base.stage_numbers("channels", channels, 4),
            "embedding_dim": base.check_embedding_dim(embedding_dim),
            "block_order": block_order,
            "batch_norm": bool(batch_norm),
            "dropout": base.check_rate("dropout", dropout),
            "input_shape": base.check_input_shape(input_shape),
            "image_mean": finite_number("image_mean", image_mean),
            "image_std": finite_number("image_std", image_std),
        }
        _check(config)
        images = base.image_input(config["input_shape"])
        x = base.rescale(images, image_mean, image_std)
        for stage, (count, filters) in enumerate(zip(config["units"], config["channels"]), start=1):
            x = _stage(x, f"layer{stage}", count, filters, block_order, batch_norm, dtype)
        embeddings = _embedding(x, config, dtype)
        super().__init__(inputs=images, outputs=embeddings, config=config, dtype=dtype, **kwargs)


def _check(config):
    if config["block_order"] not in BLOCK_ORDERS:
        raise ValueError(f"`block_order` must be one of {BLOCK_ORDERS}. Received: {config['block_order']!r}")


def _stage(x, name, count, filters, block_order, batch_norm, dtype):
    """One stride-2 convolution, then `count` residual units."""
    first = blocks.kaiming_fan_out() if batch_norm else initializers.GlorotNormal()
    x = _conv_norm(x, filters, 2, batch_norm, first, dtype, f"{name}_0", 1)
    x = blocks.relu(x, dtype, f"{name}_0_relu")
    for index in range(1, count + 1):
        x = _unit(x, f"{name}_{index}", filters, block_order, batch_norm, dtype)
    return x


def _unit(x, name, filters, block_order, batch_norm, dtype):
    """A residual unit."""

    def initializer():
        return blocks.kaiming_fan_out() if batch_norm else initializers.RandomNormal(stddev=UNIT_STDDEV)

    residual = _conv_norm(x, filters, 1, batch_norm, initializer(), dtype, name, 1)
    residual = blocks.relu(residual, dtype, f"{name}_relu1")
    residual = _conv_norm(residual, filters, 1, batch_norm, initializer(), dtype, name, 2)
    if block_order == "relu_add":
        residual = blocks.relu(residual, dtype, f"{name}_relu2")
    x = layers.Add(dtype=dtype, name=f"{name}_add")([x, residual])
    return blocks.relu(x, dtype, f"{name}_relu2") if block_order == "add_relu" else x


def _conv_norm(x, filters, strides, batch_norm, initializer, dtype, name, index):
    """A 3x3 convolution with a bias, or with batch normalization in place of it."""
    x = blocks.conv(
        x,
        filters,
        3,
        strides,
        use_bias=not batch_norm,
        initializer=initializer,
        dtype=dtype,
        name=f"{name}_conv{index}",
    )
    return blocks.batch_norm(x, dtype, f"{name}_bn{index}") if batch_norm else x


def _embedding(x, config, dtype):
    x = blocks.flatten(x, dtype)
    if config["dropout"]:
        x = layers.Dropout(config["dropout"], dtype=dtype, name="dropout")(x)
    last = base.embedding_dtype(dtype)
    x = blocks.dense(x, config["embedding_dim"], dtype=last, name="fc")
    return blocks.batch_norm(x, last, "features") if config["batch_norm"] else x


def SFNet4(embedding_dim: int = 512, name: str = "sfnet4", **kwargs) -> SFNet:
    """SFNet-4: four convolutions, no residual unit.

    Args:
        embedding_dim: Length of an embedding. Defaults to `512`.
        name: Name of the model. Defaults to `"sfnet4"`.
        **kwargs: Further arguments of `SFNet`, e.g. `block_order`, `batch_norm`, `input_shape`.

    Returns:
        An `SFNet`, from images `(batch, height, width, 3)`, RGB 0..255, to embeddings `(batch, embedding_dim)`.

    Raises:
        ValueError, TypeError: As `SFNet`.

    Example:
    >>> keras_sphereface.backbones.SFNet4(embedding_dim=64).output_shape
    (None, 64)
    """
    return SFNet(UNITS[4], embedding_dim=embedding_dim, name=name, **kwargs)


def SFNet10(embedding_dim: int = 512, name: str = "sfnet10", **kwargs) -> SFNet:
    """SFNet-10: residual units 0, 1, 2, 0.

    Args:
        embedding_dim: Length of an embedding. Defaults to `512`.
        name: Name of the model. Defaults to `"sfnet10"`.
        **kwargs: Further arguments of `SFNet`, e.g. `block_order`, `batch_norm`, `input_shape`.

    Returns:
        An `SFNet`, from images `(batch, height, width, 3)`, RGB 0..255, to embeddings `(batch, embedding_dim)`.

    Raises:
        ValueError, TypeError: As `SFNet`.

    Example:
    >>> backbone = keras_sphereface.backbones.SFNet10(embedding_dim=128, batch_norm=True)
    """
    return SFNet(UNITS[10], embedding_dim=embedding_dim, name=name, **kwargs)


def SFNet20(embedding_dim: int = 512, name: str = "sfnet20", **kwargs) -> SFNet:
    """SFNet-20: residual units 1, 2, 4, 1.

    Args:
        embedding_dim: Length of an embedding. Defaults to `512`.
        name: Name of the model. Defaults to `"sfnet20"`.
        **kwargs: Further arguments of `SFNet`, e.g. `block_order`, `batch_norm`, `input_shape`.

    Returns:
        An `SFNet`, from images `(batch, height, width, 3)`, RGB 0..255, to embeddings `(batch, embedding_dim)`.

    Raises:
        ValueError, TypeError: As `SFNet`.

    Example:
    >>> backbone = keras_sphereface.backbones.SFNet20(block_order="relu_add", input_shape=(112, 96, 3))  # SphereFace's own
    >>> backbone.input_shape, backbone.output_shape
    ((None, 112, 96, 3), (None, 512))
    """
    return SFNet(UNITS[20], embedding_dim=embedding_dim, name=name, **kwargs)


def SFNet36(embedding_dim: int = 512, name: str = "sfnet36", **kwargs) -> SFNet:
    """SFNet-36: residual units 2, 4, 8, 2.

    Args:
        embedding_dim: Length of an embedding. Defaults to `512`.
        name: Name of the model. Defaults to `"sfnet36"`.
        **kwargs: Further arguments of `SFNet`, e.g. `block_order`, `batch_norm`, `input_shape`.

    Returns:
        An `SFNet`, from images `(batch, height, width, 3)`, RGB 0..255, to embeddings `(batch, embedding_dim)`.

    Raises:
        ValueError, TypeError: As `SFNet`.

    Example:
    >>> trainer = keras_sphereface.FaceClassifier(
    ...     keras_sphereface.backbones.SFNet36(), keras_sphereface.heads.SphereFaceR(num_classes=1000)
    ... )
    """
    return SFNet(UNITS[36], embedding_dim=embedding_dim, name=name, **kwargs)


def SFNet64(embedding_dim: int = 512, name: str = "sfnet64", **kwargs) -> SFNet:
    """SFNet-64: residual units 3, 8, 16, 3.

    Args:
        embedding_dim: Length of an embedding. Defaults to `512`.
        name: Name of the model. Defaults to `"sfnet64"`.
        **kwargs: Further arguments of `SFNet`, e.g. `block_order`, `batch_norm`, `input_shape`.

    Returns:
        An `SFNet`, from images `(batch, height, width, 3)`, RGB 0..255, to embeddings `(batch, embedding_dim)`.

    Raises:
        ValueError, TypeError: As `SFNet`.

    Example:
    >>> keras_sphereface.backbones.SFNet64(dtype="mixed_bfloat16").compute_dtype
    'bfloat16'
    """
    return SFNet(UNITS[64], embedding_dim=embedding_dim, name=name, **kwargs)
