"""Small backbones with seeded weights, for golden values that need neither training nor shared files."""

import zlib

import numpy as np

from keras_sphereface import backbones
from keras_sphereface.conversion import mapping

_SFNET = {"channels": (4, 8, 8, 12), "embedding_dim": 8}
_IRESNET = {"channels": (4, 8, 8, 12), "embedding_dim": 8}
_UPRIGHT = (112, 96, 3)

# Case -> (public name, arguments). All depths, both block orders, with and without batch norm, both input sizes.
CASES = {
    "sfnet4": ("sfnet4", _SFNET),
    "sfnet10_relu_add": ("sfnet10", {**_SFNET, "block_order": "relu_add"}),
    "sfnet20": ("sfnet20", _SFNET),
    "sfnet20_relu_add": ("sfnet20", {**_SFNET, "block_order": "relu_add"}),
    "sfnet20_bn": ("sfnet20", {**_SFNET, "batch_norm": True}),
    "sfnet20_bn_relu_add_112x96": (
        "sfnet20",
        {**_SFNET, "batch_norm": True, "block_order": "relu_add", "input_shape": _UPRIGHT},
    ),
    "sfnet36_relu_add": ("sfnet36", {**_SFNET, "block_order": "relu_add"}),
    "sfnet64_bn": ("sfnet64", {**_SFNET, "batch_norm": True}),
    "iresnet18": ("iresnet18", _IRESNET),
    "iresnet34_112x96": ("iresnet34", {**_IRESNET, "input_shape": _UPRIGHT}),
    "iresnet50": ("iresnet50", _IRESNET),
    "iresnet100": ("iresnet100", _IRESNET),
    "iresnet200": ("iresnet200", _IRESNET),
    "mobilefacenet": ("mobilefacenet", {"embedding_dim": 8}),
    "mobilefacenet_112x96": ("mobilefacenet", {"embedding_dim": 8, "input_shape": _UPRIGHT}),
    "vit_t": ("vit_t", {"embedding_dim": 8, "patch_size": 28}),
    "vit_t_bias_112x96": (
        "vit_t",
        {"embedding_dim": 8, "patch_size": 20, "mlp_ratio": 1.5, "qkv_bias": True, "input_shape": _UPRIGHT},
    ),
}


def make(case):
    """Builds a case's backbone with random weights."""
    name, arguments = CASES[case]
    return backbones.get(name, **arguments)


def seeded_tensors(backbone):
    """PyTorch-named tensors for a backbone: each depends on its own name and shape only.

    `RandomState`'s stream is frozen by NumPy's policy, so that recorded values stay valid.
    """
    return {name: _tensor(name, slot.shape) for name, slot in mapping.slots(backbone).items()}


def _tensor(name, shape):
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
        return random.uniform(0.5, 1.0, shape).astype("float32")
    fan_in = np.prod(shape[1:]) if len(shape) > 1 else 100.0
    return (random.standard_normal(shape) / np.sqrt(fan_in)).astype("float32")


def images(input_shape, count=2):
    """Seeded uint8 images: smooth gradients with noise, so that neighbouring pixels are not independent."""
    height, width, channels = input_shape
    random = np.random.RandomState(112)
    rows = np.arange(height)[:, None, None]
    columns = np.arange(width)[:, None]
    slopes = random.uniform(-1.0, 1.0, (2, count, 1, 1, channels))
    smooth = 128 + 60 * (slopes[0] * (rows / height) + slopes[1] * (columns / width))
    return np.clip(smooth + random.uniform(-40, 40, (count, height, width, channels)), 0, 255).astype("uint8")
