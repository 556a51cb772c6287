"""Type hints that several modules share."""

import os
from collections.abc import Callable
from typing import Any, Protocol

Path = str | os.PathLike[str]
Size = tuple[int, int]  # height, width


class Predictor(Protocol):
    """Whatever embeds images by a method of this name, e.g. a `keras.Model`."""

    def predict(self, images: Any) -> Any:
        """Returns `(n, d)` embeddings of `(n, height, width, 3)` images."""


Embedder = Callable[[Any], Any] | Predictor
