"""An optimizer that leaves out updates whose gradient is not finite, counts them, and measures the gradient."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_sphereface.arguments import positive_number
from keras_sphereface.hints import Tensor

# How many of the last skipped batches are remembered.
REMEMBERED = 8

# Never reached: a fixed scale does not grow.
_NEVER = 2**31 - 1


@keras.saving.register_keras_serializable(package="keras_sphereface")
class GuardedOptimizer(keras.optimizers.LossScaleOptimizer):
    """Wraps an optimizer so that a gradient that is not finite changes neither weights nor slots.

    It is Keras's `LossScaleOptimizer`, whose scale stays at 1 unless asked otherwise, with counters that are saved with
    the model. Across the replicas of `tf.distribute` a batch is skipped by all or none.

    Args:
        inner_optimizer: The optimizer, with its own clipping, decay and averaging, or the name of one of Keras's.
        initial_scale: First loss scale, a power of two. Defaults to `None`: 2^15 where Keras's dtype policy is
            `"mixed_float16"`, else 1.
        dynamic_growth_steps: Steps without an overflow after which the scale is doubled. Defaults to `None`: 2000 for a
            first scale above 1, never for 1.
        name: Name. Defaults to `None`.

    Raises:
        ValueError: If the optimizer is none, or the first scale is no finite number above 0.

    Attributes:
        batches: Batches seen, skipped ones included.
        skipped: Batches left out.
        skipped_batches: Numbers, from 0, of the last 8 that were left out, -1 where there are fewer.
        gradient_norm: Norm of the last gradient, unscaled; with several replicas, the root mean square of theirs.
        norm_sum: Sum of the finite norms since it was last set to 0.
        norm_max: The largest of them.

    Example:
    >>> optimizer = keras_sphereface.GuardedOptimizer(keras.optimizers.SGD(0.1, momentum=0.9))
    >>> trainer.compile(optimizer)
    """

    skips_batches = True  # asked by those that keep means over batches

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer | str,
        initial_scale: float | None = None,
        dynamic_growth_steps: int | None = None,
        name: str | None = None,
        **kwargs,
    ):
        if isinstance(inner_optimizer, str):
            inner_optimizer = keras.optimizers.get(inner_optimizer)
        if not isinstance(inner_optimizer, keras.optimizers.Optimizer):
            raise ValueError(
                f"Expected a keras.optimizers.Optimizer or its name. Received: inner_optimizer={inner_optimizer!r}"
            )
        if initial_scale is None:
            initial_scale = 2.0**15 if keras.config.dtype_policy().name == "mixed_float16" else 1.0
        positive_number("initial_scale", initial_scale)
        if dynamic_growth_steps is None:
            dynamic_growth_steps = 2000 if initial_scale > 1 else _NEVER
        super().__init__(
            inner_optimizer, initial_scale=initial_scale, dynamic_growth_steps=dynamic_growth_steps, name=name, **kwargs
        )

    def build(self, var_list: Sequence[keras.Variable]) -> None:
        """Creates the counters and the inner optimizer's variables."""
        if self.built:
            return
        self.batches = self._counter("batches", "int32", 0)
        self.skipped = self._counter("skipped", "int32", 0)
        self.skipped_batches = self._counter("skipped_batches", "int32", -1, (REMEMBERED,))
        self.gradient_norm = self._counter("gradient_norm", "float32", 0)
        self.norm_sum = self._counter("norm_sum", "float32", 0)
        self.norm_max = self._counter("norm_max", "float32", 0)
        super().build(var_list)

    def _counter(self, name, dtype, value, shape=()):
        return self.add_variable(
            shape,
            initializer=keras.initializers.Constant(value),
            dtype=dtype,
            aggregation="only_first_replica",
            name=name,
        )

    @property
    def own_variables(self) -> list[keras.Variable]:
        """The variables without the inner optimizer's."""
        return self.variables[: len(self.variables) - len(self.inner_optimizer.variables)]

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        """Updates the variables, unless the gradient is not finite; without any gradient, as the inner optimizer does."""
        if _is_empty(grads):
            self.inner_optimizer.apply(grads, trainable_variables)
            return
        if not self.built:
            self.build(trainable_variables)
        super().apply(self._measured(grads), trainable_variables)

    def stateless_apply(
        self, optimizer_variables: Sequence[Tensor], grads: Sequence[Tensor], trainable_variables: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As `apply`, for JAX: returns the new trainable and optimizer variables."""
        if _is_empty(grads):
            own, inner = _split(optimizer_variables, len(self.own_variables))
            trainable_variables, inner = self.inner_optimizer.stateless_apply(inner, grads, trainable_variables)
            return trainable_variables, own + list(inner)
        mapping = list(zip(self.variables, optimizer_variables))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            grads = self._measured(grads)
        optimizer_variables = [scope.get_current_value(variable) for variable in self.variables]
        return super().stateless_apply(optimizer_variables, grads, trainable_variables)

    def _measured(self, grads):
        """Updates the counters; returns the gradient, spoilt where another replica's is not finite."""
        norm = gradient_norm(grads) / self.dynamic_scale
        finite = ops.isfinite(norm)
        place = ops.arange(REMEMBERED, dtype="int32") == self.skipped % REMEMBERED
        # JAX selects between tensors only, so the variables are read first.
        batches, skipped_batches = (ops.convert_to_tensor(counter) for counter in (self.batches, self.skipped_batches))
        skipped_now = ops.logical_and(place, ops.logical_not(finite))
        self.skipped_batches.assign(ops.where(skipped_now, batches, skipped_batches))
        self.skipped.assign(self.skipped + ops.cast(ops.logical_not(finite), "int32"))
        self.batches.assign(self.batches + 1)
        self.gradient_norm.assign(norm)
        self.norm_sum.assign(self.norm_sum + ops.where(finite, norm, 0.0))
        self.norm_max.assign(ops.maximum(ops.convert_to_tensor(self.norm_max), ops.where(finite, norm, 0.0)))
        return _spoilt_unless(finite, grads)

    # Keras halves the scale after every skipped batch. One that never grows again would end at 0, with every gradient.
    def _stateful_handle_non_finite_grads(self):
        if self.dynamic_growth_steps != _NEVER:
            super()._stateful_handle_non_finite_grads()

    def _stateless_handle_non_finite_grads(self, optimizer_variables, trainable_variables):
        if self.dynamic_growth_steps != _NEVER:
            return super()._stateless_handle_non_finite_grads(optimizer_variables, trainable_variables)
        return trainable_variables, list(optimizer_variables)

    def check_finite(self, grads: Any) -> Any:
        """Whether the gradient is finite: one that isn't was spoilt in its first part, so no other need be read."""
        return ops.all(ops.isfinite(_dense(grads[_first(grads)])))

    def save_own_variables(self, store: Any) -> None:
        """Saves the counters; the inner optimizer saves itself."""
        for number, variable in enumerate(self.own_variables):
            store[str(number)] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` saved; of another optimizer's file nothing, with a warning, as Keras's do."""
        if len(store.keys()) != len(self.own_variables):
            if not self.built:
                warnings.warn(
                    "The optimizer's state is not loaded, for it has no variables yet: train the model a step, or call "
                    "optimizer.build(model.trainable_variables), before its weights are loaded. Training goes on with a new "
                    "state",
                    stacklevel=2,
                )
                return
            warnings.warn(
                f"The optimizer's state is not loaded: expected {len(self.own_variables)} counters, received "
                f"{len(store.keys())}, of another optimizer. Training goes on with a new state",
                stacklevel=2,
            )
            return
        for number, variable in enumerate(self.own_variables):
            variable.assign(store[str(number)])


def gradient_norm(grads: Sequence[Tensor]) -> Tensor:
    """The norm of all gradients together, a float32 scalar; over replicas see `GuardedOptimizer`.

    A norm beyond float32 counts as infinite.
    """
    squares = [_sum_of_squares(ops.cast(_dense(grad), "float32")) for grad in grads if grad is not None]
    total = ops.sum(ops.stack(squares))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        replicas = tf.distribute.get_replica_context()
        if replicas is not None and replicas.num_replicas_in_sync > 1:
            # Keras divides each replica's loss by their number before the gradients are summed.
            total = replicas.num_replicas_in_sync * replicas.all_reduce(tf.distribute.ReduceOp.SUM, total)
    return ops.sqrt(total)


def _sum_of_squares(tensor):
    if keras.backend.backend() != "tensorflow":
        return ops.sum(ops.square(tensor))
    import tensorflow as tf

    return 2.0 * tf.nn.l2_loss(tensor)  # in one pass, without the squares in memory


def _spoilt_unless(finite, grads):
    """Keras asks the first replica whether the gradient is finite: every replica's must say the same."""
    grads = list(grads)
    number = _first(grads)
    grad = _dense(grads[number])
    grads[number] = ops.where(finite, grad, ops.full_like(grad, float("nan")))
    return grads


def _is_empty(grads):
    """Whether there is no gradient at all, as where everything is frozen."""
    return all(grad is None for grad in grads)


def _split(values, number):
    values = list(values)
    return values[:number], values[number:]


def _first(grads):
    """The number of the first gradient that there is."""
    return next(number for number, grad in enumerate(grads) if grad is not None)


def _dense(grad):
    return ops.convert_to_tensor(grad)
