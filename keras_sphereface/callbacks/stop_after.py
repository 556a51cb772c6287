"""The end of a training that is not the end of an epoch."""

import keras

from keras_sphereface.arguments import whole_number
from keras_sphereface.callbacks.counting import check_length, done_in_epoch


class StopAfter(keras.callbacks.Callback):
    """Ends `fit` after a number of batches, also in the middle of an epoch, whose end the other callbacks still see.

    Args:
        batches: Number of batches of this `fit`, at least 1. With `steps_per_execution` the last few are done together.

    Raises:
        ValueError: For another number, or, when training begins, if the number of batches of an epoch is not known.

    Example:
    >>> stop = keras_sphereface.callbacks.StopAfter(100_000)
    >>> trainer.fit(data, epochs=61, steps_per_epoch=1666, callbacks=[stop])  # the last epoch has 40 steps
    """

    def __init__(self, batches: int):
        super().__init__()
        self.batches = whole_number("batches", batches)
        self._before = self._in_epoch = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Begins to count."""
        check_length(self)
        self._before = self._in_epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Remembers how many batches came before."""
        self._before, self._in_epoch = self._before + self._in_epoch, 0

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Says before the last batch that it is the last."""
        self._in_epoch = done_in_epoch(self, batch)
        if self._before + self._in_epoch >= self.batches:
            self.model.stop_training = True
