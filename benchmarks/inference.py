"""Images a second of `model.predict`, beside ONNX Runtime and LiteRT on the exported model.

    python benchmarks/inference.py                                     # the default model, batch 1 and 64
    python benchmarks/inference.py --dtype bfloat16                    # Keras in bfloat16, the others in float32
    taskset -c 0 python benchmarks/inference.py                        # each on one core
    python benchmarks/inference.py --backbone mobilefacenet            # random weights
    python benchmarks/inference.py --model hf://organization/repository

All see the same uint8 crops, as they come from files; the floor is ONNX Runtime on the exported float32 model, with as many
threads as it takes by itself.
"""

import argparse
import pathlib
import tempfile

import numpy as np
import timing

import keras_sphereface as ksf
from keras_sphereface import embedder, export, precision

IMAGES = {1: 256, 64: 1024}  # batch size -> images of one run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="as in load_pretrained; the default model if not given")
    parser.add_argument("--backbone", choices=ksf.backbones.names(), help="a network with random weights instead")
    parser.add_argument("--dtype", help="dtype policy of the Keras model; its own if not given")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.backbone:
        model = embedder.build_embedder(ksf.backbones.get(args.backbone))
    else:
        model = ksf.load_pretrained(args.model)
    images = np.random.default_rng(0).integers(0, 256, (max(IMAGES.values()), *model.input_shape[1:]), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        others = {}
        for name, file in (("onnx", "model.onnx"), ("litert", "model.tflite")):
            ksf.export.export(model, pathlib.Path(folder, file), format=name)
            others[name] = export.load(pathlib.Path(folder, file), name)
        if args.dtype:
            model = precision.with_dtype(model, args.dtype)
        for batch, count in IMAGES.items():
            measure(model, others, images[:count], batch, args.rounds)


def measure(model, others, images, batch, rounds):
    """Times one batch size."""
    blocks = [images[start : start + batch] for start in range(0, len(images), batch)]

    def all_blocks(function):
        return lambda: [function(block) for block in blocks]

    functions = {name: all_blocks(function) for name, function in others.items()}
    functions["predict"] = lambda: model.predict(images, batch_size=batch, verbose=0)
    functions["predict_on_batch"] = all_blocks(model.predict_on_batch)
    seconds = timing.in_turn(functions, rounds)
    rates = {f"{name}_images_per_second": round(len(images) / value, 1) for name, value in seconds.items()}
    name = f"{model.name}, batch {batch}, predict beside ONNX Runtime"
    timing.report(name, seconds["onnx"], seconds["predict"], **rates)


if __name__ == "__main__":
    main()
