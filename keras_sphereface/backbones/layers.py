"""Keras's batch normalization and PReLU, with the same weights and values, trained by the kernels of the backend."""

import keras
from keras import ops

from keras_sphereface.backbones import kernels


@keras.saving.register_keras_serializable(package="keras_sphereface")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, one operator instead of ten where feature maps are normalized in training.

    16-bit feature maps stay so; statistics and weights are float32 all the same.
    """

    def call(self, inputs, training=None, mask=None):
        """Returns the normalized inputs; see Keras's layer."""
        kernel = kernels.get()
        plain = (
            mask is None and len(inputs.shape) == 4 and self.axis in (-1, 3) and not (self.renorm or self.synchronized)
        )
        if not (training and self.trainable and plain and kernel and self.scale and self.center):
            return super().call(inputs, training=training, mask=mask)
        gamma, beta = (ops.convert_to_tensor(weight) for weight in (self.gamma, self.beta))
        outputs, mean, variance = kernel.batch_norm(ops.cast(inputs, self.compute_dtype), gamma, beta, self.epsilon)
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1.0 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable(package="keras_sphereface")
class PReLU(keras.layers.PReLU):
    """`keras.layers.PReLU`, with fewer passes over the feature map in training.

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
        kernel = kernels.get()
        per_channel = self.alpha.shape[-1] == inputs.shape[-1] and all(size == 1 for size in self.alpha.shape[:-1])
        if not (training and kernel and per_channel):
            return super().call(inputs)
        return kernel.prelu(inputs, ops.reshape(ops.cast(self.alpha, inputs.dtype), (-1,)))

    def get_config(self):
        """Returns the constructor's arguments: Keras's alone where the channels are last, as it knows no others."""
        ours = {} if self.data_format == "channels_last" else {"data_format": self.data_format}
        return {**super().get_config(), **ours}
