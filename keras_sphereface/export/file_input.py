"""The images that an exported file takes, checked before its runtime sees them."""

from collections.abc import Callable, Sequence

import numpy as np


def checked(
    run: Callable[[np.ndarray], np.ndarray], shape: Sequence, embeddings_shape: Sequence
) -> Callable[[np.ndarray], np.ndarray]:
    """Makes a function of a file refuse images of another shape, of which runtimes make crashes or wrong embeddings.

    Args:
        run: Function from float32 images to embeddings.
        shape: Of the file's own input, `(n, height, width, 3)`; a size that is no integer, or negative, is free.
        embeddings_shape: Of its output, `(n, d)`.

    Returns:
        The function; it raises `ValueError`, and has no embeddings, `(0, d)`, for no images.
    """
    sizes = tuple(int(size) if isinstance(size, (int, np.integer)) and size >= 0 else None for size in shape[1:])

    def embed(images):
        fits = images.ndim == len(sizes) + 1
        if not fits or any(size not in (None, given) for size, given in zip(sizes, images.shape[1:])):
            expected = ", ".join("any" if size is None else str(size) for size in sizes)
            raise ValueError(
                f"Expected images (n, {expected}), the exported file's input. Received: images.shape={images.shape}. Align "
                "the images to this size"
            )
        return run(images) if len(images) else np.zeros((0, *embeddings_shape[1:]), "float32")

    return embed
