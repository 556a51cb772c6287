"""Measure a model on face pairs, or on IJB-B and IJB-C.

  keras-sphereface evaluate MODEL --pairs lfw.bin
  keras-sphereface evaluate MODEL --lfw FOLDER --protocol pairs.txt --plot pictures/
  keras-sphereface evaluate MODEL --list pairs_CALFW.txt --images FOLDER --layout image
  keras-sphereface evaluate MODEL --cfp FOLDER --view FP
  keras-sphereface evaluate MODEL --ijb FOLDER --subset ijbc --features ijbc.h5

MODEL is a .keras file, or whatever load_pretrained takes: a preset's name, hf://org/repo, a folder.
"""

import argparse
import json
import pathlib
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_sphereface.cli import options
from keras_sphereface.evaluation.embeddings import FLIPS
from keras_sphereface.evaluation.verification import REPLICATES

if TYPE_CHECKING:
    from keras_sphereface.data.pairs import PairSet
    from keras_sphereface.evaluation.ijb import IJBReport
    from keras_sphereface.evaluation.report import VerificationReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "model", help="a .keras or exported .onnx or .tflite file, a preset's name, hf://org/repo or a folder"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pairs", metavar="FILE", help="a .bin pair file")
    source.add_argument("--lfw", metavar="FOLDER", help="LFW's images, name/name_0001.jpg; needs --protocol")
    source.add_argument("--list", metavar="FILE", help="a text list of pairs; needs --images")
    source.add_argument("--cfp", metavar="FOLDER", help="CFP's top folder, which holds Protocol/")
    source.add_argument("--ijb", metavar="FOLDER", help="IJB's folder with meta/ and loose_crop/; needs --features")
    parser.add_argument("--protocol", metavar="FILE", help="LFW's pairs.txt, pairsDevTrain.txt or pairsDevTest.txt")
    parser.add_argument("--images", metavar="FOLDER", help="folder of the images of --list or of --cfp")
    parser.add_argument(
        "--layout",
        choices=("pair", "label_first", "image"),
        default="pair",
        help="--list has 'left right label' on a line, 'label left right' (AgeDB), or two lines 'image label' per pair "
        "(default: %(default)s)",
    )
    parser.add_argument("--view", choices=("FF", "FP"), default="FP", help="of --cfp (default: %(default)s)")
    parser.add_argument("--subset", choices=("ijbb", "ijbc"), default="ijbc", help="of --ijb (default: %(default)s)")
    parser.add_argument("--features", metavar="FILE", help="HDF5 file for the features of --ijb; goes on where it was")
    parser.add_argument("--no-detector-score", action="store_true", help="do not weight IJB's images by detector score")
    parser.add_argument("--no-norm", action="store_true", help="ignore the norms of IJB's features")
    parser.add_argument("--flip", choices=FLIPS, default="sum", help="flip-test fusion (default: %(default)s)")
    parser.add_argument("--crop", choices=("center",), help="take the images' middle in the model's input size")
    options.add_dtype(parser)
    parser.add_argument(
        "--batch-size", type=options.positive, default=64, help="images per block (default: %(default)s)"
    )
    parser.add_argument("--threshold", type=float, help="report the accuracy at this threshold instead of by folds")
    parser.add_argument(
        "--bootstrap", type=int, default=REPLICATES, help="draws for the intervals, 0 for none (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default: %(default)s)")
    parser.add_argument("--plot", metavar="FOLDER", help="draw ROC, DET, histograms and the hardest pairs into FOLDER")
    parser.add_argument("--save", metavar="FILE", help="save the report as JSON")
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of the table")


def run(args: argparse.Namespace) -> None:
    """Measures and prints; returns None."""
    report = run_ijb(args) if args.ijb else run_pairs(args)
    print(json.dumps(report.to_dict(), indent=2) if args.json else report)
    if args.save:
        report.save(args.save)
    if args.plot:
        paths = (report.verification if args.ijb else report).plot(args.plot)
        if not args.json:
            print("\n".join(f"drawn: {path}" for path in paths))


def run_pairs(args: argparse.Namespace) -> "VerificationReport":
    """Returns the report on pairs."""
    from keras_sphereface.evaluator import evaluate

    pairs = read_pairs(args)
    return evaluate(
        load_model(args.model, args.dtype),
        pairs,
        flip=args.flip,
        batch_size=args.batch_size,
        crop=args.crop,
        threshold=args.threshold,
        bootstrap=args.bootstrap,
        seed=args.seed,
    )


def run_ijb(args: argparse.Namespace) -> "IJBReport":
    """Returns the report on IJB-B or IJB-C."""
    from keras_sphereface.files import sha256
    from keras_sphereface.ijb_evaluator import evaluate_ijb

    if args.flip == "concat":
        raise ValueError("IJB's templates add mirror images. Received: --flip concat; use sum or none")
    for option in ("crop", "threshold"):
        if getattr(args, option) is not None:
            raise ValueError(f"--{option} is for pairs, IJB's protocol has none. Received: --{option} with --ijb")
    features, model = _needed(args, "ijb", "features"), load_model(args.model, args.dtype)
    return evaluate_ijb(
        model,
        args.ijb,
        args.subset,
        features,
        flip=args.flip == "sum",
        batch_size=args.batch_size,
        detector_score=not args.no_detector_score,
        norm_weighting=not args.no_norm,
        model_signature=None if hasattr(model, "get_weights") else sha256(args.model),
    )


def read_pairs(args: argparse.Namespace) -> "PairSet":
    """Returns the `PairSet` that the arguments name."""
    from keras_sphereface.data.bin_pairs import read_bin
    from keras_sphereface.data.pair_lists import read_cfp, read_lfw, read_pair_list

    if args.pairs:
        return read_bin(args.pairs)
    if args.lfw:
        return read_lfw(args.lfw, _needed(args, "lfw", "protocol"))
    if args.list:
        return read_pair_list(_needed(args, "list", "images"), args.list, layout=args.layout)
    return read_cfp(args.cfp, view=args.view, images=args.images)


def load_model(name: str, dtype: str | None = None) -> Callable[[Any], Any]:
    """Returns the model that a path or a name stands for; a `.keras` file may have layers of any kind."""
    from keras_sphereface.precision import with_dtype

    model = _load(name)
    return model if dtype is None else with_dtype(model, dtype)


def _load(name):
    if name.endswith((".onnx", ".tflite")):
        from keras_sphereface.recognition.models import EXPORTED

        return EXPORTED[pathlib.Path(name).suffix](name)
    if name.endswith(".keras") and zipfile.is_zipfile(name):
        import keras

        import keras_sphereface.heads  # noqa: F401  registers the package's layers for loading

        return keras.saving.load_model(name, compile=False, safe_mode=True)
    from keras_sphereface.hub import load_pretrained

    return load_pretrained(name)


def _needed(args, option, other):
    value = getattr(args, other)
    if value is None:
        raise ValueError(f"--{option} needs --{other} as well. Received: no --{other}")
    return value
