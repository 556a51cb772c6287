"""Write a model as SavedModel, ONNX or LiteRT, and compare the written file with the Keras model.

The report is printed and saved beside the file as <path>.json:

  keras-sphereface export model.keras face.tflite --precision int8 --calibration crops/ --pairs lfw.bin
"""

import argparse
import pathlib
from typing import TYPE_CHECKING

from keras_sphereface.cli import UsageError, options
from keras_sphereface.errors import FileFormatError
from keras_sphereface.files import check_output, read_json

if TYPE_CHECKING:
    import numpy as np

OF_REPORT = frozenset({"path", "format", "precision", "size", "smallest_cosine"})  # by which an older one is known


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `export`."""
    parser.add_argument("model", help="a .keras file, a model folder, a preset's name, or hf://organization/repository")
    parser.add_argument("path", type=pathlib.Path, help="file (.onnx, .tflite) or folder (SavedModel) to write")
    parser.add_argument("--format", choices=("saved_model", "onnx", "litert"), help="default: by the path's ending")
    parser.add_argument("--precision", choices=("float32", "float16", "int8"), default="float32")
    parser.add_argument("--calibration", type=pathlib.Path, help="folder of aligned images, needed for int8")
    parser.add_argument("--num-calibration", type=options.positive, default=200, help="images to take (default: 200)")
    parser.add_argument("--pairs", type=pathlib.Path, help=".bin file of pairs: measures the loss of TAR at FAR")
    parser.add_argument("--crop", choices=("center",), help="take the images' middle in the model's input size")
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Runs `export`."""
    from keras_sphereface import export, hub
    from keras_sphereface.export.exporter import SUFFIXES

    format_of_suffix = {suffix: format for format, suffix in SUFFIXES.items()}
    format = args.format or format_of_suffix.get(args.path.suffix)
    if format is None:
        raise UsageError(
            f"Unknown ending {args.path.suffix!r} of {args.path}. Use .onnx, .tflite or a folder, or name it with --format"
        )
    if args.precision == "int8" and not args.calibration:
        raise UsageError("--precision int8 needs --calibration as well. Received: no --calibration")
    if args.path.absolute().parent.is_dir():  # else it is made
        _check_report(_report_path(args.path))
    images = read_images(args.calibration, args.num_calibration) if args.calibration else None
    pairs = None
    if args.pairs:
        from keras_sphereface import data

        pairs = data.read_bin(args.pairs)
    model = hub.load_pretrained(args.model)
    report = export.export(model, args.path, format, args.precision, images, pairs, args.crop)
    report.save(_report_path(args.path))
    options.show(args, report.to_dict(), report)


def _report_path(path):
    return path.with_name(path.name + ".json")


def _check_report(path):
    """Refuses a JSON file that is no report: its name was not given, so that nobody asked to write over it."""
    check_output(path)
    if not path.exists():
        return
    try:
        content = read_json(path)
    except FileFormatError:
        content = None
    if not isinstance(content, dict) or not OF_REPORT.issubset(content):
        raise ValueError(f"The report would overwrite {path}, which is no report. Move it, or choose another name")


def read_images(folder: pathlib.Path, count: int) -> "np.ndarray":
    """Reads `count` images spread evenly over a folder and those inside it.

    Raises:
        ValueError: If there is no such folder, it has no images, or they differ in size; the message names the first.
        FileFormatError: If one of those chosen is broken.
        OSError: If a folder or an image cannot be read.
    """
    import numpy as np

    from keras_sphereface.data.folders import EXTENSIONS, images_under
    from keras_sphereface.data.images import read_image

    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ValueError(f"{folder} {what}. Expected a folder of aligned crops")
    paths = [folder / name for name in images_under(folder)]
    if not paths:
        raise ValueError(f"{folder} has no images. Expected aligned crops ending in {', '.join(EXTENSIONS)}")
    chosen = np.unique(np.linspace(0, len(paths) - 1, num=min(count, len(paths))).astype(int))
    images = [read_image(paths[index]) for index in chosen]
    for index, image in zip(chosen, images):
        if image.shape != images[0].shape:
            raise ValueError(
                f"{paths[index]} has the shape {image.shape}, {paths[chosen[0]]} has {images[0].shape}. "
                "Expected aligned crops of one size"
            )
    return np.stack(images)
