"""The class weights of a checkpoint's head, in this package's layout."""

import numpy as np

from keras_sphereface import errors
from keras_sphereface.conversion.tensors import listing
from keras_sphereface.hints import Path

LAYOUTS = ("features_first", "classes_first")
# OpenSphere's name (either layout), InsightFace's, AdaFace's
_KERNELS = {"w": None, "weight": "classes_first", "kernel": "features_first"}
_BIASES = ("b", "bias")
_STATISTICS = ("t", "batch_mean", "batch_std")  # AdaFace's, of its embeddings' lengths while it was trained


def head_weights(
    tensors: dict[str, np.ndarray], embedding_dim: int, path: Path, layout: str | None = None
) -> dict[str, np.ndarray]:
    """Finds the head's kernel, and its bias if it has one.

    OpenSphere's first version stores `w` as (embedding_dim, classes), its second as (classes, embedding_dim);
    the shape tells which, except where there are as many classes as dimensions.

    Args:
        tensors: The head's tensor names to arrays; may be empty.
        embedding_dim: Length of an embedding.
        path: The file, for error messages.
        layout: `"features_first"` or `"classes_first"`, needed only for a square `w`. Defaults to `None`.

    Returns:
        Dictionary with `"kernel"`, `(embedding_dim, classes)`, and perhaps `"bias"`, `(1,)` or `(classes,)`;
        empty if the file has no head.
    """
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"`head_layout` must be None or one of {LAYOUTS}. Received: head_layout={layout!r}")
    if not tensors:
        return {}
    if "kernel" in tensors:
        tensors = {name: value for name, value in tensors.items() if name not in _STATISTICS}
    kernels = [name for name in _KERNELS if name in tensors]
    biases = [name for name in _BIASES if name in tensors]
    unknown = tensors.keys() - {*_KERNELS, *_BIASES}
    if unknown or len(kernels) != 1 or len(biases) > 1:
        raise errors.FileFormatError(
            f"{path}: the head has the tensors {listing(tensors)}; expected one kernel ({' or '.join(_KERNELS)}) and "
            f"at most one bias ({' or '.join(_BIASES)}). Pass `include_head=False` to convert the backbone alone."
        )
    weights = {"kernel": _kernel(tensors[kernels[0]], embedding_dim, path, layout, _KERNELS[kernels[0]])}
    if biases:
        bias = tensors[biases[0]].reshape(-1)
        if bias.size not in (1, weights["kernel"].shape[1]):
            raise errors.FileFormatError(
                f"{path}: the head's bias has {bias.size} values, expected 1 or one per class."
            )
        weights["bias"] = bias
    return weights


def _kernel(kernel, embedding_dim, path, layout, usual):
    """The kernel; `usual` is the layout of this name where the shape allows both."""
    fitting = [
        name
        for name, axis in zip(LAYOUTS, (0, 1))
        if kernel.ndim == 2 and kernel.shape[axis] == embedding_dim and layout in (None, name)
    ]
    if not fitting:
        raise errors.FileFormatError(
            f"{path}: the head's kernel has the shape {kernel.shape}, expected (classes, {embedding_dim}) or "
            f"({embedding_dim}, classes){'' if layout is None else f', by head_layout={layout!r} only one of them'}. "
            "Pass `include_head=False` to convert the backbone alone."
        )
    if len(fitting) > 1 and usual in fitting:
        fitting = [usual]
    if len(fitting) > 1:
        raise errors.FileFormatError(
            f"{path}: the head's kernel has the shape {kernel.shape}, from which its layout cannot be told: "
            f"pass `head_layout`, one of {LAYOUTS}."
        )
    return kernel if fitting[0] == "features_first" else kernel.T
