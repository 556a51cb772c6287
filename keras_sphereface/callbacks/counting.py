"""Counts batches before they are trained on: looking at their end would wait for the accelerator."""

import keras


def check_length(callback: keras.callbacks.Callback) -> None:
    """Raises `ValueError` if Keras does not know how many batches an epoch has.

    It then begins one more in each epoch, which finds no data, and nobody but the accelerator knows.
    """
    if callback.params.get("steps") is None:
        raise ValueError(
            f"{type(callback).__name__} counts batches, and the data do not say how many an epoch has: give `fit` "
            "steps_per_epoch, or a tf.data.Dataset its length by apply(tf.data.experimental.assert_cardinality(batches))"
        )


def done_in_epoch(callback: keras.callbacks.Callback, batch: int) -> int:
    """Number of the epoch's batches that will be done at the end of the step that begins.

    Args:
        callback: A callback at work.
        batch: What Keras gives `on_train_batch_begin`: number, from 0, of the step's first batch.

    Returns:
        The number; with `steps_per_execution` a step has several batches.
    """
    done = batch + getattr(callback.model, "steps_per_execution", 1)
    return min(done, callback.params["steps"])
