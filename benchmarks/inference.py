"""Images a second of `model.predict`, beside ONNX Runtime and LiteRT on the exported model.

    python benchmarks/inference.py                                     # the default model, batch 1 and 64
    KERAS_BACKEND=openvino python benchmarks/inference.py              # Keras on OpenVINO
    KERAS_BACKEND=openvino python benchmarks/inference.py --float32    # which takes bfloat16 by itself where that is faster
    python benchmarks/inference.py --dtype bfloat16                    # Keras in bfloat16, the others in float32
    taskset -c 0 python benchmarks/inference.py                        # each on one core
    python benchmarks/inference.py --backbone mobilefacenet            # random weights
    python benchmarks/inference.py --model hf://organization/repository

All see the same uint8 crops, as they come from files; the floor is ONNX Runtime on the exported float32 model, with as many
threads as it takes by itself. The TensorFlow backend exports, whichever is measured.
"""

import argparse
import functools
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import timing

import keras_sphereface as ksf
from keras_sphereface import embedder, export, precision
from keras_sphereface.backbones import layout

IMAGES = {1: 256, 64: 1024}  # batch size -> images of one run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="as in load_pretrained; the default model if not given")
    parser.add_argument("--backbone", choices=ksf.backbones.names(), help="a network with random weights instead")
    parser.add_argument("--dtype", help="dtype policy of the Keras model; its own if not given")
    parser.add_argument(
        "--data-format", choices=("channels_first", "channels_last"), help="inside the package's backbones"
    )
    parser.add_argument("--float32", action="store_true", help="OpenVINO in float32, whatever the CPU multiplies")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.data_format:
        layout.data_format = lambda: args.data_format
    if args.float32:
        force_float32()
    if args.backbone:
        model = embedder.build_embedder(ksf.backbones.get(args.backbone))
    else:
        model = ksf.load_pretrained(args.model)
    images = np.random.default_rng(0).integers(0, 256, (max(IMAGES.values()), *model.input_shape[1:]), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "model.keras")
        model.save(source)
        others = {name: exported(source, name, ending) for name, ending in (("onnx", ".onnx"), ("litert", ".tflite"))}
        if args.dtype:
            model = precision.with_dtype(model, args.dtype)
        for batch, count in IMAGES.items():
            measure(model, others, images[:count], batch, args.rounds)


def force_float32():
    """Keras leaves the precision to OpenVINO and has no argument for it."""
    import openvino

    openvino.compile_model = functools.partial(openvino.compile_model, config={"INFERENCE_PRECISION_HINT": "f32"})


def exported(source, format, ending):
    """A model's file of another runtime, loaded; the backend that is measured need not be one that exports."""
    target = source.with_suffix(ending)
    command = [sys.executable, "-m", "keras_sphereface.cli", "export", source, target]
    subprocess.run(command, check=True, env={**os.environ, "KERAS_BACKEND": "tensorflow"}, stdout=subprocess.DEVNULL)
    return export.load(target, format)


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
