"""Layers with PyTorch's conventions, because the reference networks and their checkpoints come from there.

Layer names are the state dicts' names with dots turned to underscores: `layer1.0.conv1` becomes `layer1_0_conv1`.
"""

from keras import initializers, layers

from keras_sphereface.backbones import base, layout
from keras_sphereface.backbones.layers import BatchNormalization, Conv2D, DepthwiseConv2D, MaxPooling2D, PReLU

BATCH_NORM_EPSILON = 1e-5  # PyTorch's default
BATCH_NORM_MOMENTUM = 0.9  # Keras's momentum keeps the old value: 1 - PyTorch's default of 0.1
LINEAR_VARIANCE = 1.0 / 3.0  # of what PyTorch's default linear layer makes of numbers of variance 1
PRELU_SLOPE = 0.25  # PyTorch's default, of He et al. (arXiv 1502.01852)


def kaiming_fan_out():
    """He initialization that preserves the gradients' variance through ReLU (arXiv 1502.01852)."""
    return initializers.VarianceScaling(scale=2.0, mode="fan_out", distribution="untruncated_normal")


def linear_uniform():
    """PyTorch's default for linear layers: uniform within +-1/sqrt(fan_in)."""
    return initializers.VarianceScaling(scale=LINEAR_VARIANCE, mode="fan_in", distribution="uniform")


def _pad(x, kernel_size, strides, dtype, name):
    """Zero padding of `kernel_size // 2` on every side where Keras's "same" would pad less on the left.

    With stride 2 and an even input, "same" pads right and bottom only; PyTorch pads all sides.
    """
    if strides == 1 or kernel_size == 1:
        return x, "same"
    padding = layers.ZeroPadding2D(kernel_size // 2, data_format=layout.data_format(), dtype=dtype, name=f"{name}_pad")
    return padding(x), "valid"


def pick_every_second(x, dtype, name):
    """Every second row and column, from the first: the pixels that a 1x1 convolution of stride 2 sees.

    Picking them before the convolution is the same; TensorFlow 2.21 corrupts memory in the gradient of a strided 1x1
    convolution on the CPU where the channels are fewer than 16.
    """
    return MaxPooling2D(1, strides=2, data_format=layout.data_format(), dtype=dtype, name=f"{name}_pick")(x)


def conv(x, filters, kernel_size=3, strides=1, use_bias=False, initializer=None, dtype=None, name=None):
    """Convolution padded by `kernel_size // 2` on all sides."""
    if kernel_size == 1 and strides == 2:
        x, strides = pick_every_second(x, dtype, name), 1
    x, padding = _pad(x, kernel_size, strides, dtype, name)
    return Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        data_format=layout.data_format(),
        use_bias=use_bias,
        kernel_initializer=initializer or kaiming_fan_out(),
        dtype=dtype,
        name=name,
    )(x)


def depthwise_conv(x, kernel_size=3, strides=1, dtype=None, name=None):
    """Depthwise convolution without bias, padded by `kernel_size // 2` on all sides."""
    x, padding = _pad(x, kernel_size, strides, dtype, name)
    if strides > 1:
        dtype = base.embedding_dtype(dtype)  # TensorFlow's gradient in bfloat16 is 14 times slower on CPUs if strided
    return _depthwise(kernel_size, strides, padding, dtype, name)(x)


def global_depthwise_conv(x, dtype=None, name=None):
    """Depthwise convolution over the whole feature map: one learned weighted mean per channel."""
    return _depthwise(layout.image_size(x), 1, "valid", base.embedding_dtype(dtype), name)(x)


def _depthwise(kernel_size, strides, padding, dtype, name):
    return DepthwiseConv2D(
        kernel_size,
        strides=strides,
        padding=padding,
        data_format=layout.data_format(),
        use_bias=False,
        depthwise_initializer=kaiming_fan_out(),
        dtype=dtype,
        name=name,
    )


def batch_norm(x, dtype=None, name=None, variance=1.0, epsilon=BATCH_NORM_EPSILON):
    """Batch normalization with PyTorch's defaults, of feature maps or vectors.

    `variance` is the moving variance before training: where it is that of `x`, a network with initial weights does in
    inference about what it does in training.
    """
    return BatchNormalization(
        axis=layout.channel_axis() if len(x.shape) == 4 else -1,
        momentum=BATCH_NORM_MOMENTUM,
        epsilon=epsilon,
        moving_variance_initializer=initializers.Constant(variance),
        dtype=dtype,
        name=name,
    )(x)


def prelu(x, dtype=None, name=None):
    """PReLU with one slope per channel."""
    slope = initializers.Constant(PRELU_SLOPE)
    return PReLU(alpha_initializer=slope, shared_axes=[1, 2], data_format=layout.data_format(), dtype=dtype, name=name)(
        x
    )


def relu(x, dtype=None, name=None):
    """ReLU."""
    return layers.ReLU(dtype=dtype, name=name)(x)


def flatten(x, dtype=None):
    """Flattens rows, columns, channels in this order."""
    return layers.Flatten(data_format="channels_last", dtype=dtype, name="flatten")(layout.to_channels_last(x))


def dense(x, units, use_bias=True, initializer=None, dtype=None, name=None):
    """Linear layer, by default with PyTorch's initialization."""
    initializer = initializer or linear_uniform()
    return layers.Dense(units, use_bias=use_bias, kernel_initializer=initializer, dtype=dtype, name=name)(x)
