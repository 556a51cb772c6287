"""The tf.data view: Python runs once a batch, TensorFlow decodes and augments."""

import tensorflow as tf


def as_tf_data(loader, image_size, start_step, repeat, workers):
    """Turns a `BatchLoader` into a `tf.data.Dataset`.

    Args:
        loader: A `BatchLoader` with a `TensorFlowBackend`.
        image_size: `(height, width)`.
        start_step: Step of the first batch.
        repeat: Whether the data set is endless; else each pass is one epoch, and the next pass the next epoch.
        workers: Batches prepared at a time.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`.
    """
    per_epoch = loader.steps.per_epoch
    if repeat:
        steps = tf.data.Dataset.counter(start=start_step)
    else:
        steps = tf.data.Dataset.from_generator(
            _Passes(start_step, per_epoch), output_signature=tf.TensorSpec((), tf.int64)
        )
        steps = steps.apply(tf.data.experimental.assert_cardinality(per_epoch))
    batch = loader.steps.batch_size if loader.steps.drop_remainder else None

    def load(step):
        images, labels = tf.py_function(loader, [step], [tf.uint8, tf.int32])
        return tf.ensure_shape(images, (batch, *image_size, 3)), tf.ensure_shape(labels, (batch,))

    options = tf.data.Options()
    # The functions that decode run on TensorFlow's own threads; the threads that wait for them must be others.
    options.threading.private_threadpool_size = workers + 1
    data = steps.map(load, num_parallel_calls=workers, deterministic=True)
    return data.prefetch(2).with_options(options)


class _Passes:
    """Step numbers, one epoch a call."""

    def __init__(self, start, per_epoch):
        self._next, self._per_epoch = start, per_epoch

    def __call__(self):
        first = self._next
        self._next += self._per_epoch
        yield from range(first, first + self._per_epoch)
