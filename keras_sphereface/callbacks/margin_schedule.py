"""The margin's schedule."""

from collections.abc import Sequence

import keras
import numpy as np

from keras_sphereface.arguments import finite_number, positive_number, whole_number
from keras_sphereface.callbacks.scalars import value_of


class MarginSchedule(keras.callbacks.Callback):
    r"""Raises the head's margin in steps.

    $m = \min(m_{final}, m_{start} + \Delta m \lfloor \max(0, step - wait) / interval \rfloor)$.

    The paper starts heads without feature normalization at no margin this way. Let them `wait` until the network tells
    people apart: with the embedding's norm in the logits, $\partial L / \partial \|x\| = \sum_i p_i g_i - g_y$, and while
    all angles are still near 90 degrees, a margin makes that positive ($g_y < g_i$), so that the norms shrink towards 0
    and nothing is learned any more. The margin is a saved variable of the head (`head.current_margin`) and the step is the
    optimizer's, so that a restarted run goes on where it was. Batches whose gradients are accumulated are one step.

    Args:
        increase: What is added at each step up, above 0.
        interval: Number of optimizer steps between them, at least 1; or a list of the steps at which the margin grows, as
            the authors' code has it.
        start: The first margin. Defaults to `None`, the margin's neutral value (1 for multiplicative margins).
        final: The last margin. Defaults to `None`, the one that the head was made with.
        wait: Number of optimizer steps before the first interval begins, or by which the list's steps are later, 0 or
            more. Defaults to `0`.
        head: The head in a model that is no `FaceClassifier`. Defaults to `None`, the model's `head`.

    With `steps_per_execution` the margin is set before each execution, for all its steps.

    Logs `margin` at the end of every epoch.

    Raises:
        ValueError: If an argument is no number or out of range; when training begins, if `start` or `final` is below the
            margin's neutral value, or the model has no head and none is given.

    Example:
    >>> growth = keras_sphereface.callbacks.MarginSchedule(increase=0.1, interval=1000, wait=5000)
    >>> trainer.fit(dataset, shuffle=False, callbacks=[growth])

    Reference: arXiv 2109.05565, section 3.3.
    """

    def __init__(
        self,
        increase: float,
        interval: int | Sequence[int],
        start: float | None = None,
        final: float | None = None,
        wait: int = 0,
        head: keras.layers.Layer | None = None,
    ):
        super().__init__()
        self._head = head
        self.increase = positive_number("increase", increase)
        if isinstance(interval, (Sequence, np.ndarray)) and not isinstance(interval, str):
            self.interval = [whole_number("interval", step, least=0) for step in interval]
        else:
            self.interval = whole_number("interval", interval)
        self.wait = whole_number("wait", wait, least=0)
        self.start, self.final = (
            None if margin is None else finite_number(name, margin)
            for name, margin in (("start", start), ("final", final))
        )
        self._first_batch, self._batches_per_step = 0, 1
        self._current = None

    @property
    def head(self) -> keras.layers.Layer:
        """The head whose margin grows."""
        head = getattr(self.model, "head", None) if self._head is None else self._head
        if not hasattr(head, "current_margin"):
            raise ValueError(
                "MarginSchedule needs a head: train a FaceClassifier, or pass the layer as `head`. "
                f"Received: model={self.model.name!r}, head={head!r}"
            )
        return head

    def margin_at(self, step: int) -> float:
        """The margin of an optimizer step, counted from 0."""
        head = self.head
        start = head.margin.neutral if self.start is None else head.margin.validate(self.start)
        final = head.margin_value if self.final is None else head.margin.validate(self.final)
        step -= self.wait
        if isinstance(self.interval, list):
            times = sum(passed <= step for passed in self.interval)
        else:
            times = max(0, step) // self.interval
        return min(final, start + self.increase * times)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Checks the margins against the head's kind, before a batch is read."""
        self.margin_at(0)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Reads how many batches the optimizer has had."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        self._first_batch = value_of(optimizer._iterations)  # `iterations` counts only whole steps
        self._batches_per_step = optimizer.gradient_accumulation_steps or 1
        self._current = None

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Sets the margin if it is another than before."""
        margin = self.margin_at((self._first_batch + batch) // self._batches_per_step)
        if margin == self._current:
            return
        if hasattr(self.model, "jax_state_sync"):
            # On JAX the variables are out of date between the steps of an epoch, and what is assigned then is lost.
            self.model.jax_state_sync()
        self.head.current_margin.assign(margin)
        self._current = margin

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Logs the margin."""
        if logs is not None:
            logs["margin"] = value_of(self.head.current_margin)
