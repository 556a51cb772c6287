"""The head of every margin that is trained by softmax cross-entropy."""

import keras
from keras import ops

from keras_sphereface import feature_norms, losses, margins, regularizers
from keras_sphereface.arguments import positive_number
from keras_sphereface.heads.base import AngularHead
from keras_sphereface.heads.closed_form import Problem, detached_loss
from keras_sphereface.heads.criteria import Softmax
from keras_sphereface.heads.labels import check_labels
from keras_sphereface.heads.sampling import of_all_replicas
from keras_sphereface.heads.statistics import batch_statistics, divided_by_lengths, target_and_rank
from keras_sphereface.hints import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_sphereface")
class MarginHead(AngularHead):
    r"""Classification head with an angular margin.

    With cosines between an embedding and the class weights, the logits are $\rho(x) g_i$ with $g_y = \psi(\theta_y)$ for
    the target class and $g_i = \eta(\theta_i)$ for the others, from the table of `keras_sphereface.margins`; rho and
    the loss follow `keras_sphereface.feature_norms`.

    Args:
        num_classes: Number of classes.
        margin: Name of a registered margin or a `Margin`. Defaults to `"sphereface_r_v2"`.
        margin_value: The margin's size, at least the margin's neutral value. Defaults to `None`, the neutral value.
        feature_norm: `"none"`, `"hard"` or `"soft"`. Defaults to `"hard"`.
        scale: s, the radius of the sphere, positive. Not used in the logits of `"none"` and `"soft"`. Defaults to `64.0`.
        loss_weight: Weight of the cross-entropy, divided by the scale for `"hard"` and `"soft"`; `None` for a plain
            factor of 1. Defaults to `None`.
        norm_penalty: t, the weight of the penalty on norms of `"soft"`. Defaults to `0.01`.
        penalty_power: 1 for the absolute penalty of the authors' code, 2 for the square (ring loss). Defaults to `1`.
        repulsion: Weight of SphereFace+'s penalty on the angles between the batch's classes. Defaults to `0.0`.
        use_bias: Whether a bias per class, at first 0, is added to the logits, as in plain softmax. Defaults to `False`.
        detach: Whether to use characteristic gradient detachment. Defaults to `True`.
        weight_norm: `"projected"`, `"graph"` or, without a margin, `"none"` (plain inner products: softmax). Defaults to
            `"projected"`.
        kernel_initializer: Initializer of the class weights. Defaults to `"glorot_normal"`.
        class_block: Number of classes at a time in the loss, see `AngularHead`. Defaults to `"auto"`.
        sample_rate: Partial FC: the share of the classes, in (0, 1], that a training step's loss is taken over. The batch's
            own are always among them, the others are drawn anew for each step, uniformly; there are always more than
            the batch has examples. Train with `SampledSGD` or `SampledAdam`. Defaults to `None`, all classes, as 1 is.
        seed: Seed of the draws, an integer of 0 or more. Defaults to `None`, a random one, which
            `keras.utils.set_random_seed` fixes.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        embeddings: Float tensor of shape `(batch, embedding_dim)`.
        labels: Integer tensor of shape `(batch,)`, or `None` for logits without the margin. Defaults to `None`.

    Returns:
        Logits, a float32 tensor of shape `(batch, num_classes)`.

    Raises:
        ValueError: For arguments out of range, embeddings of a wrong shape or labels outside `[0, num_classes)`. A compiled
            program (JAX, XLA) cannot raise for a label: there that example's logits and loss are NaN.

    Example:
    >>> head = keras_sphereface.heads.MarginHead(10, margin="cosface", margin_value=0.35, scale=64.0)
    >>> embeddings, labels = np.random.normal(size=(4, 16)), np.array([1, 2, 3, 3])
    >>> head(embeddings, labels).shape, head.loss(embeddings, labels).shape
    ((4, 10), (4,))

    Reference: arXiv 2109.05565, sections 3.1 to 3.4.
    """

    def __init__(
        self,
        num_classes: int,
        margin: str | margins.Margin = "sphereface_r_v2",
        margin_value: float | None = None,
        feature_norm: str = "hard",
        scale: float = 64.0,
        loss_weight: float | None = None,
        norm_penalty: float = 0.01,
        penalty_power: int = 1,
        repulsion: float = 0.0,
        use_bias: bool = False,
        detach: bool = True,
        weight_norm: str = "projected",
        kernel_initializer: str | keras.Initializer = "glorot_normal",
        class_block: int | str | None = "auto",
        sample_rate: float | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        of_base = margin_value, detach, weight_norm, kernel_initializer, class_block, sample_rate, seed
        super().__init__(num_classes, margin, *of_base, **kwargs)
        if weight_norm == "none" and (self.margin.psi is not None or self.margin.eta is not None):
            raise ValueError(
                "Expected weight_norm 'projected' or 'graph' for a margin, which is a function of the angle. "
                f"Received: weight_norm='none', margin={self.margin.name!r}"
            )
        self.feature_norm = feature_norms.get(feature_norm)
        if isinstance(penalty_power, bool) or penalty_power not in (1, 2):
            raise ValueError(f"`penalty_power` must be 1 or 2. Received: penalty_power={penalty_power!r}")
        self.scale = positive_number("scale", scale)
        self.loss_weight = None if loss_weight is None else positive_number("loss_weight", loss_weight)
        self.norm_penalty = positive_number("norm_penalty", norm_penalty, zero_allowed=True)
        self.penalty_power = penalty_power
        self.repulsion = positive_number("repulsion", repulsion, zero_allowed=True)
        self.use_bias = bool(use_bias)
        self.bias = None

    def build(self, input_shape: Shape) -> None:
        """Creates `kernel`, `current_margin` and, if used, `bias` of shape `(num_classes,)`."""
        super().build(input_shape)
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.num_classes,), initializer="zeros", dtype="float32", autocast=False
            )
            self.bias.sampled_classes = self.samples

    def call(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns the logits; see the class."""
        embeddings = self.check_embeddings(embeddings)
        cosines, norms = self.cosines_and_norms(embeddings)
        if labels is None:
            return _scaled(cosines, self.feature_norm.magnitude(norms, self.scale), self.bias)
        labels, valid = check_labels(labels, self.num_classes, embeddings.shape[0])
        magnitudes = ops.where(valid, self.feature_norm.magnitude(norms, self.scale), float("nan"))
        return self._logits(cosines, magnitudes, labels, self.bias)

    def loss_and_statistics(
        self, embeddings: Tensor, labels: Tensor, training: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses, and what is worth watching, from one pass over the classes.

        Args:
            embeddings: Float tensor of shape `(batch, embedding_dim)`.
            labels: Integer tensor of shape `(batch,)`.
            training: Whether this is a step of a training: then classes are drawn where the head has a `sample_rate`, and
                projected class weights are taken as they are, else by their directions. Defaults to `True`.

        Returns:
            `(losses, statistics)`: losses of shape `(batch,)`, and a dictionary of tensors of shape `(batch,)`:
            `"accuracy"` (1.0 where the label's logit, without the margin, is above every other; a tie counts as wrong;
            among the classes drawn only, if there was a draw), `"embedding_norm"` and `"target_angle"` (degrees).
        """
        embeddings = self.check_embeddings(embeddings)
        labels, valid = check_labels(labels, self.num_classes, embeddings.shape[0])
        kernel, bias, labels = self._classes(labels, training)
        directions, norms = feature_norms.normalize(embeddings, axis=-1)
        magnitudes = ops.where(valid, self.feature_norm.magnitude(norms, self.scale), float("nan"))
        passes = self._closed_form if self.has_closed_form() else self._differentiated
        entropies, target_cosines, is_nearest = passes(directions, magnitudes, labels, kernel, bias)
        result = self.feature_norm.loss_factor(self.loss_weight, self.scale) * entropies
        if self.feature_norm.penalizes:
            result = result + self.norm_penalty * feature_norms.norm_penalty(norms, self.scale, self.penalty_power)
        if self.repulsion:
            weights = feature_norms.normalize(kernel, axis=0)[0] if self.weight_norm == "none" else kernel
            result = result + self.repulsion * regularizers.angular_repulsion(weights, of_all_replicas(labels))
        result = ops.where(valid, result, float("nan"))
        if self.weight_norm == "none":
            target_cosines = divided_by_lengths(target_cosines, kernel, labels)
        return result, batch_statistics(target_cosines, is_nearest, norms)

    def _classes(self, labels, training):
        """The class weights, `(embedding_dim, classes)`, the bias or None, and the labels as places among the classes."""
        bias = None if self.bias is None else ops.convert_to_tensor(self.bias)
        classes, labels = self.drawn_classes(labels, training)
        if classes is not None and bias is not None:
            bias = ops.take(bias, classes)
        return self._kernel_of_step(classes, training), bias, labels

    def _closed_form(self, directions, magnitudes, labels, kernel, bias):
        others, targets = margins.functions_of_cosine(self.margin, ops.convert_to_tensor(self.current_margin))
        block = self.block_size(directions.shape[0], kernel.shape[1])
        problem = Problem(Softmax(), others, targets, labels, self.feature_norm.keeps_norm, block)
        return detached_loss(problem, directions, kernel, magnitudes, bias)

    def _differentiated(self, directions, magnitudes, labels, kernel, bias):
        cosines = ops.matmul(directions, kernel)
        entropies = losses.cross_entropy(self._logits(cosines, magnitudes, labels, bias), labels)
        logits = None if bias is None else _scaled(cosines, magnitudes, bias)
        return entropies, *target_and_rank(cosines, labels, logits)

    def _logits(self, cosines, magnitudes, labels, bias):
        characteristic = margins.apply_margin(cosines, labels, self.margin, self.current_margin, self.detach)
        return _scaled(characteristic, magnitudes, bias)

    def get_config(self) -> dict:
        """Returns the arguments as a dictionary."""
        return {
            **super().get_config(),
            "feature_norm": self.feature_norm.name,
            "scale": self.scale,
            "loss_weight": self.loss_weight,
            "norm_penalty": self.norm_penalty,
            "penalty_power": self.penalty_power,
            "repulsion": self.repulsion,
            "use_bias": self.use_bias,
        }


def _scaled(characteristic, magnitudes, bias):
    logits = magnitudes[:, None] * characteristic
    return logits if bias is None else logits + bias
