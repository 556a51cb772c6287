"""What every margin head shares: class weights on the sphere, cosines in float32, and the checks of its input."""

from typing import Any

import keras
from keras import ops
from numpy.typing import ArrayLike

from keras_sphereface import feature_norms, margins
from keras_sphereface.arguments import whole_number
from keras_sphereface.heads import class_blocks
from keras_sphereface.heads.constraints import SettledUnitNorm, UnitColumns, settled_columns
from keras_sphereface.heads.initial_weights import draw_unit_columns
from keras_sphereface.heads.labels import check_labels
from keras_sphereface.heads.sampling import check_sample_rate, check_seed, draw_classes
from keras_sphereface.hints import Shape, Tensor

WEIGHT_NORMS = ("projected", "graph", "none")
CLASS_WEIGHTS = "class_weights"  # the name of `kernel`, by which `distribution` knows it in a layer of any name
# Keras does not save a layer's random state with its weights.
DRAWS = "draws"


class AngularHead(keras.layers.Layer):
    """Base of the heads: holds the class weights and the margin, and computes cosines.

    The head computes in float32 whatever the dtype policy: in float16 a cosine of 1 - 1e-6 is 1.

    Args:
        num_classes: Number of classes, at least 1.
        margin: Name of a registered margin, or a `keras_sphereface.margins.Margin`.
        margin_value: The margin's size; `None` for the neutral one (no margin). It is kept in the non-trainable
            variable `current_margin`, so that a schedule's state is saved with the model; `load_weights` brings the file's
            along: to go on with a larger one, assign it, or train under a `MarginSchedule`.
        detach: Whether to use characteristic gradient detachment.
        weight_norm: `"projected"` (the columns of `kernel` live on the unit sphere, put back there after each update by
            the constraint `UnitColumns`), `"graph"` (normalized in the graph) or `"none"`.
        kernel_initializer: Initializer of the class weights, before their normalization.
        class_block: The loss over blocks of that many classes, so that memory grows with batch x block instead of
            batch x classes; loss and gradients stay the same, for one more matrix product. `None` for all classes at once;
            `"auto"` for blocks where one matrix of (batch, classes) would be beyond 256 MiB. Needs `detach=True`.
        sample_rate: Partial FC: the share of the classes, in (0, 1], that a training step's loss is taken over; `None` for
            all classes, as 1 is.
        seed: Seed of the draws, an integer of 0 or more; `None` for a random one.
        **kwargs: `name`, `dtype`, `trainable`, as in every Keras layer.
    """

    def __init__(
        self,
        num_classes: int,
        margin: str | margins.Margin,
        margin_value: float | None = None,
        detach: bool = True,
        weight_norm: str = "projected",
        kernel_initializer: str | keras.Initializer = "glorot_normal",
        class_block: int | str | None = "auto",
        sample_rate: float | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        # Cast to 16 bits, labels that are floats would be those of other classes: 257 is 256 in bfloat16.
        super().__init__(**{**kwargs, "autocast": False})
        if weight_norm not in WEIGHT_NORMS:
            raise ValueError(
                f"`weight_norm` must be one of {list(WEIGHT_NORMS)}. Received: weight_norm={weight_norm!r}"
            )
        self.num_classes = whole_number("num_classes", num_classes)
        self.margin = margins.get(margin)
        self.margin_value = self.margin.validate(self.margin.neutral if margin_value is None else margin_value)
        self.detach = bool(detach)
        self.weight_norm = weight_norm
        if kernel_initializer is None:
            raise ValueError("Expected an initializer of Keras or its name. Received: kernel_initializer=None")
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.class_block = class_blocks.check_class_block(class_block, self.detach)
        self.sample_rate = check_sample_rate(sample_rate)
        self.seed = check_seed(seed)
        self.seed_generator = keras.random.SeedGenerator(self.seed) if self.samples else None

    @property
    def samples(self) -> bool:
        """Whether a training step draws classes."""
        return self.sample_rate is not None and self.sample_rate < 1.0

    def build(self, input_shape: Shape) -> None:
        """Creates `kernel` of shape `(embedding_dim, num_classes)` and the scalar `current_margin`."""
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(
                f"{type(self).__name__} expects embeddings of shape (batch, embedding_dim) with a known embedding_dim. "
                f"Received: embeddings of shape {tuple(input_shape)}"
            )
        projected = self.weight_norm == "projected"
        self.kernel = self.add_weight(
            name=CLASS_WEIGHTS,
            shape=(input_shape[-1], self.num_classes),
            initializer=self._unit_initializer if projected else self.kernel_initializer,
            constraint=self._projection() if projected else None,
            dtype="float32",
            autocast=False,
        )
        self.kernel.sampled_classes = self.samples  # Read by `sampled_optimizers`
        self.current_margin = self.add_weight(
            name="current_margin",
            shape=(),
            initializer=keras.initializers.Constant(self.margin_value),
            trainable=False,
            dtype="float32",
            autocast=False,
        )
        self.built = True

    def _projection(self):
        """The constraint that puts the class weights back on the sphere after an update."""
        return SettledUnitNorm(axis=0) if self.samples else UnitColumns()

    def _unit_initializer(self, shape, dtype=None):
        return draw_unit_columns(self.kernel_initializer, shape, dtype)

    def unit_kernel(self, classes: Tensor | None = None) -> Tensor:
        """The weights of all classes, or of those given, as a tensor of shape `(embedding_dim, classes)`, with unit columns
        unless `weight_norm="none"`. Projected ones are taken as they are: each update ends on the sphere.
        """
        kernel = ops.convert_to_tensor(self.kernel)
        if classes is not None:
            kernel = ops.take(kernel, classes, axis=1)
        return feature_norms.normalize(kernel, axis=0)[0] if self.weight_norm == "graph" else kernel

    def _kernel_of_step(self, classes, training):
        """The same for a loss. What is measured may be averages (`keras.callbacks.SwapEMAWeights`), inside of the sphere."""
        kernel = self.unit_kernel(classes)
        return kernel if training or self.weight_norm != "projected" else SettledUnitNorm(axis=0)(kernel)

    def drawn_classes(self, labels: Tensor, training: bool = True) -> tuple[Tensor | None, Tensor]:
        """The classes that a step's loss is taken over, None for all, and the labels as places among them."""
        if not (self.samples and training):
            return None, labels
        return draw_classes(labels, self.num_classes, self.sample_rate, self.seed_generator)

    def cosines_and_norms(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines of shape `(batch, num_classes)` between embeddings and classes, and the norms, `(batch,)`."""
        directions, norms = feature_norms.normalize(embeddings, axis=-1)
        return ops.matmul(directions, self.unit_kernel()), norms

    def has_closed_form(self) -> bool:
        """Whether the loss and its gradient are computed in closed form, in blocks or not."""
        return self.detach

    def block_size(self, batch_size: int | None, num_classes: int | None = None) -> int | None:
        """Number of classes that the loss takes at a time, of all or of `num_classes`, for a batch of that size.

        None stands for a size that isn't known.
        """
        return class_blocks.block_size(self.class_block, batch_size, num_classes or self.num_classes)

    def loss(self, embeddings: Tensor, labels: Tensor, training: bool = True) -> Tensor:
        """The loss of each example, a float32 tensor of shape `(batch,)`, with the margin and all penalties.

        With `training=False` a head that draws classes (`sample_rate`) takes all of them, and projected class weights that
        are off the sphere, as averages are, count by their directions. Second derivatives (gradient
        penalties, Hessians) need `detach=False`: the gradient in closed form is not differentiated again.
        """
        return self.loss_and_statistics(embeddings, labels, training)[0]

    def check_embeddings(self, embeddings: Tensor) -> Tensor:
        """Returns the embeddings in float32, having built the head if needed; raises ValueError for a wrong shape."""
        if isinstance(embeddings, keras.KerasTensor):
            raise ValueError(
                f"A functional model of {type(self).__name__}.loss would lack the class weights. Call the head, "
                "head(embeddings, labels), with a loss of Keras, or train a FaceClassifier. "
                f"Received: embeddings={embeddings.name!r}, symbolic"
            )
        embeddings = ops.convert_to_tensor(embeddings)
        dtype = keras.backend.standardize_dtype(embeddings.dtype)
        if dtype == "string" or "complex" in dtype:
            raise ValueError(f"{type(self).__name__} expects embeddings of real numbers. Received: dtype={dtype!r}")
        if len(embeddings.shape) != 2:
            raise ValueError(
                f"{type(self).__name__} expects embeddings of shape (batch, embedding_dim). "
                f"Received: embeddings of shape {tuple(embeddings.shape)}"
            )
        if not self.built:
            self.build(tuple(embeddings.shape))
        elif embeddings.shape[-1] != self.kernel.shape[0]:
            raise ValueError(
                f"{type(self).__name__} was built for embeddings of {self.kernel.shape[0]} dimensions. "
                f"Received: embeddings of shape {tuple(embeddings.shape)}"
            )
        return ops.cast(embeddings, "float32")

    def check_labels(self, labels: ArrayLike) -> None:
        """Raises `ValueError` for labels that are no classes. A compiled step cannot (JAX, XLA): there the loss is NaN."""
        check_labels(labels, self.num_classes)

    def save_own_variables(self, store: Any) -> None:
        """Saves the weights, projected ones on the sphere, and where the draws of a head that draws classes have got to."""
        own = {}
        super().save_own_variables(own)
        for name, variable in own.items():
            on_sphere = variable is self.kernel and self.weight_norm == "projected"
            store[name] = settled_columns(ops.convert_to_numpy(variable)) if on_sphere else variable
        if self.samples:
            store[DRAWS] = self.seed_generator.state

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` saved; weights of a head that draws none will do."""
        names = list(store.keys())
        super().load_own_variables({name: store[name] for name in names if name != DRAWS})
        if self.samples and DRAWS in names:
            self.seed_generator.state.assign(store[DRAWS])

    def get_config(self) -> dict:
        """Returns the arguments as a dictionary."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "margin": margins.serialize(self.margin),
            "margin_value": self.margin_value,
            "detach": self.detach,
            "weight_norm": self.weight_norm,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "class_block": self.class_block,
            "sample_rate": self.sample_rate,
            "seed": self.seed,
        }

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Logits: `(batch, num_classes)`."""
        return (input_shape[0], self.num_classes)

    def compute_output_spec(self, embeddings: Tensor, labels: Tensor | None = None) -> keras.KerasTensor:
        """Float32 logits, whatever the dtype policy; see `compute_output_shape`."""
        return keras.KerasTensor(self.compute_output_shape(embeddings.shape), dtype="float32")

    def compute_mask(self, inputs: Tensor, mask: Tensor | None = None) -> None:
        """Logits of a batch of embeddings have no time steps to mask."""
        return None
