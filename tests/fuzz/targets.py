"""What is fuzzed: for every reader a sound file to start from, and a function that reads everything out of a changed one."""

import dataclasses
import functools
import importlib.util
import io
import json
import pathlib
import pickle
import tempfile
import zipfile
from collections.abc import Callable

import h5py
import keras
import numpy as np

from keras_sphereface import data as faces
from keras_sphereface import model_folder, presets, safe_config, weights_file
from keras_sphereface.data.ijb import read_ijb
from keras_sphereface.data.images import decode_image, encode_jpeg, encode_png
from keras_sphereface.data.sources import read_property
from keras_sphereface.errors import FileFormatError

SMALL = 24_000_000  # bytes; a reader of a file of a few KB needs far less
AN_IMAGE = 260_000_000  # a photograph of 64 megapixels, the decoder's limit, and its bytes once more


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader.

    Args:
        seed: Makes the content of a sound file.
        read: Called with a folder of its own and a content; must raise nothing but `errors`.
        errors: What the reader promises to raise.
        memory: Bytes that it may take.
        examples: Changed files in the test suite.
        kind: How files are changed: `"bytes"`, `"text"` or `"json"`.
    """

    seed: Callable
    read: Callable
    errors: tuple = (FileFormatError,)
    memory: int = SMALL
    examples: int = 60
    kind: str = "bytes"


def picture(value=0):
    return np.full((8, 8, 3), value, np.uint8)


def in_folder(write, name):
    """The bytes of a file that `write(path)` makes."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / name
        write(path)
        return path.read_bytes()


def recordio(name):
    return in_folder(lambda path: faces.write_recordio(path.with_suffix(".rec"), _blobs(), [0, 0, 1, 1, 2]), name)


def _blobs():
    return [encode_png(picture(value)) for value in range(5)]


def read_all(dataset):
    """Every image of a data set, broken ones included, as training reads them."""
    for record in range(min(dataset.num_images, 50)):
        try:
            image, label = dataset.read(record)
        except FileFormatError:
            continue
        assert image.shape == (*dataset.image_size, 3)
        assert 0 <= label < dataset.num_classes


def read_rec(folder, content, index=None):
    (folder / "a.rec").write_bytes(content)
    if index is not None:
        (folder / "a.idx").write_bytes(index)
    dataset = faces.from_recordio(folder / "a.rec", max_bad=10)
    read_all(dataset)
    if dataset.num_images < 50:
        dataset.sequence(4)[0]


def read_idx(folder, content):
    read_rec(folder, recordio("a.rec"), content)


def read_tfrecord(folder, content):
    (folder / "a.tfrecord").write_bytes(content)
    read_all(faces.from_tfrecord(folder / "a.tfrecord"))


def tfrecord():
    return in_folder(lambda path: faces.write_tfrecord(path, _blobs(), [0, 0, 1, 1, 2], ["a", "b", "c"]), "a.tfrecord")


def read_property_file(folder, content):
    (folder / "property").write_bytes(content)
    read_property(folder / "property")


def pair_file(encoding):
    pairs = faces.PairSet.from_arrays(np.stack([picture(0), picture(9)]), [0, 0], [1, 0], [False, True])
    return in_folder(lambda path: faces.write_bin(path, pairs, encoding), "a.bin")


def evil_pickle():
    """A pickle that would run a command."""

    class Evil:
        def __reduce__(self):
            import os

            return os.system, ("touch /tmp/executed",)

    return pickle.dumps(([encode_png(picture()), Evil()], [True]), protocol=2)


def read_pairs(folder, content):
    (folder / "a.bin").write_bytes(content)
    _all_images(faces.read_bin(folder / "a.bin"))


def _all_images(pairs):
    for index in range(pairs.num_images):
        try:
            pairs.image(index)
        except FileFormatError:
            continue


def _lfw_images(folder):
    for person in ("Ann", "Bob"):
        (folder / person).mkdir()
        for count in (1, 2):
            (folder / person / f"{person}_{count:04d}.jpg").write_bytes(encode_jpeg(picture(40 * count)))


def read_lfw(folder, content):
    _lfw_images(folder)
    (folder / "pairs.txt").write_bytes(content)
    _all_images(faces.read_lfw(folder, folder / "pairs.txt"))


def read_list(layout):
    def read(folder, content):
        _lfw_images(folder)
        (folder / "list.txt").write_bytes(content)
        _all_images(faces.read_pair_list(folder, folder / "list.txt", layout=layout))

    return read


POINTS = "30 50 65 50 48 70 33 90 62 90"
CSV = "TEMPLATE_ID,SUBJECT_ID,FILENAME\n"
IJB = {
    "ijbc_face_tid_mid.txt": "1.jpg 1 100\n2.jpg 1 100\n3.jpg 2 200\n",
    "ijbc_name_5pts_score.txt": "".join(f"{number}.jpg {POINTS} 0.9\n" for number in (1, 2, 3)),
    "ijbc_template_pair_label.txt": "1 2 0\n1 1 1\n",
    "ijbc_1N_gallery_G1.csv": f"{CSV}1,11,img/1.jpg\n",
    "ijbc_1N_gallery_G2.csv": f"{CSV}2,22,img/3.jpg\n",
    "ijbc_1N_probe_mixed.csv": f"{CSV}1,11,img/1.jpg\n2,22,img/3.jpg\n",
}


def read_ijb_with(name):
    def read(folder, content):
        for other, text in IJB.items():
            (folder / other).write_text(text)
        (folder / name).write_bytes(content)
        read_ijb(folder, "ijbc")

    return read


def preset():
    return next(path for path in sorted(presets.FOLDER.glob("*.json"))).read_bytes()


def read_preset(folder, content):
    (folder / "a.json").write_bytes(content)
    presets.read(folder / "a.json")


@functools.cache
def model():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, activation="relu", name="conv")(keras.layers.Rescaling(1 / 127.5, -1.0)(inputs))
    x = keras.layers.BatchNormalization(name="norm")(x)
    outputs = keras.layers.Dense(3, name="dense")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.UnitNormalization()(outputs), name="tiny")


@functools.cache
def model_files():
    """The files of a model folder, without the checksums, which an attacker would make fit."""
    with tempfile.TemporaryDirectory() as folder:
        model_folder.write(model(), folder)
        return {name: (pathlib.Path(folder) / name).read_bytes() for name in model_folder.KERAS_FILES}


def read_model_with(name):
    def read(folder, content):
        for other, data in model_files().items():
            (folder / other).write_bytes(data)
        (folder / name).write_bytes(content)
        model_folder.read(folder)

    return read


def keras_file():
    return in_folder(model().save, "a.keras")


def compressed_keras_file():
    """A file whose parts are compressed, so that a change may make it claim any size."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in model_files().items():
            archive.writestr(name, content)
    return buffer.getvalue()


def read_keras(folder, content):
    (folder / "a.keras").write_bytes(content)
    model_folder.read_keras_file(folder / "a.keras")


def read_checksums(folder, content):
    (folder / "preset.json").write_bytes(content)
    model_folder.read_checksums(folder / "preset.json")


def checksums():
    with tempfile.TemporaryDirectory() as folder:
        return json.dumps(model_folder.write(model(), folder)).encode()


def weights():
    return in_folder(lambda path: weights_file.write(model(), path), "a.h5")


def read_weights(folder, content):
    (folder / "a.h5").write_bytes(content)
    weights_file.read(keras.models.clone_model(model()), folder / "a.h5")


def check_weights(folder, content):
    """What is looked at before Keras reads a file."""
    (folder / "a.h5").write_bytes(content)
    weights_file.check_hdf5(folder / "a.h5")
    with h5py.File(folder / "a.h5") as file:
        file.visititems(lambda name, item: None)


def check_config(folder, content):
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):
        return  # told by who parses
    safe_config.check(config, "config.json")


@functools.cache
def onnx_network():
    from onnx_networks import Network

    return Network().build().SerializeToString()


def read_onnx(folder, content):
    from keras_sphereface.conversion import onnx_iresnet
    from keras_sphereface.conversion.onnx_file import OnnxFile

    (folder / "m.onnx").write_bytes(content)
    onnx_iresnet.read(OnnxFile(folder / "m.onnx"))


@functools.cache
def onnx_transformer():
    from onnx_transformers import Transformer

    return Transformer(old=True).build().SerializeToString()


def read_onnx_transformer(folder, content):
    from keras_sphereface.conversion import onnx_sizes, onnx_vit
    from keras_sphereface.conversion.onnx_file import OnnxFile

    (folder / "m.onnx").write_bytes(content)
    file = OnnxFile(folder / "m.onnx")
    onnx_vit.read(file)
    onnx_sizes.check(file, (48, 48))


def build_of_onnx(folder, content):
    from keras_sphereface.conversion import onnx_network
    from keras_sphereface.conversion.onnx_file import OnnxFile

    (folder / "m.onnx").write_bytes(content)
    onnx_network.build(OnnxFile(folder / "m.onnx"))


PLAIN_LIST = "Ann/Ann_0001.jpg Ann/Ann_0002.jpg 1 0\nAnn/Ann_0001.jpg Bob/Bob_0002.jpg 0 1\n"
LABEL_FIRST = "1 Ann/Ann_0001.jpg Ann/Ann_0002.jpg\n0 Ann/Ann_0001.jpg Bob/Bob_0002.jpg\n"
IMAGE_LIST = "Ann/Ann_0001.jpg 1\nAnn/Ann_0002.jpg 1\nAnn/Ann_0001.jpg 0\nBob/Bob_0001.jpg 0\n"
SLOW = 12  # examples of readers that build a Keras model

TARGETS = {
    ".rec": Target(lambda: recordio("a.rec"), read_rec),
    ".rec with its index": Target(
        lambda: recordio("a.rec"), lambda folder, content: read_rec(folder, content, recordio("a.idx"))
    ),
    ".idx": Target(lambda: recordio("a.idx"), read_idx, kind="text"),
    "property": Target(lambda: b"3,8,8", read_property_file, kind="text"),
    ".tfrecord": Target(tfrecord, read_tfrecord),
    ".bin of files": Target(lambda: pair_file("jpeg"), read_pairs),
    ".bin of arrays": Target(lambda: pair_file("array"), read_pairs),
    ".bin with code": Target(evil_pickle, read_pairs),
    "jpeg": Target(lambda: encode_jpeg(picture(90)), lambda folder, content: decode_image(content), memory=AN_IMAGE),
    "png": Target(lambda: encode_png(picture(90)), lambda folder, content: decode_image(content), memory=AN_IMAGE),
    "pairs.txt": Target(lambda: b"1\t1\nAnn\t1\t2\nAnn\t1\tBob\t2\n", read_lfw, kind="text"),
    "list of pairs": Target(PLAIN_LIST.encode, read_list("pair"), kind="text"),
    "list, label first": Target(LABEL_FIRST.encode, read_list("label_first"), kind="text"),
    "list of images": Target(IMAGE_LIST.encode, read_list("image"), kind="text"),
    **{name: Target(text.encode, read_ijb_with(name), kind="text", examples=30) for name, text in IJB.items()},
    "preset": Target(preset, read_preset, kind="json"),
    "preset.json": Target(checksums, read_checksums, kind="json"),
    "config.json, checked": Target(lambda: model_files()["config.json"], check_config, kind="json", examples=150),
    "config.json": Target(
        lambda: model_files()["config.json"], read_model_with("config.json"), kind="json", examples=SLOW
    ),
    "config.json as text": Target(
        lambda: model_files()["config.json"], read_model_with("config.json"), kind="text", examples=SLOW
    ),
    "model.weights.h5": Target(
        lambda: model_files()["model.weights.h5"], read_model_with("model.weights.h5"), examples=SLOW
    ),
    ".keras": Target(keras_file, read_keras, examples=SLOW),
    ".keras, compressed": Target(compressed_keras_file, read_keras, examples=SLOW),
    ".h5": Target(weights, read_weights, examples=SLOW),
    ".h5, checked": Target(lambda: model_files()["model.weights.h5"], check_weights),
    **(
        {
            ".onnx": Target(onnx_network, read_onnx),
            ".onnx of a transformer": Target(onnx_transformer, read_onnx_transformer),
            ".onnx to layers": Target(onnx_network, build_of_onnx, examples=SLOW),
        }
        if importlib.util.find_spec("onnx")
        else {}
    ),
}
