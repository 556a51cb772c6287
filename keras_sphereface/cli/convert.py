"""Turn another project's checkpoint, of PyTorch or in ONNX, into a Keras model, and report how closely the two agree.

Example:
    keras-sphereface convert backbone.pth --output model.keras
    keras-sphereface convert w600k_r50.onnx --output model.keras
    keras-sphereface convert sfnet20.pth --architecture sfnet20 --output model.keras
    keras-sphereface convert adaface_ir50_ms1mv2.ckpt --architecture ir_50 --channel-order BGR --output model.keras
"""

import argparse
import os
import pathlib

from keras_sphereface.cli import UsageError, options
from keras_sphereface.files import atomic_writer, check_output

MODEL_SUFFIX = ".keras"
HEAD_SUFFIX = ".npz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "checkpoint",
        help="PyTorch checkpoint: .pth, .pt or .ckpt (pickled code is never run), .safetensors, or a network in ONNX: .onnx",
    )
    parser.add_argument(
        "--architecture",
        help="e.g. sfnet20, sfnet64_deprecated, iresnet100, ir_50 (AdaFace, CVLface), ir_se_50, mobilefacenet, vit_b; "
        "default: as the file tells, which an sfnet's does not",
    )
    parser.add_argument("--output", required=True, help=f"the Keras model to write, a name ending in {MODEL_SUFFIX}")
    parser.add_argument("--report", help="also write the report to this JSON file")
    parser.add_argument("--head", help=f"also write the head's class weights to this {HEAD_SUFFIX} file")
    parser.add_argument(
        "--input-shape", type=int, nargs=3, metavar=("HEIGHT", "WIDTH", "3"), help="default: 112 112 3, or the file's"
    )
    parser.add_argument(
        "--image-mean",
        type=float,
        nargs="+",
        metavar="NUMBER",
        help="subtracted from RGB 0..255; an .onnx may have three, of red, green and blue; default: the architecture's",
    )
    parser.add_argument(
        "--image-std", type=float, nargs="+", metavar="NUMBER", help="then divided by; default: the architecture's"
    )
    parser.add_argument(
        "--channel-order",
        choices=["RGB", "BGR"],
        help="what the network was trained on (the model takes RGB); default: RGB, ir networks and vit must be told "
        "(AdaFace: BGR)",
    )
    parser.add_argument(
        "--num-heads", type=int, help="of vit alone, whose file does not tell them (CVLface's small: 8, base: 16)"
    )
    parser.add_argument("--no-head", action="store_true", help="pass over the head's tensors")
    options.add_json(parser)
    parser.add_argument("--head-layout", choices=["features_first", "classes_first"], help="only for a square head")


def run(args: argparse.Namespace) -> None:
    """Converts, writes, prints the report."""
    _check_paths(args)
    import numpy as np

    from keras_sphereface.conversion import convert
    from keras_sphereface.embedder import save
    from keras_sphereface.evaluation.results import save_json

    model = convert(
        args.checkpoint,
        args.architecture,
        input_shape=args.input_shape,
        image_mean=_one_or_three("--image-mean", args.image_mean),
        image_std=_one_or_three("--image-std", args.image_std),
        include_head=not args.no_head,
        head_layout=args.head_layout,
        channel_order=args.channel_order,
        num_heads=args.num_heads,
    )
    report = model.conversion_report
    if args.head and not report.head_weights:
        raise ValueError(f"{args.checkpoint}: has no class weights to write to {args.head}; leave --head away.")
    save(model, args.output)
    if args.head:
        with atomic_writer(args.head) as file:
            np.savez(file, **report.head_weights)
    if args.report:
        save_json(report.to_dict(), args.report)
    written = [path for path in (args.output, args.head, args.report) if path]
    text = "\n".join([str(report), *(f"wrote {path}" for path in written)])
    options.show(args, {**report.to_dict(), "written": written}, text)


def _one_or_three(option, numbers):
    """A number alone, three as a list."""
    if numbers is not None and len(numbers) not in (1, 3):
        raise UsageError(
            f"{option} takes one number, or one for each of red, green and blue. Received: {len(numbers)} numbers"
        )
    return numbers[0] if numbers and len(numbers) == 1 else numbers


def _check_paths(args):
    """Refuses impossible outputs before the work rather than after it."""
    for option, path, suffix in [("--output", args.output, MODEL_SUFFIX), ("--head", args.head, HEAD_SUFFIX)]:
        if path is not None and not path.endswith(suffix):
            raise UsageError(f"{option} must end in {suffix}. Received: {path}")
    if args.head and args.no_head:
        raise UsageError(
            f"--no-head passes over what --head writes. Received: --no-head --head {args.head}: leave one away"
        )
    written = {"--output": args.output, "--head": args.head, "--report": args.report}
    used = {_identity(args.checkpoint): "the checkpoint"}
    for option, path in written.items():
        if not path:
            continue
        check_output(path)
        other = used.setdefault(_identity(path), option)
        if other != option:
            raise ValueError(f"{option} would overwrite {other}. Received: {path}: choose another name")


def _identity(path):
    """What two names of one file share, through links as well."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return pathlib.Path(path).resolve()
    return status.st_dev, status.st_ino
