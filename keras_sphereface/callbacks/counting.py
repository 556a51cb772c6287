"""Counts batches before they are trained on: looking at their end would wait for the accelerator."""

import keras


def done_in_epoch(callback: keras.callbacks.Callback, batch: int) -> int:
    """Number of the epoch's batches that will be done at the end of the step that begins.

    Args:
        callback: A callback at work.
        batch: What Keras gives `on_train_batch_begin`: number, from 0, of the step's first batch.

    Returns:
        The number; with `steps_per_execution` a step has several batches.
    """
    done = batch + getattr(callback.model, "steps_per_execution", 1)
    return min(done, callback.params.get("steps") or done)
