"""Add a person's photos to a gallery.

  keras-sphereface enroll people.db "Ann Lee" ann1.jpg ann2.jpg
  keras-sphereface enroll people.db --folder people/      # one folder per person, named as the person

The gallery is one SQLite file with names, embeddings and checksums: no pictures. It belongs to the model that made
it. The same picture is not added twice. Ask people before you enroll them. A person without photos, of whom a photo has
no face, cannot be read or is somebody else's already, or whose name cannot be printed is left out and named on stderr;
the exit code is 1 then.
"""

import argparse

from keras_sphereface.cli import ERROR, UsageError, options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("gallery", help="the gallery's file; made if absent")
    parser.add_argument("name", nargs="?", help="the person")
    parser.add_argument("photos", nargs="*", help="photos of the person, or folders of them")
    parser.add_argument("--folder", help="instead of a name and photos: a folder with one folder per person")
    options.add_model(parser)
    options.add_faces(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int | None:
    """Enrolls and prints; returns the exit code."""
    if bool(args.folder) == bool(args.name) or bool(args.name) != bool(args.photos):
        raise UsageError("Expected NAME PHOTO... or --folder FOLDER. See keras-sphereface enroll --help")
    from tqdm import tqdm

    people = _people(args.folder) if args.folder else {args.name: args.photos}
    recognizer = options.make_recognizer(args, gallery=args.gallery)
    done, failed = [], {}
    try:
        for name, paths in tqdm(
            people.items(), desc="enroll", unit="person", disable=None if len(people) > 1 else True
        ):
            with options.leaving_out(failed, name, ValueError):
                done.append(recognizer.enroll(name, options.list_photos(paths)))
    finally:
        if done:  # they are in the gallery, however this ends
            options.show(args, [one.to_dict() for one in done], "\n".join(map(str, done)))
    options.say_left_out(failed, list(people), what="people")
    return ERROR if failed else None


def _people(folder):
    import pathlib

    folders = sorted(path for path in pathlib.Path(folder).iterdir() if path.is_dir() and path.name[0] != ".")
    if not folders:
        raise ValueError(f"{folder}: has no folders. Expected one folder of photos per person, named as the person")
    return {path.name: [path] for path in folders}
