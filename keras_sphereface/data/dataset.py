"""A set of labelled face images, and its views for training."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sphereface.arguments import whole_number
from keras_sphereface.data import loader as loaders
from keras_sphereface.data.augmentation import Augmentation
from keras_sphereface.data.bad_records import BadRecords
from keras_sphereface.data.images import check_size, decode_resized
from keras_sphereface.data.order import EpochOrder
from keras_sphereface.devices import cpu_cores
from keras_sphereface.errors import FileFormatError, MissingDependencyError
from keras_sphereface.hints import Path, Size

if TYPE_CHECKING:
    import tensorflow as tf

    from keras_sphereface.data.sequence import FaceSequence


class FaceDataset:
    """Labelled face images from any source.

    Args:
        source: Where the images come from; see `sources.py`.
        max_bad: Number of broken images (that cannot be decoded, or whose label is out of range) that training puts up
            with: each is named in the log and replaced. Defaults to 100.
        strict: Whether the first broken image is an error. Defaults to `False`.

    Attributes:
        num_images: Number of images.
        num_classes: Number of identities.
        image_size: `(height, width)` of the images; others are resized.
        class_names: Names of the identities, or `None` where they have none.
        bad: What was found broken so far: `len(bad)`, `bad.messages`.

    Raises:
        ValueError: If the source's number of classes is not an integer from 1 to 2147483647, its image size is none, or
            `max_bad` is not an integer of at least 0.

    Example:
    >>> ds = ksf.data.from_recordio("faces_emore/train.rec")
    >>> trainer.fit(ds.batches(512), steps_per_epoch=ds.steps_per_epoch(512), epochs=20, shuffle=False)
    """

    def __init__(self, source: Any, max_bad: int = 100, strict: bool = False):
        self.source = source
        self.num_images, self.num_classes = int(source.num_images), whole_number("num_classes", source.num_classes)
        self.image_size = check_size(source.image_size)
        if self.num_classes > loaders.MAX_CLASSES:
            raise ValueError(
                f"`num_classes` must be at most {loaders.MAX_CLASSES}. Received: num_classes={self.num_classes}"
            )
        self.class_names = source.class_names
        self.bad = BadRecords(source.name, max_bad, strict)

    def __len__(self):
        return self.num_images

    def __repr__(self):
        height, width = self.image_size
        return (
            f"FaceDataset({self.source.name!r}: {self.num_images} images, {self.num_classes} classes, {height}x{width})"
        )

    def read(self, record: int) -> tuple[np.ndarray, int]:
        """Reads one image.

        Args:
            record: Number of the image, from 0.

        Returns:
            `(image, label)`: uint8 `(height, width, 3)` RGB and an int.

        Raises:
            FileFormatError: If the image is broken.
            IndexError: If there is no such image.
        """
        if not 0 <= record < self.num_images:
            raise IndexError(f"Expected an image number from 0 to {self.num_images - 1}. Received: {record}")
        if hasattr(self.source, "read_arrays"):
            images, labels = self.source.read_arrays([record])
            return images[0], int(labels[0])
        data, label = self.source.read(record)
        return decode_resized(data, self.image_size, self.source.where(record)), label

    def steps_per_epoch(self, batch_size: int, drop_remainder: bool = True) -> int:
        """Number of batches that count as one pass over the images."""
        return loaders.Steps(self.num_images, batch_size, drop_remainder).per_epoch

    def records_of_step(
        self, step: int, batch_size: int, seed: int = 0, drop_remainder: bool = True, shuffle: bool = True
    ) -> np.ndarray:
        """Numbers of the images that make up the batch of a step, int64 of shape `(batch_size,)`.

        Arguments as in `batches`. To find the images of a batch that went wrong.
        """
        first, count = loaders.Steps(self.num_images, batch_size, drop_remainder).positions(step)
        return EpochOrder(self.num_images, seed, shuffle).records(first, count)

    def batches(
        self,
        batch_size: int,
        seed: int = 0,
        augment: str | Augmentation | None = None,
        start_step: int = 0,
        drop_remainder: bool = True,
        repeat: bool = True,
        shuffle: bool = True,
        workers: int | None = None,
        rows: Callable[[int], slice] | None = None,
    ) -> "tf.data.Dataset":
        """The images as a `tf.data.Dataset`.

        A batch depends on nothing but the data, `seed` and its step: not on the number of threads, nor on the step that
        reading began with. Each epoch is a fresh permutation of all images. The order of the images does not depend on
        `batch_size` either.

        Args:
            batch_size: Images of a batch.
            seed: Seeds the order and the augmentation. Defaults to 0.
            augment: `None`, the name of a preset (`"none"`, `"flip"`, `"strong"`) or an `Augmentation`. Defaults to `None`.
            start_step: Step of the first batch, to go on where a run stopped. Defaults to 0.
            drop_remainder: If `True`, all batches are full and the stream runs on across the end of an epoch; if `False`,
                each epoch ends with a smaller batch. Defaults to `True`.
            repeat: If `True`, the data set is endless (`fit` then needs `steps_per_epoch`). If `False`, each pass over it
                has `steps_per_epoch(batch_size)` batches, and the next pass goes on where it ended; one that was broken
                off begins anew. Before the first epoch Keras takes batches and drops them: two at most on JAX and PyTorch,
                four under `tf.distribute`. An epoch must have more than that, or `sequence` be used. Defaults to `True`.
            shuffle: If `False`, the images come in their own order. Defaults to `True`.
            workers: Batches prepared at a time. Defaults to the number of CPU cores, from 2 to 16, and two more.
            rows: Function from the number of images of a batch to the slice of them that this process reads, e.g.
                `keras_sphereface.distribution.local_rows`. It is asked at once, and the images are those of the whole
                batch. Defaults to `None`, all.

        Returns:
            A `tf.data.Dataset` of `(images, labels)`: uint8 `(batch, height, width, 3)`, RGB, and int32 `(batch,)`.

        Raises:
            MissingDependencyError: If TensorFlow is not installed; `sequence` does without.
            ValueError: If an argument is out of its range.
            tf.errors.InvalidArgumentError: While batches are read, if more images are broken than `max_bad`: TensorFlow's
                wrapper of the `FileFormatError` that `sequence` raises, whose text it holds.
        """
        try:
            from keras_sphereface.data.tensorflow_view import as_tf_data
        except ImportError as error:
            raise MissingDependencyError(
                f"`batches` needs TensorFlow ({error}). `sequence` does without, with the same arguments."
            ) from error

        backend = loaders.TensorFlowBackend
        loader = self._loader(batch_size, seed, augment, start_step, drop_remainder, shuffle, backend, rows)
        return as_tf_data(loader, self.image_size, start_step, repeat, _workers(workers, further=2))

    def sequence(
        self,
        batch_size: int,
        seed: int = 0,
        augment: str | Augmentation | None = None,
        start_step: int = 0,
        drop_remainder: bool = True,
        repeat: bool = True,
        shuffle: bool = True,
        workers: int | None = None,
        rows: Callable[[int], slice] | None = None,
    ) -> "FaceSequence":
        """The images as a `keras.utils.PyDataset`, without TensorFlow: Pillow decodes and NumPy augments.

        Order, augmentation and arguments as in `batches`, but that `workers` defaults to the number of CPU cores alone,
        from 2 to 16. With `repeat=False`, pass `shuffle=False` to `fit`, which would reorder the batches once more; an
        epoch may be as short as one batch.

        Returns:
            A `keras.utils.PyDataset` of `(images, labels)`.

        Raises:
            ValueError: If an argument is out of its range.
        """
        from keras_sphereface.data.sequence import FaceSequence

        backend = loaders.NumpyBackend
        loader = self._loader(batch_size, seed, augment, start_step, drop_remainder, shuffle, backend, rows)
        return FaceSequence(loader, start_step, repeat, _workers(workers))

    def _loader(self, batch_size, seed, augment, start_step, drop_remainder, shuffle, backend, rows):
        whole_number("start_step", start_step, 0)
        return loaders.make_loader(
            self.source, batch_size, seed, augment, self.bad, drop_remainder, shuffle, backend, rows
        )


def from_recordio(
    path: Path, num_classes: int | None = None, image_size: Size | None = None, max_bad: int = 100, strict: bool = False
) -> FaceDataset:
    """Opens an MXNet RecordIO set, InsightFace's layout or plain.

    Args:
        path: Path of the .rec file; `.idx` (rebuilt if missing) and `property` are looked for beside it.
        num_classes: Number of classes. Defaults to what `property` says, else record 0, else the largest label plus one.
        image_size: `(height, width)`. Defaults to what `property` says, else the first image's.
        max_bad: As in `FaceDataset`. Defaults to 100.
        strict: As in `FaceDataset`. Defaults to `False`.

    Returns:
        A `FaceDataset`.

    Raises:
        FileFormatError: If the files are broken.
        FileNotFoundError: If there is no such file.

    Example:
    >>> dataset = keras_sphereface.data.from_recordio("faces_emore/train.rec")
    >>> head = keras_sphereface.heads.SphereFaceR(dataset.num_classes)
    """
    from keras_sphereface.data.sources import RecordIOSource

    return FaceDataset(RecordIOSource(os.fspath(path), *_given(num_classes, image_size)), max_bad, strict)


def from_folder(
    root: Path, image_size: Size | None = None, min_images: int = 1, max_bad: int = 100, strict: bool = False
) -> FaceDataset:
    """Opens a folder of images with one folder per identity.

    Labels count the identity folders in sorted order; folders without images get no label, and count as broken images.

    Args:
        root: Path of the folder.
        image_size: `(height, width)`; images of another size are resized. Defaults to the first image's.
        min_images: Fewest images of an identity that is kept. Defaults to 1.
        max_bad: As in `FaceDataset`. Defaults to 100.
        strict: As in `FaceDataset`. Defaults to `False`.

    Returns:
        A `FaceDataset` with `class_names`.

    Raises:
        FileFormatError: If no identity has images, or too many folders (with `strict`, one) are empty.
        FileNotFoundError: If there is no such folder.

    Example:
    >>> dataset = keras_sphereface.data.from_folder("faces", min_images=2)  # faces/Ann/1.jpg, faces/Ann/2.jpg, ...
    >>> dataset.num_images, dataset.class_names
    """
    from keras_sphereface.data.folders import list_folder
    from keras_sphereface.data.sources import FolderSource

    faces = list_folder(root, min_images)
    dataset = FaceDataset(FolderSource(faces, image_size), max_bad, strict)
    for name in faces.empty:
        where = os.path.join(faces.root, name)
        dataset.bad.add(where, FileFormatError(f"{where}: an identity without images. Fill or remove the folder."))
    return dataset


def from_tfrecord(
    path: Path | Sequence[Path],
    num_classes: int | None = None,
    image_size: Size | None = None,
    max_bad: int = 100,
    strict: bool = False,
) -> FaceDataset:
    """Opens TFRecord files of `tf.train.Example` with `image/encoded` and `image/class/label`, without TensorFlow.

    Args:
        path: Path of a file, a pattern such as `"faces/train-*.tfrecord"`, or a list of paths.
        num_classes: Number of classes. Defaults to the largest label plus one, for which every record is read.
        image_size: `(height, width)`. Defaults to the first image's.
        max_bad: As in `FaceDataset`. Defaults to 100.
        strict: As in `FaceDataset`. Defaults to `False`.

    Returns:
        A `FaceDataset`; with `class_names` where the files name every class (`image/class/text`) and `num_classes` is not
        given, which saves the reading of every record.

    Raises:
        FileFormatError: If the files are broken.
        FileNotFoundError: If there is no such file.
    """
    from keras_sphereface.data.tfrecord import TFRecordSource

    return FaceDataset(TFRecordSource(path, *_given(num_classes, image_size)), max_bad, strict)


def synthetic(
    num_identities: int, images_per_identity: int, seed: int = 0, image_size: int = 112, first_identity: int = 0
) -> FaceDataset:
    """Makes a set of procedural faces: anywhere, without a download.

    A person is geometry and colours; a picture adds pose, light, expression, occlusion, blur and noise. Image j of
    person i is a pure function of (seed, i, j). Sets with the same seed and ranges of people that do not overlap share
    no one.

    Args:
        num_identities: Number of people.
        images_per_identity: Pictures of each person.
        seed: A whole number: the world of people. Defaults to 0.
        image_size: Side of the images in pixels, from 16 to 512. Defaults to 112.
        first_identity: The first person. Defaults to 0.

    Returns:
        A `FaceDataset`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> ds = ksf.data.synthetic(num_identities=300, images_per_identity=20)
    """
    from keras_sphereface.data.synthetic_faces import SyntheticSource

    return FaceDataset(SyntheticSource(num_identities, images_per_identity, seed, image_size, first_identity))


def _given(num_classes, image_size):
    """What a user says of a file, checked before the file is read; `None` where nothing is said."""
    return (
        None if num_classes is None else whole_number("num_classes", num_classes),
        None if image_size is None else check_size(image_size),
    )


def _workers(workers, further=0):
    return max(2, min(16, cpu_cores())) + further if workers is None else whole_number("workers", workers)
