"""The student, and its stages as plain PyTorch functions of its Keras variables.

A Keras layer is opaque to `torch.compile`; of these functions it makes a few fused loops between the convolutions, and a
step takes half the time on a CPU. Numbers and gradients are the Keras model's.
"""

import torch
import torch.nn.functional as F

from keras_sphereface.backbones import PatchSFNet
from keras_sphereface.backbones.patch_sfnet import STEM_PADDING, STEM_STRIDE


def make_student(dtype):
    """A `PatchSFNet` as large as 5 MB of float16 allow, with initial weights."""
    return PatchSFNet(units=(2, 2, 3), dtype=dtype)


def stages(backbone):
    """Takes a `PatchSFNet` apart.

    Returns:
        Four functions: images to the first stage's map, each map to the next one (all `(n, height, width, channels)`,
        computed in the backbone's dtype), and the last map to float32 embeddings.
    """
    config = backbone.get_config()
    mean, std = config["image_mean"], config["image_std"]

    def first(images):
        x = ((images - mean) / std).permute(0, 3, 1, 2)
        return _units(backbone, 0, _convolution(x, backbone.get_layer("stem_conv"), STEM_STRIDE, STEM_PADDING))

    def further(stage):
        down = backbone.get_layer(f"stage{stage}_down_conv")
        return lambda x: _units(backbone, stage, _convolution(x.permute(0, 3, 1, 2), down, 2, 1))

    return [first, further(1), further(2), lambda x: _embedding(backbone, x)]


def _convolution(x, layer, stride=1, padding=1):
    dtype = getattr(torch, layer.compute_dtype)
    kernel = layer.kernel.value.permute(3, 2, 0, 1).to(dtype)
    return F.conv2d(x.to(dtype), kernel, layer.bias.value.to(dtype), stride, padding)


def _units(backbone, stage, x):
    for index in range(backbone.get_config()["units"][stage]):
        first, second = (backbone.get_layer(f"stage{stage}_{index}_conv{number}") for number in (1, 2))
        x = x + _convolution(F.relu(_convolution(F.relu(x), first)), second)
    return x.permute(0, 2, 3, 1)


def _embedding(backbone, x):
    x = F.relu(_convolution(x.permute(0, 3, 1, 2), backbone.get_layer("expand_conv"), padding=0))
    pooling, dense = backbone.get_layer("global_conv"), backbone.get_layer("embedding")
    kernel = pooling.kernel.value.permute(3, 2, 0, 1)  # one weight for each place and channel: a sum, not a convolution
    x = (x.float() * kernel).sum((2, 3)) + pooling.bias.value
    return x @ dense.kernel.value + dense.bias.value
