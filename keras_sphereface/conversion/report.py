"""What a conversion did, and how close the converted network is to the original."""

import dataclasses
import json


@dataclasses.dataclass(frozen=True)
class ConversionReport:
    """The account of one conversion.

    With a the original's embeddings and b the Keras model's of the same images,
    `max_difference = max |a - b|` and `max_relative_difference = max |a - b| / max |a|`.

    Attributes:
        checkpoint: The converted file.
        sha256: Of the file.
        architecture: The name given by the user, or found.
        backbone: The backbone's class and its constructor arguments (sizes read off the file).
        parameters: Number of the model's parameters, batch normalization's statistics included.
        preprocessing: What the model does to RGB images of 0..255. It is the architecture's or the user's:
            a checkpoint does not record it.
        images: Number of (random) images compared.
        max_difference: See above.
        max_relative_difference: See above.
        min_cosine: Smallest cosine between an original embedding and the converted one.
        reference: What computed the original's embeddings, with its version.
        ignored: What the file holds beside the network.
        head_weights: `"kernel"`, `(embedding_dim, classes)`, and perhaps `"bias"` as NumPy arrays; empty without a head.
    """

    checkpoint: str
    sha256: str
    architecture: str
    backbone: dict
    parameters: int
    preprocessing: str
    images: int
    max_difference: float
    max_relative_difference: float
    min_cosine: float
    reference: str
    ignored: tuple
    head_weights: dict = dataclasses.field(repr=False, compare=False)

    def to_dict(self) -> dict:
        """All figures as plain values; of the head's weights only the shapes."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["ignored"] = list(self.ignored)
        values["head_weights"] = {name: list(array.shape) for name, array in self.head_weights.items()}
        return values

    def to_json(self) -> str:
        """The result of `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def _block_order(self):
        """An SFNet's, which its file does not tell, and parity cannot show: the reference has the same."""
        order = self.backbone.get("block_order")
        return [] if order is None else [f"  block order    {order} (not recorded in a checkpoint: of the name given)"]

    def __str__(self):
        shapes = [f"{name} {'x'.join(map(str, array.shape))}" for name, array in self.head_weights.items()]
        return "\n".join(
            [
                f"{self.checkpoint} -> {self.architecture} ({self.backbone['class_name']}), "
                f"{self.parameters:,} parameters, {self.backbone['embedding_dim']}-dimensional embeddings",
                f"  sha256         {self.sha256}",
                f"  preprocessing  {self.preprocessing} (not recorded in a checkpoint: check it against its source)",
                *self._block_order(),
                f"  class weights  {', '.join(shapes) or 'none in the file'}",
                f"  left aside     {', '.join(self.ignored) or 'nothing'}",
                f"  parity         {self.images} images against {self.reference}: largest difference "
                f"{self.max_difference:.2e}, relative {self.max_relative_difference:.2e}, "
                f"smallest cosine {self.min_cosine:.7f}",
            ]
        )
