"""HEIC photos, as iPhones take them, by the optional package `pillow-heif`."""

import importlib
import io

# ISO 14496-12: a file begins with the box `ftyp`, whose major brand tells the kind; these are HEVC images (ISO 23008-12).
_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def is_heif(data):
    """Whether the bytes begin as a HEIC/HEIF file does."""
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS


def open_heif(data):
    """Opens the main picture of a HEIC file, turned as the file says; pixels are decoded later.

    Args:
        data: Bytes of the file.

    Returns:
        A `PIL.Image.Image`-like object with `size`, and `to_pillow()` that decodes.

    Raises:
        ValueError: If `pillow-heif` is not installed or refuses the file; the message says what to do.
    """
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError:
        raise ValueError(
            "a HEIC photo needs the package pillow-heif: python -m pip install 'keras_sphereface[faces]', or save it as JPEG"
        ) from None
    return pillow_heif.open_heif(io.BytesIO(data))
