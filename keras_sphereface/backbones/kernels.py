"""Layers' operations as the backends compute them fastest; `None` from `get` where Keras's own are.

All are bound by memory: what counts is how often a feature map is read and written. On two CPU cores a training step of
MobileFaceNet (`FaceClassifier.train_on_batch`, batch 64) went from 28.6 to 57.7 images a second in float32 with
TensorFlow's.
"""

import functools

import keras


def get(training):
    """Returns the class of this backend's kernels, or `None`: TensorFlow's are for training alone."""
    return {"tensorflow": TensorFlowKernels if training else None, "torch": TorchKernels}.get(keras.backend.backend())


class TensorFlowKernels:
    """TensorFlow: its fused batch normalization, and PReLU in two loops compiled by XLA."""

    @staticmethod
    def batch_norm(x, gamma, beta, epsilon):
        """Normalizes by the batch's statistics.

        Args:
            x: `(batch, height, width, channels)`.
            gamma: float32 `(channels,)`.
            beta: float32 `(channels,)`.
            epsilon: Added to the variance.

        Returns:
            `(y, mean, variance)`; the variance is the biased one.
        """
        import tensorflow as tf

        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
        )
        count = tf.cast(tf.size(x) / tf.size(mean), "float32")
        return y, mean, variance * (count - 1.0) / count  # TensorFlow's is the unbiased one

    @staticmethod
    def moving_average(average, value, momentum):
        """The next value of a variable that follows `value`: `momentum * average + (1 - momentum) * value`."""
        return average * momentum + value * (1.0 - momentum)

    @staticmethod
    def prelu(x, slopes):
        """`x` where it is positive, else `slopes * x`; shapes `(..., channels)` and `(channels,)`."""
        return _tensorflow_prelu()(x, slopes)


@functools.cache
def _tensorflow_prelu():
    import tensorflow as tf

    compiled = functools.partial(tf.function, jit_compile=True)

    @compiled
    def forward(x, slopes):
        return tf.where(x > 0, x, slopes * x)

    @compiled
    def backward(x, slopes, upstream):
        to_slopes = upstream * tf.minimum(x, tf.zeros((), x.dtype))
        return tf.where(x > 0, upstream, slopes * upstream), to_slopes

    @tf.custom_gradient
    def prelu(x, slopes):
        def gradient(upstream):
            to_x, to_slopes = backward(x, slopes, upstream)
            # A matrix product, because XLA's sums over rows use one core and do not vectorize.
            rows = tf.reshape(to_slopes, (-1, to_slopes.shape[-1]))
            return to_x, tf.reshape(tf.matmul(tf.ones((1, tf.shape(rows)[0]), x.dtype), rows), slopes.shape)

        return forward(x, slopes), gradient

    return prelu


class TorchKernels:
    """PyTorch: its own operators, which see the channels in the second place and keep the memory's order.

    Keras copies each feature map into the order of channels first and back around each convolution, and moves Python's
    numbers to the device one by one, which waits for it.
    """

    @staticmethod
    def batch_norm(x, gamma, beta, epsilon):
        """See `TensorFlowKernels.batch_norm`."""
        import torch

        y, mean, inverse_std = torch.native_batch_norm(_first(x), gamma, beta, None, None, True, 0.0, epsilon)
        return _last(y), mean, inverse_std.detach().pow(-2) - epsilon

    @staticmethod
    def moving_average(average, value, momentum):
        """See `TensorFlowKernels.moving_average`."""
        import torch

        return torch.lerp(average.value, value, 1.0 - momentum)

    @staticmethod
    def normalize(x, mean, variance, gamma, beta, epsilon):
        """`x`, `(batch, height, width, channels)`, normalized by the given float32 statistics `(channels,)`."""
        import torch

        return _last(torch.nn.functional.batch_norm(_first(x), mean, variance, gamma, beta, False, 0.0, epsilon))

    @staticmethod
    def prelu(x, slopes):
        """See `TensorFlowKernels.prelu`."""
        import torch

        return _last(torch.nn.functional.prelu(_first(x), slopes))

    @staticmethod
    def conv(x, kernel, strides, padding):
        """Convolution.

        Args:
            x: `(batch, height, width, channels)`.
            kernel: `(rows, columns, channels of a group, filters)`.
            strides: Two numbers.
            padding: Two numbers: zeros above and below, left and right.

        Returns:
            `(batch, new height, new width, filters)`.
        """
        import torch

        groups = x.shape[-1] // kernel.shape[2]
        return _last(
            torch.nn.functional.conv2d(_first(x), kernel.permute(3, 2, 0, 1), None, strides, padding, 1, groups)
        )


def _first(x):
    """PyTorch's view of a tensor with the channels last."""
    return x.movedim(-1, 1)


def _last(x):
    """The tensor with the channels last of which `x` is PyTorch's view."""
    return x.movedim(1, -1)
