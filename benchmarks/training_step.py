"""One training step of a backbone with SphereFace-R: ours beside PyTorch's of the same network, and beside bare Keras.

    python benchmarks/training_step.py                             # SFNet-20, 64..512 channels, batch 64, float32
    python benchmarks/training_step.py --dtype bfloat16
    python benchmarks/training_step.py --backbone mobilefacenet    # beside bare Keras only

PyTorch runs SFNet-20 by its own functions in channels_last, with the optimizer of the same kind (SGD, momentum) and a plain
softmax over normalized weights, under autocast for bfloat16. "Bare Keras" is a functional model of the same backbone and
head with `SparseCategoricalCrossentropy`. Steps of all are timed in turn, in one process.
"""

import argparse

import keras
import numpy as np
import timing
import torch

import keras_sphereface as ksf
from keras_sphereface import backbones
from keras_sphereface.conversion import mapping, torch_reference

UNITS = (1, 2, 4, 1)  # of SFNet-20, the network that is compared with PyTorch
SCALE = 30.0


def make_ours(args, policy):
    keras.config.set_dtype_policy(policy)
    backbone = backbones.get(args.backbone, embedding_dim=args.embedding_dim)
    trainer = ksf.FaceClassifier(backbone, ksf.heads.SphereFaceR(args.classes, margin=1.4, scale=SCALE))
    trainer.compile(keras.optimizers.SGD(0.01, momentum=0.9), jit_compile=args.jit or "auto")
    return trainer


def make_bare(args, policy):
    """The same backbone and head as a functional model with Keras's own loss."""
    keras.config.set_dtype_policy(policy)
    backbone = backbones.get(args.backbone, embedding_dim=args.embedding_dim)
    labels = keras.Input((), dtype="int32")
    head = ksf.heads.SphereFaceR(args.classes, margin=1.4, scale=SCALE)
    model = keras.Model([backbone.input, labels], head(backbone.output, labels))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss=loss, jit_compile=args.jit)
    return model


def make_torch_step(args, images, labels):
    """PyTorch's step on the same network, in the memory layout that is fastest there."""
    source = backbones.get(args.backbone, embedding_dim=args.embedding_dim, dtype="float32")
    tensors = {}
    for name, slot in mapping.slots(source).items():
        value = torch.randn(slot.shape) * 0.05
        value = value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
        tensors[name] = value.requires_grad_()
    weights = torch.randn(args.embedding_dim, args.classes, requires_grad=True)
    optimizer = torch.optim.SGD([*tensors.values(), weights], 0.01, momentum=0.9)
    x = torch.from_numpy(images).permute(0, 3, 1, 2)  # channels_last
    target = torch.from_numpy(labels).long()

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bfloat16"):
            embeddings = torch_reference._sfnet(tensors, (x.float() - 127.5) / 128, UNITS, "add_relu")
        cosines = torch.nn.functional.normalize(embeddings.float()) @ torch.nn.functional.normalize(weights, dim=0)
        torch.nn.functional.cross_entropy(SCALE * cosines, target).backward()
        optimizer.step()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=backbones.names(), default="sfnet20")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--embedding_dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    args = parser.parse_args()
    policy = "float32" if args.dtype == "float32" else "mixed_bfloat16"
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (args.batch, 112, 112, 3), np.uint8)
    labels = rng.integers(0, args.classes, args.batch, np.int32)
    trainer, bare = make_ours(args, policy), make_bare(args, policy)
    steps = {
        "ours": lambda: trainer.train_on_batch(images, labels),
        "bare Keras": lambda: bare.train_on_batch([images, labels], labels),
    }
    if args.backbone == "sfnet20":
        steps["PyTorch"] = make_torch_step(args, images, labels)
    seconds = timing.in_turn(steps, args.rounds)
    name = f"{args.backbone}, {args.dtype}, batch {args.batch}, {keras.backend.backend()}"
    more = {"images_per_second": round(args.batch / seconds["ours"], 1)}
    if "PyTorch" in seconds:
        timing.report(f"{name}: beside PyTorch {torch.__version__}", seconds["PyTorch"], seconds["ours"], **more)
    timing.report(f"{name}: beside a bare Keras model", seconds["bare Keras"], seconds["ours"], **more)


if __name__ == "__main__":
    main()
