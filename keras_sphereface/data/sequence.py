"""The view of a data set for `model.fit` on any Keras backend, TensorFlow not needed."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import keras


class FaceSequence(keras.utils.PyDataset):
    """Batches `(images, labels)` by number, in the same order and with the same augmentation as the tf.data view.

    Batches ahead are read by this object's own threads: Keras's workers would lose count of batches between epochs.

    Args:
        loader: A `BatchLoader`.
        start_step: Step of the first batch.
        repeat: Whether the sequence is endless, for `fit(..., steps_per_epoch=...)`; else each pass is one epoch, and one
            that was broken off begins anew.
        workers: Number of threads.
    """

    def __init__(self, loader, start_step=0, repeat=True, workers=2):
        super().__init__(workers=1)
        self._loader, self._start, self._repeat, self._threads = loader, start_step, repeat, workers
        self._is_over = False  # The pass's last batch was handed out.
        self._is_new_reader = False  # A `fit` or `evaluate` has begun, but not its first epoch.
        self._ahead = 2 * max(1, workers)
        self._start_threads()

    def _start_threads(self):
        self._pool = ThreadPoolExecutor(max(1, self._threads), thread_name_prefix="faces")
        self._pending = {}
        self._lock = threading.Lock()
        self._process = os.getpid()

    def __reduce__(self):
        return FaceSequence, (self._loader, self._start, self._repeat, self._threads)

    @property
    def workers(self):
        """Keras's own threads: one. What it asks first, once in each `fit` and `evaluate`."""
        self._is_new_reader = True
        return super().workers

    @workers.setter
    def workers(self, value):
        self._workers = value

    def with_rows(self, rows):
        """The same batches, of which only some rows are read; `rows` as in `BatchLoader`."""
        return FaceSequence(self._loader.with_rows(rows), self._start, self._repeat, self._threads)

    def __len__(self):
        """Steps of an epoch, also where the sequence is endless."""
        return self._loader.steps.per_epoch

    @property
    def num_batches(self):
        """What Keras asks: `None` for an endless sequence."""
        return None if self._repeat else len(self)

    def __getitem__(self, index):
        if index < 0 or (not self._repeat and index >= len(self)):
            raise IndexError(f"Expected a batch number from 0 to {len(self) - 1}. Received: {index}")
        if self._process != os.getpid():
            # A fork, as PyTorch's DataLoader makes them, has no threads, but the locks that they held.
            self._start_threads()
        step = self._start + index
        last = step + self._ahead if self._repeat else min(step + self._ahead, self._start + len(self) - 1)
        with self._lock:
            for number in [number for number in self._pending if not step <= number <= last]:
                self._pending.pop(number).cancel()
            for number in range(step, last + 1):
                if number not in self._pending:
                    self._pending[number] = self._pool.submit(self._loader, number)
            batch = self._pending.pop(step)
        result = batch.result()
        self._is_over = self._is_over or index == len(self) - 1
        return result

    def on_epoch_end(self):
        """Moves on to the next epoch if this one's last batch was handed out, unless the sequence is endless.

        Keras also ends an epoch before the first, when it has looked at some batches: of a short epoch, at all.
        """
        if self._is_over and not self._is_new_reader and not self._repeat:
            self._start += len(self)
        self._is_over = self._is_new_reader = False
