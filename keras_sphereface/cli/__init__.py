"""The `keras-sphereface` command: one module of this folder per subcommand, imported only when it is called.

A subcommand's module has `add_arguments(parser)` and `run(args)`, which returns the exit code or None for 0; and
`NEEDS_KERAS = False` where it works on files alone.
"""

import argparse
import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence

from keras_sphereface import errors
from keras_sphereface.cli.start import start_keras
from keras_sphereface.version import __version__

COMMANDS = {
    "verify": "tell whether two photos show the same person",
    "identify": "look faces up in a gallery of known people",
    "enroll": "add a person's photos to a gallery",
    "gallery": "list or remove the people of a gallery",
    "embed": "turn a folder of photos into embeddings (.npz, .h5, .csv)",
    "detect": "find faces in photos, and cut out aligned crops",
    "demo": "open a page in the browser: two photos in, the answer out",
    "train": "train a model on a folder of people, RecordIO or TFRecord",
    "convert": "turn another project's PyTorch checkpoint or ONNX file into a Keras model",
    "evaluate": "measure a model on face pairs or an IJB protocol",
    "export": "write a model as SavedModel, ONNX or LiteRT, checked after writing",
    "pack": "pack a folder of images (one folder per person) into MXNet RecordIO or TFRecord",
    "pairs": "draw verification pairs of a folder of people into a .bin file",
    "plot": "draw margins, the digits' embedding under them, and ROC or DET curves of reports",
    "publish": "push a model with its card to the Hugging Face Hub",
}


EPILOG = """exit codes:
  0  done; the answer is yes (same person, person known; of detect: a face in every photo)
  1  an error of the data or the model, told in one line; or no decision: no threshold is known, a photo has no face
     (`embed` leaves such a photo out and goes on)
  2  wrong usage, as the command line alone shows it
  3  the answer is no (different people, nobody of the gallery; of detect: a photo without a face)
  130, 141  stopped by Ctrl-C; or by the reader of the output, who was gone before the answer was known, e.g. `| head`

`keras-sphereface COMMAND --help` explains a command with examples. Photos are never uploaded and never kept.
"""
DONE, ERROR, USAGE, NO = 0, 1, 2, 3
INTERRUPTED, UNREAD = 130, 141  # as shells report SIGINT and SIGPIPE
STDOUT = 1


class UsageError(ValueError):
    """Options that do not belong together, or whose values no file could make right."""


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Builds the argument parser; only `command`'s module is imported, so that `--help` stays quick."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="keras-sphereface",
        description="Hyperspherical face recognition in Keras.",
        epilog=EPILOG,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"keras_sphereface {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, summary in COMMANDS.items():
        if name == command:
            module = importlib.import_module(f"keras_sphereface.cli.{name}")
            subparser = subparsers.add_parser(name, help=summary, description=module.__doc__, formatter_class=raw)
            module.add_arguments(subparser)
            # After the command as well; what stands before it is not overwritten.
            subparser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback")
            subparser.set_defaults(run=module.run, needs_keras=getattr(module, "NEEDS_KERAS", True))
        else:
            subparsers.add_parser(name, help=summary, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, as `EPILOG` explains it."""
    _open_closed_streams()
    argv = sys.argv[1:] if argv is None else list(argv)
    command = next((word for word in argv if not word.startswith("-")), None)
    args = build_parser(command).parse_args(argv)
    if hasattr(sys.stdout, "reconfigure"):  # a photo's name may be no text, or none in the terminal's encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    # The package's own limit is lower, and its error says the same once more.
    warnings.filterwarnings("ignore", "Image size .* decompression bomb")
    # Of parts of a photo that nobody asked for: transparency, EXIF.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    code = UNREAD  # until the command has one
    try:
        if args.needs_keras:
            start_keras(show_all=args.debug)
        code = args.run(args) or DONE
        with writing_output():
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, e.g. `| head`
        _drop_output()
        return code
    except Exception as error:
        if args.debug:
            raise
        error = errors.unwrapped(error)
        print(f"keras-sphereface {args.command}: {error_line(error)}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else ERROR


def _open_closed_streams():
    """Opens what a caller has closed (`>&-`): Python leaves None there, and prints to stdout what shall go to stderr."""
    for name in ("stdin", "stdout", "stderr"):  # in the order of their numbers: each takes the lowest that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115 - open until the end


@contextlib.contextmanager
def writing_output() -> Iterator[None]:
    """Lets an error of the system, such as a full disk, say that it is the output's. That nobody reads it is none."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise OSError(f"the output cannot be written ({error.strerror}). Send it elsewhere") from error


def _drop_output():
    """Lets what is not yet written go nowhere, or Python would try once more at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)


def error_line(error: Exception) -> str:
    """The message of an error in one line, with its kind where nothing in the package raises it on purpose."""
    text = errors.message(error)
    expected = isinstance(error, ValueError | OSError | ImportError | TypeError | RuntimeError | LookupError)
    return text if expected else f"{type(error).__name__}: {text} (--debug shows where)"
