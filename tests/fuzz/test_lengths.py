"""Files of a few KB that claim to hold 500 MB: refused, and nothing of that size is ever taken."""

import functools
import io
import json
import struct
import zipfile
import zlib

import h5py
import pytest
from targets import TARGETS, compressed_keras_file, in_folder, model_files, picture, recordio
from watch import bounded, resident_growth

from keras_sphereface.data import recordio_format, tfrecord_format
from keras_sphereface.data.images import encode_jpeg
from keras_sphereface.errors import FileFormatError

CLAIM = 500_000_000
TAKEN, RESIDENT = 4_000_000, 64_000_000  # bytes; the second counts everything in the process, libraries' code too


def rec():
    part = recordio_format.PART_HEADER.pack(recordio_format.MAGIC, CLAIM)
    return part + recordio_format.IMAGE_HEADER.pack(0, 1.0, 0, 0) + bytes(900)


def tfrecord():
    length = tfrecord_format.LENGTH.pack(CLAIM)
    return length + tfrecord_format.CHECKSUM.pack(tfrecord_format.masked_crc(length)) + bytes(900)


def pickled(opcode, size):
    """A .bin whose first value claims to be that long."""
    return b"\x80\x05" + opcode + CLAIM.to_bytes(size, "little") + bytes(900)


def png():
    side = 22_000  # 1.45 GB of pixels
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", len(header) - 4) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunks + bytes(900)


def jpeg():
    content = bytearray(encode_jpeg(picture()))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", 22_000, 22_000)
    return bytes(content)


def hdf5():
    """A data set of that size of which nothing is stored, in place of a weight."""

    def write(path):
        path.write_bytes(model_files()["model.weights.h5"])
        with h5py.File(path, "a") as file:
            names = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            del file[names[0]]
            file.create_dataset(names[0], (CLAIM // 4,), "float32")

    return in_folder(write, "a.h5")


def keras_archive():
    """An archive whose weights claim, in its table and in their own header, to unpack to that size."""
    content = bytearray(compressed_keras_file())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = archive.getinfo("model.weights.h5").file_size
    return bytes(content.replace(struct.pack("<I", size), struct.pack("<I", CLAIM)))


def config():
    """A dense layer with more weights than its file has."""
    value = json.loads(model_files()["config.json"])
    layer = next(layer for layer in value["config"]["layers"] if layer["class_name"] == "Dense")
    layer["config"]["units"] = CLAIM // 4
    return json.dumps(value).encode()


FILES = {
    ".rec": (".rec", rec),
    ".rec with its index": (".rec with its index", rec),
    ".tfrecord": (".tfrecord", tfrecord),
    ".bin, frame": (".bin of files", functools.partial(pickled, b"\x95", 8)),
    ".bin, bytes": (".bin of files", functools.partial(pickled, b"B", 4)),
    ".bin, long bytes": (".bin of files", functools.partial(pickled, b"\x8e", 8)),
    ".bin, bytearray": (".bin of files", functools.partial(pickled, b"\x96", 8)),
    ".bin, text": (".bin of files", functools.partial(pickled, b"X", 4)),
    ".bin, number": (".bin of files", functools.partial(pickled, b"\x8b", 4)),
    "png": ("png", png),
    "jpeg": ("jpeg", jpeg),
    ".h5": ("model.weights.h5", hdf5),
    ".h5, checked": (".h5, checked", hdf5),
    ".keras": (".keras", keras_archive),
    "config.json": ("config.json", config),
}


@pytest.mark.parametrize("name", FILES)
def test_a_claim_of_500_mb_takes_nothing(name, tmp_path):
    target, write = FILES[name]
    content = write()
    assert len(content) < 64_000
    recordio("a.rec")  # what is imported on first use is no part of the claim
    with resident_growth(RESIDENT), bounded(TAKEN), pytest.raises(FileFormatError):
        TARGETS[target].read(tmp_path, content)
