"""Time of the heads' training step beside its floor: the three matrix products of a cosine softmax at the same sizes.

    python benchmarks/head.py                                  # batch 128, 512 dimensions, 85,742 classes
    python benchmarks/head.py --classes 2000 --rounds 2       # a quick look

Ours is the loss, its gradients to embeddings and class weights, accuracy, and the projection of the class weights to the
sphere, which follows the gradients as in training. The floor is the product for the cosines and the two for the gradients,
in a compiled function as well. Last comes the update of the class weights by SGD with momentum and weight decay, projection
included, beside Keras's optimizer and constraint. Floor and ours take turns, and of each the median counts.
"""

import argparse

import keras
import numpy as np
import tensorflow as tf
import timing

import keras_sphereface as ksf

HEADS = {
    "v0": lambda n: ksf.heads.SphereFaceR(n, variant="v0"),
    "v1": lambda n: ksf.heads.SphereFaceR(n, variant="v1"),
    "v2": lambda n: ksf.heads.SphereFaceR(n, variant="v2"),
    "cosface": ksf.heads.CosFace,
    "arcface": ksf.heads.ArcFace,
    "normface": ksf.heads.NormFace,
}


def floor_step(kernel):
    """The floor as a compiled function of embeddings."""

    @tf.function
    def step(embeddings):
        cosines = tf.matmul(embeddings, kernel)
        to_embeddings = tf.matmul(cosines, kernel, transpose_b=True)
        return to_embeddings, tf.matmul(embeddings, cosines, transpose_a=True)

    return step


def our_step(head, labels, project):
    """A head's step as a compiled function of embeddings."""

    @tf.function
    def step(embeddings):
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            losses, measured = head.loss_and_statistics(embeddings, labels)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, [embeddings, head.kernel.value])
        if project:
            with tf.control_dependencies(gradients):
                head.kernel.assign(head.kernel.constraint(head.kernel))
        return [*gradients, loss, tf.reduce_mean(measured["accuracy"])]

    return step


def update_step(optimizer, constraint, dim, classes):
    """An update of class weights as a compiled function without arguments."""
    kernel = keras.Variable(lambda shape, dtype: tf.ones(shape, dtype), (dim, classes), "float32")
    kernel.constraint = constraint
    optimizer.build([kernel])
    gradient = tf.fill((dim, classes), 1e-3)
    step = tf.function(lambda: optimizer.apply([gradient], [kernel]))
    return lambda: (step(), float(kernel.value[0, 0]))


def measure_update(args):
    """Times the update of the class weights."""
    runs = {
        "keras": update_step(
            keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=5e-3),
            keras.constraints.UnitNorm(axis=0),
            args.dim,
            args.classes,
        ),
        "ours": update_step(ksf.optimizers.sgd(0.1), ksf.heads.constraints.UnitColumns(), args.dim, args.classes),
    }
    times = timing.in_turn(runs, args.rounds)
    name = f"SGD with momentum and projection, {args.dim} x {args.classes}, beside Keras's"
    timing.report(name, times["keras"], times["ours"])


def main():
    """Runs the benchmark and prints floor, ours and ratio, and a JSON line, per margin."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, default=85_742)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    if keras.backend.backend() != "tensorflow":
        parser.error("this benchmark needs the TensorFlow backend")
    rng = np.random.default_rng(0)
    embeddings = tf.constant(rng.standard_normal((args.batch, args.dim)), "float32")
    labels = tf.constant(rng.integers(0, args.classes, args.batch), "int32")
    for name, make in HEADS.items():
        head = make(args.classes)
        head.build((None, args.dim))
        steps = {
            "floor": floor_step(head.kernel.value),
            "loss": our_step(head, labels, project=False),
            "ours": our_step(head, labels, project=True),
        }
        runs = {part: lambda step=step: float(tf.reshape(step(embeddings)[0], [-1])[0]) for part, step in steps.items()}
        times = timing.in_turn(runs, args.rounds)
        timing.report(
            f"{name}, batch {args.batch}, {args.dim} dimensions, {args.classes} classes",
            times["floor"],
            times["ours"],
            ratio_without_projection=round(times["loss"] / times["floor"], 3),
        )
    measure_update(args)


if __name__ == "__main__":
    main()
