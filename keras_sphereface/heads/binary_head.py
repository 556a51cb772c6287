"""The head of SphereFace2: one-vs-all binary classification instead of a softmax over the classes."""

import math
import numbers

import keras
from keras import ops

from keras_sphereface import feature_norms, losses, margins
from keras_sphereface.arguments import positive_number
from keras_sphereface.heads.base import AngularHead
from keras_sphereface.heads.closed_form import Problem, detached_loss
from keras_sphereface.heads.criteria import OneVsAll
from keras_sphereface.heads.labels import check_labels
from keras_sphereface.heads.sampling import weights_of_drawn
from keras_sphereface.heads.statistics import batch_statistics, target_and_rank
from keras_sphereface.hints import Shape, Tensor

# Variant -> the margin on the target's angle. C's also raises the other classes: that is done in `_adjusted`.
VARIANTS = {"C": "normface", "A": "arcface", "M": "sphereface_r_v1"}


@keras.saving.register_keras_serializable(package="keras_sphereface")
class BinaryHead(AngularHead):
    r"""SphereFace2: each class a binary classifier, with a margin of kind C (cosine), A (angle) or M (multiple).

    With similarity adjustment $g(z) = 2 ((z + 1) / 2)^t - 1$ and scale r, the logits are $r\,g_i + b$ where
    C: $g_y = g(\cos\theta_y) - m$ and $g_i = g(\cos\theta_i) + m$; A: $g_y = g(\cos(\min(\theta_y + m, \pi)))$;
    M: $g_y = g(\cos(\min(m\theta_y, \pi)))$. The loss of an example is
    `loss_weight * num_classes / scale` times the mean over the classes of the weighted binary cross-entropies.

    Args:
        num_classes: Number of classes.
        variant: `"C"`, `"A"` or `"M"`. Defaults to `"C"`.
        margin_value: m, for `"M"` at least 1. Defaults to `0.4`.
        scale: r. Defaults to `40.0`.
        loss_weight: Weight of the loss, divided by the scale; `None` for a factor of 1. Defaults to `50.0`.
        positive_weight: lambda, the weight of the target's term against the others', in (0, 1). Defaults to `0.7`.
        adjustment: t, the exponent of the similarity adjustment. Defaults to `3.0`.
        detach: Whether to use characteristic gradient detachment. Defaults to `True`.
        weight_norm: `"projected"` or `"graph"`. Defaults to `"projected"`.
        kernel_initializer: Initializer of the class weights. Defaults to `"glorot_normal"`.
        class_block: Number of classes at a time in the loss, see `AngularHead`. Defaults to `"auto"`.
        sample_rate: Partial FC, as in `MarginHead`. The loss is a sum over classes: one that was drawn counts for as many as
            it stands for, so that loss and gradient are those of all classes in expectation. Defaults to `None`.
        seed: Seed of the draws, an integer of 0 or more. Defaults to `None`, a random one.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments, returns, raises: as `MarginHead`; the logits are before the sigmoid.

    Example:
    >>> head = keras_sphereface.heads.BinaryHead(10, variant="A", margin_value=0.3)
    >>> head.loss(np.random.normal(size=(4, 16)), np.array([1, 2, 3, 3])).shape
    (4,)

    Reference: "SphereFace2: Binary Classification is All You Need for Deep Face Recognition", arXiv 2108.01513.
    """

    def __init__(
        self,
        num_classes: int,
        variant: str = "C",
        margin_value: float = 0.4,
        scale: float = 40.0,
        loss_weight: float | None = 50.0,
        positive_weight: float = 0.7,
        adjustment: float = 3.0,
        detach: bool = True,
        weight_norm: str = "projected",
        kernel_initializer: str | keras.Initializer = "glorot_normal",
        class_block: int | str | None = "auto",
        sample_rate: float | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        if not isinstance(variant, str) or variant not in VARIANTS:
            raise ValueError(f"`variant` must be one of {list(VARIANTS)}. Received: variant={variant!r}")
        if weight_norm == "none":
            raise ValueError(
                "`weight_norm` of SphereFace2 must be 'projected' or 'graph'. Received: weight_norm='none'"
            )
        if variant == "M" and isinstance(margin_value, numbers.Real) and margin_value < 1.0:
            raise ValueError(
                "Expected a margin of at least 1 for variant 'M', which multiplies the angle by it. "
                f"Received: variant='M', margin={margin_value!r}"
            )
        of_base = margin_value, detach, weight_norm, kernel_initializer, class_block, sample_rate, seed
        super().__init__(num_classes, VARIANTS[variant], *of_base, **kwargs)
        self.variant = variant
        self.scale = positive_number("scale", scale)
        self.loss_weight = None if loss_weight is None else positive_number("loss_weight", loss_weight)
        self.positive_weight = positive_number("positive_weight", positive_weight)
        if self.positive_weight >= 1.0:
            raise ValueError(f"`positive_weight` must be below 1. Received: positive_weight={positive_weight!r}")
        self.adjustment = positive_number("adjustment", adjustment)

    def build(self, input_shape: Shape) -> None:
        """Creates `kernel`, `current_margin` and `bias` of shape `(1,)`."""
        super().build(input_shape)
        self.bias = self.add_weight(
            name="bias",
            shape=(1,),
            initializer=keras.initializers.Constant(self.initial_bias()),
            dtype="float32",
            autocast=False,
        )

    def initial_bias(self) -> float:
        """The bias at which positives and negatives weigh the same while every angle is a right one, in closed form."""
        right_angle, m = math.pi / 2, self.margin_value
        target = {"C": right_angle, "A": min(right_angle + m, math.pi), "M": min(right_angle * m, math.pi)}[
            self.variant
        ]
        shift = m if self.variant == "C" else 0.0

        def adjust(cosine):
            return 2.0 * ((cosine + 1.0) / 2.0) ** self.adjustment - 1.0

        positive = self.scale * (adjust(math.cos(target)) - shift)
        negative = self.scale * (adjust(0.0) + shift)
        # One class has no negatives to balance against: it is treated as having one.
        ratio = self.positive_weight / ((1.0 - self.positive_weight) * max(self.num_classes - 1, 1))
        root = math.sqrt((1.0 - ratio) ** 2 + 4.0 * ratio * math.exp(positive - negative))
        # Both are the positive root of the same quadratic equation in exp(bias), each where it doesn't cancel.
        if ratio < 1.0:
            return math.log(2.0 * ratio) - negative - math.log(1.0 - ratio + root)
        return math.log((ratio - 1.0 + root) / 2.0) - positive

    def call(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns the logits; without labels, those without the margin."""
        embeddings = self.check_embeddings(embeddings)
        cosines, _ = self.cosines_and_norms(embeddings)
        if labels is None:
            return self.scale * self._adjust(cosines) + self.bias
        labels, valid = check_labels(labels, self.num_classes, embeddings.shape[0])
        return ops.where(valid[:, None], self._logits(cosines, labels), float("nan"))

    def loss_and_statistics(
        self, embeddings: Tensor, labels: Tensor, training: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses, and what is worth watching, from one pass; see `MarginHead.loss_and_statistics`."""
        embeddings = self.check_embeddings(embeddings)
        labels, valid = check_labels(labels, self.num_classes, embeddings.shape[0])
        classes, labels = self.drawn_classes(labels, training)
        weights = None if classes is None else weights_of_drawn(classes, labels, self.num_classes)
        directions, norms = feature_norms.normalize(embeddings, axis=-1)
        kernel = self._kernel_of_step(classes, training)
        if self.has_closed_form():
            entropies, *cosines = self._closed_form(directions, labels, valid, kernel, weights)
        else:
            entropies, *cosines = self._differentiated(directions, labels, kernel, weights)
        factor = 1.0 if self.loss_weight is None else self.loss_weight / self.scale
        return ops.where(valid, factor * entropies, float("nan")), batch_statistics(*cosines, norms)

    def _closed_form(self, directions, labels, valid, kernel, weights):
        margin = ops.convert_to_tensor(self.current_margin)
        shift = margin if self.variant == "C" else 0.0
        _, psi = margins.functions_of_cosine(self.margin, margin)
        problem = Problem(
            OneVsAll(self.positive_weight),
            lambda cosines: self._adjust(cosines) + shift,
            lambda cosines: self._adjust(cosines if psi is None else psi(cosines)) - shift,
            labels,
            norm_flows=False,
            block=self.block_size(directions.shape[0], kernel.shape[1]),
            weights=weights,
        )
        magnitudes = ops.cast(ops.where(valid, self.scale, float("nan")), "float32")  # two numbers take floatx
        return detached_loss(problem, directions, kernel, magnitudes, ops.convert_to_tensor(self.bias))

    def _differentiated(self, directions, labels, kernel, weights):
        cosines = ops.matmul(directions, kernel)
        entropies = losses.one_vs_all(self._logits(cosines, labels), labels, self.positive_weight, weights)
        return entropies, *target_and_rank(cosines, labels)

    def _adjust(self, cosines):
        # Clipped below as the angles are: at 0 a power has an infinite slope, below it (by rounding) no real value.
        halves = ops.maximum((cosines + 1.0) / 2.0, margins.COSINE_CLIP / 2.0)
        return 2.0 * ops.power(halves, self.adjustment) - 1.0

    def _logits(self, cosines, labels):
        values = self._with_margin(cosines, labels)
        if self.detach:
            values = margins.detach_characteristic(values, cosines)
        return self.scale * values + self.bias

    def _with_margin(self, cosines, labels):
        if self.variant != "C":
            shifted = margins.apply_margin(cosines, labels, self.margin, self.current_margin, detach=False)
            return self._adjust(shifted)
        is_target = margins.target_mask(labels, ops.shape(cosines)[1])
        margin = ops.convert_to_tensor(self.current_margin)
        return self._adjust(cosines) + ops.where(is_target, -margin, margin)

    def get_config(self) -> dict:
        """Returns the arguments as a dictionary."""
        config = super().get_config()
        del config["margin"]  # The variant says it.
        return {
            **config,
            "variant": self.variant,
            "scale": self.scale,
            "loss_weight": self.loss_weight,
            "positive_weight": self.positive_weight,
            "adjustment": self.adjustment,
        }
