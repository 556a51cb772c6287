"""Pack a folder of face images, one folder per person, into the files that training reads.

    keras-sphereface pack celeba_112x112 packed/train.rec
    keras-sphereface pack celeba_112x96 narrow/train.rec --image-size 112x96

writes train.rec, train.idx and property in InsightFace's layout, so that `packed` works as
`python examples/train_ms1m.py --data_dir=packed`. JPEG files that have the right size already are stored byte for byte;
others are resized and encoded, and counted on stderr where that stretches them. A folder has one `property` for all its
.rec files: one of other people needs its own.
"""

import argparse
import os
import pathlib
import re
import sys

from keras_sphereface.cli import UsageError, options
from keras_sphereface.data.bad_records import BadRecords
from keras_sphereface.data.folders import FaceFolder, list_folder
from keras_sphereface.data.image_headers import upright_sizes
from keras_sphereface.data.images import decode_image, encode_jpeg, read_file, resize_image
from keras_sphereface.data.recordio_property import MAX_SIDE
from keras_sphereface.errors import FileFormatError
from keras_sphereface.files import check_output
from keras_sphereface.hints import Size

JPEG_MAGIC = b"\xff\xd8\xff"
SUFFIXES = {"recordio": ".rec", "tfrecord": ".tfrec"}  # how those of files begin: .record and .tfrecord are meant, too


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument("folder", help="folder with one folder of images per person")
    parser.add_argument(
        "output", help="file to write, e.g. packed/train.rec; a folder gets train.rec or train.tfrecord"
    )
    parser.add_argument(
        "--format", choices=["recordio", "tfrecord"], help="default: by the output's suffix, else recordio"
    )
    parser.add_argument(
        "--image-size",
        type=_size,
        default="112",
        metavar="PIXELS",
        help="side of the images, or height and width, e.g. 112x96 (default: %(default)s)",
    )
    parser.add_argument(
        "--jpeg-quality", type=int, default=95, metavar="Q", help="for images that must be encoded (default: 95)"
    )
    parser.add_argument(
        "--min-images",
        type=options.positive,
        default=1,
        metavar="N",
        help="leave out people with fewer images; broken ones count (default: 1)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first broken image instead of leaving it out"
    )
    options.add_json(parser)
    parser.add_argument(
        "--max-bad", type=options.count, default=100, metavar="N", help="broken images that are left out (default: 100)"
    )


def run(args: argparse.Namespace) -> None:
    """Packs the folder; prints what was written."""
    if not all(1 <= side <= MAX_SIDE for side in args.image_size) or not 1 <= args.jpeg_quality <= 100:
        raise UsageError(
            f"Expected --image-size of 1 to {MAX_SIDE} and --jpeg-quality of 1 to 100. "
            f"Received: {'x'.join(map(str, args.image_size))} and {args.jpeg_quality}"
        )
    output, form = _output(args.output, args.format)
    faces = list_folder(args.folder, args.min_images)
    bad = BadRecords(args.folder, args.max_bad, args.strict)
    packer = Packer(faces, args.image_size, args.jpeg_quality, bad)
    check_output(output, make_folder=True)
    if form == "recordio":
        files = packer.write_recordio(output)
    else:
        files = packer.write_tfrecord(output)
    if packer.stretched:
        print(
            f"keras-sphereface pack: stretched to {'x'.join(map(str, args.image_size))}: {packer.stretched} of "
            f"{packer.count} images. Give --image-size HEIGHTxWIDTH as they are, or crops of one shape",
            file=sys.stderr,
        )
    counts = {"images": packer.count, "people": len(packer.people), "kept": packer.kept, "broken": len(packer.bad)}
    options.show(
        args,
        {"files": files, **counts},
        f"Packed {packer.count} images of {len(packer.people)} people into {', '.join(files)} "
        f"({output.stat().st_size / 1e6:.1f} MB): {packer.kept} as they were, {packer.count - packer.kept} encoded, "
        f"{len(packer.bad)} broken and left out.",
    )


def _size(text):
    """One word, for a second one could as well be the folder."""
    if not re.fullmatch(r"[0-9]+(x[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"expected pixels, e.g. 112, or height and width, 112x96. Received: {text}")
    sides = [int(side) for side in text.split("x")]
    return sides[0], sides[-1]


def _output(output, form):
    path = pathlib.Path(output)
    # A dot in a folder's name is no suffix.
    of_suffix = next((one for one in SUFFIXES if path.suffix.startswith(SUFFIXES[one]) and not path.is_dir()), None)
    form = form or of_suffix or "recordio"
    if of_suffix is None:
        return path / ("train.rec" if form == "recordio" else "train.tfrecord"), form
    if form != of_suffix:
        raise UsageError(
            f"Expected --format {of_suffix} for {output}, as its ending says. Received: --format {form}. Leave --format out"
        )
    return path, form


class Packer:
    """Reads the images of a `FaceFolder` one by one, in the order of the labels, and counts what it did with them."""

    def __init__(self, faces: FaceFolder, image_size: Size, quality: int, bad: BadRecords):
        self.faces, self.image_size, self.quality, self.bad = faces, image_size, quality, bad
        self.count = self.kept = self.stretched = 0
        self.people = []  # those with a sound image; their places are the labels

    def write_recordio(self, path: pathlib.Path) -> list[str]:
        """Writes train.rec, .idx and property; returns the files' paths."""
        from keras_sphereface.data.recordio_property import PROPERTY, check_property, write_property
        from keras_sphereface.data.recordio_writer import RecordIOWriter

        check_property(path, len(self.faces.class_names), self.image_size)
        with RecordIOWriter(path) as writer:
            for data, label in self._images():
                writer.add(data, label)
            check_property(path, len(self.people), self.image_size)  # fewer, where all of a person's images are broken
        write_property(path.parent, len(self.people), self.image_size)
        return [os.fspath(one) for one in (path, path.with_suffix(".idx"), path.with_name(PROPERTY))]

    def write_tfrecord(self, path: pathlib.Path) -> list[str]:
        """Writes the TFRecord file; returns its path in a list."""
        from keras_sphereface.data.tfrecord import TFRecordWriter

        with TFRecordWriter(path) as writer:
            for data, label in self._images():
                writer.add(data, label, self.people[label])
        return [os.fspath(path)]

    def _images(self):
        from tqdm import tqdm

        rows = zip(self.faces.names, self.faces.labels.tolist())
        for name, label in tqdm(rows, total=len(self.faces.names), desc="pack", unit="image", disable=None):
            try:
                data = self._bytes(os.path.join(self.faces.root, name))
            except (FileFormatError, OSError) as error:
                self.bad.add(name, error)
                continue
            self.count += 1
            if self.faces.class_names[label] not in self.people[-1:]:
                self.people.append(self.faces.class_names[label])
            yield data, len(self.people) - 1
        if not self.count:
            raise FileFormatError(
                f"{self.faces.root}: none of its images can be read. Repair them; nothing was written."
            )

    def _bytes(self, path):
        data = read_file(path)
        # A JPEG with an Exif or XMP block may be turned, which other readers of the file would not know.
        plain = data.startswith(JPEG_MAGIC) and (upright_sizes([data])[0] == self.image_size).all()
        image = decode_image(data, path)
        height, width = image.shape[:2]
        if plain and (height, width) == self.image_size:
            self.kept += 1
            return data
        full_height, full_width = self.image_size
        self.stretched += abs(height * full_width - width * full_height) > full_width  # by more than rounding, a pixel
        return encode_jpeg(resize_image(image, self.image_size), self.quality)
