"""Turn a folder of photos into embeddings.

  keras-sphereface embed photos/ --output faces.npz
  keras-sphereface embed crops/ --detector none --output faces.h5
  keras-sphereface embed a.jpg b.jpg --output faces.csv --strict

.npz and .h5 hold the arrays `names` and `embeddings` (float32, unit length; cosines are dot products); .csv has a
name and its numbers on each line. A photo without a face, or that cannot be read, is left out and named on stderr.
"""

import argparse
import pathlib

from keras_sphereface.cli import UsageError, error_line, options
from keras_sphereface.files import check_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("photos", nargs="+", help="photos, or folders of photos")
    parser.add_argument("--output", "-o", required=True, help="file to write, ending in .npz, .h5 or .csv")
    parser.add_argument(
        "--batch-size", type=options.positive, default=32, help="photos per block (default: %(default)s)"
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first photo that cannot be used")
    options.add_model(parser)
    options.add_faces(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Embeds and writes."""
    import numpy as np

    from keras_sphereface.recognition.embedding_files import SUFFIXES, write_embeddings

    if pathlib.Path(args.output).suffix not in SUFFIXES:
        raise UsageError(f"Expected --output as a file name ending in {', '.join(SUFFIXES)}. Received: {args.output}")
    check_output(args.output)
    photos, failed = options.list_photos(args.photos), {}
    recognizer = options.make_recognizer(args, batch_size=args.batch_size)
    remember = None if args.strict else lambda photo, error: failed.__setitem__(photo, error_line(error))
    embeddings = recognizer.embed(photos, on_error=remember)
    usable = ~np.isnan(embeddings).any(axis=1)
    options.say_left_out(failed, photos, f"; {args.output} is not written")
    names = [photo for photo, good in zip(photos, usable) if good]
    write_embeddings(args.output, names, embeddings[usable])
    width = embeddings.shape[1]
    result = {"output": args.output, "photos": len(names), "dimensions": width, "left_out": failed}
    options.show(
        args, result, f"wrote {args.output}: {len(names)} photos, {width} numbers each; {len(failed)} left out"
    )
