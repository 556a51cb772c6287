"""What the headers of many image files say, read together by NumPy: a few operations a batch, none an image."""

import itertools
from collections.abc import Sequence

import numpy as np

_PNG = np.frombuffer(b"\x89PNG", np.uint8)
_JPEG = np.frombuffer(b"\xff\xd8", np.uint8)
_EXIF_SEGMENT = 0xE1
# What a JPEG's markers mean here (ITU-T T.81, table B.1). The walk stops at all others: they have no length, or libjpeg
# refuses them. So does it at a fill byte, FF before a marker: read as a marker, it would lead to a frame that nobody sees.
_UNKNOWN, _SKIPPED, _FRAME, _SCAN = range(4)
_KINDS = np.full(256, _UNKNOWN, np.uint8)
_KINDS[[0xC4, 0xCC, *range(0xDB, 0xDE), *range(0xE0, 0xF0), 0xFE]] = _SKIPPED  # tables, APP segments, comments
_KINDS[np.setdiff1d(np.arange(0xC0, 0xD0), (0xC4, 0xC8, 0xCC))] = _FRAME
_KINDS[0xDA] = _SCAN
_MAX_SEGMENTS = 48  # before the pixels; face crops have eight or so, a large colour profile is in several
_LONGEST_HEAD = 10  # bytes of a segment that are looked at
_MAX_CHUNKS = 128  # of a PNG; a face crop has three, or one more for every 8 KB
_CHUNK_FRAME = 12  # bytes of an empty chunk: length, kind, checksum


def _words(*texts):
    return np.array([int.from_bytes(text, "big") for text in texts])


# Exif, or http://ns.adobe.com/xap/1.0/ (XMP), which may state an orientation as well.
_TURNING_SEGMENTS = _words(b"Exif", b"http")

# What Pillow takes an orientation from: a chunk of Exif, or texts that begin so (ImageMagick's "Raw profile type exif",
# "XML:com.adobe.xmp").
_EXIF_CHUNK, _END_CHUNK = _words(b"eXIf", b"IEND")
_TEXT_CHUNKS = _words(b"tEXt", b"zTXt", b"iTXt")
_TURNING_TEXTS = _words(b"Raw ", b"XML:", b"exif", b"xmp\0")


def upright_sizes(data: Sequence[bytes]) -> np.ndarray:
    """Sizes of JPEG and PNG files whose pixels are stored upright.

    Nothing is decoded, so that a file which claims to be huge costs nothing.

    Args:
        data: List of the files' bytes.

    Returns:
        int64 array of shape `(n, 2)`: height and width; zeros for a file with an Exif or XMP block (which may turn the
        image), for other formats, for a file that is cut short or has a strange header, and for bytes that are no image.

    Example:
    >>> upright_sizes([encode_png(np.zeros((2, 3, 3), "uint8"))])
    array([[2, 3]])
    """
    return _walk(data)[0]


class UprightSizes:
    """`upright_sizes` for the batches of a data set, which remembers how its JPEGs begin.

    Files of one encoder and one size have the same bytes up to their pixels, so most batches need no walk from segment to
    segment. Threads may share one: what is remembered is right for whoever remembered it.
    """

    def __init__(self):
        self._known = b"", np.zeros(2, np.int64)

    def __call__(self, data):
        """As `upright_sizes`."""
        head, size = self._known
        alike = np.fromiter(map(bytes.startswith, data, itertools.repeat(head)), bool, len(data)) & bool(head)
        sizes = np.where(alike[:, None], size, 0)
        others = np.flatnonzero(~alike)
        if others.size:
            sizes[others], read = _walk([data[place] for place in others])
            if read.any() and 2 * others.size > len(data):
                chosen = np.flatnonzero(read)[0]
                self._known = data[others[chosen]][: read[chosen]], sizes[others[chosen]]
        return sizes


def _walk(data):
    """Sizes as in `upright_sizes`, and how many bytes from the beginning say that of a JPEG; zeros for other files."""
    ends = np.cumsum(np.fromiter(map(len, data), np.int64, len(data)))
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    text = np.frombuffer(b"".join(data) + bytes(32), np.uint8)  # zeros behind: a look past the last file finds nothing
    sizes, read = np.zeros((len(data), 2), np.int64), np.zeros(len(data), np.int64)
    png = np.flatnonzero(_matches(text, starts, _PNG) & (ends - starts >= 24))
    _walk_pngs(text, png, starts, ends, sizes)
    jpeg = np.flatnonzero(_matches(text, starts, _JPEG))
    _walk_jpegs(text, jpeg, starts, ends, sizes, read)
    return sizes, read


def _walk_pngs(text, files, starts, ends, sizes):
    """From chunk to chunk of all files at once: the first states the size, one anywhere may turn the image."""
    places = starts[files] + 8
    for _ in range(_MAX_CHUNKS):
        inside = places + _CHUNK_FRAME <= ends[files]
        files, places = files[inside], places[inside]
        kinds = _number(text, places + 4, 4)
        whole = files[kinds == _END_CHUNK]
        sizes[whole, 0] = _number(text, starts[whole] + 20, 4)
        sizes[whole, 1] = _number(text, starts[whole] + 16, 4)
        turning = np.isin(kinds, _TEXT_CHUNKS) & np.isin(_number(text, places + 8, 4), _TURNING_TEXTS)
        goes_on = (kinds != _END_CHUNK) & (kinds != _EXIF_CHUNK) & ~turning
        files, places = files[goes_on], places[goes_on] + _CHUNK_FRAME + _number(text, places[goes_on], 4)
        if not files.size:
            return


def _walk_jpegs(text, files, starts, ends, sizes, read):
    """From segment to segment of all files at once, until the pixels: the frame has the size, Exif may follow it."""
    places, found = starts[files] + 2, np.zeros((files.size, 2), np.int64)
    for _ in range(_MAX_SEGMENTS):
        inside = (places + _LONGEST_HEAD <= ends[files]) & (text[np.minimum(places, text.size - 1)] == 0xFF)
        files, places, found = files[inside], places[inside], found[inside]
        markers = text[places + 1]
        kinds = _KINDS[markers]
        scan, frame = kinds == _SCAN, kinds == _FRAME
        sizes[files[scan]] = found[scan]
        read[files[scan]] = places[scan] + _LONGEST_HEAD - starts[files[scan]]
        second = frame & found.any(axis=1)
        found[frame, 0] = _number(text, places[frame] + 5, 2)
        found[frame, 1] = _number(text, places[frame] + 7, 2)
        turning = (markers == _EXIF_SEGMENT) & np.isin(_number(text, places + 4, 4), _TURNING_SEGMENTS)
        goes_on = ((kinds == _SKIPPED) & ~turning) | (frame & ~second)
        files, places, found = files[goes_on], places[goes_on], found[goes_on]
        places = places + 2 + _number(text, places + 2, 2)
        if not files.size:
            return


def _matches(text, places, expected):
    return (text[places[:, None] + np.arange(expected.size)] == expected).all(axis=1)


def _number(text, places, width):
    """Big-endian whole numbers."""
    return text[places[:, None] + np.arange(width)].astype(np.int64) @ (256 ** np.arange(width - 1, -1, -1))
