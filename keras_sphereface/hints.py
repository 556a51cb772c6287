"""Type hints that several modules share."""

import os
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

Path = str | os.PathLike[str]
Size = tuple[int, int]  # height, width
Shape: TypeAlias = tuple[int | None, ...]

# A tensor of Keras's backend, symbolic or not, or what becomes one. The backends share no class: the name is for readers.
Tensor: TypeAlias = Any


class Predictor(Protocol):
    """Whatever embeds images by a method of this name, e.g. a `keras.Model`."""

    def predict(self, images: Any) -> Any:
        """Returns `(n, d)` embeddings of `(n, height, width, 3)` images."""


Embedder = Callable[[Any], Any] | Predictor
