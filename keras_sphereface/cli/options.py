"""What several subcommands share: their options, the lists of photos, printing."""

import argparse
import codecs
import contextlib
import json
import math
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from keras_sphereface.cli import error_line, writing_output
from keras_sphereface.evaluation.embeddings import FLIPS
from keras_sphereface.hints import Path

if TYPE_CHECKING:
    from keras_sphereface.recognition import Recognizer


def positive(text: str) -> int:
    """Type of an option: a whole number of at least 1."""
    return count(text, least=1)


def count(text: str, least: int = 0) -> int:
    """Type of an option: a whole number of at least 0."""
    return _number(int, text, lambda number: number >= least, f"a whole number of at least {least}")


def above_zero(text: str) -> float:
    """Type of an option: a finite number above 0."""
    return _number(float, text, lambda number: 0 < number < math.inf, "a finite number above 0")


def not_negative(text: str) -> float:
    """Type of an option: a finite number of at least 0."""
    return _number(float, text, lambda number: 0 <= number < math.inf, "a finite number of at least 0")


def seed(text: str) -> int:
    """Type of an option: a seed, as NumPy and Keras take them."""
    return _number(int, text, lambda number: 0 <= number < 2**32, "a whole number from 0 to 2**32 - 1")


def cosine(text: str) -> float:
    """Type of an option: a threshold."""
    return _number(float, text, lambda number: -1 <= number <= 1, "a cosine, -1..1")


def rate(text: str) -> float:
    """Type of an option: a share that is neither none nor all."""
    return _number(float, text, lambda number: 0 < number < 1, "a rate between 0 and 1, e.g. 1e-3")


def _number(kind, text, is_inside, expected):
    with contextlib.suppress(ValueError):
        if is_inside(number := kind(text)):
            return number
    raise argparse.ArgumentTypeError(f"expected {expected}. Received: {text}")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def add_faces(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Adds how faces are found."""
    parser.add_argument(
        "--detector",
        choices=("mtcnn", "none"),
        default="mtcnn",
        help="none: the photos are aligned crops of the model's size already (default: %(default)s)",
    )
    choices = ("largest", "central", "all") if several else ("largest", "central")
    parser.add_argument(
        "--which", choices=choices, default=choices[0], help="face of a photo with several (default: %(default)s)"
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the model and how it is run."""
    parser.add_argument(
        "--model",
        help="a .keras file or model folder, what `export` wrote (.onnx, .tflite, SavedModel), a preset's name or "
        "hf://organization/repository (default: the model inside the package)",
    )
    parser.add_argument("--flip", choices=FLIPS, default="sum", help="fusion with the mirror image (default: sum)")
    add_dtype(parser)


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Adds the precision that a Keras model computes in."""
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="precision to compute in; bfloat16 is several times faster on GPUs and on CPUs with AMX (default: the model's)",
    )


def add_decision(parser: argparse.ArgumentParser) -> None:
    """Adds where yes begins."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--far", type=rate, help="false accept rate, e.g. 1e-3: takes the model's measured threshold")
    group.add_argument("--threshold", type=cosine, help="cosine, -1..1, of your own")
    parser.add_argument(
        "--thresholds", metavar="REPORT", help="measured thresholds of your own model: what evaluate --save wrote"
    )


def make_recognizer(args: argparse.Namespace, **options) -> "Recognizer":
    """Makes the `Recognizer` that the options describe."""
    from keras_sphereface.recognition import Recognizer

    given = {
        name: getattr(args, name)
        for name in ("threshold", "far", "thresholds")
        if getattr(args, name, None) is not None
    }
    which = "largest" if args.which == "all" else args.which
    detector = None if args.detector == "none" else args.detector
    return Recognizer(args.model, detector=detector, which=which, flip=args.flip, dtype=args.dtype, **given, **options)


def existing_gallery(path: str) -> str:
    """Returns the path of a gallery that must be there; an empty file is none, of which opening it would make one."""
    if os.path.isdir(path):
        raise ValueError(f"{path}: a folder, not a gallery. Give the file that keras-sphereface enroll made")
    if not os.path.isfile(path):
        raise ValueError(f"{path}: there is no such gallery. Make it: keras-sphereface enroll {path} NAME PHOTO...")
    if not os.path.getsize(path):
        raise ValueError(f"{path}: an empty file, not a gallery. Choose another file, or enroll somebody into this one")
    return path


def list_photos(paths: Iterable[Path]) -> list[str]:
    """Files as they are, folders with all images inside.

    Raises:
        ValueError: If there is none.
    """
    from keras_sphereface.data.folders import images_under

    photos = []
    for path in map(pathlib.Path, paths):
        photos += [str(path / name) for name in images_under(path)] if path.is_dir() else [str(path)]
    if not photos:
        raise ValueError(f"There are no images under {', '.join(map(str, paths))}. Give photos, or folders with photos")
    return photos


@contextlib.contextmanager
def leaving_out(failed: dict[str, str], photo: str, *others: type[Exception]) -> Iterator[None]:
    """Goes on where a photo has no face or cannot be read, or at `others`, and keeps the reason in `failed`."""
    from keras_sphereface.errors import FileFormatError, NoFaceError

    try:
        yield
    except (NoFaceError, FileFormatError, OSError, *others) as error:
        failed[photo] = error_line(error)


def say_left_out(failed: dict[str, str], photos: Sequence[str], consequence: str = "", what: str = "photos") -> None:
    """Names the photos, or whatever else, that could not be used on stderr.

    Raises:
        ValueError: If none could be used.
    """
    photos = list(dict.fromkeys(photos))  # one that is given twice fails once
    if len(photos) == 1 and failed:
        raise ValueError(failed[photos[0]] + consequence)
    for reason in failed.values():
        print(f"left out: {reason}", file=sys.stderr)
    if len(failed) == len(photos):
        raise ValueError(f"None of {len(photos)} {what} could be used{consequence}")


def show(args: argparse.Namespace, result: Any, text: Any = None) -> None:
    """Prints a result as JSON, in ASCII where the output is not UTF-8, or as text."""
    if args.json:
        text = json.dumps(result, indent=2, ensure_ascii=not _is_utf8(sys.stdout))
    with writing_output():
        print(result if text is None else text)


def _is_utf8(stream):
    """Whether a stream takes every letter; one in memory names no encoding."""
    encoding = getattr(stream, "encoding", None)
    return encoding is None or codecs.lookup(encoding).name == "utf-8"
