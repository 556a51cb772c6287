"""ViT, the vision transformer of InsightFace, LVFace and CVLface: all tokens make the embedding, none is a class's."""

from typing import Any

import keras
from keras import initializers, layers

from keras_sphereface.arguments import finite_number, whole_number
from keras_sphereface.backbones import base, blocks, layout, tokens
from keras_sphereface.backbones.layers import Conv2D

LAYER_NORM_EPSILON = 1e-5  # PyTorch's default
LINEAR_STDDEV = 0.02  # of all linear layers before training
FEATURE_NORM_EPSILON = 2e-5  # of the two batch normalizations at the end


@keras.saving.register_keras_serializable(package="keras_sphereface")
class ViT(base.FaceBackbone):
    """Vision transformer for face crops: normalization before attention and before the perceptron of each block.

    Patches that do not overlap become tokens; what the image has below and right of the last whole patch is not seen. The
    tokens of the last block, side by side, go through two linear layers with batch normalization to the embedding.

    Args:
        depth: Blocks of attention and perceptron.
        hidden_dim: Length of a token. Defaults to `512`.
        num_heads: Heads of attention, a divisor of `hidden_dim`. Defaults to `8`.
        mlp_ratio: Length of the perceptron's inner layer, in multiples of a token's. Defaults to `4.0`.
        patch_size: Rows and columns of a patch. Defaults to `9`: 144 tokens of 112x112.
        qkv_bias: Whether queries, keys and values have a bias. Defaults to `False`.
        drop_path: Rate of the last block's stochastic depth; it grows evenly from 0 at the first. Defaults to `0.0`.
        mask_ratio: Share of the tokens that a training step leaves out, until the last block. Defaults to `0.0`.
        embedding_dim: Length of an embedding. Defaults to `512`.
        input_shape: `(height, width, 3)`. Defaults to `(112, 112, 3)`.
        image_mean: Subtracted from the images, which come as 0..255. Defaults to `127.5`.
        image_std: Then divided by. Defaults to `127.5`, so that the network sees -1..1.
        dtype: Dtype policy. The embedding is computed in float32 under 16-bit policies. Defaults to `None`.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: If lengths, rates and shapes do not fit.
        TypeError: On an argument that is not known.

    Example:
    >>> backbone = ViT(depth=2, hidden_dim=16, num_heads=2, patch_size=28, embedding_dim=32)
    >>> backbone(np.zeros((2, 112, 112, 3), "uint8")).shape
    (2, 32)

    Reference:
        - An Image is Worth 16x16 Words (arXiv 2010.11929), section 3.1
        - Masked Autoencoders (arXiv 2111.06377), section 3: the tokens left out
        - Deep Networks with Stochastic Depth (arXiv 1603.09382), section 3
    """

    def __init__(
        self,
        depth: int,
        hidden_dim: int = 512,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        patch_size: int = 9,
        qkv_bias: bool = False,
        drop_path: float = 0.0,
        mask_ratio: float = 0.0,
        embedding_dim: int = 512,
        input_shape: tuple[int, int, int] = base.DEFAULT_INPUT_SHAPE,
        image_mean: float = base.IMAGE_CENTER,
        image_std: float = base.IMAGE_CENTER,
        dtype: Any = None,
        **kwargs,
    ):
        kwargs.setdefault("name", "vit")
        config = {
            "depth": whole_number("depth", depth),
            "hidden_dim": whole_number("hidden_dim", hidden_dim),
            "num_heads": whole_number("num_heads", num_heads),
            "mlp_ratio": finite_number("mlp_ratio", mlp_ratio),
            "patch_size": whole_number("patch_size", patch_size),
            "qkv_bias": bool(qkv_bias),
            "drop_path": base.check_rate("drop_path", drop_path),
            "mask_ratio": base.check_rate("mask_ratio", mask_ratio),
            "embedding_dim": base.check_embedding_dim(embedding_dim),
            "input_shape": base.check_input_shape(input_shape),
            "image_mean": finite_number("image_mean", image_mean),
            "image_std": finite_number("image_std", image_std),
        }
        _check_sizes(config)
        images = base.image_input(config["input_shape"])
        x = _patches(base.rescale(images, image_mean, image_std), config, dtype)
        order = None
        if config["mask_ratio"]:
            order = tokens.RandomOrder(dtype=dtype, name="mask_order")(x)
            x = tokens.KeepFirst(config["mask_ratio"], dtype=dtype, name="mask")(x, order)
        for index in range(config["depth"]):
            x = _block(x, index, config, dtype)
        embeddings = _embedding(x, order, config, base.embedding_dtype(dtype))
        super().__init__(inputs=images, outputs=embeddings, config=config, dtype=dtype, **kwargs)


def _check_sizes(config):
    hidden_dim, num_heads, patch_size = config["hidden_dim"], config["num_heads"], config["patch_size"]
    if hidden_dim % num_heads:
        raise ValueError(
            f"`hidden_dim` must be a multiple of `num_heads`. Received: hidden_dim={hidden_dim}, num_heads={num_heads}"
        )
    if int(hidden_dim * config["mlp_ratio"]) < 1:
        raise ValueError(
            f"`mlp_ratio` must leave the perceptron at least one number. Received: mlp_ratio={config['mlp_ratio']}, "
            f"hidden_dim={hidden_dim}"
        )
    if min(config["input_shape"][:2]) < patch_size:
        raise ValueError(
            f"`input_shape` must hold a patch of {patch_size}x{patch_size}. Received: {config['input_shape']}"
        )


def _dense(x, units, use_bias, dtype, name):
    """Linear layer of each token, or of all."""
    return blocks.dense(x, units, use_bias, initializers.TruncatedNormal(stddev=LINEAR_STDDEV), dtype, name)


def _layer_norm(x, dtype, name):
    return layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON, dtype=dtype, name=name)(x)


def _patches(x, config, dtype):
    """The patches' tokens, row after row, with their positions."""
    size = config["patch_size"]
    x = Conv2D(
        config["hidden_dim"],
        size,
        strides=size,
        padding="valid",
        data_format=layout.data_format(),
        kernel_initializer=blocks.linear_uniform(),
        dtype=dtype,
        name="patch_embed_proj",
    )(x)
    x = layers.Reshape((-1, config["hidden_dim"]), dtype=dtype, name="tokens")(layout.to_channels_last(x))
    return tokens.PositionEmbedding(dtype=dtype, name="pos_embed")(x)


def _block(x, index, config, dtype):
    """Attention, then a perceptron, each beside what passes by."""
    name, hidden_dim = f"blocks_{index}", config["hidden_dim"]
    rate = config["drop_path"] * index / max(1, config["depth"] - 1)
    y = _dense(_layer_norm(x, dtype, f"{name}_norm1"), 3 * hidden_dim, config["qkv_bias"], dtype, f"{name}_attn_qkv")
    y = tokens.SelfAttention(config["num_heads"], dtype=dtype, name=f"{name}_attn")(y)
    x = _add(x, _dense(y, hidden_dim, True, dtype, f"{name}_attn_proj"), rate, dtype, f"{name}_attn")
    inner = int(hidden_dim * config["mlp_ratio"])
    y = _dense(_layer_norm(x, dtype, f"{name}_norm2"), inner, True, dtype, f"{name}_mlp_fc1")
    y = layers.ReLU(max_value=6.0, dtype=dtype, name=f"{name}_mlp_act")(y)
    return _add(x, _dense(y, hidden_dim, True, dtype, f"{name}_mlp_fc2"), rate, dtype, f"{name}_mlp")


def _add(x, y, rate, dtype, name):
    """The sum; in training an example goes without `y` at this rate (stochastic depth)."""
    if rate:
        y = layers.Dropout(rate, noise_shape=(None, 1, 1), dtype=dtype, name=f"{name}_drop_path")(y)
    return layers.Add(dtype=dtype, name=f"{name}_add")([x, y])


def _embedding(x, order, config, dtype):
    x = _layer_norm(x, dtype, "norm")
    if order is not None:
        x = tokens.PutBack(dtype=dtype, name="mask_token")(x, order)
    x = layers.Flatten(dtype=dtype, name="flatten")(x)
    for index, units in ((0, config["hidden_dim"]), (2, config["embedding_dim"])):
        variance = x.shape[-1] * LINEAR_STDDEV**2  # of a linear layer's outputs: its inputs have been normalized
        x = _dense(x, units, False, dtype, f"feature_{index}")
        x = blocks.batch_norm(x, dtype, f"feature_{index + 1}", variance, epsilon=FEATURE_NORM_EPSILON)
    return x


def ViTTiny(embedding_dim: int = 512, name: str = "vit_t", **kwargs) -> ViT:
    """ViT-T of InsightFace and LVFace: 12 blocks, tokens of 256.

    Args:
        embedding_dim: Length of an embedding. Defaults to `512`.
        name: Name of the model. Defaults to `"vit_t"`.
        **kwargs: Further arguments of `ViT`, e.g. `drop_path`, `mask_ratio`, `input_shape`.

    Returns:
        A `ViT`, from images `(batch, height, width, 3)`, RGB 0..255, to embeddings `(batch, embedding_dim)`.

    Raises:
        ValueError, TypeError: As `ViT`.

    Example:
    >>> keras_sphereface.backbones.ViTTiny(embedding_dim=256).output_shape
    (None, 256)
    """
    return ViT(depth=12, hidden_dim=256, embedding_dim=embedding_dim, name=name, **kwargs)


def ViTSmall(embedding_dim: int = 512, name: str = "vit_s", **kwargs) -> ViT:
    """ViT-S of InsightFace and LVFace: 12 blocks, tokens of 512.

    Args:
        embedding_dim: Length of an embedding. Defaults to `512`.
        name: Name of the model. Defaults to `"vit_s"`.
        **kwargs: Further arguments of `ViT`, e.g. `drop_path`, `mask_ratio`, `input_shape`.

    Returns:
        A `ViT`, from images `(batch, height, width, 3)`, RGB 0..255, to embeddings `(batch, embedding_dim)`.

    Raises:
        ValueError, TypeError: As `ViT`.

    Example:
    >>> backbone = keras_sphereface.backbones.ViTSmall(drop_path=0.1, mask_ratio=0.1)  # InsightFace's for MS1M
    >>> trainer = keras_sphereface.FaceClassifier(backbone, keras_sphereface.heads.CosFace(num_classes=1000))
    >>> trainer.compile(keras.optimizers.AdamW(1e-3, weight_decay=0.1))  # InsightFace's as well
    """
    return ViT(depth=12, hidden_dim=512, embedding_dim=embedding_dim, name=name, **kwargs)


def ViTBase(embedding_dim: int = 512, name: str = "vit_b", **kwargs) -> ViT:
    """ViT-B of InsightFace and LVFace: 24 blocks, tokens of 512.

    Args:
        embedding_dim: Length of an embedding. Defaults to `512`.
        name: Name of the model. Defaults to `"vit_b"`.
        **kwargs: Further arguments of `ViT`, e.g. `drop_path`, `mask_ratio`, `input_shape`.

    Returns:
        A `ViT`, from images `(batch, height, width, 3)`, RGB 0..255, to embeddings `(batch, embedding_dim)`.

    Raises:
        ValueError, TypeError: As `ViT`.

    Example:
    >>> keras_sphereface.backbones.ViTBase(dtype="mixed_bfloat16").embedding_dim
    512
    """
    return ViT(depth=24, hidden_dim=512, embedding_dim=embedding_dim, name=name, **kwargs)


def ViTLarge(embedding_dim: int = 512, name: str = "vit_l", **kwargs) -> ViT:
    """ViT-L of InsightFace and LVFace: 24 blocks, tokens of 768.

    Args:
        embedding_dim: Length of an embedding. Defaults to `512`.
        name: Name of the model. Defaults to `"vit_l"`.
        **kwargs: Further arguments of `ViT`, e.g. `drop_path`, `mask_ratio`, `input_shape`.

    Returns:
        A `ViT`, from images `(batch, height, width, 3)`, RGB 0..255, to embeddings `(batch, embedding_dim)`.

    Raises:
        ValueError, TypeError: As `ViT`.

    Example:
    >>> keras_sphereface.backbones.ViTLarge(name="teacher").name
    'teacher'
    """
    return ViT(depth=24, hidden_dim=768, embedding_dim=embedding_dim, name=name, **kwargs)
