"""Look faces up in a gallery of known people.

  keras-sphereface identify people.db c.jpg
  keras-sphereface identify people.db party.jpg --which all --top 3
  keras-sphereface identify people.db photos/ --far 1e-2 --json

Each photo's face is compared with everybody; of all faces, face 0 is the largest. Exit code 0: all are known people,
3: at least one is not, 1: no threshold is known, or a photo has no face or cannot be read, and is named on stderr. The
false accept rate is that of one comparison: with N people, a stranger is given a name up to N times as often.
"""

import argparse

from keras_sphereface.cli import ERROR, NO, options, writing_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("gallery", help="the gallery's file, made by enroll")
    parser.add_argument("photos", nargs="+", help="photos, or folders of photos")
    parser.add_argument("--top", type=options.positive, default=5, help="nearest people to list (default: %(default)s)")
    parser.add_argument(
        "--index",
        choices=("exact", "usearch"),
        default="exact",
        help="usearch: approximate, for millions (extra [search])",
    )
    options.add_model(parser)
    options.add_faces(parser, several=True)
    options.add_decision(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int | None:
    """Looks up and prints; returns the exit code."""
    from tqdm import tqdm

    recognizer = options.make_recognizer(args, gallery=options.existing_gallery(args.gallery), index=args.index)
    photos, answers, failed = options.list_photos(args.photos), [], {}
    recognizer.read_gallery()  # if it cannot be read, no photo is to blame
    for photo in tqdm(photos, desc="identify", unit="photo", disable=None if args.json and len(photos) > 1 else True):
        found = []
        with options.leaving_out(failed, photo):
            is_all = args.which == "all"
            found = recognizer.identify_all(photo, args.top) if is_all else [recognizer.identify(photo, args.top)]
        answers += [{"photo": photo, "face": number, **one.to_dict()} for number, one in enumerate(found)]
        if not args.json:
            with writing_output():
                for number, one in enumerate(found):
                    print(f"{photo}, face {number}: {one}" if len(found) > 1 else f"{photo}: {one}")
    options.say_left_out(failed, photos)
    if args.json:
        options.show(args, answers)
    if any(answer["threshold"] is None for answer in answers):
        raise ValueError("no threshold is known for this model, so there is no decision. Give --threshold")
    if failed:
        return ERROR
    return NO if any(answer["name"] is None for answer in answers) else None
