"""The vision transformers of InsightFace, LVFace and CVLface: what their files tell of their sizes."""

import numpy as np

from keras_sphereface.conversion.tensors import check_units, shape_of
from keras_sphereface.hints import Path

PATCHES = "patch_embed.proj.weight"


def arguments(tensors: dict[str, np.ndarray], path: Path) -> dict:
    """Reads the arguments of `ViT` off the tensors; the number of heads is nowhere in them.

    Args:
        tensors: Tensor names to arrays.
        path: The file, for error messages.

    Returns:
        `depth`, `hidden_dim`, `mlp_ratio`, `patch_size`, `qkv_bias` and `embedding_dim`.

    Raises:
        FileFormatError: If a tensor is missing or has another rank.
    """
    hidden_dim, _, patch_size, _ = shape_of(tensors, PATCHES, 4, path)
    depth = 0
    while f"blocks.{depth}.norm1.weight" in tensors:
        depth += 1
    check_units(depth, path)
    inner, _ = shape_of(tensors, "blocks.0.mlp.fc1.weight", 2, path)
    return {
        "depth": depth,
        "hidden_dim": hidden_dim,
        "mlp_ratio": inner / hidden_dim,
        "patch_size": patch_size,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "embedding_dim": shape_of(tensors, "feature.2.weight", 2, path)[0],
    }
