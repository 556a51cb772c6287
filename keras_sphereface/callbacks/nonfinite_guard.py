"""What happens when a loss or a gradient is not finite."""

import logging
from collections.abc import Callable, Sequence

import keras
import numpy as np

from keras_sphereface.arguments import whole_number
from keras_sphereface.callbacks.counting import check_length
from keras_sphereface.callbacks.scalars import value_of
from keras_sphereface.errors import DivergenceError
from keras_sphereface.guarded_optimizer import GuardedOptimizer

log = logging.getLogger(__name__)

ACTIONS = ("stop", "skip")
_NAMED_RECORDS = 16


class NonFiniteGuard(keras.callbacks.Callback):
    """Stops a training, or skips and counts, when the gradient of a batch is not finite.

    The model is compiled with a `GuardedOptimizer`, which leaves out the update within the step: neither weights nor
    optimizer ever hold the bad values. This callback reads its counters, names the batch, and puts back statistics
    of the layers (moving means) that the batch spoilt, as they were at the beginning of the epoch. A dynamic loss scale
    overflows now and then as a matter of course: such a batch counts, but stops nothing until the scale falls below 1.

    Logs at the end of every epoch: `gradient_norm` and `gradient_norm_max` (mean and maximum over the epoch's batches with
    a finite one), `skipped` (batches left out since the run began) and `loss_scale`.

    Args:
        action: `"stop"` (raise at the first such batch) or `"skip"` (log and go on). Defaults to `"stop"`.
        max_skipped: With `"skip"`, number of batches that is put up with in the whole run. Defaults to `100`.
        records: Function from a batch's number, from 0, to the numbers of its images, e.g.
            `lambda step: dataset.records_of_step(step, batch_size, seed)`. Defaults to `None`: they are not named.
        every: Number of batches between two looks at the counters, which wait for the accelerator. Defaults to `1`.

    Raises:
        ValueError: If an argument is out of range, the model has no `GuardedOptimizer`, or there are `records` and the data
            do not say how many batches an epoch has.
        DivergenceError: At the first batch that was left out with `"stop"`, and at one too many with `"skip"`.

    Example:
    >>> trainer.compile(keras_sphereface.GuardedOptimizer(keras.optimizers.SGD(0.1)))
    >>> guard = keras_sphereface.callbacks.NonFiniteGuard("skip", records=lambda step: ds.records_of_step(step, 128))
    >>> trainer.fit(ds.batches(128), steps_per_epoch=1000, shuffle=False, callbacks=[guard, checkpoint])
    """

    def __init__(
        self,
        action: str = "stop",
        max_skipped: int = 100,
        records: Callable[[int], Sequence] | None = None,
        every: int = 1,
    ):
        super().__init__()
        if action not in ACTIONS:
            raise ValueError(f"`action` must be one of {list(ACTIONS)}. Received: action={action!r}")
        self.action, self.records = action, records
        self.max_skipped, self.every = whole_number("max_skipped", max_skipped, 0), whole_number("every", every)
        self._skipped = self._applied = 0
        self._scale = None
        self._statistics = []
        self._is_training = False

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Checks that the optimizer can skip batches, and that their numbers will be right where they lead to records."""
        if self.records is not None:
            check_length(self)
        optimizer = self.model.optimizer
        if not isinstance(optimizer, GuardedOptimizer):
            raise ValueError(
                "NonFiniteGuard needs a model compiled with keras_sphereface.GuardedOptimizer(optimizer). "
                f"Received: optimizer={optimizer.name!r}"
            )
        if not optimizer.built and self.model.built:
            optimizer.build(self.model.trainable_variables)
        # A model that the first batch builds has no variables yet, and its optimizer has skipped nothing.
        self._skipped, self._scale = 0, optimizer.initial_scale
        if optimizer.built:
            self._skipped, self._scale = value_of(optimizer.skipped), value_of(optimizer.dynamic_scale)
        self._is_training = True

    def on_train_end(self, logs: dict | None = None) -> None:
        """Looks no more: what is evaluated later is none of this training."""
        self._is_training = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Sets the sums of the gradient's norm to 0 and remembers the layers' statistics."""
        optimizer = self.model.optimizer
        if not optimizer.built:
            self._applied, self._statistics = 0, []
            return
        self._applied = value_of(optimizer.batches) - value_of(optimizer.skipped)
        optimizer.norm_sum.assign(0.0)
        optimizer.norm_max.assign(0.0)
        self._statistics = [np.array(keras.ops.convert_to_numpy(v)) for v in self.model.non_trainable_variables]

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Looks at the batches before this one; their end would make every callback wait for the logs."""
        if batch and batch % self.every == 0:
            if hasattr(self.model, "jax_state_sync"):
                # On JAX the variables are out of date between the steps of an epoch.
                self.model.jax_state_sync()
            self._look()

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Looks at the last batches before the epoch's validation, which takes the layers' statistics."""
        if self._is_training:
            self._look()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Looks at the last batches, and logs."""
        self._look()
        optimizer = self.model.optimizer
        finite = max(1, value_of(optimizer.batches) - value_of(optimizer.skipped) - self._applied)
        if logs is not None:
            logs["gradient_norm"] = value_of(optimizer.norm_sum) / finite
            logs["gradient_norm_max"] = value_of(optimizer.norm_max)
            logs["skipped"] = value_of(optimizer.skipped)
            logs["loss_scale"] = value_of(optimizer.dynamic_scale)

    def _look(self):
        optimizer = self.model.optimizer
        skipped, scale = value_of(optimizer.skipped), value_of(optimizer.dynamic_scale)
        if scale != self._scale:
            log.info("Loss scale %g, before %g, after batch %d", scale, self._scale, value_of(optimizer.batches) - 1)
            self._scale = scale
        if skipped == self._skipped:
            return
        new, self._skipped = skipped - self._skipped, skipped
        self._restore_statistics()
        if optimizer.initial_scale > 1 and scale >= 1:  # an overflow of a dynamic loss scale
            log.info("%d batches skipped so far, the latest for the loss scale's overflow", skipped)
            return
        optimizer.dynamic_scale.assign(1.0)
        self._scale = 1.0
        message = self._message(new)
        if self.action == "stop":
            raise DivergenceError(f"{message}. Lower the learning rate or the margin, or skip such batches")
        log.warning("%s; skipped, %d so far", message, skipped)
        if skipped > self.max_skipped:
            raise DivergenceError(f"{message}. {skipped} batches skipped, more than max_skipped={self.max_skipped}")

    def _message(self, new):
        """One line: which batches, which images, and the state of the head."""
        ring = np.asarray(keras.ops.convert_to_numpy(self.model.optimizer.skipped_batches))
        batches = sorted(ring[ring >= 0].tolist())[-new:]
        parts = [f"The gradient is not finite in batch {', '.join(map(str, batches))}"]
        if self.records is not None:
            numbers = np.concatenate([np.asarray(self.records(batch)) for batch in batches]).tolist()
            more = f" and {len(numbers) - _NAMED_RECORDS} more" if len(numbers) > _NAMED_RECORDS else ""
            parts.append(f"records {', '.join(map(str, numbers[:_NAMED_RECORDS]))}{more}")
        if hasattr(self.model, "head"):
            parts.append(f"head: {head_state(self.model.head)}")
        return "; ".join(parts)

    def _restore_statistics(self):
        for variable, value in zip(self.model.non_trainable_variables, self._statistics):
            if value.dtype.kind == "f" and not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
                log.warning("%s is not finite; set back to its value at the beginning of the epoch", variable.path)
                variable.assign(value)


def head_state(head: keras.layers.Layer) -> str:
    """The state of a head in a line: margin, scale, and the lengths of its class weights.

    Args:
        head: A head of `keras_sphereface.heads`, built.
    """
    lengths = np.linalg.norm(keras.ops.convert_to_numpy(head.kernel).astype("float64"), axis=0)
    margin = f"margin {head.margin.name} {value_of(head.current_margin):g}"
    return f"{margin}, scale {getattr(head, 'scale', None)}, class weights of length {lengths.min():g} to {lengths.max():g}"
