"""Muon for convolutions: without normalization layers it needs several times fewer steps than Adam."""

import keras
from keras import ops

FIRST_CHANNELS = 3  # of the images: the kernel on them is no hidden layer, and Muon is for hidden layers


class ConvMuon(keras.optimizers.Muon):
    """Keras's Muon, with each convolution kernel taken as one matrix `(height * width * inputs, outputs)`.

    The first convolution, the depthwise one, biases and the embedding's layer are trained by AdamW.

    Args:
        *args, **kwargs: As `keras.optimizers.Muon`.
        matrix_dtype: What the updates' iteration computes in; it only wants their directions. Defaults to `"bfloat16"`.

    Reference:
        - Moonlight (arXiv 2502.16982) for the scale of the update
    """

    def __init__(self, *args, matrix_dtype="bfloat16", **kwargs):
        super().__init__(*args, **kwargs)
        self.matrix_dtype = matrix_dtype

    def _should_use_adamw(self, variable):
        hidden = len(variable.shape) == 4 and variable.shape[2] > FIRST_CHANNELS and "global_conv" not in variable.path
        return not hidden

    def _muon_update_step(self, gradient, variable, lr, m):
        self.assign_add(m, ops.add(gradient, m * (self.momentum - 1)))
        gradient = ops.add(gradient, self.momentum * m)
        matrix = ops.cast(ops.reshape(gradient, (-1, gradient.shape[-1])), self.matrix_dtype)
        update = ops.cast(self.zeropower_via_newtonschulz5(matrix, self.ns_steps), "float32")
        self.assign_sub(variable, ops.reshape(self.lr_adjust(lr * update), variable.shape))
