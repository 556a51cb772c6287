"""Models as people save them: compiled, trained, for Keras alone; and files that are wrong in one place."""

import errno
import json
import os
import struct
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest

from keras_sphereface import (
    FaceClassifier,
    Recognizer,
    backbones,
    heads,
    load_pretrained,
    model_card,
    model_folder,
    safe_config,
    weights_file,
)
from keras_sphereface.embedder import build_embedder
from keras_sphereface.errors import FileFormatError
from keras_sphereface.files import read_json

IMAGES = np.random.default_rng(0).integers(0, 256, size=(3, 32, 32, 3), dtype="uint8")
SMALL = {"embedding_dim": 8, "input_shape": (32, 32, 3)}
# Real networks, small: one with every own layer of this package, one of each kind without.
BACKBONES = {
    "iresnet18": {"channels": (4, 8, 8, 12)},
    "mobilefacenet": {"width": 0.125, "bottlenecks": ((2, 64, 2, 2), (4, 128, 1, 2))},
    "patch_sfnet": {"units": (1, 1, 1)},
    "sfnet4": {"channels": (4, 4, 8, 8), "batch_norm": True},
}


def backbone(name="tiny"):
    return backbones.SFNet((0, 0, 0, 0), channels=(4, 4, 8, 8), name=name, **SMALL)


def embeddings(model, images=IMAGES):
    return keras.ops.convert_to_numpy(model(images, training=False))


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def own_loss(y_true, y_pred):
    return keras.ops.mean(y_true - y_pred)


class OwnOptimizer(keras.optimizers.SGD):
    pass


COMPILED = {
    "optimizer and loss": lambda model: model.compile("sgd", "mse"),
    "no arguments": lambda model: model.compile(),
    "own loss": lambda model: model.compile("sgd", own_loss),
    "own optimizer": lambda model: model.compile(OwnOptimizer(), "mse"),
}


@pytest.fixture
def changed(tmp_path):
    """Writes a model folder, has its configuration or its first weight changed, and returns its path."""

    def call(config=lambda content: None, weight=lambda array: array):
        folder = tmp_path / "m"
        model_folder.write(backbone(), folder)
        (folder / "preset.json").unlink()
        content = json.loads((folder / "config.json").read_text())
        config(content)
        (folder / "config.json").write_text(json.dumps(content))
        with h5py.File(folder / "model.weights.h5", "a") as file:
            variables = file["layers/conv2d/vars"]
            value = weight(variables["0"][()])
            del variables["0"]
            variables["0"] = value
        return folder

    return call


@pytest.mark.core
@pytest.mark.parametrize("kind", COMPILED)
@pytest.mark.parametrize("form", ["m.keras", "folder"])
def test_compiled_models(kind, form, tmp_path):
    model = build_embedder(backbone())
    COMPILED[kind](model)
    keras.saving.save_model(model, tmp_path / form, zipped=form.endswith(".keras"))
    loaded = load_pretrained(tmp_path / form)
    assert not loaded.compiled
    np.testing.assert_allclose(embeddings(loaded), embeddings(model), atol=1e-6)


def test_a_trained_classifier(tmp_path):
    """With the optimizer's state in the file."""
    trainer = FaceClassifier(backbone(), heads.SphereFaceR(5))
    trainer.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    trainer.fit(IMAGES, np.array([0, 1, 2]), verbose=0)
    trainer.save(tmp_path / "t.keras")
    expected = embeddings(trainer.embedder)
    np.testing.assert_allclose(embeddings(load_pretrained(tmp_path / "t.keras")), expected, atol=1e-6)


def test_a_recognizer_of_a_compiled_model(tmp_path, rng):
    crops = rng.integers(0, 256, size=(2, 112, 112, 3), dtype="uint8")
    model = build_embedder(backbones.SFNet((0, 0, 0, 0), channels=(4, 4, 8, 8), embedding_dim=8))
    model.compile("sgd", "mse")
    model.save(tmp_path / "m.keras")
    found = Recognizer(tmp_path / "m.keras", detector=None, flip="none").embed(list(crops))
    np.testing.assert_allclose(found, embeddings(model, crops), atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda inner: FaceClassifier(inner, heads.SphereFaceR(5)), build_embedder])
@pytest.mark.parametrize("kind", ["optimizer and loss", "own optimizer"])
@pytest.mark.parametrize("form", ["m.keras", "folder"])
def test_compiled_models_inside(wrap, kind, form, tmp_path):
    inner = backbone()
    COMPILED[kind](inner)
    keras.saving.save_model(wrap(inner), tmp_path / form, zipped=form.endswith(".keras"))
    expected = embeddings(build_embedder(inner))
    before = content(tmp_path)
    np.testing.assert_allclose(embeddings(load_pretrained(tmp_path / form)), expected, atol=1e-6)
    assert content(tmp_path) == before


@pytest.mark.parametrize("kind", COMPILED)
def test_how_a_model_was_compiled_is_not_published(kind, tmp_path):
    """Keras would look up what others do not have."""
    model = build_embedder(backbone())
    COMPILED[kind](model)
    model_folder.write(model, tmp_path)
    assert "compile_config" not in (tmp_path / "config.json").read_text()
    with h5py.File(tmp_path / "model.weights.h5") as file:
        assert "optimizer" not in file
    np.testing.assert_allclose(embeddings(keras.saving.load_model(tmp_path)), embeddings(model), atol=1e-6)


def test_nothing_of_how_a_model_was_compiled_is_looked_up(changed):
    """Neither of the model itself nor of one inside it."""
    built = []

    @keras.saving.register_keras_serializable(package="elsewhere")
    class Trap(keras.metrics.Mean):
        def __init__(self, **kwargs):
            built.append(self)
            super().__init__(**kwargs)

    trap = keras.saving.serialize_keras_object(Trap())
    built.clear()

    def add(config):
        config["compile_config"] = {"optimizer": "sgd", "loss": "mse", "metrics": [trap]}
        config["config"]["layers"][1]["compile_config"] = {"optimizer": trap}

    assert load_pretrained(changed(add)).output_shape == (None, 8)
    assert built == []


def test_code_beside_the_word_compile_config_is_refused(changed):
    """Only where Keras would compile is it left out; elsewhere it is a key like others."""

    def add(config):
        config["config"]["extra"] = {"compile_config": {"class_name": "system", "module": "os", "config": {}}}

    with pytest.raises(FileFormatError, match="refused to build 'system' of module 'os'"):
        load_pretrained(changed(add))


def test_keras_alone_reads_all_backbones(tmp_path):
    """In a process of its own, without this package; batch statistics and slopes are not those of new layers."""
    expected = {}
    random = np.random.default_rng(1)
    for name, arguments in BACKBONES.items():
        model = backbones.get(name, **SMALL, **arguments)
        model.set_weights([value + random.uniform(0, 0.1, value.shape) for value in model.get_weights()])
        assert model_folder.write(model, tmp_path / name)["keras_alone"]
        expected[name] = embeddings(build_embedder(model))
        np.testing.assert_allclose(embeddings(load_pretrained(tmp_path / name)), expected[name], atol=1e-6)
    np.save(tmp_path / "images.npy", IMAGES)
    program = (
        "import sys, keras, numpy as np\n"
        "images = np.load('images.npy')\n"
        f"for name in {list(BACKBONES)}:\n"
        "    model = keras.saving.load_model(name)\n"
        "    np.save(name + '.npy', keras.ops.convert_to_numpy(model(images, training=False)))\n"
        "assert 'keras_sphereface' not in sys.modules\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, env=environment, timeout=300)
    for name in BACKBONES:
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected[name], atol=1e-6, err_msg=name)


def test_writing_leaves_the_model_as_it_is(tmp_path):
    """Training goes on with this package's layers, whose kernels are faster."""
    model = backbones.get("iresnet18", **SMALL, **BACKBONES["iresnet18"])
    model_folder.write(model, tmp_path)
    own = [layer for layer in model.layers if type(layer).__module__.startswith("keras_sphereface")]
    assert {type(layer).__name__ for layer in own} == {"BatchNormalization", "Conv2D", "MaxPooling2D", "PReLU"}


def test_the_card_promises_keras_alone_only_where_that_is_so(tmp_path):
    images = keras.Input((32, 32, 3))
    x = keras.layers.Flatten()(images)
    for outputs, alone in [(keras.layers.Dense(4)(x), True), (heads.SphereFaceR(4)(keras.layers.Dense(3)(x)), False)]:
        description = model_folder.write(keras.Model(images, outputs), tmp_path)
        assert description["keras_alone"] == alone
        text = model_card.render(model_card.Card(), "me/faces", description)
        assert ('Without this package: `keras.saving.load_model("hf://me/faces")`' in text) == alone


def scale_of(**array):
    def change(config):
        config["config"]["layers"][1]["config"]["scale"] = {"class_name": array.pop("kind"), "config": array}

    return change


@pytest.mark.parametrize("kind", ["__numpy__", "__tensor__"])
@pytest.mark.parametrize("dtype", ["U500000000", "S9", "V900000000", "object", "complex64", "O", "f4,U9", None, [], {}])
def test_arrays_of_other_things_than_numbers_are_refused(changed, kind, dtype):
    """A text of 500 million letters is 2 GB, of which the file has one."""
    with pytest.raises(FileFormatError, match=r"refused to build an array of dtype .* expected numbers"):
        load_pretrained(changed(scale_of(kind=kind, value="a", dtype=dtype)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64", "bool", "bfloat16", "float8_e4m3fn"])
def test_arrays_of_numbers_are_checked_by_keras(dtype):
    array = {"class_name": "__numpy__", "config": {"value": [1], "dtype": dtype}}
    safe_config.check({"class_name": "Model", "module": "keras", "config": array}, "config.json")


def test_a_layer_with_an_array(tmp_path):
    images = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(np.array([1.0, 0.5, 0.25]))(images)
    model = build_embedder(keras.Model(images, keras.layers.Dense(4)(keras.layers.Flatten()(x))))
    model.save(tmp_path / "m.keras")
    assert "__numpy__" in json.dumps(keras.saving.serialize_keras_object(model))
    np.testing.assert_allclose(embeddings(load_pretrained(tmp_path / "m.keras")), embeddings(model), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ([-2, -3], 6),
        ([2.0, 3.0], 6),
        ([True, 6], 6),
        ([[6]], 6),
        ([-1, -1], 1),
        (["6"], 6),
        ("6", 6),
        (6, 6),
        (None, 1),
    ],
)
def test_shapes_in_the_index_are_lists_of_sizes(tmp_path, shape, count):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["format"] = weights_file.FORMAT_VERSION
        file["index"] = np.frombuffer(json.dumps([["a", shape]]).encode(), np.uint8)
        file["values"] = np.zeros(count, "float32")
    with pytest.raises(FileFormatError, match=r"m\.h5: `index` or `values` is broken \(shape .* Get the file again"):
        weights_file.read(backbone(), tmp_path / "m.h5")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(changed, tmp_path, value):
    def spoil(array):
        array[0, 0, 0, 0] = value
        return array

    folder = changed(weight=spoil)
    with pytest.raises(FileFormatError, match=r"m: the weight .*/kernel holds values that are not finite"):
        load_pretrained(folder)
    model = build_embedder(backbone("spoiled"))
    model.save(tmp_path / "good.keras")
    assert load_pretrained(tmp_path / "good.keras").name == "spoiled_embedder"
    model.set_weights([spoil(array) if array.ndim == 4 else array for array in model.get_weights()])
    model.save(tmp_path / "bad.keras")
    with pytest.raises(FileFormatError, match=r"bad\.keras: the weight .* not finite"):
        load_pretrained(tmp_path / "bad.keras")
    with pytest.raises(FileFormatError, match=r"spoiled_embedder: the weight .* not finite.* train again"):
        model_folder.write(model, tmp_path / "published")
    assert not (tmp_path / "published" / "config.json").exists()


def test_a_wrong_shape_is_told_with_both_shapes(changed):
    folder = changed(weight=lambda array: np.pad(array, [(0, 0), (0, 0), (0, 0), (0, 1)]))
    with pytest.raises(FileFormatError, match=r"could not load the whole model.*3, 3, 3, 4\D.*3, 3, 3, 5\D") as info:
        load_pretrained(folder)
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 1000


def test_where_links_are_not_allowed_weights_are_copied(changed, monkeypatch):
    folder = changed()
    expected = embeddings(load_pretrained(folder))

    def refuse(self, target):
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    np.testing.assert_allclose(embeddings(load_pretrained(folder)), expected, atol=1e-6)


def test_layers_that_were_tuned_by_lora(tmp_path):
    """Keras keeps the tuned weights, and asks for two factors that the file does not have."""
    images = keras.Input((8, 8, 3))
    dense = keras.layers.Dense(4)
    model = build_embedder(keras.Model(images, dense(keras.layers.Flatten()(images))))
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))
    crops = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(model(crops))
    model.save(tmp_path / "m.keras")
    model_folder.write(model, tmp_path / "folder")
    for path in (tmp_path / "m.keras", tmp_path / "folder"):
        embeddings = keras.ops.convert_to_numpy(load_pretrained(path)(crops))
        np.testing.assert_allclose(embeddings, expected, atol=1e-5)


def test_data_sets_that_share_their_bytes_are_refused(tmp_path):
    """Each has as many bytes as it claims; together they claim more than the file has."""
    path = tmp_path / "shared.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        real = file.create_dataset("real", data=np.ones((100, 100), "float32"))
        address = struct.pack("<Q", real.id.get_offset())
        for number in range(3):  # never written: the file has no address for them yet
            file.create_dataset(f"shared_{number}", shape=(100, 100), dtype="float32")
    size = struct.pack("<Q", 40_000)
    unwritten = b"\x03\x01" + b"\xff" * 8 + size
    content = path.read_bytes()
    assert content.count(unwritten) == 3
    path.write_bytes(content.replace(unwritten, b"\x03\x01" + address + size))
    with h5py.File(path) as file:
        assert file["shared_2"][0, 0] == 1
    with pytest.raises(FileFormatError, match=r"the source: claims 160000 bytes, but has \d+ in all"):
        weights_file.check_hdf5(path, "the source")


@pytest.mark.parametrize("statistics", [{"mean": 0.0, "variance": 1.0}, {}])
def test_a_normalization_layer_takes_no_memory_before_it_is_counted(changed, statistics):
    """Keras makes its scale when it is built, in the size of its input: here four billion numbers."""

    def config(content):
        content["config"]["layers"] = [
            layer("InputLayer", "i", {"batch_shape": [None, 2, 2, 4 * 10**9], "dtype": "float32"}, []),
            layer("Normalization", "n", {"axis": -1, **statistics}, [{"args": [tensor], "kwargs": {}}]),
        ]
        content["config"].update(input_layers=[["i", 0, 0]], output_layers=[["n", 0, 0]])

    def layer(kind, name, arguments, inbound):
        arguments = {"name": name, **arguments}
        return {
            "module": "keras.layers",
            "class_name": kind,
            "config": arguments,
            "name": name,
            "inbound_nodes": inbound,
        }

    history = {"shape": [None, 2, 2, 4 * 10**9], "dtype": "float32", "keras_history": ["i", 0, 0]}
    tensor = {"class_name": "__keras_tensor__", "config": history}
    with pytest.raises(FileFormatError, match=r"its configuration asks for 8000000000 weights, the file holds"):
        load_pretrained(changed(config))


@pytest.mark.parametrize(
    "arguments",
    [{"mean": [1.0, 2.0, 3.0], "variance": [4.0, 5.0, 6.0]}, {"axis": None, "mean": 3.0, "variance": 2.0}, {}],
)
def test_normalization_layers_are_loaded(arguments, tmp_path):
    images = keras.Input((8, 8, 3))
    normalization = keras.layers.Normalization(**arguments)
    if not arguments:
        normalization.adapt(IMAGES.astype("float32"))
    model = build_embedder(keras.Model(images, keras.layers.Dense(4)(keras.layers.Flatten()(normalization(images)))))
    model.save(tmp_path / "m.keras")
    crops = IMAGES[:, :8, :8]
    np.testing.assert_allclose(
        embeddings(load_pretrained(tmp_path / "m.keras"), crops), embeddings(model, crops), atol=1e-6
    )


def test_a_long_configuration_is_not_parsed(changed):
    folder = changed(lambda content: content["config"].update(unknown=[[]] * 1_100_000))
    with pytest.raises(FileFormatError, match=r"config\.json: has more than 4194304 bytes"):
        load_pretrained(folder)


def test_a_missing_file_of_a_folder_with_checksums_is_named(tmp_path):
    model_folder.write(backbone(), tmp_path)
    (tmp_path / "metadata.json").unlink()
    with pytest.raises(FileFormatError, match=r"metadata\.json is missing"):
        load_pretrained(tmp_path)


def test_arithmetic_of_a_functional_model(tmp_path):
    images = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, padding="same")(images)
    maps = (maps * 2.0 - keras.layers.Conv2D(4, 3, padding="same")(maps))[:, 1:]
    model = build_embedder(keras.Model(images, keras.layers.GlobalAveragePooling2D()(maps)))
    model.save(tmp_path / "m.keras")
    model_folder.write(model, tmp_path / "folder")
    crops = IMAGES[:, :8, :8].astype("float32")
    for name in ("m.keras", "folder"):
        np.testing.assert_allclose(
            embeddings(load_pretrained(tmp_path / name), crops), embeddings(model, crops), atol=1e-6
        )


def test_other_operations_are_refused(changed):
    def config(content):
        content["config"]["layers"][-1].update(module="keras.src.ops.numpy", class_name="Vectorize")

    with pytest.raises(FileFormatError, match="refused to build 'Vectorize'"):
        load_pretrained(changed(config))


def test_a_model_made_of_lists(tmp_path):
    images = keras.Input((8, 8, 3))
    model = keras.Model([images], [keras.layers.Dense(4)(keras.layers.Flatten()(images))])
    model.save(tmp_path / "m.keras")
    crops = IMAGES[:, :8, :8]
    expected = model.predict(crops, verbose=0)
    expected = np.reshape(expected, (3, 4)) / np.linalg.norm(np.reshape(expected, (3, 4)), axis=1, keepdims=True)
    np.testing.assert_allclose(load_pretrained(tmp_path / "m.keras").predict(crops, verbose=0), expected, atol=1e-6)


@pytest.mark.parametrize("threshold", [10**400, None, "NaN", 2.0])
def test_thresholds_that_are_none_are_told_with_their_file(tmp_path, threshold):
    model_folder.write(backbone(), tmp_path, {"thresholds": [{"far": 0.01, "threshold": threshold}]})
    with pytest.raises(FileFormatError, match=r"preset\.json: (Expected thresholds as|A threshold needs)"):
        Recognizer(tmp_path, detector=None)


@pytest.mark.parametrize("path", ["report.json", "/dev/zero", "nowhere"])
def test_a_strangers_model_names_no_file_to_read(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.json").write_text('{"tar_at_far": {"0.001": {"threshold": -1.0}}}')
    model_folder.write(backbone(), tmp_path / "model", {"thresholds": path})
    with pytest.raises(FileFormatError, match=r"preset\.json: expected thresholds as a list\. Received: "):
        Recognizer(tmp_path / "model", detector=None)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no endless file here")
def test_an_endless_file_is_no_json():
    with pytest.raises(FileFormatError, match="more than 4194304 bytes"):
        read_json("/dev/zero")


def compound(file):
    file.create_dataset("x", (4,), np.dtype([("a", h5py.string_dtype()), ("b", h5py.string_dtype())]))


def compressed_chunk(file):
    file.create_dataset("x", (4,), "float32", maxshape=(None,), chunks=(1 << 20,), compression="gzip", data=np.zeros(4))


def many_texts(file):
    file.create_dataset("x", data=np.zeros(4))
    file["x"].attrs.create("dtype", ["float32"] * 3, dtype=h5py.string_dtype())


def named_type(file):
    file["a\nb"] = np.dtype("float32")


HOSTILE = {
    compound: "'/x' holds .*, expected numbers",
    compressed_chunk: "'/x' is compressed or filtered",
    many_texts: "an attribute of '/x' holds dtype.*, expected a text or numbers",
    named_type: r"'/a\\nb' is a type",
}


@pytest.mark.parametrize(("put", "said"), HOSTILE.items(), ids=[put.__name__ for put in HOSTILE])
def test_what_would_take_more_memory_than_the_file_has_is_refused_unread(tmp_path, put, said):
    path = tmp_path / "hostile.h5"
    with h5py.File(path, "w") as file:
        put(file)
    with pytest.raises(FileFormatError, match=rf"^the source: {said}") as caught:
        weights_file.check_hdf5(path, "the source")
    assert "\n" not in str(caught.value)


def vectors():
    images = keras.Input((8, 8, 3))
    return images, keras.layers.Dense(4)(keras.layers.Flatten()(images))


def scaled():
    images, features = vectors()
    return keras.Model(images, keras.layers.UnitNormalization()(features) * 64.0)


def other_axis():
    images, features = vectors()
    return keras.Model(images, keras.layers.UnitNormalization(axis=0)(features))


def in_bfloat16():
    images, features = vectors()
    return keras.Model(images, keras.layers.UnitNormalization(dtype="bfloat16")(features))


@pytest.mark.parametrize("make", [scaled, other_axis, in_bfloat16])
def test_what_only_looks_normalized_becomes_so(tmp_path, make):
    make().save(tmp_path / "m.keras")
    model = load_pretrained(tmp_path / "m.keras")
    found = model.predict(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), "uint8"), verbose=0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_arithmetic_in_another_dtype(tmp_path):
    images = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3)(images)
    maps = maps[:, 1:] * 2.0
    build_embedder(keras.Model(images, keras.layers.GlobalAveragePooling2D()(maps))).save(tmp_path / "m.keras")
    crops = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), "uint8")
    one, other = (load_pretrained(tmp_path / "m.keras", dtype=dtype) for dtype in (None, "bfloat16"))
    np.testing.assert_allclose(np.sum(embeddings(one, crops) * embeddings(other, crops), axis=1), 1, atol=1e-3)


@pytest.mark.skipif(keras.backend.backend() == "openvino", reason="OpenVINO only predicts")
def test_a_quantized_model_is_kept_and_keeps_its_precision(tmp_path):
    images, features = vectors()
    model = build_embedder(keras.Model(images, features))
    model.quantize("int8")
    crops = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), "uint8")
    model_folder.write(model, tmp_path / "folder")
    model.save(tmp_path / "m.keras")
    for path in (tmp_path / "folder", tmp_path / "m.keras"):
        np.testing.assert_allclose(embeddings(load_pretrained(path), crops), embeddings(model, crops), atol=1e-6)
        with pytest.raises(ValueError, match=r"'dense.*' is quantized, with dtype='bfloat16'"):
            load_pretrained(path, dtype="bfloat16")


def test_an_older_folder_stays_where_the_new_description_cannot_be_written(tmp_path):
    model_folder.write(backbone(), tmp_path)
    before = content(tmp_path)
    with pytest.raises(TypeError):
        model_folder.write(backbone(), tmp_path, {"metrics": object()})
    assert content(tmp_path) == before


def test_a_folders_files_are_on_the_disk_before_they_replace_older_ones(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append(os.fstat(number).st_ino))
    model_folder.write(backbone(), tmp_path)
    assert {path.stat().st_ino for path in tmp_path.iterdir()} <= set(flushed)


def test_a_description_of_any_size_is_not_read(tmp_path):
    model_folder.write(backbone(), tmp_path)
    path = tmp_path / "preset.json"
    path.write_text(path.read_text()[:-2] + ', "x": [' + "[]," * 2_000_000 + "[]]}")
    for read in (load_pretrained, lambda folder: model_card.from_description(folder / "preset.json")):
        with pytest.raises(FileFormatError, match="has more than 4194304 bytes"):
            read(tmp_path)


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_a_description_of_another_format_is_not_read(version, tmp_path):
    model_folder.write(backbone(), tmp_path)
    path = tmp_path / "preset.json"
    path.write_text(path.read_text().replace('"format": 1', f'"format": {json.dumps(version)}'))
    with pytest.raises(FileFormatError, match=rf"format {version!r}, expected 1 to 1\. Update"):
        load_pretrained(tmp_path)


def test_a_full_disk_is_no_broken_file(tmp_path, monkeypatch):
    backbone().save(tmp_path / "m.keras")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space left") as caught:
        load_pretrained(tmp_path / "m.keras")
    assert not isinstance(caught.value, FileFormatError)
