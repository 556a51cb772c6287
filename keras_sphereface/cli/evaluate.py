"""Measure a model on face pairs, or on IJB-B and IJB-C.

  keras-sphereface evaluate MODEL --pairs lfw.bin
  keras-sphereface evaluate MODEL --lfw FOLDER --protocol pairs.txt --plot pictures/
  keras-sphereface evaluate MODEL --list pairs_CALFW.txt --images FOLDER --layout image
  keras-sphereface evaluate MODEL --cfp FOLDER --view FP
  keras-sphereface evaluate MODEL --ijb FOLDER --subset ijbc --features ijbc.h5

MODEL is a .keras file, or whatever load_pretrained takes: a preset's name, hf://org/repo, a folder.
"""

import argparse
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_sphereface.cli import UsageError, options
from keras_sphereface.data.pairs import NUM_FOLDS
from keras_sphereface.errors import require
from keras_sphereface.evaluation.embeddings import FLIPS
from keras_sphereface.evaluation.verification import FARS, REPLICATES
from keras_sphereface.files import check_output

if TYPE_CHECKING:
    from keras_sphereface.data.pairs import PairSet
    from keras_sphereface.evaluation.ijb import IJBReport
    from keras_sphereface.evaluation.report import VerificationReport

SOURCES = ("pairs", "lfw", "list", "cfp", "ijb")
NEEDED = {"lfw": "protocol", "list": "images", "ijb": "features"}
OF_SOURCES = {
    "protocol": ("lfw",),
    "images": ("list", "cfp"),
    "layout": ("list",),
    "view": ("cfp",),
    "num_folds": ("pairs", "list"),
    **dict.fromkeys(("subset", "features", "no_detector_score", "no_norm", "no_identification"), ("ijb",)),
    **dict.fromkeys(("crop", "threshold", "fars", "bootstrap", "seed"), SOURCES[:-1]),
}  # what a protocol has no use for is refused, not passed over


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "model",
        help="a .keras file or model folder, what `export` wrote (.onnx, .tflite, SavedModel), a preset's name or hf://org/repo",
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
        help="--list has 'left right label' on a line, 'label left right' (AgeDB), or two lines 'image label' per pair "
        "(default: pair)",
    )
    parser.add_argument(
        "--num-folds",
        type=options.positive,
        help=f"of --pairs and --list; as `pairs --num-folds` was given, so that folds share nobody (default: {NUM_FOLDS})",
    )
    parser.add_argument("--view", choices=("FF", "FP"), help="of --cfp (default: FP)")
    parser.add_argument("--subset", choices=("ijbb", "ijbc"), help="of --ijb (default: ijbc)")
    parser.add_argument("--features", metavar="FILE", help="HDF5 file for the features of --ijb; goes on where it was")
    parser.add_argument("--no-detector-score", action="store_true", help="do not weight IJB's images by detector score")
    parser.add_argument(
        "--no-identification", action="store_true", help="IJB's 1:1 alone, where the 1:N lists are absent"
    )
    parser.add_argument("--no-norm", action="store_true", help="ignore the norms of IJB's features")
    parser.add_argument("--flip", choices=FLIPS, default="sum", help="flip-test fusion (default: %(default)s)")
    parser.add_argument("--crop", choices=("center",), help="take the images' middle in the model's input size")
    options.add_dtype(parser)
    parser.add_argument(
        "--batch-size", type=options.positive, default=64, help="images per block (default: %(default)s)"
    )
    parser.add_argument(
        "--threshold", type=options.cosine, help="report the accuracy at this threshold instead of by folds"
    )
    parser.add_argument(
        "--fars",
        nargs="+",
        type=options.rate,
        metavar="FAR",
        help="false accept rates to report; a few pairs support none of the usual ones (default: 1e-2 to 1e-6)",
    )
    parser.add_argument(
        "--bootstrap", type=options.count, help=f"draws for the intervals, 0 for none (default: {REPLICATES})"
    )
    parser.add_argument("--seed", type=options.count, help="seed of the draws (default: 0)")
    parser.add_argument("--plot", metavar="FOLDER", help="draw ROC, DET, histograms and the hardest pairs into FOLDER")
    parser.add_argument("--save", metavar="FILE", help="save the report as JSON")
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of the table")


def run(args: argparse.Namespace) -> None:
    """Measures and prints; returns None."""
    check(args)
    is_ijb = args.ijb is not None
    report = run_ijb(args) if is_ijb else run_pairs(args)
    if args.save:  # before it is printed: who reads that may be gone
        report.save(args.save)
    paths = (report.verification if is_ijb else report).plot(args.plot) if args.plot else []
    options.show(args, report.to_dict(), "\n".join([str(report), *(f"drawn: {path}" for path in paths)]))


def check(args: argparse.Namespace) -> None:
    """Refuses what cannot work before the measuring, which may take hours.

    Raises:
        UsageError: If options do not belong together.
        ValueError, OSError: If nothing can be written where the report or the pictures should be.
    """
    (source,) = (name for name in SOURCES if getattr(args, name) is not None)
    needed = NEEDED.get(source)
    if needed and getattr(args, needed) is None:
        raise UsageError(f"--{source} needs --{needed} as well. Received: no --{needed}")
    for name, sources in OF_SOURCES.items():
        if source not in sources and getattr(args, name) is not None and getattr(args, name) is not False:
            option, wanted = f"--{name.replace('_', '-')}", ", ".join(f"--{one}" for one in sources)
            raise UsageError(f"{option} is for {wanted}. Received: {option} with --{source}; leave it out")
    if source == "ijb" and args.flip == "concat":
        raise UsageError("IJB's templates add mirror images. Received: --flip concat; use sum or none")
    for output in filter(None, (args.save, args.features)):
        check_output(output, make_folder=True)
    if args.save:
        _check_no_input(args)
    if args.plot:
        require("matplotlib.figure", "plots")
        check_output(pathlib.Path(args.plot, "roc.png"), make_folder=True)


def _check_no_input(args):
    """The report must not take the place of what it is made from."""
    given = [getattr(args, name) for name in ("model", "pairs", "protocol", "list", "features")]
    # A list that is not there is looked for in the folder of the images.
    inside = [os.path.join(args.lfw or args.images or "", path) for path in (args.protocol, args.list) if path]
    for path in filter(None, given + inside):
        if os.path.abspath(path) == os.path.abspath(args.save) or _is_same_file(path, args.save):
            raise UsageError(
                f"--save needs a file of its own. Received: {args.save}, which is what is read; choose another"
            )


def _is_same_file(first, second):
    return os.path.exists(first) and os.path.exists(second) and os.path.samefile(first, second)


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
        fars=args.fars or FARS,
        bootstrap=REPLICATES if args.bootstrap is None else args.bootstrap,
        seed=args.seed or 0,
    )


def run_ijb(args: argparse.Namespace) -> "IJBReport":
    """Returns the report on IJB-B or IJB-C."""
    from keras_sphereface.files import tree_sha256
    from keras_sphereface.ijb_evaluator import evaluate_ijb

    model = load_model(args.model, args.dtype)
    return evaluate_ijb(
        model,
        args.ijb,
        args.subset or "ijbc",
        args.features,
        flip=args.flip == "sum",
        batch_size=args.batch_size,
        detector_score=not args.no_detector_score,
        norm_weighting=not args.no_norm,
        identification=not args.no_identification,
        model_signature=None if hasattr(model, "get_weights") else tree_sha256(args.model),
    )


def read_pairs(args: argparse.Namespace) -> "PairSet":
    """Returns the `PairSet` that the arguments name."""
    from keras_sphereface.data.bin_pairs import read_bin
    from keras_sphereface.data.pair_lists import read_cfp, read_lfw, read_pair_list

    num_folds = args.num_folds or NUM_FOLDS
    if args.pairs is not None:
        return read_bin(args.pairs, num_folds=num_folds)
    if args.lfw is not None:
        return read_lfw(args.lfw, args.protocol)
    if args.list is not None:
        return read_pair_list(args.images, args.list, layout=args.layout or "pair", num_folds=num_folds)
    return read_cfp(args.cfp, view=args.view or "FP", images=args.images)


def load_model(name: str, dtype: str | None = None) -> Callable[[Any], Any]:
    """Returns the model that a path or a name stands for; a `.keras` file may have layers of any kind."""
    from keras_sphereface.precision import with_dtype

    model = _load(name)
    return model if dtype is None else with_dtype(model, dtype)


def _load(name):
    from keras_sphereface.recognition.models import exported

    if kind := exported(name):
        return kind(name)
    if name.endswith(".keras") and zipfile.is_zipfile(name):
        import keras

        import keras_sphereface.heads  # noqa: F401  registers the package's layers for loading

        return keras.saving.load_model(name, compile=False, safe_mode=True)
    from keras_sphereface.hub import load_pretrained

    return load_pretrained(name)
