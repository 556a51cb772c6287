import io

import numpy as np
import pytest
from PIL import Image

from keras_sphereface.data import images
from keras_sphereface.errors import FileFormatError


def save(image, image_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def ramp(height=6, width=5):
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def test_png_round_trip_is_exact(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(images.encode_png(ramp()))
    np.testing.assert_array_equal(images.read_image(path), ramp())


def test_jpeg_keeps_a_flat_colour():
    flat = np.full((16, 16, 3), (200, 30, 90), np.uint8)
    assert np.abs(images.decode_image(images.encode_jpeg(flat)).astype(int) - flat).max() <= 3


def test_greyscale_palette_and_alpha_become_rgb():
    grey = Image.fromarray(np.full((2, 2), 77, np.uint8))
    np.testing.assert_array_equal(images.decode_image(save(grey, "PNG")), np.full((2, 2, 3), 77))
    alpha = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    np.testing.assert_array_equal(images.decode_image(save(alpha, "PNG"))[0, 0], (10, 20, 30))
    palette = Image.new("RGB", (2, 2), (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(images.decode_image(save(palette, "PNG"))[1, 1], (10, 20, 30))


def test_cmyk_jpeg_becomes_rgb():
    data = save(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    red = images.decode_image(data)[4, 4]
    assert red[0] > 240
    assert red[1:].max() < 15


@pytest.mark.skipif("AVIF" not in images.FORMATS, reason="this Pillow reads no AVIF")
def test_avif_is_read_and_a_cut_one_named():
    data = save(Image.new("RGB", (64, 48), (200, 30, 90)), "AVIF", quality=95)
    decoded = images.decode_image(data)
    assert decoded.shape == (48, 64, 3)
    assert np.abs(decoded.astype(int) - (200, 30, 90)).max() <= 8
    for cut in (20, 200, len(data) - 9):
        with pytest.raises(FileFormatError, match=r"photo\.avif"):
            images.decode_image(data[:cut], "photo.avif")


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_32_bits_are_refused(dtype):
    """No range is theirs: a medical image and one of 0..1 look alike."""
    with pytest.raises(FileFormatError, match="pixels have no fixed range"):
        images.decode_image(save(Image.fromarray(np.ones((2, 2), dtype)), "TIFF"))


def test_16_bit_grey_keeps_the_high_byte():
    deep = Image.fromarray(np.array([[0, 0x8000], [0xFFFF, 0x1234]], np.uint16))
    np.testing.assert_array_equal(images.decode_image(save(deep, "PNG"))[..., 0], [[0, 0x80], [0xFF, 0x12]])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_bands_of_an_image_are_as_the_whole(mode, monkeypatch, rng):
    pixels = rng.integers(0, 256, (31, 17, 3), np.uint8)
    image = (
        Image.fromarray(pixels.astype(np.uint16)[..., 0] * 257)
        if mode == "I;16"
        else Image.fromarray(pixels).convert(mode)
    )
    data = save(image, "TIFF" if mode == "CMYK" else "PNG")
    whole = images.decode_image(data)
    monkeypatch.setattr(images, "_BAND", 50)
    np.testing.assert_array_equal(images.decode_image(data), whole)
    assert whole.shape == pixels.shape
    assert whole.std() > 20


def test_a_pillow_image_of_32_bits_is_taken_as_its_array_is():
    values = np.array([[0, 77], [200, 255]], np.uint8)
    found = images.as_image(Image.fromarray(values).convert("I"))
    np.testing.assert_array_equal(found, np.repeat(values[..., None], 3, axis=-1))
    deep = Image.fromarray(np.array([[0, 0x8000]], np.uint16))
    assert images.as_image(Image.open(io.BytesIO(save(deep, "PPM"))))[0, 1, 0] == 0x80  # 16 bits, as its file says
    with pytest.raises(ValueError, match=r"expected values of 0\.\.255\. Received: 0\.\.32768"):
        images.as_image(deep.convert("I"))


def test_exif_orientation_turns_the_image():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the row runs down: turn by 90 degrees clockwise
    picture = np.zeros((1, 2, 3), np.uint8)
    picture[0, 0] = 255
    turned = images.decode_image(save(Image.fromarray(picture), "PNG", exif=exif))
    np.testing.assert_array_equal(turned[..., 0], [[255], [0]])


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
def test_broken_bytes_are_named(data):
    with pytest.raises(FileFormatError, match="photo 7"):
        images.decode_image(data, "photo 7")


def test_a_truncated_jpeg_is_an_error():
    data = images.encode_jpeg(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    with pytest.raises(FileFormatError, match="truncated"):
        images.decode_image(data[: len(data) // 2])


def test_a_file_without_end_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 1000)
    with pytest.raises(FileFormatError, match="/dev/zero: has more than 1000 bytes, expected an image file"):
        images.read_image("/dev/zero")


def test_a_header_that_claims_too_many_pixels_is_refused_before_decoding():
    header = b"P6 60000 60000 255\n"
    with pytest.raises(FileFormatError, match=r"a\.ppm.*60000"):
        images.decode_image(header, "a.ppm")


def test_eps_is_not_opened():
    with pytest.raises(FileFormatError, match="cannot be decoded"):
        images.decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")


def test_decode_resized_only_touches_other_sizes():
    data = images.encode_png(ramp())
    np.testing.assert_array_equal(images.decode_resized(data, (6, 5)), ramp())
    flat = images.encode_png(np.full((50, 40, 3), 9, np.uint8))
    np.testing.assert_array_equal(images.decode_resized(flat, (11, 7)), np.full((11, 7, 3), 9))


def test_encoders_refuse_what_is_no_image():
    with pytest.raises(ValueError, match=r"shape=.*float32"):
        images.encode_png(np.zeros((2, 2, 3), np.float32))
    with pytest.raises(ValueError, match="quality=0"):
        images.encode_jpeg(ramp(), quality=0)
    with pytest.raises(ValueError, match="quality='a'"):
        images.encode_jpeg(ramp(), quality="a")


def test_what_is_wrong_with_a_pillow_image_names_it(monkeypatch):
    data = save(Image.fromarray(ramp(60, 50)), "JPEG")
    with pytest.raises(FileFormatError, match=r"holiday: cannot be decoded \(.*truncated"):
        images.as_image(Image.open(io.BytesIO(data[: len(data) // 2])), "holiday")
    monkeypatch.setattr(images, "MAX_PIXELS", 2999)
    with pytest.raises(FileFormatError, match="holiday: claims 50 x 60 pixels, more than the limit of 2999"):
        images.as_image(Image.open(io.BytesIO(data)), "holiday")
