"""Peak memory of one training step of a head with millions of classes, optimizer included.

    python benchmarks/head_memory.py                           # 2,000,000 classes x 256 dimensions, batch 64
    python benchmarks/head_memory.py --classes 20000           # a quick look

Weights, momentum and gradient, (dim, classes) each, are unavoidable: they are the floor. Printed beside them is the peak of
resident memory, and what a matrix of (batch, classes) would take, of which the loss in blocks holds none.
"""

import argparse
import json
import resource
import time

import keras
import numpy as np

import keras_sphereface as ksf


def main():
    """Runs one step and prints floor, ours and ratio, and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=2_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--class_block", type=int, default=None, help='Defaults to "auto".')
    args = parser.parse_args()
    head = ksf.heads.SphereFaceR(args.classes, class_block=args.class_block or "auto")
    trainer = ksf.FaceClassifier(keras.Sequential([keras.Input((args.dim,)), keras.layers.Activation("linear")]), head)
    trainer.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((args.batch, args.dim)).astype("float32")
    start = time.perf_counter()
    loss = trainer.train_on_batch(embeddings, rng.integers(0, args.classes, args.batch))
    seconds = time.perf_counter() - start
    floor = 3 * 4 * args.dim * args.classes / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result = {
        "classes": args.classes,
        "dim": args.dim,
        "batch": args.batch,
        "block": head.block_size(args.batch),
        "backend": keras.backend.backend(),
        "loss": float(np.ravel(loss)[0]),
        "first_step_s": round(seconds, 1),
        "floor_gb": round(floor, 2),
        "peak_gb": round(peak, 2),
        "ratio": round(peak / floor, 2),
        "one_matrix_of_logits_gb": round(4 * args.batch * args.classes / 2**30, 2),
    }
    print(f"floor {floor:.2f} GB, ours {peak:.2f} GB, ratio {peak / floor:.2f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
