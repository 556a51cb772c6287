"""The `keras-sphereface` command: one module of this folder per subcommand, imported only when it is called.

A subcommand's module has `add_arguments(parser)` and `run(args)`, which returns the exit code or None for 0.
"""

import argparse
import importlib
import sys

from keras_sphereface.version import __version__

COMMANDS = {
    "convert": "turn another project's PyTorch checkpoint into a Keras model",
    "evaluate": "measure a model on face pairs or an IJB protocol",
    "export": "write a model as SavedModel, ONNX or LiteRT, checked after writing",
    "pack": "pack a folder of images (one folder per person) into MXNet RecordIO or TFRecord",
    "plot": "draw margins, the digits' embedding under them, and ROC or DET curves of reports",
    "publish": "push a model with its card to the Hugging Face Hub",
}


def build_parser(command=None):
    """Builds the argument parser; only `command`'s module is imported, so that `--help` stays quick."""
    parser = argparse.ArgumentParser(prog="keras-sphereface", description="Hyperspherical face recognition in Keras.")
    parser.add_argument("--version", action="version", version=f"keras_sphereface {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, summary in COMMANDS.items():
        if name == command:
            module = importlib.import_module(f"keras_sphereface.cli.{name}")
            subparser = subparsers.add_parser(
                name,
                help=summary,
                description=module.__doc__,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
        else:
            subparsers.add_parser(name, help=summary, add_help=False)
    return parser


def main(argv=None):
    """Runs the command line; returns the exit code (0 done, 1 an error of the data or the model, 2 wrong usage)."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = next((word for word in argv if not word.startswith("-")), None)
    args = build_parser(command).parse_args(argv)
    try:
        return args.run(args) or 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ImportError, TypeError, RuntimeError) as error:
        if args.debug:
            raise
        print(f"keras-sphereface {args.command}: {error}", file=sys.stderr)
        return 1
