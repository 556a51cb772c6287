"""The tf.data view: Python runs once a batch, TensorFlow decodes and augments."""

import atexit
import threading
import time
import weakref

import tensorflow as tf

from keras_sphereface.errors import FileFormatError

_READY = 2  # batches that wait to be asked for
_LONGEST_WAIT, _QUIET = 10.0, 0.5  # seconds, at the program's end


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
    count = loader.num_rows
    parallel = {"num_parallel_calls": workers, "deterministic": True}

    held = _held_by_the_data_set(loader)

    @tf.autograph.experimental.do_not_convert
    def load(step):
        images, labels = tf.py_function(lambda step: _calls.run(_load, held(), step), [step], [tf.uint8, tf.int32])
        return tf.ensure_shape(images, (count, *image_size, 3)), tf.ensure_shape(labels, (count,))

    options = tf.data.Options()
    # Nothing here is left to tune, and an iterator's end often waits for the tuner's next turn: as long as an epoch again.
    options.autotune.enabled = False
    # The functions that decode run on TensorFlow's own threads; the threads that wait for them must be others.
    options.threading.private_threadpool_size = workers + 1
    if repeat:
        data = tf.data.Dataset.counter(start=start_step).map(load, **parallel).prefetch(_READY)
    else:
        passes = _Passes(start_step, loader.steps.per_epoch)
        options.experimental_optimization.inject_prefetch = False  # It would ask for batches before the reader does.
        data = passes.steps().map(lambda step: (step, *load(step)), **parallel).prefetch(_READY).map(passes.hand_out)
    data = data.with_options(options)
    data.loader = loader  # Data sets and iterators made of this one keep it, and so the loader, alive.
    return data


def _held_by_the_data_set(loader):
    """A function that gives the loader as long as something else holds it.

    TensorFlow keeps what `py_function` calls for the process's life: an open file and a permutation for each data set, if
    that held the loader. Inside a graph, such as that of `interleave`, the data set itself is soon gone, and this must.
    """
    return weakref.ref(loader) if tf.executing_eagerly() else lambda: loader


def _load(loader, step):
    """The batch of a step. TensorFlow puts the traceback into its error's text, so that what broken data brings has none."""
    if loader is None:
        raise RuntimeError(
            "The data set that `batches` returned is gone. Keep it as long as what was made of it is read."
        )
    try:
        return loader(step)
    except (FileFormatError, OSError) as error:
        raise error.with_traceback(None) from None


class _Calls:
    """The calls of Python that TensorFlow's threads are in.

    Where a program ends while a data set is open (an error, Ctrl-C, an iterator that nobody closed), a thread that is in
    Python then never comes out of it, and TensorFlow waits for it for ever. So the end waits, until nobody is in Python
    and, as the batches that wait are full, nobody goes there.
    """

    def __init__(self):
        self._lock, self._running, self._last = threading.Lock(), 0, float("-inf")
        atexit.register(self.wait)

    def run(self, function, *args):
        """Calls a function, and keeps count."""
        with self._lock:
            self._running += 1
        try:
            return function(*args)
        finally:
            with self._lock:
                self._running, self._last = self._running - 1, time.monotonic()

    def wait(self):
        """Until no call runs and none ended just now."""
        limit = time.monotonic() + _LONGEST_WAIT
        while (now := time.monotonic()) < limit and (self._running or now - self._last < _QUIET):
            time.sleep(_QUIET / 10)


_calls = _Calls()


class _Passes:
    """Step numbers, one epoch a pass: the next epoch only once the last batch of one was handed out.

    To begin a pass is not enough: Keras looks at a batch before the first epoch. Nor are the step numbers used up: tf.data
    reads ahead, all of a short epoch.
    """

    def __init__(self, start, per_epoch):
        self._first, self._per_epoch = start, per_epoch

    def steps(self):
        """The numbers as a `tf.data.Dataset`."""
        steps = tf.data.Dataset.from_generator(self._of_pass, output_signature=tf.TensorSpec((), tf.int64))
        return steps.apply(tf.data.experimental.assert_cardinality(self._per_epoch))

    def hand_out(self, step, images, labels):
        """The batch of a step, of which note is taken when it leaves the data set."""
        with tf.control_dependencies([tf.py_function(self._note, [step], tf.int64)]):
            return tf.identity(images), tf.identity(labels)

    def _of_pass(self):
        yield from range(self._first, self._first + self._per_epoch)

    def _note(self, step):
        if int(step) == self._first + self._per_epoch - 1:
            self._first = int(step) + 1
        return step
