"""IJB-B and IJB-C in the layout they are passed on in: loose crops and the official meta files."""

import contextlib
import csv
import dataclasses
import os

import numpy as np
from tqdm import tqdm

from keras_sphereface.data.int_tables import line_of_row, read_int_table
from keras_sphereface.errors import FileFormatError
from keras_sphereface.hints import Path

# The two halves of the gallery are called G1, G2 in IJB-C and S1, S2 in IJB-B.
GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}

# Lines turned into numbers at once.
_LINES = 65_536
_LANDMARK_TOKENS = 12


@dataclasses.dataclass(frozen=True)
class TemplateList:
    """Templates of a gallery or of the probes, each once.

    Attributes:
        name: `"G1"`, `"G2"`, `"S1"`, `"S2"` or `"probes"`.
        template_ids: `(n,)` int32, ascending.
        subject_ids: `(n,)` int32, the person of each template.

    Example:
    >>> gallery = keras_sphereface.data.read_ijb("IJBC", "ijbc").galleries[0]
    >>> gallery.name, len(gallery.template_ids)
    """

    name: str
    template_ids: np.ndarray
    subject_ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class IJBMeta:
    """The meta files of IJB-B or IJB-C.

    Attributes:
        name: `"ijbb"` or `"ijbc"`.
        image_names: List of n file names in `loose_crop`.
        landmarks: `(n, 5, 2)` float32, x and y in pixels of the loose crop.
        detector_scores: `(n,)` float32, 0..1.
        template_ids: `(n,)` int32, the template of each image.
        media_ids: `(n,)` int32, the photo or video of each image.
        pair_left, pair_right: `(p,)` int32 template ids of the 1:1 pairs.
        pair_mated: `(p,)` bool.
        galleries: The 1:N galleries as `TemplateList`s; empty if they were not read.
        probes: The 1:N probes as a `TemplateList`, or `None`.

    Example:
    >>> meta = keras_sphereface.data.read_ijb("IJBC", "ijbc")
    >>> len(meta.image_names), len(meta.pair_mated), [gallery.name for gallery in meta.galleries]
    """

    name: str
    image_names: list
    landmarks: np.ndarray
    detector_scores: np.ndarray
    template_ids: np.ndarray
    media_ids: np.ndarray
    pair_left: np.ndarray
    pair_right: np.ndarray
    pair_mated: np.ndarray
    galleries: tuple = ()
    probes: TemplateList | None = None


def read_ijb(folder: Path, name: str, verification: bool = True, identification: bool = True) -> "IJBMeta":
    """Reads the meta files of IJB-B or IJB-C under their official names.

    `<name>_face_tid_mid.txt` (image, template, medium), `<name>_name_5pts_score.txt` (image, five points, detector score),
    `<name>_template_pair_label.txt` (template, template, 0 or 1), `<name>_1N_gallery_<G1, G2 or S1, S2>.csv` and
    `<name>_1N_probe_mixed.csv` (TEMPLATE_ID, SUBJECT_ID, ...; one row per image).

    Args:
        folder: The folder `meta`, or the one that holds it.
        name: `"ijbb"` or `"ijbc"` (also `"IJB-B"`, `"IJB-C"`).
        verification: Whether to read the 1:1 pairs. Defaults to `True`.
        identification: Whether to read the 1:N lists. Defaults to `True`.

    Returns:
        `IJBMeta`.

    Raises:
        FileNotFoundError: If a file is missing.
        FileFormatError: If a line is broken, the files differ in length or order, or one names an unknown template.
        ValueError: If `name` is another word.

    Example:
    >>> meta = keras_sphereface.data.read_ijb("IJBC", "ijbc")  # IJBC/meta/ijbc_face_tid_mid.txt, ...
    >>> images = keras_sphereface.data.IJBImages(meta, "IJBC")
    """
    key = name.lower().replace("-", "")
    if key not in GALLERIES:
        raise ValueError(f"Expected name as one of {sorted(GALLERIES)}. Received: name={name!r}")
    folder = os.fspath(folder)
    if os.path.isdir(os.path.join(folder, "meta")):
        folder = os.path.join(folder, "meta")
    media_path = _path(folder, f"{key}_face_tid_mid.txt")
    landmark_path = _path(folder, f"{key}_name_5pts_score.txt")
    names, template_ids, media_ids = read_media(media_path)
    landmark_names, landmarks, scores = read_landmarks(landmark_path)
    _check_same_images(names, media_path, landmark_names, landmark_path)
    known = np.unique(template_ids)
    left, right, mated = (np.zeros(0, np.int32),) * 2 + (np.zeros(0, bool),)
    if verification:
        left, right, mated = read_template_pairs(
            _path(folder, f"{key}_template_pair_label.txt", "give read_ijb verification=False"), known, media_path
        )
    galleries, probes = (), None
    if identification:
        hint = "give identification=False (--no-identification)"
        galleries = tuple(
            read_template_list(_path(folder, f"{key}_1N_gallery_{half}.csv", hint), half, known, media_path)
            for half in GALLERIES[key]
        )
        probes = read_template_list(_path(folder, f"{key}_1N_probe_mixed.csv", hint), "probes", known, media_path)
    return IJBMeta(key, names, landmarks, scores, template_ids, media_ids, left, right, mated, galleries, probes)


def read_media(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Reads `face_tid_mid.txt`: image name, template id and medium id per line.

    Args:
        path: The file.

    Returns:
        `(names, template_ids, media_ids)`: a list and two `(n,)` int32 arrays.

    Raises:
        FileFormatError: If a line holds something else, or there are no lines.
        FileNotFoundError: If there is no such file.

    Example:
    >>> names, template_ids, media_ids = keras_sphereface.data.ijb.read_media("IJBC/meta/ijbc_face_tid_mid.txt")
    >>> images_per_template = np.unique(template_ids, return_counts=True)[1]
    """
    names, numbers = _read_named(path, 3, np.int32, "an image name, a template id and a medium id")
    if (bad := np.flatnonzero(numbers[:, 0] < 0)).size:
        line = line_of_row(path, bad[0])
        _raise_at(path, line, f"expected a template id of 0 or more, found {numbers[bad[0], 0]}. Correct the line")
    return names, *np.ascontiguousarray(numbers.T)


def read_landmarks(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Reads `name_5pts_score.txt`: image name, x and y of five points, detector score per line.

    Args:
        path: The file.

    Returns:
        `(names, landmarks, scores)`: a list, `(n, 5, 2)` float32 in pixels and `(n,)` float32 in 0..1.

    Raises:
        FileFormatError: If a line holds something else, a score is not of 0..1, all points of a face coincide, or there are
            no lines.
        FileNotFoundError: If there is no such file.

    Example:
    >>> names, landmarks, scores = keras_sphereface.data.ijb.read_landmarks("IJBC/meta/ijbc_name_5pts_score.txt")
    >>> image = keras_sphereface.data.read_image("IJBC/loose_crop/" + names[0])
    >>> crop = keras_sphereface.data.align(image, landmarks[0])
    """
    expected = "an image name, ten coordinates and a detector score"
    names, numbers = _read_named(path, _LANDMARK_TOKENS, np.float32, expected)
    landmarks, scores = numbers[:, :10].reshape(-1, 5, 2), np.ascontiguousarray(numbers[:, 10])
    for is_bad, what in (
        ((scores < 0) | (scores > 1), "a detector score of 0..1"),
        ((landmarks == landmarks[:, :1]).all(axis=(1, 2)), "points that do not all coincide"),
    ):
        if (bad := np.flatnonzero(is_bad)).size:
            line, found = line_of_row(path, bad[0]), " ".join(f"{value:g}" for value in numbers[bad[0]])
            _raise_at(path, line, f"expected {what} for {names[bad[0]]}, found {found}. Correct the line")
    return names, landmarks, scores


def read_template_pairs(path: Path, known: np.ndarray, media_path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads `template_pair_label.txt`: two template ids and a label (1: same person) per line.

    Args:
        path: The file.
        known: Template ids that have images, ascending.
        media_path: Where those are from, for the message.

    Returns:
        `(left, right, mated)`: two `(p,)` int32 arrays and a `(p,)` bool array.

    Raises:
        FileFormatError: If a line holds something else, a template has no image, or there are no pairs.
        FileNotFoundError: If there is no such file.

    Example:
    >>> media_path = "IJBC/meta/ijbc_face_tid_mid.txt"
    >>> known = np.unique(keras_sphereface.data.ijb.read_media(media_path)[1])
    >>> path = "IJBC/meta/ijbc_template_pair_label.txt"
    >>> left, right, mated = keras_sphereface.data.ijb.read_template_pairs(path, known, media_path)
    """
    left, right, label = read_int_table(path, 3)
    if not len(label):
        raise FileFormatError(f"{path}: holds no pairs. Take the file from the original archive again")
    if (bad := np.flatnonzero(label > 1)).size:
        _raise_at(
            path, line_of_row(path, bad[0]), f"expected the label 0 or 1, found {label[bad[0]]}. Correct the line"
        )
    for ids in (left, right):
        if (row := _first_unknown(ids, known)) is not None:
            _raise_at(
                path,
                line_of_row(path, row),
                f"template {ids[row]} has no image in {media_path}. Take both files from the same archive",
            )
    return left, right, label.astype(bool)


def read_template_list(path: Path, name: str, known: np.ndarray, media_path: Path) -> TemplateList:
    """Reads a 1:N list: a CSV file with the columns TEMPLATE_ID and SUBJECT_ID, one row per image.

    Args:
        path: The file.
        name: The list's name in results.
        known: Template ids that have images, ascending.
        media_path: Where those are from, for the message.

    Returns:
        `TemplateList`.

    Raises:
        FileFormatError: If a column is missing, a row holds something else, a template has two subjects or no image, or
            there are no templates.
        FileNotFoundError: If there is no such file.

    Example:
    >>> media_path = "IJBC/meta/ijbc_face_tid_mid.txt"
    >>> known = np.unique(keras_sphereface.data.ijb.read_media(media_path)[1])
    >>> path = "IJBC/meta/ijbc_1N_gallery_G1.csv"
    >>> gallery = keras_sphereface.data.ijb.read_template_list(path, "G1", known, media_path)
    """
    subjects, lines = {}, {}
    with open(path, encoding="utf-8-sig", newline="") as file, _is_text(path):
        rows = csv.reader(file)
        header = [title.strip().upper() for title in next(rows, [])]
        if not {"TEMPLATE_ID", "SUBJECT_ID"} <= set(header):
            raise FileFormatError(
                f"{path}, line 1: expected columns TEMPLATE_ID and SUBJECT_ID, found {header[:6]}. "
                "Take the file from the original archive again"
            )
        columns = header.index("TEMPLATE_ID"), header.index("SUBJECT_ID")
        for row in rows:
            if not row:
                continue
            try:
                template, subject = (int(np.int32(int(row[column]))) for column in columns)
                if template < 0:
                    raise ValueError
            except (ValueError, IndexError, OverflowError):
                found = ",".join(row)[:80]
                raise FileFormatError(
                    f"{path}, line {rows.line_num}: expected integers in TEMPLATE_ID (0 or more) and SUBJECT_ID, found "
                    f"{found!r}. Correct the line"
                ) from None
            if subjects.setdefault(template, subject) != subject:
                raise FileFormatError(
                    f"{path}, line {rows.line_num}: template {template} belongs to subject {subject} here, to "
                    f"{subjects[template]} above. Correct the line"
                )
            lines.setdefault(template, rows.line_num)
    if not subjects:
        raise FileFormatError(f"{path}: holds no templates. Take the file from the original archive again")
    template_ids = np.array(sorted(subjects), np.int32)
    if (row := _first_unknown(template_ids, known)) is not None:
        template = int(template_ids[row])
        raise FileFormatError(
            f"{path}, line {lines[template]}: template {template} has no image in {media_path}. "
            "Take both files from the same archive"
        )
    return TemplateList(name, template_ids, np.array([subjects[key] for key in template_ids.tolist()], np.int32))


@contextlib.contextmanager
def _is_text(path):
    """Names the file where its bytes are no text, or no CSV."""
    try:
        yield
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileFormatError(
            f"{path}: expected text in UTF-8 ({error}). Take the file from the original archive again"
        ) from error


def _path(folder, name, switch=None):
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        without = f", or {switch} to do without it" if switch else ""
        raise FileNotFoundError(f"No meta file {path!r}. Put the official file there{without}")
    return path


def _read_named(path, tokens, dtype, expected):
    """Reads lines of a name and `tokens - 1` finite numbers; returns the names and a 2-D array."""
    names, parts = [], []
    bar = tqdm(desc=os.path.basename(path), unit="line", disable=None)
    with open(path, encoding="utf-8-sig") as file, bar, _is_text(path):
        line = 0
        while lines := file.readlines(_LINES * 64):
            try:
                words = [text.split() for text in lines]
                numbers = np.array([row[1:] for row in words]).astype(dtype)
                broken = numbers.shape[1:] != (tokens - 1,) or not np.isfinite(numbers).all()
            except (ValueError, OverflowError):
                broken = True
            if broken:
                numbers, words = _read_slowly(path, lines, line, tokens, dtype, expected)
            names += [row[0] for row in words]
            parts.append(numbers)
            line += len(lines)
            bar.update(len(lines))
    if not names:
        raise FileFormatError(f"{path}: holds no lines. Take the file from the original archive again")
    return names, np.concatenate(parts)


def _read_slowly(path, lines, before, tokens, dtype, expected):
    """Reads line by line, to skip empty lines and to name the broken one."""
    words, numbers = [], []
    for row, text in enumerate(lines):
        if not (split := text.split()):
            continue
        try:
            values = np.array(split[1:]).astype(dtype)
            good = values.shape == (tokens - 1,) and np.isfinite(values).all()
        except (ValueError, OverflowError):
            good = False
        if not good:
            _raise_at(path, before + row + 1, f"expected {expected}, found {text.strip()[:80]!r}. Correct the line")
        words.append(split)
        numbers.append(values)
    return np.array(numbers, dtype).reshape(-1, tokens - 1), words


def _raise_at(path, line, what):
    raise FileFormatError(f"{path}, line {line}: {what}")


def _first_unknown(ids, known):
    """Returns the first position in `ids` whose value is not in the ascending `known`, or `None`."""
    is_known = np.zeros(int(max(ids.max(initial=0), known[-1])) + 1, bool)
    is_known[known] = True
    bad = np.flatnonzero(~is_known[ids])
    return int(bad[0]) if len(bad) else None


def _check_same_images(names, path, other_names, other_path):
    if len(names) != len(other_names):
        raise FileFormatError(
            f"{path} has {len(names)} images, {other_path} has {len(other_names)}. Take both files from the same archive"
        )
    if names != other_names:
        row = next(i for i, (one, other) in enumerate(zip(names, other_names)) if one != other)
        raise FileFormatError(
            f"{other_path}, line {row + 1}: expected image {names[row]!r} as in {path}, found {other_names[row]!r}. "
            f"Take both files from the same archive"
        )
