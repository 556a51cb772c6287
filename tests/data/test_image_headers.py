import io

import numpy as np
import pytest
from PIL import Image

from keras_sphereface.data.image_headers import upright_sizes
from keras_sphereface.data.images import encode_jpeg, encode_png

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


def test_every_cut_of_a_file_is_harmless():
    data = encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    sizes = upright_sizes([data[:length] for length in range(len(data))])
    assert {tuple(size) for size in sizes.tolist()} == {(0, 0), (8, 8)}


def test_a_claim_of_a_huge_size_is_only_read():
    data = bytearray(encode_jpeg(np.zeros((8, 8, 3), np.uint8)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xff\xff\xfe"
    np.testing.assert_array_equal(upright_sizes([bytes(data)]), [[65535, 65534]])
