"""Find faces in photos, and cut out aligned crops.

  keras-sphereface detect party.jpg --which all
  keras-sphereface detect photos/ --output crops/ --size 112 96
  keras-sphereface detect photos/ --json

Prints each face's box (left, top, right, bottom), confidence and five points in pixels. --output writes aligned PNG
crops, as networks take them: 112x112 (ArcFace's template) or 112x96 (SphereFace's), in folders as the photos are. Exit
code 3: at least one photo has no face; 1: at least one could not be read, and is named on stderr.
"""

import argparse
import itertools
import os
import pathlib

from keras_sphereface.cli import ERROR, NO, UsageError, options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("photos", nargs="+", help="photos, or folders of photos")
    parser.add_argument("--output", "-o", type=pathlib.Path, metavar="FOLDER", help="write aligned crops here")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(112, 112), metavar=("H", "W"), help="112 112, the default, or 112 96"
    )
    parser.add_argument(
        "--which", choices=("largest", "central", "all"), default="all", help="faces of a photo (default: %(default)s)"
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> int | None:
    """Detects, prints, writes crops; returns the exit code."""
    from tqdm import tqdm

    from keras_sphereface.data.alignment import TEMPLATES
    from keras_sphereface.data.images import read_image
    from keras_sphereface.errors import NoFaceError
    from keras_sphereface.faces import FaceAligner

    if tuple(args.size) not in TEMPLATES:
        known = " or ".join(" ".join(map(str, size)) for size in TEMPLATES)
        raise UsageError(f"Expected --size as {known}. Received: --size {' '.join(map(str, args.size))}")
    aligner = FaceAligner("mtcnn", tuple(args.size), args.which)
    photos, found, failed = options.list_photos(args.photos), [], {}
    stems = _stems(args.photos, photos)
    for photo in tqdm(photos, desc="detect", unit="photo", disable=None):
        with options.leaving_out(failed, photo):
            image = read_image(photo)
            try:
                faces = aligner.faces(image, photo)
            except NoFaceError:
                faces = []
            crops = [None] * len(faces)
            if args.output and faces:
                crops = _write(args.output / stems[photo], [aligner.cut(image, face) for face in faces])
            found.append({"photo": photo, "faces": [_describe(*pair) for pair in zip(faces, crops)]})
    options.say_left_out(failed, photos)
    options.show(args, found, "\n".join(_lines(found)))
    if failed:
        return ERROR
    return None if all(one["faces"] for one in found) else NO


def _stems(paths, photos):
    """Where each photo's crops go: its place in the folder that was given, with a number where that is another photo's."""
    stems, taken = {}, set()
    for photo in dict.fromkeys(photos):
        folders = (path for path in paths if pathlib.Path(path) in pathlib.Path(photo).parents)
        inside = pathlib.Path(os.path.relpath(photo, next(folders, os.path.dirname(photo)))).with_suffix("")
        others = (inside.with_name(f"{inside.name}-{number}") for number in itertools.count(2))
        stems[photo] = next(stem for stem in itertools.chain([inside], others) if stem not in taken)
        taken.add(stems[photo])
    return stems


def _write(stem, crops):
    """Writes crops beside each other; returns their paths."""
    from keras_sphereface.data.images import encode_png

    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}_{number}.png") for number in range(len(crops))]
    for path, crop in zip(paths, crops):
        path.write_bytes(encode_png(crop))
    return paths


def _describe(face, path):
    return {
        "box": face.box.round(1).tolist(),
        "confidence": round(face.confidence, 4),
        "points": face.points.round(1).tolist(),
        "crop": None if path is None else str(path),
    }


def _lines(found):
    for one in found:
        count = len(one["faces"])
        yield f"{one['photo']}: " + (f"{count} face{'s' * (count > 1)}" if count else "no face found")
        for face in one["faces"]:
            yield f"  box {face['box']}, confidence {face['confidence']}" + (
                f", {face['crop']}" if face["crop"] else ""
            )
