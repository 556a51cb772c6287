"""Tell whether two photos show the same person.

  keras-sphereface verify a.jpg b.jpg
  keras-sphereface verify a.jpg b.jpg --far 1e-2 --json
  keras-sphereface evaluate my.keras --pairs own.bin --save own.json
  keras-sphereface verify a.jpg b.jpg --model my.keras --thresholds own.json
  if keras-sphereface verify a.jpg b.jpg; then echo same; fi

Prints the cosine of the two faces, the threshold and the false accept rate that it stands for: the share of pairs of
strangers that reach it, measured on the data that the model's card names. Exit code 0: same person, 3: different
people, 1: an error, or no threshold is known. Photos are never uploaded and never kept.
"""

import argparse
import sys

from keras_sphereface.cli import ERROR, NO, options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("first", help="a photo")
    parser.add_argument("second", help="another photo")
    options.add_model(parser)
    options.add_faces(parser)
    options.add_decision(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int | None:
    """Compares and prints; returns the exit code."""
    result = options.make_recognizer(args).verify(args.first, args.second)
    options.show(args, result.to_dict(), result)
    if result.match is None:
        print(
            "keras-sphereface verify: no threshold is known for this model, so there is no decision: measure with "
            "keras-sphereface evaluate --save report.json and give --thresholds report.json, or give --threshold",
            file=sys.stderr,
        )
        return ERROR
    return None if result.match else NO
