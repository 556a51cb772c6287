"""Keras's layers, with the same weights and values, computed by the kernels of the backend where those are faster."""

import keras
from keras import ops

from keras_sphereface.backbones import kernels


@keras.saving.register_keras_serializable(package="keras_sphereface")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, one operator instead of ten where feature maps are normalized.

    16-bit feature maps stay so; statistics and weights are float32 all the same.
    """

    def call(self, inputs, training=None, mask=None):
        """Returns the normalized inputs; see Keras's layer."""
        by_batch = bool(training and self.trainable)
        kernel = kernels.get(by_batch)
        plain = (
            mask is None and len(inputs.shape) == 4 and self.axis in (-1, 3) and not (self.renorm or self.synchronized)
        )
        if not (plain and kernel and self.scale and self.center):
            return super().call(inputs, training=training, mask=mask)
        inputs = ops.cast(inputs, self.compute_dtype)
        averages = (self.moving_mean, self.moving_variance)
        weights = [ops.convert_to_tensor(weight) for weight in (self.gamma, self.beta)]
        if not by_batch:
            return kernel.normalize(inputs, *map(ops.convert_to_tensor, averages), *weights, self.epsilon)
        outputs, *statistics = kernel.batch_norm(inputs, *weights, self.epsilon)
        for average, value in zip(averages, statistics):
            average.assign(kernel.moving_average(average, value, self.momentum))
        return outputs


@keras.saving.register_keras_serializable(package="keras_sphereface")
class PReLU(keras.layers.PReLU):
    """`keras.layers.PReLU`, with fewer passes over the feature map.

    Args:
        *args, **kwargs: As `keras.layers.PReLU`; `shared_axes` count as if the channels were last.
        data_format: `"channels_first"` where feature maps `(n, channels, height, width)` come; the slopes have the shape
            of channels last all the same. Defaults to `"channels_last"`.
    """

    def __init__(self, *args, data_format="channels_last", **kwargs):
        super().__init__(*args, **kwargs)
        self.data_format = data_format

    def build(self, input_shape):
        """Makes the slopes; see Keras's layer."""
        if self.data_format == "channels_last":
            return super().build(input_shape)
        batch, channels, *image_size = input_shape
        super().build((batch, *image_size, channels))
        self.input_spec = None  # it names the axis of the channels

    def call(self, inputs, training=None):
        """Returns the activations; see Keras's layer."""
        if self.data_format == "channels_first":
            return ops.relu(inputs) - ops.moveaxis(ops.cast(self.alpha, inputs.dtype), -1, 0) * ops.relu(-inputs)
        kernel = kernels.get(training)
        per_channel = self.alpha.shape[-1] == inputs.shape[-1] and all(size == 1 for size in self.alpha.shape[:-1])
        if not (kernel and per_channel):
            return super().call(inputs)
        return kernel.prelu(inputs, ops.reshape(ops.cast(self.alpha, inputs.dtype), (-1,)))

    def get_config(self):
        """Returns the constructor's arguments: Keras's alone where the channels are last, as it knows no others."""
        ours = {} if self.data_format == "channels_last" else {"data_format": self.data_format}
        return {**super().get_config(), **ours}


@keras.saving.register_keras_serializable(package="keras_sphereface")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D`, without copies of the feature map in another order."""

    def convolution_op(self, inputs, kernel):
        """Returns the convolution alone; see Keras's layer."""
        padding = _padding(self)
        if padding is None:
            return super().convolution_op(inputs, kernel)
        return kernels.get(training=False).conv(inputs, ops.convert_to_tensor(kernel), self.strides, padding)


@keras.saving.register_keras_serializable(package="keras_sphereface")
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D`, without copies of the feature map in another order."""

    def call(self, inputs):
        """Returns the outputs; see Keras's layer."""
        padding = _padding(self)
        if padding is None:
            return super().call(inputs)
        # As a convolution in as many groups as there are channels: each has its `depth_multiplier` filters side by side.
        kernel = ops.reshape(ops.convert_to_tensor(self.kernel), (*self.kernel_size, 1, -1))
        outputs = kernels.get(training=False).conv(inputs, kernel, self.strides, padding)
        outputs = outputs + self.bias if self.use_bias else outputs
        return outputs if self.activation is None else self.activation(outputs)


@keras.saving.register_keras_serializable(package="keras_sphereface")
class MaxPooling2D(keras.layers.MaxPooling2D):
    """`keras.layers.MaxPooling2D`; a window of one pixel picks it instead of looking for the largest."""

    def call(self, inputs):
        """Returns the pooled feature map; see Keras's layer."""
        picks = self.pool_size == (1, 1) and self.data_format == "channels_last"
        if not (picks and keras.backend.backend() in ("jax", "torch")):
            return super().call(inputs)
        rows, columns = self.strides
        return inputs[:, ::rows, ::columns]


def _padding(layer):
    """Zeros above and below, left and right, for the backend's own convolution; `None` where Keras's is to be taken."""
    if kernels.get(training=False) is None or layer.data_format != "channels_last" or layer.dilation_rate != (1, 1):
        return None
    if layer.padding == "valid":
        return (0, 0)
    if layer.padding == "same" and layer.strides == (1, 1) and all(size % 2 for size in layer.kernel_size):
        return tuple(size // 2 for size in layer.kernel_size)
    return None
