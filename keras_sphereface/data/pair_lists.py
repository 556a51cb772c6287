"""Text lists of face pairs: LFW's Views 1 and 2, plain lists, CALFW/CPLFW/AgeDB lists, CFP's splits."""

import csv
import os
import pathlib
import re
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from keras_sphereface.data.images import read_image
from keras_sphereface.data.int_tables import MAX_DIGITS
from keras_sphereface.data.pairs import NUM_FOLDS, PairSet, contiguous_folds
from keras_sphereface.errors import FileFormatError, one_line
from keras_sphereface.hints import Path

CFP_SPLITS = 10
_LFW_FILE = re.compile(r"(.+)_\d{4}\.\w+")

LAYOUTS = ("pair", "label_first", "image")
_LABEL = "label"  # the last name of a table's first line


def read_lfw(folder: Path, pairs_file: Path, name: str = "lfw", extension: str = ".jpg") -> PairSet:
    """Reads a folder of LFW images with one of LFW's own pair files.

    View 2 (`pairs.txt`, header `folds<TAB>pairs`) keeps its subject-disjoint folds; View 1 (`pairsDevTrain.txt`,
    `pairsDevTest.txt`, header `pairs`) has none. After the header come, per fold, as many mated lines
    `name n1 n2` as the header says, then as many nonmated lines `name1 n1 name2 n2`.

    Args:
        folder: Folder with `name/name_0001.jpg`, ...
        pairs_file: Path of the pair file; where there is no such path, its name inside `folder`.
        name: Name of the pair set. Defaults to `"lfw"`.
        extension: Ending of the image files. Defaults to `".jpg"`.

    Returns:
        `PairSet` with the people's names as identities.

    Raises:
        FileFormatError: If a line breaks the format, the number of lines is not what the header says, or a pair
            names an image that is not in the folder.
        FileNotFoundError: If there is no pair file.

    Example:
    >>> development = keras_sphereface.data.read_lfw("lfw", "pairsDevTest.txt")  # View 1, to choose a model
    >>> pairs = keras_sphereface.data.read_lfw("lfw", "pairs.txt")  # View 2, to report it
    """
    path = _list_path(folder, pairs_file)
    lines = _read_lines(path)
    num_folds, per_class = _lfw_header(path, lines)
    expected = 2 * per_class * max(num_folds, 1)
    if len(lines) - 1 != expected:
        raise FileFormatError(
            f"{path}: line 1: the header asks for {expected} pairs, found {len(lines) - 1}. "
            "The file is truncated or edited; get it again."
        )
    table = _ImageTable(folder, path)
    rows = [_lfw_pair(path, *line, mated=index // per_class % 2 == 0) for index, line in enumerate(lines[1:])]
    for number, *sides, is_mated in rows:
        images = [f"{person}/{person}_{picture:04d}{extension}" for person, picture in sides]
        table.add_pair(number, is_mated, images, [person for person, _ in sides])
    folds = np.repeat(np.arange(num_folds), 2 * per_class) if num_folds else None
    return table.pair_set(
        [mated for *_, mated in rows], folds, name, "view2" if num_folds else f"view1-{pathlib.Path(path).stem}"
    )


def read_pair_list(
    folder: Path,
    list_file: Path,
    layout: str = "pair",
    separator: str | None = None,
    identity: Callable[[str], str] | None = None,
    num_folds: int = NUM_FOLDS,
    name: str | None = None,
    protocol: str = "list",
) -> PairSet:
    """Reads a plain list of pairs.

    Layout `"pair"`: one pair per line, `left right label`, optionally followed by the number of its fold. Layout
    `"label_first"`: the same with the label in front, `label left right`, as lists of AgeDB-30 have it. Layout
    `"image"`: two lines per pair, each `image label`, as CALFW and CPLFW have them. A label is 0 for nonmated, anything
    else for mated in layout `"image"` (where the files write a fold's number for 1), 0 or 1 in the others. Without
    fold numbers, the k-th tenth of the mated and the k-th tenth of the nonmated pairs, in the file's order, are fold
    k, so that every fold has both kinds.

    Args:
        folder: Folder to which the image names are relative.
        list_file: Path of the list; where there is no such path, its name inside `folder`.
        layout: `"pair"`, `"label_first"` or `"image"`. Defaults to `"pair"`.
        separator: Text between fields, e.g. `","`. Defaults to `None`: tabs where every line has them, so that names may
            have spaces, commas in a file whose name ends in `.csv`, of which a first line that ends in `label` is passed
            over, else spaces.
        identity: Callable from an image's name in the list to its identity, e.g. `lfw_identity`. Defaults to `None`:
            identities are not known.
        num_folds: Number of folds where the list has none. Defaults to `10`.
        name: Name of the pair set. Defaults to the list's name without its ending.
        protocol: The signature's word for these pairs. Defaults to `"list"`.

    Returns:
        `PairSet`.

    Raises:
        FileFormatError: If a line breaks the format or names an image that is not there.
        FileNotFoundError: If there is no list.
        ValueError: If `layout` is another word.

    Example:
    >>> own = keras_sphereface.data.read_pair_list("photos", "pairs.csv")  # lines like a.jpg,b.jpg,1
    >>> calfw = keras_sphereface.data.read_pair_list("calfw", "pairs_CALFW.txt", layout="image")
    """
    if layout not in LAYOUTS:
        raise ValueError(f"Expected layout as one of {LAYOUTS}. Received: layout={layout!r}")
    path = _list_path(folder, list_file)
    lines = _fields(path, _read_lines(path, split=False), separator)
    rows = _image_rows(path, lines) if layout == "image" else _pair_rows(path, lines, layout == "label_first")
    table = _ImageTable(folder, path)
    for number, left, right, is_mated, _ in rows:
        people = None if identity is None else [_person(path, number, identity, image) for image in (left, right)]
        table.add_pair(number, is_mated, (left, right), people)
    mated = np.array([row[3] for row in rows], dtype=bool)
    folds = [row[4] for row in rows]
    if any(fold is None for fold in folds):
        folds = class_folds(mated, num_folds)
    return table.pair_set(mated, folds, pathlib.Path(path).stem if name is None else name, protocol)


def read_cfp(folder: Path, view: str = "FP", images: Path | None = None, name: str | None = None) -> PairSet:
    """Reads Celebrities in Frontal-Profile: `Protocol/Pair_list_F.txt`, `Pair_list_P.txt` and `Split/<view>/01..10`.

    Args:
        folder: CFP's top folder, which holds `Protocol` (and `Data/Images`).
        view: `"FF"` (frontal with frontal) or `"FP"` (frontal with profile). Defaults to `"FP"`.
        images: Folder of the (aligned) images, `001/frontal/01.jpg`, ... Defaults to `folder/Data/Images`.
        name: Name of the pair set. Defaults to `"cfp_ff"` or `"cfp_fp"`.

    Returns:
        `PairSet` with 10 folds and the people's numbers as identities.

    Raises:
        FileFormatError: If a list breaks its format, or names an image that is not there.
        FileNotFoundError: If there is no such list.
        ValueError: If `view` is another word.

    Example:
    >>> frontal = keras_sphereface.data.read_cfp("cfp-dataset", view="FF")
    >>> profile = keras_sphereface.data.read_cfp("cfp-dataset", view="FP", images="cfp_112x112")
    """
    if view not in ("FF", "FP"):
        raise ValueError(f"Expected view as 'FF' or 'FP'. Received: view={view!r}")
    protocol = pathlib.Path(folder, "Protocol")
    images = pathlib.Path(folder, "Data", "Images") if images is None else pathlib.Path(images)
    sides = [_cfp_images(protocol / f"Pair_list_{side}.txt") for side in ("F", "P" if view == "FP" else "F")]
    table = _ImageTable(images, protocol / "Split")
    mated, folds = [], []
    for fold in range(CFP_SPLITS):
        for file_name, flag in (("same.txt", True), ("diff.txt", False)):
            path = protocol / "Split" / view / f"{fold + 1:02d}" / file_name
            table.list_path = path
            for number, line in _read_lines(path, split=False):
                keys = line.replace(",", " ").split()
                if len(keys) != 2 or any(key not in side for key, side in zip(keys, sides)):
                    raise _broken(path, number, line, "'left,right', two numbers of the image lists")
                pictures = [side[key] for key, side in zip(keys, sides)]
                table.add_pair(number, flag, pictures, [picture.split("/")[0] for picture in pictures])
                mated.append(flag)
                folds.append(fold)
    return table.pair_set(mated, folds, f"cfp_{view.lower()}" if name is None else name, f"cfp-{view.lower()}")


def lfw_identity(image: str) -> str:
    """Returns the person in an LFW-style file name: `"a/Ann_Lee_0003.jpg"` gives `"Ann_Lee"`.

    Raises:
        ValueError: If the name is not `<person>_<four digits>.<ending>`.

    Example:
    >>> pairs = read_pair_list("lfw", "pairs.csv", separator=",", identity=lfw_identity)
    """
    match = _LFW_FILE.fullmatch(os.path.basename(image))
    if match is None:
        raise ValueError(f"Expected an image name like 'Ann_Lee_0003.jpg'. Received: image={image!r}")
    return match.group(1)


def class_folds(mated: ArrayLike, num_folds: int = NUM_FOLDS) -> np.ndarray:
    """Cuts the mated pairs and the nonmated pairs, each in their order, into folds; fold k has a k-th part of each.

    Args:
        mated: `(n,)` booleans.
        num_folds: Number of folds. Defaults to `10`.

    Returns:
        `(n,)` int64 fold numbers from 0.

    Example:
    >>> class_folds([True, True, False, False], num_folds=2)
    array([0, 1, 0, 1])
    """
    mated = np.asarray(mated, dtype=bool)
    folds = np.zeros(len(mated), np.int64)
    for kind in (True, False):
        members = np.flatnonzero(mated == kind)
        folds[members] = contiguous_folds(len(members), num_folds)
    return folds


class _ImageTable:
    """Gives every image of a list one index, and says where the list names one that is missing."""

    def __init__(self, folder, list_path):
        self.folder = pathlib.Path(folder)
        self.list_path = list_path
        self.index_of = {}
        self.identities = []
        self.sides = []

    def add_pair(self, line_number, mated, images, people=None):
        """Adds both images of a pair; `people` are their identities, where known."""
        if people is not None and mated != (people[0] == people[1]):
            kind = "a mated pair of two people" if mated else "a nonmated pair of one person"
            raise FileFormatError(
                f"{self.list_path}: line {line_number}: {kind}, {people[0]!r} and {people[1]!r}. Correct the line, or what "
                "tells identities."
            )
        if not mated and images[0] == images[1]:
            raise FileFormatError(
                f"{self.list_path}: line {line_number}: a nonmated pair of {images[0]!r} with itself. Correct the line."
            )
        for image, person in zip(images, people or (None, None)):
            self._add(line_number, image, person)

    def _add(self, line_number, image, identity):
        if image not in self.index_of:
            parts = pathlib.PurePath(image.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts:
                raise FileFormatError(
                    f"{self.list_path}: line {line_number}: names {image[:100]!r}, which may lie outside the folder. A name "
                    "is a path below the folder, without '..'; get the list from a source you trust."
                )
            if not os.path.isfile(self.folder / image):
                raise FileFormatError(
                    f"{self.list_path}: line {line_number}: names the image {image!r}, but {self.folder / image} is "
                    "missing. Check the folder and the ending of the image files, or restore the image."
                )
            self.index_of[image] = len(self.index_of)
            self.identities.append(identity)
        self.sides.append(self.index_of[image])

    def pair_set(self, mated, folds, name, protocol):
        names = list(self.index_of)
        known = bool(names) and all(identity is not None for identity in self.identities)
        return PairSet(
            lambda index: read_image(self.folder / names[index]),
            len(names),
            np.array(self.sides[0::2], np.int64),
            np.array(self.sides[1::2], np.int64),
            mated,
            folds=folds,
            names=names,
            identities=self.identities if known else None,
            name=name,
            protocol=protocol,
        )


def _person(path, number, identity, image):
    try:
        return identity(image)
    except ValueError as error:
        raise FileFormatError(f"{path}: line {number}: {one_line(error)}") from error


def _list_path(folder, list_file):
    inside = os.path.join(folder, list_file)
    return inside if not os.path.exists(list_file) and os.path.exists(inside) else os.fspath(list_file)


def _read_lines(path, split=True):
    """Returns (number from 1, fields or text) of every line that is not empty."""
    with open(path, encoding="utf-8-sig") as file:
        try:
            lines = [(number, line.strip()) for number, line in enumerate(file, 1) if line.strip()]
        except UnicodeDecodeError as error:
            raise FileFormatError(f"{path}: expected a text list in UTF-8 ({error}). Check the path.") from None
    if not lines:
        raise FileFormatError(f"{path}: line 1: expected a list of pairs, found an empty file. Get the file again.")
    return [(number, line.split()) for number, line in lines] if split else lines


def _broken(path, number, fields, expected):
    text = fields if isinstance(fields, str) else " ".join(fields)
    return FileFormatError(f"{path}: line {number}: found {text[:100]!r}, expected {expected}. Correct the line.")


def _is_number(text):
    return text.isdecimal() and len(text) <= MAX_DIGITS[np.int32]


def _lfw_header(path, lines):
    number, fields = lines[0]
    if len(fields) not in (1, 2) or not all(_is_number(field) and int(field) > 0 for field in fields):
        raise _broken(path, number, fields, "LFW's header, '10 300' (View 2) or '500' (View 1)")
    values = [int(field) for field in fields]
    return (0, values[0]) if len(values) == 1 else (values[0], values[1])


def _lfw_pair(path, number, fields, mated):
    people = fields[:1] * 2 if mated else fields[0::2]
    pictures = fields[1:] if mated else fields[1::2]
    good = len(fields) == (3 if mated else 4) and all(map(_is_number, pictures))
    is_itself = good and mated and int(pictures[0]) == int(pictures[1])
    if not good or is_itself or mated != (people[0] == people[1]):
        expected = (
            "a mated pair 'name n1 n2' of two pictures"
            if mated
            else "a nonmated pair 'name1 n1 name2 n2' of two people"
        )
        raise _broken(path, number, fields, expected)
    (left, right), (first, second) = people, map(int, pictures)
    return number, (left, first), (right, second), mated


def _fields(path, lines, separator):
    """The fields of each line."""
    is_csv = pathlib.Path(path).suffix.lower() == ".csv"
    if separator is None and all("\t" in line for _, line in lines):
        separator = "\t"
    elif separator is None and is_csv:
        separator = ","
    # As spreadsheets write it: a field may stand in quotes.
    split_line = _csv_fields if separator == "," else lambda line: line.split(separator)
    split = [(number, split_line(line)) for number, line in lines]
    return split[1:] if is_csv and len(split) > 1 and split[0][1][-1].strip().lower() == _LABEL else split


def _csv_fields(line):
    try:
        return next(csv.reader([line], skipinitialspace=True))
    except csv.Error:  # of a field as long as no name
        return line.split(",")


def _pair_rows(path, lines, label_first):
    form = "label left right [fold]" if label_first else "left right label [fold]"
    label_at, left_at, right_at = (0, 1, 2) if label_first else (2, 0, 1)
    rows = []
    for number, fields in lines:
        fields = [field.strip() for field in fields]
        good = len(fields) in (3, 4) and len(fields) == len(lines[0][1]) and fields[label_at] in ("0", "1")
        if not good or (len(fields) == 4 and not _is_number(fields[3])):
            raise _broken(
                path,
                number,
                fields,
                f"'{form}' with label 0 or 1, the same on every line; where names have spaces, with tabs between",
            )
        fold = int(fields[3]) if len(fields) == 4 else None
        rows.append((number, fields[left_at], fields[right_at], fields[label_at] == "1", fold))
    return rows


def _image_rows(path, lines):
    for number, fields in lines:
        if len(fields) != 2 or not _is_number(fields[1].strip()):
            raise _broken(path, number, fields, "'image label' with a number as label")
    if len(lines) % 2:
        raise FileFormatError(f"{path}: line {lines[-1][0]}: expected two lines per pair. The last pair is incomplete.")
    rows = []
    for (number, (left, label)), (second, (right, other)) in zip(lines[0::2], lines[1::2]):
        if int(label) != int(other):
            raise _broken(path, second, [right, other], f"the label {label.strip()} of the pair's first line")
        rows.append((number, left.strip(), right.strip(), int(label) != 0, None))
    return rows


def _cfp_images(path):
    """Returns `{number in the list: "001/frontal/01.jpg"}`."""
    images = {}
    for number, fields in _read_lines(path):
        parts = fields[-1].replace("\\", "/").split("/")
        if len(fields) != 2 or len(parts) < 3:
            raise _broken(path, number, fields, "'number ../Data/Images/001/frontal/01.jpg'")
        if fields[0] in images:
            raise _broken(path, number, fields, f"each number once, {fields[0]} is on an earlier line as well")
        images[fields[0]] = "/".join(parts[-3:])
    return images
