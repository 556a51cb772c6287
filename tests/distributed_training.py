"""A small training in several ways, run as a program by test_distribution.py: prints its losses as JSON.

    python distributed_training.py FOLDER WAY...                      in one process
    python distributed_training.py FOLDER --process=0 --address=127.0.0.1:PORT WAY...  and with --process=1, in two

A way is `one` (device), `data` or `class` (parallel), with the number of classes: `class:8`. `one_sampled` and
`class_sampled` draw classes; `data_local` and `class_local` take their parts of the batches without tf.data.
"""

import argparse
import json
import pathlib

import keras
import numpy as np

import keras_sphereface as ksf

DIM, BATCH, STEPS = 8, 8, 6


class Batches(keras.utils.PyDataset):
    """Whole batches of arrays."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        return tuple(array[index * BATCH : (index + 1) * BATCH] for array in self.arrays)


def train(way, num_classes, folder):
    """Trains, saves and loads; returns the losses."""
    distribution = {
        "one": lambda: None,
        "one_sampled": lambda: None,
        "data": ksf.distribution.data_parallel,
        "class": lambda: ksf.distribution.class_parallel(num_classes),
        "class_sampled": lambda: ksf.distribution.class_parallel(num_classes),
        "data_local": lambda: ksf.distribution.data_parallel(auto_shard_dataset=False),
        "class_local": lambda: ksf.distribution.class_parallel(num_classes, auto_shard_dataset=False),
    }[way]()
    keras.distribution.set_distribution(distribution)
    keras.utils.set_random_seed(7)
    inputs = keras.Input((DIM,))
    backbone = keras.Model(inputs, keras.layers.Dense(DIM, activation="tanh")(inputs))
    sampling = {"sample_rate": 0.5, "seed": 3} if way.endswith("sampled") else {}
    trainer = ksf.FaceClassifier(backbone, ksf.heads.SphereFaceR(num_classes, scale=8.0, **sampling))
    trainer.compile(ksf.GuardedOptimizer(keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01)))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH * STEPS, DIM)).astype("float32")
    labels = rng.integers(0, num_classes, len(images)).astype("int32")
    losses = []
    each = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: losses.append(float(logs["loss"])))
    checkpoint = ksf.callbacks.Checkpoint(folder / f"{way}{num_classes}")
    arguments = {"epochs": 2, "verbose": 0, "callbacks": [each, checkpoint]}
    if way.endswith("local"):
        trainer.fit(ksf.distribution.local_part(Batches(images, labels)), shuffle=False, **arguments)
    elif keras.distribution.distribution() is not None and keras.distribution.distribution().num_processes > 1:
        import tensorflow as tf  # Keras hands each process its part of a tf.data set.

        data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH, drop_remainder=True)
        trainer.fit(data, **arguments)
    else:
        trainer.fit(images, labels, batch_size=BATCH, shuffle=False, **arguments)
    return {
        "losses": losses,
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
