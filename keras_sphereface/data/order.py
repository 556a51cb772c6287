"""Which image stands where in the endless stream of training images: a fresh permutation of all images each epoch."""

import numpy as np

from keras_sphereface.arguments import whole_number
from keras_sphereface.data.process_lock import ProcessLock

_KEPT_EPOCHS = 2  # a batch may cross from one epoch to the next


class EpochOrder:
    """The stream of image numbers: epoch after epoch, each a full permutation seeded by (seed, epoch).

    Nothing depends on the batch size or on where reading began. Memory: four bytes an image and epoch.

    Args:
        num_images: Number of images.
        seed: A whole number, 0 or larger.
        shuffle: Whether the epochs are permuted. Defaults to `True`.

    Example:
    >>> EpochOrder(4, seed=0, shuffle=False).records(2, 4)
    array([2, 3, 0, 1])
    """

    def __init__(self, num_images, seed, shuffle=True):
        self.num_images, self.seed, self.shuffle = num_images, whole_number("seed", seed, 0), shuffle
        self._lock = ProcessLock()
        self._epochs = {}

    def __reduce__(self):
        return EpochOrder, (self.num_images, self.seed, self.shuffle)  # without the permutations

    def records(self, first, count):
        """Image numbers at the positions `first .. first + count - 1` of the stream, int64 of shape `(count,)`."""
        parts = []
        while count > 0:
            epoch, start = divmod(first, self.num_images)
            take = min(count, self.num_images - start)
            parts.append(self.epoch(epoch)[start : start + take])
            first, count = first + take, count - take
        return np.concatenate(parts).astype(np.int64)

    def epoch(self, epoch):
        """The permutation of an epoch, int32 of shape `(num_images,)`."""
        with self._lock:
            if epoch not in self._epochs:
                while len(self._epochs) >= _KEPT_EPOCHS:
                    del self._epochs[min(self._epochs)]
                self._epochs[epoch] = self._permutation(epoch)
            return self._epochs[epoch]

    def _permutation(self, epoch):
        numbers = np.arange(self.num_images, dtype=np.int32)
        if self.shuffle:
            np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, 0, epoch]))).shuffle(numbers)
        return numbers
