"""Image files and bytes to RGB uint8 arrays, and back, by Pillow."""

import inspect
import io
import os
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from keras_sphereface.arguments import is_number
from keras_sphereface.data import heif
from keras_sphereface.errors import FileFormatError, one_line
from keras_sphereface.files import read_at_most
from keras_sphereface.hints import Path, Size

# A picture in whatever form `as_image` takes.
Photo = Path | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray

# A photograph of 64 megapixels decodes to 192 MB: more than any face photo needs, less than would hurt a machine.
MAX_PIXELS = 64 * 1024 * 1024

# As many pixels with 16 bits of red, green, blue and alpha, not compressed. What is longer is another file, or has no end.
MAX_BYTES = 8 * MAX_PIXELS
_BAND = 1 << 20  # pixels that are converted at once

# Only raster formats: Pillow would hand an EPS file to Ghostscript, which runs programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
if "avif" in features.get_supported():  # Pillow from 11.3 on, as it is built
    FORMATS += ("AVIF",)

# Files whose 16-bit pixels Pillow may open in mode "I", of 32 bits, which elsewhere has no fixed range.
_SIXTEEN_BITS = ("PNG", "PPM")

# What Pillow raises on broken input, decompression bombs included.
_DECODE_ERRORS = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    EOFError,
    MemoryError,
    RuntimeError,
)


def decode_image(data: bytes, name: str = "") -> np.ndarray:
    """Decodes the bytes of an image file to RGB.

    Greyscale, palette, CMYK and 16-bit images are converted; an alpha channel is dropped; a photo is turned as its
    EXIF orientation says. The size in the header is checked before any pixel is decoded.

    Args:
        data: Bytes of a JPEG, PNG, BMP, GIF (first frame), WebP, TIFF or PPM file; of an AVIF file where Pillow takes it;
            of a HEIC photo where `pillow-heif` is installed (extra `[faces]`).
        name: What the image is called in an error message. Defaults to `""`.

    Returns:
        A uint8 array of shape `(height, width, 3)`, RGB.

    Raises:
        FileFormatError: If the bytes are not such an image, are truncated, or claim more than `MAX_PIXELS` pixels.

    Example:
    >>> decode_image(encode_png(np.zeros((2, 3, 3), "uint8"))).shape
    (2, 3, 3)
    """
    return _pixels(_open(data, name))


def check_size(size: Size, argument: str = "image_size") -> tuple[int, int]:
    """Returns `(height, width)` as ints.

    Raises:
        ValueError: If it is not two whole numbers of at least 1; the message names the argument.
    """
    sides = np.asarray(size)
    if sides.shape != (2,) or sides.dtype.kind not in "iu" or sides.min() < 1:
        raise ValueError(f"{argument} must be (height, width) in whole pixels. Received: {argument}={size!r}")
    return tuple(sides.tolist())


def decode_resized(data: bytes, image_size: Size, name: str = "") -> np.ndarray:
    """Decodes like `decode_image` and resizes to `image_size`, bilinear with antialiasing, where the size differs.

    Args:
        data: Bytes of an image file.
        image_size: `(height, width)` in pixels.
        name: What the image is called in an error message. Defaults to `""`.

    Returns:
        A uint8 array of shape `(*image_size, 3)`, RGB.

    Raises:
        FileFormatError: As `decode_image`.
    """
    image = _open(data, name)
    return _resized(image if image.mode == "RGB" else Image.fromarray(_pixels(image)), image_size)


def resize_image(array: np.ndarray, image_size: Size) -> np.ndarray:
    """Resizes as `decode_resized` does.

    Args:
        array: uint8 array of shape `(height, width, 3)`, RGB.
        image_size: `(height, width)` in pixels.

    Returns:
        A uint8 array of shape `(*image_size, 3)`.
    """
    return _resized(Image.fromarray(array), image_size)


def _resized(image, image_size):
    height, width = image_size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image, dtype=np.uint8)


def read_file(path: Path) -> bytes:
    """Reads the bytes of an image file, and no more than an image can have.

    Args:
        path: Path of the file.

    Returns:
        Its bytes, as they are.

    Raises:
        FileFormatError: If there are more than `MAX_BYTES`.
        FileNotFoundError: If there is no such file.
    """
    with open(path, "rb") as file:
        return _read(file, os.fspath(path))


def _read(file, name):
    """The bytes of an open file from where it stands."""
    data = read_at_most(file, MAX_BYTES)
    if len(data) > MAX_BYTES:
        raise FileFormatError(f"{name}: has more than {MAX_BYTES} bytes, expected an image file. Reduce or remove it.")
    return data


def read_image(path: Path) -> np.ndarray:
    """Reads an image file as `decode_image` does.

    Args:
        path: Path of the file.

    Returns:
        A uint8 array of shape `(height, width, 3)`, RGB.

    Raises:
        FileFormatError: If the file is not an image that `decode_image` takes, or longer than `read_file` reads.
        FileNotFoundError: If there is no such file.

    Example:
    >>> image = keras_sphereface.data.read_image("photo.jpg")
    >>> height, width, _ = image.shape
    """
    return decode_image(read_file(path), os.fspath(path))


def as_image(source: Photo, name: str = "") -> np.ndarray:
    """Takes an image in whatever form it comes.

    Args:
        source: Path or bytes of an image file, or one that is open for reading in binary, e.g. an upload; a Pillow image, in
            mode "I" of 0..255; or an array of 0..255, uint8 or float, uint16 with its full range: `(h, w)`, `(h, w, 1)`,
            `(h, w, 3)` RGB or `(h, w, 4)` with alpha.
        name: What the image is called in an error message. Defaults to `""`: its path, or its shape.

    Returns:
        A uint8 array of shape `(height, width, 3)`, RGB.

    Raises:
        FileFormatError: If a file is not an image that `decode_image` takes.
        FileNotFoundError: If there is no such file.
        ValueError: If an array is not an image.
        TypeError: If it is something else.

    Example:
    >>> as_image(np.zeros((2, 3), "uint8")).shape
    (2, 3, 3)
    """
    if isinstance(source, str | os.PathLike):
        return read_image(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return decode_image(bytes(source), name)
    if isinstance(source, Image.Image):
        return _pillow_to_rgb(source, name or "image")
    if is_open_file(source):
        return decode_image(_read(source, name or "image"), name)
    if isinstance(source, np.ndarray):
        return _array_to_rgb(source, name or "image")
    raise TypeError(
        "Expected an image as a path, bytes, a file open in binary, a Pillow image or a NumPy array. "
        f"Received: {type(source).__name__}{f' for {name}' if name else ''}"
    )


def is_open_file(source: object) -> bool:
    """Whether this is a file that is open for reading in binary, or reads like one, e.g. `io.BytesIO` or an upload's."""
    read = getattr(source, "read", None)
    return callable(read) and not inspect.iscoroutinefunction(read) and not isinstance(source, io.TextIOBase)


def _pillow_to_rgb(image, name):
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(name, width, height)
    try:  # Pillow reads the pixels now, where it has only opened a file.
        upright = ImageOps.exif_transpose(image)
        if image.mode != "I" or image.format in _SIXTEEN_BITS:
            return _pixels(_checked(upright))
        array = np.array(upright)
    except _DECODE_ERRORS as error:
        raise FileFormatError(f"{name}: cannot be decoded ({one_line(error)}). Replace or remove it.") from error
    return _array_to_rgb(array, name)


def _too_large(name, width, height):
    return FileFormatError(
        f"{name}: claims {width} x {height} pixels, more than the limit of {MAX_PIXELS}. Reduce or remove it."
    )


def _array_to_rgb(array, name):
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or array.size == 0:
        raise ValueError(
            f"{name}: expected an array (height, width), with 1, 3 (RGB) or 4 channels behind. "
            f"Received: shape={array.shape}. Give one image at a time, channels last"
        )
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    elif array.dtype.kind in "fiu" and array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 255) or (array.dtype.kind == "f" and 0 < high <= 1):
            raise ValueError(f"{name}: expected values of 0..255. Received: {low:g}..{high:g}. Scale them first")
        array = np.rint(array).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(f"{name}: expected uint8 or float values. Received: dtype={array.dtype}")
    return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else np.ascontiguousarray(array[..., :3])


def encode_jpeg(array: np.ndarray, quality: int = 95) -> bytes:
    """Encodes an image as JPEG (4:4:4 from quality 90 on, else 4:2:0).

    Args:
        array: uint8 array of shape `(height, width, 3)`, RGB.
        quality: 1 to 100. Defaults to 95.

    Returns:
        The bytes of the file.

    Raises:
        ValueError: If the array is not such an image or the quality is out of range.

    Example:
    >>> data = keras_sphereface.data.encode_jpeg(np.zeros((112, 96, 3), "uint8"), quality=90)
    >>> keras_sphereface.data.decode_image(data).shape
    (112, 96, 3)
    """
    if not is_number(quality) or not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality must be between 1 and 100. Received: quality={quality!r}")
    chroma = "4:4:4" if quality >= 90 else "4:2:0"
    return _encode(array, "JPEG", quality=int(quality), subsampling=chroma)


def encode_png(array: np.ndarray) -> bytes:
    """Encodes an image as PNG, without loss.

    Args:
        array: uint8 array of shape `(height, width, 3)`, RGB.

    Returns:
        The bytes of the file.

    Raises:
        ValueError: If the array is not such an image.

    Example:
    >>> image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), "uint8")
    >>> bool((keras_sphereface.data.decode_image(keras_sphereface.data.encode_png(image)) == image).all())
    True
    """
    return _encode(array, "PNG")


def _open(data, name):
    """A Pillow image, upright and decoded."""
    label = name or f"image of {len(data)} bytes"
    if not data:
        raise FileFormatError(f"{label}: holds no bytes, expected an image file. Remove or replace it.")
    try:
        is_heif = heif.is_heif(data)
        image = heif.open_heif(data) if is_heif else Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if (image.mode, getattr(image, "format", None)) == ("I", "TIFF"):  # 16-bit ones are "I;16"
            raise ValueError("signed and 32-bit pixels have no fixed range")
        if width * height <= MAX_PIXELS:
            if is_heif:
                return _checked(image.to_pillow())
            ImageOps.exif_transpose(image, in_place=True)  # which would else copy those that are upright, too
            return _checked(image)
    except _DECODE_ERRORS as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "of no known kind" if unknown else one_line(error)
        raise FileFormatError(
            f"{label}: cannot be decoded as an image ({reason}). "
            f"Expected one of {', '.join(FORMATS)}, HEIC. Replace or remove it."
        ) from error
    raise _too_large(label, width, height)


def _checked(image):
    """The image, decoded; `ValueError` if its numbers are not of a known range."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range")
    image.load()
    return image


def _pixels(image):
    """The image as a uint8 array of RGB, band by band: all at once Pillow would copy it several times."""
    width, height = image.size
    array = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        band = image if rows >= height else image.crop((0, top, width, min(top + rows, height)))
        array[top : top + rows] = _to_rgb(band)
    return array


def _to_rgb(image):
    if image.mode.startswith("I"):  # 16-bit greyscale, which Pillow's own conversion would clip at 255
        return (np.asarray(image, dtype=np.int64) >> 8).clip(0, 255)[..., None]
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _encode(array, image_format, **options):
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or array.size == 0:
        raise ValueError(
            "An image must be a uint8 array of shape (height, width, 3). "
            f"Received: shape={array.shape}, dtype={array.dtype}"
        )
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, image_format, **options)
    return buffer.getvalue()
