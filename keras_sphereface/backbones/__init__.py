"""Backbones: face crops (RGB, 0..255) in, raw embeddings out. Preprocessing is inside."""

from keras_sphereface.backbones.base import FaceBackbone
from keras_sphereface.backbones.iresnet import IResNet, IResNet18, IResNet34, IResNet50, IResNet100, IResNet200
from keras_sphereface.backbones.mobilefacenet import MobileFaceNet
from keras_sphereface.backbones.patch_sfnet import PatchSFNet
from keras_sphereface.backbones.sfnet import SFNet, SFNet4, SFNet10, SFNet20, SFNet36, SFNet64
from keras_sphereface.backbones.vit import ViT, ViTBase, ViTLarge, ViTSmall, ViTTiny
from keras_sphereface.errors import did_you_mean

_TABLE = {
    "sfnet4": SFNet4,
    "sfnet10": SFNet10,
    "sfnet20": SFNet20,
    "sfnet36": SFNet36,
    "sfnet64": SFNet64,
    "iresnet18": IResNet18,
    "iresnet34": IResNet34,
    "iresnet50": IResNet50,
    "iresnet100": IResNet100,
    "iresnet200": IResNet200,
    "mobilefacenet": MobileFaceNet,
    "patch_sfnet": PatchSFNet,
    "vit_t": ViTTiny,
    "vit_s": ViTSmall,
    "vit_b": ViTBase,
    "vit_l": ViTLarge,
}

__all__ = [
    "FaceBackbone",
    "IResNet",
    "IResNet18",
    "IResNet34",
    "IResNet50",
    "IResNet100",
    "IResNet200",
    "MobileFaceNet",
    "PatchSFNet",
    "SFNet",
    "SFNet4",
    "SFNet10",
    "SFNet20",
    "SFNet36",
    "SFNet64",
    "ViT",
    "ViTBase",
    "ViTLarge",
    "ViTSmall",
    "ViTTiny",
    "get",
    "names",
]


def names() -> tuple[str, ...]:
    """The names that `get` knows, as a tuple.

    Example:
    >>> keras_sphereface.backbones.names()[:3]
    ('sfnet4', 'sfnet10', 'sfnet20')
    """
    return tuple(_TABLE)


def get(name: str, **kwargs) -> FaceBackbone:
    """Builds a backbone by its name.

    Args:
        name: One of `names()`, e.g. `"iresnet100"`.
        **kwargs: Arguments of the backbone, e.g. `embedding_dim`, `input_shape`, `dtype`.

    Returns:
        The backbone, a `keras.Model`.

    Raises:
        ValueError: If no backbone has this name.
        TypeError: On an argument that is not known.

    Example:
    >>> get("sfnet4", embedding_dim=64).output_shape
    (None, 64)
    """
    if not isinstance(name, str) or name not in _TABLE:
        raise ValueError(
            f"Unknown backbone. Received: name={name!r}. Known names: {', '.join(_TABLE)}.{did_you_mean(name, _TABLE)}"
        )
    return _TABLE[name](**kwargs)
