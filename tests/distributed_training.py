"""A small training in several ways, run as a program by test_distribution.py: prints its losses as JSON.

    python distributed_training.py FOLDER WAY...                      in one process
    python distributed_training.py FOLDER --process=0 --address=127.0.0.1:PORT WAY...  and with --process=1, in two

A way is `one` (device), `data` or `class` (parallel), with the number of classes: `class:8`. `one_sampled` and
`class_sampled` draw classes; `data_local` and `class_local` take their parts of the batches without tf.data. With `faces`
for it, as in `data_faces`, a data set is read by `sequence`, and with `faces_tf` by `batches`: each process its own rows.
"""

import argparse
import json
import pathlib

import keras
import numpy as np

import keras_sphereface as ksf

DIM, BATCH, STEPS, SIDE = 8, 8, 6, 4


class Batches(keras.utils.PyDataset):
    """Whole batches of arrays."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        return tuple(array[index * BATCH : (index + 1) * BATCH] for array in self.arrays)


class Pictures:
    """The source of a data set, which notes how many pictures are read at a time."""

    name, class_names, image_size, num_images = "pictures", None, (SIDE, SIDE), BATCH * STEPS

    def __init__(self, num_classes):
        rng = np.random.default_rng(0)
        self.num_classes, self.sizes = num_classes, set()
        self._images = rng.integers(0, 256, (self.num_images, SIDE, SIDE, 3), np.uint8)
        self._labels = rng.integers(0, num_classes, self.num_images)

    def read_arrays(self, records):
        self.sizes.add(len(records))
        return self._images[records], self._labels[records]


def fit_faces(trainer, source, by_tf_data, **arguments):
    """Trains on this process's rows of a data set's batches."""
    dataset = ksf.data.FaceDataset(source)
    data = dataset.batches if by_tf_data else dataset.sequence
    data = data(BATCH, augment="flip", repeat=False, rows=ksf.distribution.local_rows)
    trainer.fit(data, shuffle=False, **arguments)


def make_distribution(way, num_classes):
    """What the first word of a way names."""
    kind, _, rest = way.partition("_")
    shares_out = rest in ("", "sampled")  # Keras does, not the data set
    return {
        "one": lambda: None,
        "data": lambda: ksf.distribution.data_parallel(auto_shard_dataset=shares_out),
        "class": lambda: ksf.distribution.class_parallel(num_classes, auto_shard_dataset=shares_out),
    }[kind]()


def train(way, num_classes, folder):
    """Trains, saves and loads; returns the losses."""
    keras.distribution.set_distribution(make_distribution(way, num_classes))
    keras.utils.set_random_seed(7)
    with_faces = "faces" in way
    inputs = keras.Input((SIDE, SIDE, 3) if with_faces else (DIM,))
    features = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs)) if with_faces else inputs
    backbone = keras.Model(inputs, keras.layers.Dense(DIM, activation="tanh")(features))
    sampling = {"sample_rate": 0.5, "seed": 3} if way.endswith("sampled") else {}
    trainer = ksf.FaceClassifier(backbone, ksf.heads.SphereFaceR(num_classes, scale=8.0, name="other", **sampling))
    trainer.compile(ksf.GuardedOptimizer(keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01)))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH * STEPS, DIM)).astype("float32")
    labels = rng.integers(0, num_classes, len(images)).astype("int32")
    losses = []
    each = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: losses.append(float(logs["loss"])))
    checkpoint = ksf.callbacks.Checkpoint(folder / f"{way}{num_classes}")
    arguments = {"epochs": 2, "verbose": 0, "callbacks": [each, checkpoint]}
    source = Pictures(num_classes)
    if with_faces:
        fit_faces(trainer, source, way.endswith("tf"), **arguments)
    elif way.endswith("local"):
        trainer.fit(ksf.distribution.local_part(Batches(images, labels)), shuffle=False, **arguments)
    elif keras.distribution.distribution() is not None and keras.distribution.distribution().num_processes > 1:
        import tensorflow as tf  # Keras hands each process its part of a tf.data set.

        data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH, drop_remainder=True)
        trainer.fit(data, **arguments)
    else:
        trainer.fit(images, labels, batch_size=BATCH, shuffle=False, **arguments)
    return {
        "losses": losses,
        "rows": sorted(source.sizes),
        "kernel": str(trainer.head.kernel.value.sharding.shard_shape(trainer.head.kernel.shape)),
        "checkpoint": checksum(checkpoint.paths()),
        "embedder": saved(trainer, folder / f"{way}{num_classes}.keras", images),
    }


def checksum(paths):
    """The sum of all values of the last checkpoint."""
    if not paths:
        return None
    with np.load(pathlib.Path(paths[-1])) as archive:
        return float(sum(np.abs(archive[name].astype("float64")).sum() for name in archive.files))


def saved(trainer, path, images):
    """The largest difference that saving and loading makes to an embedding."""
    if not ksf.distribution.is_chief():
        return 0.0
    trainer.embedder.save(path)
    keras.distribution.set_distribution(None)
    before = [np.asarray(weight) for weight in trainer.embedder.get_weights()]
    after = keras.saving.load_model(path).get_weights()
    return float(max(np.abs(a - b).max() for a, b in zip(before, after)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("ways", nargs="+")
    parser.add_argument("--process", type=int)
    parser.add_argument("--address")
    options = parser.parse_args()
    if options.address:
        ksf.distribution.initialize(options.address, 2, options.process)
    results = {}
    for way in options.ways:
        name, _, number = way.partition(":")
        results[way] = train(name, int(number), options.folder)
    print("RESULTS", json.dumps(results))


if __name__ == "__main__":
    main()
