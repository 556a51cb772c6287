"""List or remove the people of a gallery.

  keras-sphereface gallery people.db
  keras-sphereface gallery people.db --remove "Ann Lee"

Who is removed is overwritten in the file.
"""

import argparse

from keras_sphereface.cli import options

NEEDS_KERAS = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("gallery", help="the gallery's file, made by enroll")
    parser.add_argument("--remove", metavar="NAME", help="remove this person")
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Lists or removes."""
    from keras_sphereface.recognition import Gallery

    with Gallery(options.existing_gallery(args.gallery)) as gallery:
        removed = 0 if args.remove is None else gallery.remove(args.remove)
        people = gallery.people()
    lines = [f"removed {args.remove}: {removed} face{'s' * (removed > 1)}"] if removed else []
    lines += [f"{count:6d}  {name}" for name, count in people.items()] or ["nobody is enrolled"]
    options.show(args, {"removed": removed, "people": people}, "\n".join(lines))
