"""Draw what a margin does, and how models compare.

  keras-sphereface plot margins margins.png                          psi, eta and Delta of every margin
  keras-sphereface plot margins mine.png --import my_margins.py --margins sphereface_r_v2 mine=0.3
  keras-sphereface plot digits digits.png --dimensions 2             real digits on the circle, under each margin
  keras-sphereface plot digits digits.gif --margins softmax arcface  the same over the training
  keras-sphereface plot curves roc.png a.json b.json                 reports that `evaluate --save` wrote, in one picture
  keras-sphereface plot curves det.png a.json b.json --kind det

A margin of your own: a file that calls keras_sphereface.margins.register("mine", psi=..., eta=..., neutral=0.0), given to
--import; `neutral` is the value that means no margin, and the smallest.
"""

import argparse
import os
import pathlib
from collections.abc import Iterable

from keras_sphereface.cli import UsageError, options
from keras_sphereface.files import check_output

FORMATS = (".png", ".svg", ".pdf")
DPI = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `plot`."""
    pictures = parser.add_subparsers(dest="picture", required=True, metavar="picture")
    margins = pictures.add_parser("margins", help="psi, eta and Delta of margins")
    _add_common(margins, "the file to write: .png, .svg or .pdf")
    _add_margins(margins, "every margin of the package")

    digits = pictures.add_parser("digits", help="scikit-learn's digits embedded in 2 or 3 dimensions")
    _add_common(digits, "the file to write: .png, .svg, .pdf, or .gif for the whole training")
    _add_margins(digits, "softmax and every margin of the package")
    digits.add_argument("--dimensions", type=int, choices=(2, 3), default=2, help="default: %(default)s")
    digits.add_argument(
        "--epochs", type=options.positive, default=60, help="passes over 1,348 digits (default: %(default)s)"
    )
    digits.add_argument(
        "--seed", type=options.seed, default=0, help="of the split, weights and order (default: %(default)s)"
    )

    curves = pictures.add_parser("curves", help="ROC or DET of several reports in one picture")
    _add_common(curves, "the file to write: .png, .svg or .pdf")
    curves.add_argument("reports", nargs="+", metavar="REPORT", help="JSON files that `evaluate --save` wrote")
    curves.add_argument("--kind", choices=("roc", "det"), default="roc", help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    """Draws the picture and says where it is."""
    suffix = args.output.suffix.lower()
    allowed = (*FORMATS, ".gif") if args.picture == "digits" else FORMATS
    if suffix not in allowed:
        raise UsageError(f"Expected a file ending in {', '.join(allowed)}. Received: {args.output}")
    check_output(args.output, make_folder=True)
    {"margins": draw_margins, "digits": draw_digits, "curves": draw_curves}[args.picture](args)
    print(f"drawn: {args.output}")


def draw_margins(args: argparse.Namespace) -> None:
    """Draws `plot margins`."""
    from keras_sphereface import plots

    import_margins(args.margin_modules)
    plots.margin_figure(args.margins).savefig(args.output, dpi=DPI)


def draw_digits(args: argparse.Namespace) -> None:
    """Draws `plot digits`."""
    from tqdm import tqdm

    from keras_sphereface import plots

    import_margins(args.margin_modules)
    names = args.margins or ["softmax", *plots.MARGIN_VALUES]
    runs = [
        plots.train_on_digits(name, args.dimensions, args.epochs, args.seed)
        for name in tqdm(names, desc="training", unit="head", disable=None)
    ]
    if args.output.suffix.lower() == ".gif":
        plots.save_animation(runs, args.output)
    else:
        plots.embedding_figure(runs).savefig(args.output, dpi=DPI)


def draw_curves(args: argparse.Namespace) -> None:
    """Draws `plot curves`."""
    from keras_sphereface import plots

    paths = [os.path.abspath(path) for path in args.reports]
    if repeated := sorted({path for path in paths if paths.count(path) > 1}):
        raise UsageError(f"Expected each report once. Received: {', '.join(repeated)} more than once")
    read = [plots.read_curve(path) for path in args.reports]
    names = [name for name, _ in read]
    # Reports on the same pairs have the same name: their files' names tell them apart.
    labels = [f"{pathlib.Path(path).stem} ({name})" if names.count(name) > 1 else name
              for path, name in zip(args.reports, names)]  # fmt: skip
    if len(set(labels)) < len(labels):
        labels = [str(path) for path in args.reports]
    draw = plots.roc_overlay if args.kind == "roc" else plots.det_overlay
    draw(dict(zip(labels, (curve for _, curve in read)))).savefig(args.output, dpi=DPI)


def import_margins(modules: Iterable[str]) -> None:
    """Imports modules, given as `file.py` or as a dotted name, that register margins.

    Raises:
        ValueError: If one cannot be imported.
    """
    import importlib
    import importlib.util

    from keras_sphereface.errors import one_line

    for name in modules:
        try:
            if name.endswith(".py"):
                spec = importlib.util.spec_from_file_location(pathlib.Path(name).stem, name)
                spec.loader.exec_module(importlib.util.module_from_spec(spec))
            else:
                importlib.import_module(name)
        except Exception as error:  # whatever the module does
            what = f"{type(error).__name__}: {one_line(error)}"
            raise ValueError(
                f"--import: expected a module or a file.py that runs. Received: {name} ({what})"
            ) from error


def _add_common(parser, help):
    parser.add_argument("output", type=pathlib.Path, help=help)
    # After the picture as well; what stands before it is not overwritten.
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback")


def _margin(text):
    """A name, which a module that is yet to be imported may register, and a number."""
    name, given, value = text.partition("=")
    try:
        float(value or not given)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {name}=VALUE with a number. Received: {text}") from None
    return text


def _add_margins(parser, default):
    parser.add_argument(
        "--margins", nargs="+", type=_margin, metavar="NAME[=VALUE]", help=f"what to draw (default: {default})"
    )
    parser.add_argument(
        "--import", dest="margin_modules", action="append", default=[], metavar="MODULE",
        help="a file.py, or a module, that registers margins of your own; may be given again",
    )  # fmt: skip
