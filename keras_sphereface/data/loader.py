"""From a step to its batch: a pure function of (data, seed, step), whoever calls it and in whatever order."""

import math

import numpy as np

from keras_sphereface.arguments import whole_number
from keras_sphereface.data import augmentation as augmentations
from keras_sphereface.data.image_headers import UprightSizes
from keras_sphereface.data.images import decode_resized
from keras_sphereface.data.order import EpochOrder
from keras_sphereface.errors import FileFormatError

MAX_CLASSES = 2**31 - 1  # labels are int32


class Steps:
    """Which positions of the stream a step's batch takes.

    With `drop_remainder`, step k takes positions `k * batch_size` onwards, across the end of an epoch: every batch is full
    and no image is ever left out. Without, each epoch ends with a batch of what is left.

    Args:
        num_images: Number of images of an epoch.
        batch_size: Number of images of a batch.
        drop_remainder: As above.
    """

    def __init__(self, num_images, batch_size, drop_remainder=True):
        self.num_images, self.drop_remainder = num_images, drop_remainder
        self.batch_size = whole_number("batch_size", batch_size)
        whole = max(1, num_images // self.batch_size)
        self.per_epoch = whole if drop_remainder else math.ceil(num_images / self.batch_size)

    def positions(self, step):
        """`(first, count)` of a step."""
        if self.drop_remainder:
            return step * self.batch_size, self.batch_size
        epoch, step = divmod(step, self.per_epoch)
        start = step * self.batch_size
        return epoch * self.num_images + start, min(self.batch_size, self.num_images - start)

    @property
    def sizes(self):
        """The numbers of images that a batch may have."""
        return {self.positions(step)[1] for step in (0, self.per_epoch - 1)}


class BatchLoader:
    """Reads, decodes and augments the batch of a step.

    A broken image is replaced by the next sound one in the epoch's order, so that the batch stays a function of the step.

    Args:
        source: Where images come from; see `sources.py`.
        order: An `EpochOrder`.
        steps: A `Steps`.
        augmentation: An `Augmentation`.
        bad: A `BadRecords`.
        backend: Object with `load(list of bytes, augmentation, parameters) -> augmented images or None`, and
            `augment(augmentation, parameters, images)`.
        rows: Function from the number of images of a batch to the slice of them that is read, decoded and augmented; they
            are as in the whole batch. Defaults to `None`, all.

    Raises:
        ValueError: If `rows` gives no consecutive rows.
    """

    def __init__(self, source, order, steps, augmentation, bad, backend, rows=None):
        self.source, self.order, self.steps = source, order, steps
        self.augmentation, self.bad, self.backend = augmentation, bad, backend
        # Asked here: the threads that load batches do not know the caller's `keras.distribution`.
        self._parts = {size: _part(rows, size) for size in steps.sizes}

    def with_rows(self, rows):
        """The same loader for a part of each batch; `rows` as above."""
        return BatchLoader(self.source, self.order, self.steps, self.augmentation, self.bad, self.backend, rows)

    @property
    def num_rows(self):
        """Number of images that are loaded of each batch, or `None` if an epoch's last batch may be smaller."""
        return len(self._parts[self.steps.batch_size]) if self.steps.drop_remainder else None

    def __call__(self, step):
        """Returns `(images, labels)` of a step: uint8 `(n, h, w, 3)` and int32 `(n,)`."""
        first, count = self.steps.positions(int(step))
        part = self._parts[count]
        first, count = first + part.start, len(part)  # An image's augmentation depends on its position alone.
        records = self.order.records(first, count)
        how = self.augmentation, augmentations.draw(self.augmentation, self.order.seed, first, count)
        if hasattr(self.source, "read_arrays"):
            images, labels = self.source.read_arrays(records)
            return self.backend.augment(*how, images), np.asarray(labels, np.int32)
        data, labels = self._read_together(records) or self._read_each(records)
        images = self.backend.load(data, *how) if all(data) else None
        if images is None:
            images, labels = self._decode_each(data, labels, records, first)
            images = self.backend.augment(*how, images)
        return images, np.asarray(labels, np.int32)

    def _read_together(self, records):
        """What the source reads at once, or `None`."""
        if not hasattr(self.source, "read_many"):
            return None
        try:
            return self.source.read_many(records)
        except OSError:  # met again, and counted, when they are read one by one
            return None

    def _read_each(self, records):
        """Bytes and labels; no bytes where they cannot be read."""
        data, labels = [], []
        for record in records.tolist():
            try:
                item, label = self.source.read(record)
            except (FileFormatError, OSError) as error:
                self.bad.add(record, error)
                item, label = b"", 0
            data.append(item)
            labels.append(label)
        return data, labels

    def _decode_each(self, data, labels, records, first):
        images = np.empty((len(data), *self.source.image_size, 3), np.uint8)
        for slot, record in enumerate(records.tolist()):
            try:
                if not data[slot]:  # found broken when it was read
                    raise FileFormatError(self.bad.messages.get(record, f"{self.source.where(record)}: no bytes"))
                images[slot] = decode_resized(data[slot], self.source.image_size, self.source.where(record))
            except FileFormatError as error:
                self.bad.add(record, error)
                images[slot], labels[slot] = self._replacement(first + slot)
        return images, labels

    def _replacement(self, position):
        epoch, start = divmod(position, self.order.num_images)
        numbers = self.order.epoch(epoch)
        for ahead in range(1, self.order.num_images):
            record = int(numbers[(start + ahead) % self.order.num_images])
            try:
                data, label = self.source.read(record)
                return decode_resized(data, self.source.image_size, self.source.where(record)), label
            except (FileFormatError, OSError) as error:
                self.bad.add(record, error)
        raise FileFormatError(f"{self.bad.name}: no image can be decoded. Restore the data.")


def _part(rows, size):
    """The chosen rows of a batch of `size` images, a `range`."""
    part = range(size) if rows is None else range(size)[rows(size)]
    if part.step != 1 or not part:
        raise ValueError(
            f"rows must give a slice of consecutive rows, at least one. Received: rows({size})={rows(size)!r}"
        )
    return part


class NumpyBackend:
    """Decoding by Pillow and augmentation by NumPy, for backends without TensorFlow."""

    def __init__(self, image_size):
        self.image_size = image_size

    def load(self, data, augmentation, parameters):
        """Returns decoded and augmented images, or `None` if one is broken."""
        try:
            images = np.stack([decode_resized(item, self.image_size) for item in data])
        except FileFormatError:
            return None
        return self.augment(augmentation, parameters, images)

    def augment(self, augmentation, parameters, images):
        """Augments a batch."""
        return augmentations.apply(augmentation, parameters, images)


class TensorFlowBackend:
    """Decoding and augmentation in compiled TensorFlow functions, without Python an image."""

    def __init__(self, image_size):
        from keras_sphereface.data import tensorflow_ops

        self.image_size, self._ops, self._upright_sizes = image_size, tensorflow_ops, UprightSizes()

    def load(self, data, augmentation, parameters):
        """Returns decoded and augmented images, or `None` if one is broken, turned, or of another size or format."""
        import tensorflow as tf

        if (self._upright_sizes(data) != self.image_size).any():
            return None
        # Mirrored one by one while they are in the cache, unless resampling mirrors them.
        mirrored = parameters.mirrored & (not augmentation.resamples)
        try:
            images = self._ops.decoder(tuple(self.image_size))(tf.constant(data, tf.string), mirrored)
        except tf.errors.OpError:
            return None
        return self.augment(augmentation, parameters, images) if augmentation.resamples else images

    def augment(self, augmentation, parameters, images):
        """Augments a batch."""
        if not augmentation.resamples:
            return augmentations.apply(augmentation, parameters, images)
        function = self._ops.augmenter(augmentation, tuple(self.image_size))
        return function(
            images,
            parameters.boxes,
            parameters.low_sides,
            parameters.gains,
            parameters.contrasts,
            parameters.saturations,
        )


def make_loader(source, batch_size, seed, augment, bad, drop_remainder, shuffle, backend, rows=None):
    """Checks a user's arguments and builds the `BatchLoader`; `backend` is `NumpyBackend` or `TensorFlowBackend`."""
    steps = Steps(source.num_images, batch_size, drop_remainder)
    order = EpochOrder(source.num_images, seed, shuffle)
    return BatchLoader(source, order, steps, augmentations.get(augment), bad, backend(source.image_size), rows)
