"""Draw verification pairs of a folder of people into a .bin file, to measure models on.

  keras-sphereface pairs held_out_people/ held_out.bin
  keras-sphereface evaluate model.keras --pairs held_out.bin
  keras-sphereface train people/ --pairs held_out.bin

One folder of aligned crops per person, of people that the model is not trained on. As many pairs of the same person as of
two, no pair twice; about as many of everybody.
"""

import argparse

from keras_sphereface.cli import options
from keras_sphereface.data.pairs import NUM_FOLDS
from keras_sphereface.files import check_output

NEEDS_KERAS = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("folder", help="folder with one folder of images per person")
    parser.add_argument("output", help="file to write, e.g. held_out.bin")
    parser.add_argument(
        "--num-pairs", type=options.positive, default=6000, help="fewer where there are none (default: %(default)s)"
    )
    parser.add_argument(
        "--num-folds",
        type=options.positive,
        default=NUM_FOLDS,
        help="each needs two people at least, one with two images; what measures needs the same number, as a .bin file has "
        "none (default: %(default)s)",
    )
    parser.add_argument("--seed", type=options.seed, default=0, help="of the drawing (default: %(default)s)")
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Draws, writes and says how many."""
    from keras_sphereface.data.bin_pairs import write_bin
    from keras_sphereface.data.folder_pairs import folder_pairs

    check_output(args.output, make_folder=True)
    pairs = folder_pairs(args.folder, args.num_pairs, args.num_folds, args.seed)
    write_bin(args.output, pairs)
    result = {
        "output": args.output,
        "pairs": len(pairs),
        "mated": int(pairs.mated.sum()),
        "people": len(set(pairs.identities)),
        "images": pairs.num_images,
    }
    text = "wrote {output}: {pairs} pairs, {mated} mated, of {images} images of {people} people".format(**result)
    if args.num_folds != NUM_FOLDS:
        text += f"\nmeasure with --num-folds {args.num_folds}: the file does not say where its folds begin"
    options.show(args, result, text)
