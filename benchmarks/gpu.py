"""Training speed of the large backbones, and time and memory of the head by number of classes, on an accelerator.

    KERAS_BACKEND=jax python benchmarks/gpu.py
    KERAS_BACKEND=torch python benchmarks/gpu.py
    python benchmarks/gpu.py --batch 2 --backbones sfnet4 --classes 1000 --rounds 1     # a look at it on a CPU

One table a backend: images a second of `fit` in bfloat16 (SphereFace-R v2, 1,000 classes), on PyTorch beside the same
network in its own modules, then `fit` of a head alone on random embeddings, beside the three matrix products of a cosine
softmax at those sizes. Each row is a process of its own: its peak of memory is that row's, and one that does not fit leaves
the others. Public code is reported at 764 (IResNet-50) and 483 (IResNet-100) images a second per V100 in float16
(InsightFace, arcface_torch).
"""

import argparse
import json
import time
from concurrent import futures
from multiprocessing import get_context

import keras
import numpy as np
from keras import ops

import keras_sphereface as ksf
from keras_sphereface.errors import one_line

BACKBONES = ("iresnet50", "iresnet100", "sfnet64")
CLASSES = (86_000, 360_000, 1_000_000, 2_000_000)
EMBEDDING_DIM, HEAD_BATCH, TRAINING_CLASSES = 512, 128, 1000


def step_seconds(step, rounds):
    """Mean seconds of a step, after three that do not count."""
    for _ in range(3):
        wait_for(step())
    start = time.perf_counter()
    for _ in range(rounds):
        result = step()
    wait_for(result)
    return (time.perf_counter() - start) / rounds


def wait_for(result):
    """Returns when the device has computed a tensor."""
    float(ops.convert_to_numpy(ops.ravel(result)[0]))


def fit_seconds(trainer, inputs, labels, rounds):
    """Mean seconds of a step of `fit` on one batch over and over, after three that do not count."""

    def fit(steps):
        batches = ((inputs, labels) for _ in range(steps))
        trainer.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)

    fit(3)
    start = time.perf_counter()
    fit(rounds)
    return (time.perf_counter() - start) / rounds


def peak_gigabytes():
    """Peak memory of the accelerator in this process, or `None` where the backend does not tell."""
    if keras.backend.backend() == "torch":
        import torch

        return round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None
    if keras.backend.backend() == "jax":
        import jax

        statistics = jax.devices()[0].memory_stats() or {}
        return round(statistics["peak_bytes_in_use"] / 2**30, 2) if "peak_bytes_in_use" in statistics else None
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU")
    return round(tf.config.experimental.get_memory_info(devices[0].name)["peak"] / 2**30, 2) if devices else None


def training(name, batch, rounds):
    """One backbone's whole training step."""
    rng = np.random.default_rng(0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    backbone = ksf.backbones.get(name, embedding_dim=EMBEDDING_DIM)
    trainer = ksf.FaceClassifier(backbone, ksf.heads.SphereFaceR(TRAINING_CLASSES, margin=1.4, scale=60.0))
    trainer.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    images = rng.integers(0, 256, (batch, 112, 112, 3), np.uint8)
    labels = rng.integers(0, TRAINING_CLASSES, batch, np.int32)
    seconds = fit_seconds(trainer, images, labels, rounds)
    line = {"backbone": name, "batch": batch, "images_per_second": round(batch / seconds), "peak_gb": peak_gigabytes()}
    if keras.backend.backend() == "torch":
        import plain_torch

        if name in plain_torch.NETWORKS:
            floor = step_seconds(plain_torch.training_step(name, batch, EMBEDDING_DIM, TRAINING_CLASSES), rounds)
            line.update(pytorch_images_per_second=round(batch / floor), ratio=round(seconds / floor, 2))
    return line


def head(num_classes, rounds):
    """A head's step on embeddings that are given: the cost of the classes alone."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((EMBEDDING_DIM,))
    backbone = keras.Model(inputs, keras.layers.Dense(EMBEDDING_DIM)(inputs))
    trainer = ksf.FaceClassifier(backbone, ksf.heads.SphereFaceR(num_classes, margin=1.4, scale=60.0))
    trainer.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    embeddings = rng.standard_normal((HEAD_BATCH, EMBEDDING_DIM), np.float32)
    labels = rng.integers(0, num_classes, HEAD_BATCH, np.int32)
    seconds = fit_seconds(trainer, embeddings, labels, rounds)
    line = {"classes": num_classes, "batch": HEAD_BATCH, "milliseconds": round(1000 * seconds, 2)}
    line["peak_gb"] = peak_gigabytes()
    floor = step_seconds(products(trainer.head.kernel.value), rounds)
    return {**line, "products_milliseconds": round(1000 * floor, 2), "ratio": round(seconds / floor, 2)}


def products(kernel):
    """The cosines and the two gradients as a compiled step on given matrices."""
    features = keras.random.normal((HEAD_BATCH, kernel.shape[0]), seed=0)
    errors = keras.random.normal((HEAD_BATCH, kernel.shape[1]), seed=1)

    def multiply(features, kernel, errors):
        transposed = ops.transpose
        return (
            ops.matmul(features, kernel),
            ops.matmul(errors, transposed(kernel)),
            ops.matmul(transposed(features), errors),
        )

    if keras.backend.backend() == "jax":
        import jax

        multiply = jax.jit(multiply)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        multiply = tf.function(multiply)

    return lambda: multiply(features, kernel, errors)[0]


def row(function, *arguments):
    """What a measurement returns, with the backend's name."""
    return {"backend": keras.backend.backend(), **function(*arguments)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES, choices=ksf.backbones.names())
    parser.add_argument("--classes", nargs="+", type=int, default=CLASSES)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    measurements = [(training, name, args.batch, args.rounds) for name in args.backbones]
    measurements += [(head, count, args.rounds) for count in args.classes]
    for measurement in measurements:
        with futures.ProcessPoolExecutor(1, get_context("spawn")) as process:
            try:
                line = process.submit(row, *measurement).result()
            except Exception as error:  # out of memory has a class of its own in each backend, and may end the process
                function, value, *_ = measurement
                line = {"failed": f"{function.__name__} {value}", "error": one_line(error)[:300]}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
