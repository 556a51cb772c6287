import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_sphereface.data.image_headers import UprightSizes, upright_sizes
from keras_sphereface.data.images import decode_image, encode_jpeg, encode_png

pytestmark = pytest.mark.core


def saved(size, image_format, **options):
    buffer = io.BytesIO()
    Image.new("RGB", size[::-1]).save(buffer, image_format, **options)
    return buffer.getvalue()


def turned(size):
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(size, "JPEG", exif=exif)


def test_sizes_of_many_files_at_once():
    sizes = [(112, 112), (3, 5), (300, 2), (112, 96)]
    files = [
        saved((112, 112), "JPEG", progressive=True),
        encode_png(np.zeros((3, 5, 3), np.uint8)),
        saved((300, 2), "JPEG", comment="x" * 2000),  # a segment in front of the frame
        encode_jpeg(np.zeros((112, 96, 3), np.uint8)),
    ]
    np.testing.assert_array_equal(upright_sizes(files), sizes)


def png_chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png_with(*chunks, behind=False):
    """A PNG of 8 x 9 pixels, white above and black below, with more chunks before or behind its pixels."""
    array = np.zeros((8, 9, 3), np.uint8)
    array[:4] = 255
    data = encode_png(array)
    place = data.index(b"IEND" if behind else b"IDAT") - 4
    return data[:place] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[place:]


HALF_TURN = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\3\0\0\0\0\0\0"  # TIFF, one entry: orientation 3
XMP = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="3"/>'
RAW_PROFILE = b"\nexif\n%8d\n" % (len(HALF_TURN) + 6) + (b"Exif\0\0" + HALF_TURN).hex().encode() + b"\n"
TURNED_PNGS = {
    "exif": png_with((b"eXIf", HALF_TURN)),
    "exif behind": png_with((b"eXIf", HALF_TURN), behind=True),
    "xmp": png_with((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
    "profile": png_with((b"tEXt", b"Raw profile type exif\0" + RAW_PROFILE)),
    "packed profile": png_with((b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(RAW_PROFILE))),
}


@pytest.mark.parametrize("data", TURNED_PNGS.values(), ids=TURNED_PNGS)
def test_a_png_that_pillow_turns_has_no_size(data):
    assert decode_image(data)[-1].min() == 255
    np.testing.assert_array_equal(upright_sizes([data, png_with()]), [[0, 0], [8, 9]])


def test_other_chunks_and_many_chunks_do_not_matter():
    texts = [(b"tEXt", b"Software\0ours"), (b"iTXt", b"Title\0\0\0\0\0none"), (b"pHYs", bytes(9))]
    files = [png_with(*texts), png_with(*texts, behind=True), png_with(*[(b"tEXt", b"a\0")] * 40)]
    np.testing.assert_array_equal(upright_sizes(files), [[8, 9]] * 3)


def test_a_jpeg_with_xmp_has_no_size():
    data = saved((8, 9), "JPEG", xmp=XMP)
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 3
    np.testing.assert_array_equal(upright_sizes([data]), [[0, 0]])


def jpeg_with(segment, in_front_of, size=(8, 9)):
    """A JPEG, white above and black below, with one more segment in front of another."""
    array = np.zeros((*size, 3), np.uint8)
    array[: size[0] // 2] = 255
    data = encode_jpeg(array)
    place = data.index(in_front_of)
    return data[:place] + segment + data[place:]


FRAME, SCAN = b"\xff\xc0", b"\xff\xda"
EXIF_SEGMENT = b"\xff\xe1" + struct.pack(">H", len(HALF_TURN) + 8) + b"Exif\0\0" + HALF_TURN


@pytest.mark.parametrize("place", [FRAME, SCAN])
def test_a_jpeg_that_exif_turns_has_no_size_wherever_the_block_stands(place):
    data = jpeg_with(EXIF_SEGMENT, place)
    assert decode_image(data)[-1].min() > 200
    remembering = UprightSizes()
    np.testing.assert_array_equal(remembering([jpeg_with(b"", place)] * 3), [[8, 9]] * 3)
    np.testing.assert_array_equal(remembering([data, jpeg_with(b"", place)]), [[0, 0], [8, 9]])


FAKE_FRAME = b"\xff\xc0\0\x11\x08\0\x08\0\x09" + b"\x03\x01\x11\0\x02\x11\0\x03\x11\0"
FAKE_SCAN = b"\xff\xda\0\x0c\x03" + bytes(9)
STRANGE = {
    "fill byte": b"\xff",
    "no length": b"\xff\xd0",
    "start again": b"\xff\xd8",
    "zero": b"\xff\0",
    "temporary": b"\xff\x01",
    "reserved": b"\xff\xf0\0\x04ab",
    "frame": FAKE_FRAME,
}


@pytest.mark.parametrize("segment", STRANGE.values(), ids=STRANGE)
def test_a_jpeg_with_a_strange_header_has_no_size(segment):
    for place in (FRAME, SCAN):
        np.testing.assert_array_equal(
            upright_sizes([jpeg_with(segment, place), jpeg_with(b"", place)]), [[0, 0], [8, 9]]
        )


def test_a_small_frame_behind_a_fill_byte_does_not_hide_a_huge_one():
    """Really it stands inside a comment; who reads FF FF as a marker, and FE FF as its length, lands on it."""
    huge, length = jpeg_with(b"", FRAME, (2000, 3000)), 0xFFF0
    content = (bytes(0xFEFF - 3) + FAKE_FRAME + FAKE_SCAN).ljust(length - 2, b"\0")
    place = huge.index(FRAME)
    data = huge[:place] + b"\xff\xff\xfe" + struct.pack(">H", length) + content + huge[place:]
    assert decode_image(data).shape == (2000, 3000, 3)
    np.testing.assert_array_equal(upright_sizes([data]), [[0, 0]])


@pytest.mark.parametrize("chunk", [b"\xff\xff\xff\xfftEXt", b"\0\0\0\0tEXt", b"\x7f\xff\xff\xffIDAT"])
def test_hostile_lengths_of_chunks(chunk):
    start = png_with().index(b"IDAT") - 4
    data = png_with()[:start] + chunk * 300
    np.testing.assert_array_equal(upright_sizes([data, png_with(), data]), [[0, 0], [8, 9], [0, 0]])


OTHERS = {
    "empty": b"",
    "start": b"\xff\xd8",
    "png": b"\x89PNG",
    "endless": b"\xff\xd8" + b"\xff\xe0\0\2" * 40,
    "ones": b"\xff" * 99,
    "bmp": saved((8, 8), "BMP"),
    "turned": turned((8, 9)),
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_others_have_no_size(data):
    good = encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    np.testing.assert_array_equal(upright_sizes([data, good, data]), [[0, 0], [8, 8], [0, 0]])


@pytest.mark.parametrize("encode", [encode_jpeg, encode_png])
def test_every_cut_of_a_file_is_harmless(encode):
    data = encode(np.zeros((8, 8, 3), np.uint8))
    sizes = upright_sizes([data[:length] for length in range(len(data) + 1)])
    assert {tuple(size) for size in sizes.tolist()} == {(0, 0), (8, 8)}


def test_a_claim_of_a_huge_size_is_only_read():
    data = bytearray(encode_jpeg(np.zeros((8, 8, 3), np.uint8)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xff\xff\xfe"
    np.testing.assert_array_equal(upright_sizes([bytes(data)]), [[65535, 65534]])


def test_what_is_remembered_of_jpegs_changes_no_size():
    rng = np.random.default_rng(0)
    plain = [encode_jpeg(rng.integers(0, 256, (8, 9, 3), np.uint8)) for _ in range(4)]
    start = plain[0].index(b"\xff\xda") + 10  # as much as is remembered
    broken = []
    for place in rng.integers(2, start, 40):
        data = bytearray(plain[0])
        data[place] ^= int(rng.integers(1, 256))
        broken.append(bytes(data))
    others = [
        saved((8, 9), "JPEG", quality=50),
        saved((7, 9), "JPEG"),
        png_with(),
        plain[0][:start],
        plain[0][: start - 1],
    ]
    files = plain * 20 + broken + [*OTHERS.values(), *TURNED_PNGS.values()] + others
    remembering = UprightSizes()
    for _ in range(30):
        batch = [files[number] for number in rng.integers(0, len(files), int(rng.integers(1, 30)))]
        np.testing.assert_array_equal(remembering(batch), upright_sizes(batch))


def test_one_encoder_is_walked_once(monkeypatch):
    remembering = UprightSizes()
    files = [encode_jpeg(np.full((8, 9, 3), value, np.uint8)) for value in range(6)]
    remembering(files[:2])
    monkeypatch.setattr("keras_sphereface.data.image_headers._walk", None)
    np.testing.assert_array_equal(remembering(files[2:]), [[8, 9]] * 4)
