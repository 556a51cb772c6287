"""IResNet, the improved ResNet of InsightFace."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import initializers, layers

from keras_sphereface.arguments import finite_number, whole_number
from keras_sphereface.backbones import base, blocks, layout

# Residual units of the four stages, by the number that is in the networks' names.
UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 200: (6, 26, 60, 6)}
CHANNELS = (64, 128, 256, 512)
SHORTCUTS = ("projection", "subsample")
CONV_STDDEV = 0.1  # InsightFace's and OpenSphere's; batch normalization follows, so that only the direction matters
# Mean squares in a network with initial weights: of pixels, evenly spread from -1 to 1; of a normalized map after PReLU.
PIXELS, ACTIVATED = 1 / 3, (1 + blocks.PRELU_SLOPE**2) / 2
EXCITED = 1 / 4  # of a normalized map after squeeze and excitation: the sigmoid of about 0, squared


@keras.saving.register_keras_serializable(package="keras_sphereface")
class IResNet(base.FaceBackbone):
    """IResNet: residual units of batch norm, 3x3, batch norm, PReLU, 3x3, batch norm; no activation after the sum.

    The scale of the last batch normalization is trained, as in OpenSphere's second version; InsightFace keeps it at 1.
    With `shortcut="subsample"` it is the network IR of AdaFace and CVLface; without `inner_norm` too, that of
    InsightFace_Pytorch and face.evoLVe, whose IR-SE has `se_reduction=16`.

    Args:
        units: Residual units of each of the four stages, e.g. `(3, 13, 30, 3)` for IResNet-100. The first of a stage
            halves the resolution.
        channels: Channels of the stages. Defaults to `(64, 128, 256, 512)`.
        embedding_dim: Length of an embedding. Defaults to `512`.
        dropout: Rate of dropout before the embedding. Defaults to `0.0`.
        input_shape: `(height, width, 3)`. Defaults to `(112, 112, 3)`.
        image_mean: Subtracted from the images, which come as 0..255. Defaults to `127.5`.
        image_std: Then divided by. Defaults to `127.5`, so that the network sees -1..1.
        shortcut: What passes by the first unit of a stage: `"projection"`, a strided 1x1 convolution, or `"subsample"`,
            every second pixel where the channels stay as many, and the convolution elsewhere. Defaults to `"projection"`.
        inner_norm: Whether there is batch normalization between a unit's two convolutions. Defaults to `True`.
        se_reduction: Squeeze and excitation at the end of each unit, through so many times fewer channels. Defaults to
            `None`: none.
        dtype: Dtype policy. The embedding is computed in float32 under 16-bit policies. Defaults to `None`.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: If lengths and shapes do not fit.
        TypeError: On an argument that is not known.

    Example:
    >>> backbone = IResNet(units=(1, 1, 1, 1), channels=(8, 8, 16, 16), embedding_dim=32)
    >>> backbone(np.zeros((2, 112, 112, 3), "uint8")).shape
    (2, 32)

    Reference:
        - ArcFace (arXiv 1801.07698), section 3.2.2
        - Improved Residual Networks (arXiv 2004.04989)
        - Squeeze-and-Excitation Networks (arXiv 1709.01507), section 3
    """

    def __init__(
        self,
        units: Sequence[int],
        channels: Sequence[int] = CHANNELS,
        embedding_dim: int = 512,
        dropout: float = 0.0,
        input_shape: tuple[int, int, int] = base.DEFAULT_INPUT_SHAPE,
        image_mean: float = base.IMAGE_CENTER,
        image_std: float = base.IMAGE_CENTER,
        shortcut: str = "projection",
        inner_norm: bool = True,
        se_reduction: int | None = None,
        dtype: Any = None,
        **kwargs,
    ):
        config = {
            "units": base.stage_numbers("units", units, 4),
            "channels": base.stage_numbers("channels", channels, 4),
            "embedding_dim": base.check_embedding_dim(embedding_dim),
            "dropout": base.check_rate("dropout", dropout),
            "input_shape": base.check_input_shape(input_shape),
            "image_mean": finite_number("image_mean", image_mean),
            "image_std": finite_number("image_std", image_std),
            "shortcut": _check_shortcut(shortcut),
            "inner_norm": bool(inner_norm),
            "se_reduction": None if se_reduction is None else whole_number("se_reduction", se_reduction),
        }
        images = base.image_input(config["input_shape"])
        x = base.rescale(images, image_mean, image_std)
        x = _conv_norm(x, PIXELS, config["channels"][0], 3, 1, dtype, ("conv1", "bn1"))
        x, variance = blocks.prelu(x, dtype, "prelu"), ACTIVATED
        for stage, (count, filters) in enumerate(zip(config["units"], config["channels"]), start=1):
            for index in range(count):
                name, strides = f"layer{stage}_{index}", 2 if index == 0 else 1
                x, variance = _unit(x, variance, name, filters, strides, config, dtype)
        embeddings = _embedding(x, variance, config, dtype)
        super().__init__(inputs=images, outputs=embeddings, config=config, dtype=dtype, **kwargs)


def _check_shortcut(shortcut):
    if shortcut not in SHORTCUTS:
        raise ValueError(f"`shortcut` must be one of {SHORTCUTS}. Received: shortcut={shortcut!r}")
    return shortcut


def _conv(x, filters, kernel_size, strides, dtype, name):
    initializer = initializers.RandomNormal(stddev=CONV_STDDEV)
    return blocks.conv(x, filters, kernel_size, strides, initializer=initializer, dtype=dtype, name=name)


def _conv_variance(x, kernel_size, variance):
    """Of what a convolution with initial weights makes of a map of this variance."""
    return kernel_size**2 * layout.num_channels(x) * CONV_STDDEV**2 * variance


def _conv_norm(x, variance, filters, kernel_size, strides, dtype, names):
    """Convolution of a map of this variance, and batch normalization that expects what comes of it."""
    expected = _conv_variance(x, kernel_size, variance)
    return blocks.batch_norm(_conv(x, filters, kernel_size, strides, dtype, names[0]), dtype, names[1], expected)


def _unit(x, variance, name, filters, strides, config, dtype):
    """A residual unit.

    Takes and returns the map with its variance in a network with initial weights. A deep network that leaves it at 1 there
    overflows in inference: each unit adds to the map what is in proportion to it.
    """
    entry = x
    x, inner = _first_half(blocks.batch_norm(x, dtype, f"{name}_bn1", variance), name, filters, config, dtype)
    x = blocks.prelu(x, dtype, f"{name}_prelu")
    x = _conv_norm(x, ACTIVATED * inner, filters, 3, strides, dtype, (f"{name}_conv2", f"{name}_bn3"))
    added = 1.0
    if config["se_reduction"]:
        x, added = _squeeze_and_excite(x, config["se_reduction"], dtype, f"{name}_se"), EXCITED
    if strides != 1:
        entry, variance = _downsample(entry, variance, name, filters, strides, config, dtype)
    return layers.Add(dtype=dtype, name=f"{name}_add")([x, entry]), variance + added


def _first_half(x, name, filters, config, dtype):
    """The first convolution of a normalized map and perhaps its normalization, with the variance of what comes of it."""
    if config["inner_norm"]:
        return _conv_norm(x, 1.0, filters, 3, 1, dtype, (f"{name}_conv1", f"{name}_bn2")), 1.0
    return _conv(x, filters, 3, 1, dtype, f"{name}_conv1"), _conv_variance(x, 3, 1.0)


def _downsample(x, variance, name, filters, strides, config, dtype):
    """What passes by the first unit of a stage, with its variance."""
    if config["shortcut"] == "subsample" and layout.num_channels(x) == filters:
        return blocks.pick_every_second(x, dtype, f"{name}_downsample"), variance
    names = (f"{name}_downsample_0", f"{name}_downsample_1")
    return _conv_norm(x, variance, filters, 1, strides, dtype, names), 1.0


def _squeeze_and_excite(x, reduction, dtype, name):
    """Scales each channel by what a small network makes of the means of all (arXiv 1709.01507, equations 2 to 4)."""
    channels = layout.num_channels(x)
    options = {"initializer": initializers.GlorotUniform(), "dtype": dtype}
    pooling = layers.GlobalAveragePooling2D(
        data_format=layout.data_format(), keepdims=True, dtype=dtype, name=f"{name}_avg_pool"
    )
    scale = blocks.conv(pooling(x), max(1, channels // reduction), 1, name=f"{name}_fc1", **options)
    scale = blocks.conv(blocks.relu(scale, dtype, f"{name}_relu"), channels, 1, name=f"{name}_fc2", **options)
    scale = layers.Activation("sigmoid", dtype=dtype, name=f"{name}_sigmoid")(scale)
    return layers.Multiply(dtype=dtype, name=f"{name}_scale")([x, scale])


def _embedding(x, variance, config, dtype):
    x = blocks.flatten(blocks.batch_norm(x, dtype, "bn2", variance), dtype)
    if config["dropout"]:
        x = layers.Dropout(config["dropout"], dtype=dtype, name="dropout")(x)
    last = base.embedding_dtype(dtype)
    x = blocks.dense(x, config["embedding_dim"], dtype=last, name="fc")
    return blocks.batch_norm(x, last, "features", blocks.LINEAR_VARIANCE)


def IResNet18(embedding_dim: int = 512, name: str = "iresnet18", **kwargs) -> IResNet:
    """IResNet-18: residual units 2, 2, 2, 2.

    Args:
        embedding_dim: Length of an embedding. Defaults to `512`.
        name: Name of the model. Defaults to `"iresnet18"`.
        **kwargs: Further arguments of `IResNet`, e.g. `dropout`, `shortcut`, `input_shape`.

    Returns:
        An `IResNet`, from images `(batch, height, width, 3)`, RGB 0..255, to embeddings `(batch, embedding_dim)`.

    Raises:
        ValueError, TypeError: As `IResNet`.

    Example:
    >>> keras_sphereface.backbones.IResNet18(embedding_dim=256).output_shape
    (None, 256)
    """
    return IResNet(UNITS[18], embedding_dim=embedding_dim, name=name, **kwargs)


def IResNet34(embedding_dim: int = 512, name: str = "iresnet34", **kwargs) -> IResNet:
    """IResNet-34: residual units 3, 4, 6, 3.

    Args:
        embedding_dim: Length of an embedding. Defaults to `512`.
        name: Name of the model. Defaults to `"iresnet34"`.
        **kwargs: Further arguments of `IResNet`, e.g. `dropout`, `shortcut`, `input_shape`.

    Returns:
        An `IResNet`, from images `(batch, height, width, 3)`, RGB 0..255, to embeddings `(batch, embedding_dim)`.

    Raises:
        ValueError, TypeError: As `IResNet`.

    Example:
    >>> backbone = keras_sphereface.backbones.IResNet34(dropout=0.4)
    >>> trainer = keras_sphereface.FaceClassifier(backbone, keras_sphereface.heads.ArcFace(num_classes=1000))
    """
    return IResNet(UNITS[34], embedding_dim=embedding_dim, name=name, **kwargs)


def IResNet50(embedding_dim: int = 512, name: str = "iresnet50", **kwargs) -> IResNet:
    """IResNet-50: residual units 3, 4, 14, 3.

    Args:
        embedding_dim: Length of an embedding. Defaults to `512`.
        name: Name of the model. Defaults to `"iresnet50"`.
        **kwargs: Further arguments of `IResNet`, e.g. `dropout`, `shortcut`, `input_shape`.

    Returns:
        An `IResNet`, from images `(batch, height, width, 3)`, RGB 0..255, to embeddings `(batch, embedding_dim)`.

    Raises:
        ValueError, TypeError: As `IResNet`.

    Example:
    >>> backbone = keras_sphereface.backbones.IResNet50()
    >>> ir_se_50 = keras_sphereface.backbones.IResNet50(shortcut="subsample", inner_norm=False, se_reduction=16)
    """
    return IResNet(UNITS[50], embedding_dim=embedding_dim, name=name, **kwargs)


def IResNet100(embedding_dim: int = 512, name: str = "iresnet100", **kwargs) -> IResNet:
    """IResNet-100: residual units 3, 13, 30, 3.

    Args:
        embedding_dim: Length of an embedding. Defaults to `512`.
        name: Name of the model. Defaults to `"iresnet100"`.
        **kwargs: Further arguments of `IResNet`, e.g. `dropout`, `shortcut`, `input_shape`.

    Returns:
        An `IResNet`, from images `(batch, height, width, 3)`, RGB 0..255, to embeddings `(batch, embedding_dim)`.

    Raises:
        ValueError, TypeError: As `IResNet`.

    Example:
    >>> backbone = keras_sphereface.backbones.IResNet100(dtype="mixed_bfloat16")
    >>> backbone.embedding_dim
    512
    """
    return IResNet(UNITS[100], embedding_dim=embedding_dim, name=name, **kwargs)


def IResNet200(embedding_dim: int = 512, name: str = "iresnet200", **kwargs) -> IResNet:
    """IResNet-200: residual units 6, 26, 60, 6.

    Args:
        embedding_dim: Length of an embedding. Defaults to `512`.
        name: Name of the model. Defaults to `"iresnet200"`.
        **kwargs: Further arguments of `IResNet`, e.g. `dropout`, `shortcut`, `input_shape`.

    Returns:
        An `IResNet`, from images `(batch, height, width, 3)`, RGB 0..255, to embeddings `(batch, embedding_dim)`.

    Raises:
        ValueError, TypeError: As `IResNet`.

    Example:
    >>> backbone = keras_sphereface.backbones.IResNet200(name="teacher")
    >>> backbone.name
    'teacher'
    """
    return IResNet(UNITS[200], embedding_dim=embedding_dim, name=name, **kwargs)
