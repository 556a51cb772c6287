"""Training on many devices and hosts with the JAX backend, through `keras.distribution` and the same `fit`.

`data_parallel` shares out the batch; `class_parallel` the head's class weights as well, the large part with millions of
people. The losses are those of one device. Set one before the model is made:

```python
keras.distribution.set_distribution(keras_sphereface.distribution.class_parallel(num_classes=1_000_000))
```

Reference: Keras's guide "Distributed training with JAX"; the class-parallel head is that of arXiv 2010.05222, section 3.
"""

import math

import keras
import numpy as np

from keras_sphereface.arguments import whole_number
from keras_sphereface.heads.base import CLASS_WEIGHTS

BATCH, CLASS = "batch", "class"


def initialize(
    job_addresses: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the processes of a training, one or more on each host; call it before anything is computed.

    Args:
        job_addresses: `"host:port"` of process 0, which the others must reach. Defaults to `None`: what the environment
            (`KERAS_DISTRIBUTION_JOB_ADDRESSES`, or a cluster that JAX knows) says.
        num_processes: Number of processes. Defaults to `None`, as above.
        process_id: This process's number, from 0. Defaults to `None`, as above.

    Raises:
        ValueError: On another backend than JAX, or for a number out of range.

    Example:
    >>> keras_sphereface.distribution.initialize("10.0.0.1:1234", num_processes=2, process_id=0)
    """
    _require_jax("initialize")
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise ValueError(
            f"`process_id` must be from 0 to num_processes - 1. Received: process_id={process_id}, "
            f"num_processes={num_processes}"
        )
    keras.distribution.initialize(job_addresses, num_processes, process_id)


def is_chief() -> bool:
    """Whether this process is the one that writes files: number 0, or the only one.

    Example:
    >>> if keras_sphereface.distribution.is_chief():
    ...     trainer.embedder.save("model.keras")
    """
    if keras.backend.backend() != "jax":
        return True
    import jax

    return jax.process_index() == 0


def gathered(variable: keras.Variable) -> np.ndarray:
    """The values of a variable as a NumPy array, also where its parts lie with several processes: all of them must ask.

    Args:
        variable: A Keras variable.

    Returns:
        An array of the variable's shape and dtype.

    Example:
    >>> class_weights = keras_sphereface.distribution.gathered(trainer.head.kernel)
    """
    value = keras.ops.convert_to_tensor(variable)
    if keras.backend.backend() == "jax" and not (value.is_fully_addressable or value.is_fully_replicated):
        from jax.experimental import multihost_utils

        value = multihost_utils.process_allgather(value, tiled=True)
    return keras.ops.convert_to_numpy(value)


def check_same(number: int, what: str) -> None:
    """Raises `ValueError` unless all processes that train together have the same number; all of them must ask.

    Args:
        number: An integer.
        what: What it is, for the message.
    """
    if _num_processes() == 1:
        return
    from jax.experimental import multihost_utils

    numbers = multihost_utils.process_allgather(np.asarray(number, np.int32)).tolist()
    if len({*numbers}) > 1:
        raise ValueError(
            f"Expected {what} to be the same for all processes: they need one folder that all of them see. "
            f"Received: {numbers}, by process"
        )


def data_parallel(auto_shard_dataset: bool = True) -> keras.distribution.DataParallel:
    """A `keras.distribution.DataParallel` over all devices of all processes: each has the model and a part of the batch.

    Args:
        auto_shard_dataset: Whether Keras hands each process its part of a `tf.data.Dataset` of whole batches. `False` where
            the data have this process's rows alone, `local_rows` or `local_part`. Defaults to `True`.

    Returns:
        The distribution, for `keras.distribution.set_distribution`.

    Raises:
        ValueError: On another backend than JAX.

    Example:
    >>> keras.distribution.set_distribution(keras_sphereface.distribution.data_parallel())
    """
    _require_jax("data_parallel")
    return keras.distribution.DataParallel(
        devices=keras.distribution.list_devices(), auto_shard_dataset=auto_shard_dataset
    )


def class_parallel(
    num_classes: int, class_ways: int | None = None, auto_shard_dataset: bool = True
) -> keras.distribution.ModelParallel:
    """A `keras.distribution.ModelParallel` that shares out the head's classes, and the batch over what remains.

    Of the head, `kernel` and its optimizer slots are divided along the classes; all else has a copy on each device.

    Args:
        num_classes: Number of classes of the head.
        class_ways: Over how many devices the classes are divided; it must divide both the number of classes and that of
            devices. Defaults to `None`, the most that do.
        auto_shard_dataset: As in `data_parallel`.

    Returns:
        The distribution, for `keras.distribution.set_distribution`.

    Raises:
        ValueError: On another backend than JAX, or if the classes cannot be divided so.

    Example:
    >>> distribution = keras_sphereface.distribution.class_parallel(num_classes=360_232)
    >>> keras.distribution.set_distribution(distribution)
    """
    _require_jax("class_parallel")
    for name, value in {"num_classes": num_classes, "class_ways": 1 if class_ways is None else class_ways}.items():
        whole_number(name, value)
    devices = keras.distribution.list_devices()
    ways = math.gcd(num_classes, len(devices)) if class_ways is None else class_ways
    if num_classes % ways or len(devices) % ways or (ways == 1 and len(devices) > 1):
        raise ValueError(
            "The classes are divided evenly over devices: a number above 1 must divide both. "
            f"Received: num_classes={num_classes}, {len(devices)} devices, class_ways={class_ways}. Use data_parallel, or a "
            f"head of {-(-num_classes // len(devices)) * len(devices)} classes, of which the last have no pictures"
        )
    mesh = keras.distribution.DeviceMesh((len(devices) // ways, ways), (BATCH, CLASS), devices)
    return keras.distribution.ModelParallel(
        layout_map=head_layout(mesh), batch_dim_name=BATCH, auto_shard_dataset=auto_shard_dataset
    )


def local_rows(batch_size: int) -> slice:
    """The rows of a whole batch that this process has to give to `fit` under the distribution that is set.

    Args:
        batch_size: Number of examples of the whole batch; the devices that share it out must divide it.

    Returns:
        A slice; all rows where every process needs them.

    Raises:
        ValueError: If there are several processes, but no distribution is set (Keras sets it for the thread alone).

    Example:
    >>> keras.distribution.set_distribution(keras_sphereface.distribution.data_parallel(auto_shard_dataset=False))
    >>> trainer.fit(dataset.batches(512, rows=keras_sphereface.distribution.local_rows), steps_per_epoch=100)
    """
    current = keras.distribution.distribution()
    if current is None:
        if _num_processes() > 1:
            raise ValueError(
                "Expected a distribution, by which several processes share a batch: call "
                f"keras.distribution.set_distribution first, in this thread. Received: None, {_num_processes()} processes"
            )
        return slice(0, batch_size)
    sharding = current.get_data_layout((batch_size,)).backend_layout
    places = [rows.indices(batch_size) for (rows,) in sharding.addressable_devices_indices_map((batch_size,)).values()]
    return slice(min(start for start, _, _ in places), max(stop for _, stop, _ in places))


def local_part(data: keras.utils.PyDataset) -> keras.utils.PyDataset:
    """A `keras.utils.PyDataset` with this process's rows of the whole batches of another: several processes without tf.data.

    Of a `FaceDataset.sequence`, only those rows are read.

    Args:
        data: A `keras.utils.PyDataset`, e.g. `dataset.sequence(batch_size)`, the same in all processes.

    Returns:
        A `keras.utils.PyDataset`; the distribution must be set, with `auto_shard_dataset=False`.

    Example:
    >>> keras.distribution.set_distribution(keras_sphereface.distribution.data_parallel(auto_shard_dataset=False))
    >>> trainer.fit(keras_sphereface.distribution.local_part(dataset.sequence(512)), steps_per_epoch=100, shuffle=False)
    """
    from keras_sphereface.data.sequence import FaceSequence

    return data.with_rows(local_rows) if isinstance(data, FaceSequence) else _LocalPart(data)


class _LocalPart(keras.utils.PyDataset):
    """See `local_part`: for data that can only give whole batches."""

    def __init__(self, data):
        super().__init__(workers=1)  # Those of `data` read ahead, in its order.
        self._data = data

    def __len__(self):
        return len(self._data)

    @property
    def num_batches(self):
        return self._data.num_batches

    def __getitem__(self, index):
        batch = self._data[index]
        rows = local_rows(len(keras.tree.flatten(batch)[0]))
        return keras.tree.map_structure(lambda array: array[rows], batch)

    def on_epoch_end(self):
        self._data.on_epoch_end()


def head_layout(mesh: keras.distribution.DeviceMesh) -> keras.distribution.LayoutMap:
    """The `keras.distribution.LayoutMap` of `class_parallel`, for a mesh of your own.

    Args:
        mesh: A `keras.distribution.DeviceMesh` with an axis named `"class"`.

    Returns:
        The layout map; variables that it does not name are copied to each device.

    Example:
    >>> mesh = keras.distribution.DeviceMesh((1, 4), ("batch", "class"), keras.distribution.list_devices())
    >>> layout = keras_sphereface.distribution.head_layout(mesh)
    >>> layout[".*fc/kernel"] = (None, "class")  # and another large layer
    """
    layout = keras.distribution.LayoutMap(mesh)
    layout[rf"(^|.*/){CLASS_WEIGHTS}$"] = (None, CLASS)
    return layout


def _num_processes():
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return jax.process_count()


def _require_jax(name):
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"distribution.{name} needs the JAX backend: set KERAS_BACKEND=jax and install keras_sphereface[jax]. "
            f"Received: backend {keras.backend.backend()!r}. On TensorFlow use tf.distribute.MirroredStrategy"
        )
