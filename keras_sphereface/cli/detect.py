"""Find faces in photos, and cut out aligned crops.

  keras-sphereface detect party.jpg --which all
  keras-sphereface detect photos/ --output crops/ --size 112 96
  keras-sphereface detect photos/ --json

Prints each face's box (left, top, right, bottom), confidence and five points in pixels. --output writes aligned PNG
crops, as networks take them: 112x112 (ArcFace's template) or 112x96 (SphereFace's), in folders as the photos are, and
none in a photo's place. Where --output lies inside a folder of photos, the images under it are crops and no photos.
Crops that an earlier run left beside them are named on stderr and stay. Exit code 3: at least one photo has no face;
1: at least one could not be read, and is named on stderr.
"""

import argparse
import itertools
import os
import pathlib
import re
import sys

from keras_sphereface.cli import ERROR, NO, UsageError, options
from keras_sphereface.files import check_output

_CROP = re.compile(r"(.*)_\d+\.png", re.IGNORECASE | re.DOTALL)  # a crop's name, as `_write` makes it


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
    photos, found, failed, older = _without_crops(options.list_photos(args.photos), args), [], {}, []
    if args.output:  # before the work, and not as if each photo were to blame
        check_output(args.output / "crop_0.png", make_folder=True)
    aligner = FaceAligner("mtcnn", tuple(args.size), args.which)
    stems = _stems(args.photos, photos, args.output)
    for photo in tqdm(photos, desc="detect", unit="photo", disable=None):
        with options.leaving_out(failed, photo):
            image = read_image(photo)
            try:
                faces = aligner.faces(image, photo)
            except NoFaceError:
                faces = []
            crops = [None] * len(faces)
            if args.output:
                crops = _write(args.output / stems[photo], [aligner.cut(image, face) for face in faces])
                older += _left_over(args.output / stems[photo], len(crops))
            found.append({"photo": photo, "faces": [_describe(*pair) for pair in zip(faces, crops)]})
    for path in older:
        print(f"not of this run: {path}. Remove it if it is a crop of an earlier one", file=sys.stderr)
    options.say_left_out(failed, photos)
    options.show(args, found, "\n".join(_lines(found)))
    if failed:
        return ERROR
    return None if all(one["faces"] for one in found) else NO


def _without_crops(photos, args):
    """Without what earlier runs wrote, where the output lies inside one of the folders."""
    output = args.output and pathlib.Path(os.path.realpath(args.output))
    if not output or not any(pathlib.Path(os.path.realpath(path)) in output.parents for path in args.photos):
        return photos
    kept = [photo for photo in photos if output not in pathlib.Path(os.path.realpath(photo)).parents]
    if len(kept) < len(photos):
        print(
            f"passed over: {len(photos) - len(kept)} images under {args.output}, crops of earlier runs", file=sys.stderr
        )
    if not kept:
        raise ValueError(f"There are no photos beside those under --output. Received: --output {args.output}")
    return kept


def _stems(paths, photos, output=None):
    """Where each photo's crops go: its place in the folder that was given, with a number where that is another photo's.

    Nor would a crop have the name of a photo in the output folder: `a.jpg`'s is `a-2_0.png` where `a_0.png` is a photo.
    """
    stems, taken = {}, set()
    kept = _kept(photos) if output else set()
    for photo in dict.fromkeys(photos):
        folders = (path for path in paths if pathlib.Path(path) in pathlib.Path(photo).parents)
        inside = pathlib.Path(os.path.relpath(photo, next(folders, os.path.dirname(photo)))).with_suffix("")
        others = (inside.with_name(f"{inside.name}-{number}") for number in itertools.count(2))
        stems[photo] = next(
            stem
            for stem in itertools.chain([inside], others)
            if stem not in taken and not (kept and _place(output / stem) in kept)
        )
        taken.add(stems[photo])
    return stems


def _kept(photos):
    """The places of stems whose crops could have a photo's path; of a link both its own and that of the file behind it."""
    paths = (pathlib.Path(path) for photo in photos for path in (photo, os.path.realpath(photo)))
    found = ((path, _CROP.fullmatch(path.name)) for path in paths)
    return {_place(path.with_name(match[1])) for path, match in found if match and match[1]}


def _place(path):
    """The real folder and the name, in which cases do not count: some file systems take `A_0.PNG` for `a_0.png`."""
    return os.path.realpath(path.parent), path.name.casefold()


def _left_over(stem, count):
    """Paths behind those of `count` crops, where an earlier run that found more faces has left its own."""
    paths = (stem.with_name(f"{stem.name}_{number}.png") for number in itertools.count(count))
    return list(itertools.takewhile(pathlib.Path.exists, paths))


def _write(stem, crops):
    """Writes crops beside each other; returns their paths."""
    from keras_sphereface.data.images import encode_png

    if crops:
        stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}_{number}.png") for number in range(len(crops))]
    for path, crop in zip(paths, crops):
        path.unlink(missing_ok=True)  # a link is replaced, not followed: behind it may be a photo
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
