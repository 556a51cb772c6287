import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT

from keras_sphereface import backbones, data, evaluate, load_pretrained, model_folder, presets, weights_file
from keras_sphereface.embedder import build_embedder
from keras_sphereface.errors import FileFormatError
from keras_sphereface.presets import overview

ARCHITECTURE = {"embedding_dim": 8, "width": 0.25, "bottlenecks": [[2, 16, 1, 2]], "input_shape": [32, 32, 3]}
ENTRY = {
    "name": "toy",
    "status": "embedded",
    "default": True,
    "architecture": "mobilefacenet",
    "arguments": ARCHITECTURE,
    "preprocessing": {"text": "(x - 127.5) / 128"},
    "data": "noise",
    "license": "MIT",
    "description": "A toy.",
    "file": "toy.h5",
    "size": 1,
    "sha256": "0" * 64,
    "thresholds": [{"far": 0.01, "threshold": 0.25}],
    "speed": "One image in a second.",
    "metrics": [{"name": "accuracy", "dataset": "toys", "value": 51.25, "unit": "%", "command": "measure | it"}],
}


# Lacks the one name of a weight file that is downloaded.
PUBLISHED = {"status": "published", "default": False, "hub_id": "a/b", "revision": "0" * 40}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """An embedded preset whose weights are in a temporary folder: returns its model and file."""
    from keras_sphereface.files import sha256

    embedder = build_embedder(backbones.get("mobilefacenet", **ARCHITECTURE))
    path = tmp_path / "toy.h5"
    weights_file.write(embedder, path)
    preset = presets.from_dict({**ENTRY, "sha256": sha256(path), "size": path.stat().st_size})
    monkeypatch.setattr(presets, "WEIGHTS_FOLDER", tmp_path)
    monkeypatch.setattr(presets, "table", lambda: {"toy": preset})
    return embedder, path


def test_every_preset_is_complete():
    for name, preset in presets.table().items():
        assert preset.name == name
        assert preset.architecture in backbones.names()
        assert {"text", "image_size", "color", "range", "mean", "std"} <= set(preset.preprocessing)
        if preset.status == "embedded":
            assert preset.weights_path.stat().st_size == preset.size <= 5_000_000
            assert preset.metrics
        if preset.status == "planned":
            assert preset.file is None
            assert preset.metrics == []
    assert sum(preset.default for preset in presets.table().values()) <= 1


@pytest.mark.parametrize("name", [name for name, preset in presets.table().items() if preset.status == "embedded"])
def test_embedded_presets_load(name, rng, capfd):
    images = rng.integers(0, 256, size=(2, 112, 112, 3), dtype="uint8")
    model = load_pretrained(name)
    embeddings = model.predict(images, verbose=0)
    assert "missing node" not in capfd.readouterr().err  # TensorFlow's graph optimizer stumbled over the sums of units
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(embeddings, model.predict(images.astype("float32"), verbose=0))
    assert model.count_params() == presets.get(name).parameters
    assert embeddings.shape[1] == presets.get(name).embedding_dim


@pytest.mark.parametrize("name", [name for name, preset in presets.table().items() if preset.status == "embedded"])
def test_embedded_presets_say_what_the_zoo_measured(name):
    preset, results = presets.get(name), json.loads((ROOT / "zoo" / name / "results.json").read_text())
    measured = {metric["name"]: metric["value"] for metric in preset.metrics}
    points = results["view2"]["tar_at_far"]
    assert measured["accuracy, ten folds"] == round(100 * results["view2"]["accuracy"], 2) >= 97.0
    assert measured["EER"] == round(100 * results["view2"]["eer"], 2)
    assert measured["TAR at FAR 1e-2"] == round(100 * points["0.01"]["tar"], 2)
    assert measured["TAR at FAR 1e-3"] == round(100 * points["0.001"]["tar"], 2)
    found = [(entry["far"], entry["threshold"], entry["tar_on_view2"]) for entry in results["thresholds"]]
    assert [(entry["far"], entry["threshold"], entry["tar"]) for entry in preset.thresholds] == found
    assert preset.parameters == results["parameters"]
    assert preset.default


def test_the_default_model_tells_lfws_people_apart(tmp_path):
    """A hundred pairs of View 1: the weights that are shipped, through the public evaluation."""
    lfw = ROOT.parent / "shared" / "data"
    if not lfw.is_dir():
        pytest.skip("needs LFW in ../shared")
    lines = (lfw / "lfw_protocol" / "pairsDevTest.txt").read_text().splitlines()
    some = tmp_path / "pairsDevTest.txt"
    some.write_text("\n".join(["50", *lines[1:51], *lines[501:551]]))
    threshold = presets.default().thresholds[0]["threshold"]
    report = evaluate(load_pretrained(), data.read_lfw(lfw / "lfw_112x112", some), threshold=threshold, bootstrap=0)
    assert report.num_pairs == 100
    assert report.accuracy > 0.93


def test_load_embedded(toy, rng):
    embedder, _ = toy
    images = rng.integers(0, 256, size=(2, 32, 32, 3), dtype="uint8")
    model = load_pretrained()
    cosines = (model.predict(images, verbose=0) * embedder.predict(images, verbose=0)).sum(axis=1)
    np.testing.assert_allclose(cosines, 1, atol=1e-4)  # stored in float16
    assert model.name == "toy"
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert load_pretrained().get_layer(embedder.layers[1].name).compute_dtype == "float32"  # the model's own
    finally:
        keras.config.set_dtype_policy("float32")


def test_damaged_or_missing_weights_are_refused(toy):
    _, path = toy
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(FileFormatError, match="sha256"):
        load_pretrained("toy")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="Install"):
        load_pretrained("toy")


def test_planned_presets_say_what_to_do():
    planned = [preset for preset in presets.table().values() if preset.status == "planned"]
    assert planned
    for preset in planned:
        with pytest.raises(ValueError, match="planned") as caught:
            load_pretrained(preset.name)
        assert preset.obtain in str(caught.value)
        assert "push_to_hub" in str(caught.value)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"'sfnet21'.*sfnet20_ms1m"):
        load_pretrained("sfnet21")
    with pytest.raises(ValueError, match=r"Did you mean 'sfnet20_ms1m'\?$"):
        load_pretrained("SFNet20-MS1M")
    with pytest.raises(ValueError, match=r"Did you mean 'sfnet64_ms1m'\?$"):
        presets.get("sfnet64_msm")
    with pytest.raises(ValueError, match=r"sfnet64_ms1m\.$"):
        load_pretrained("nothing like it")


@pytest.mark.parametrize("name", ["no.keras", "run/no.keras", "no.weights.h5", "no.onnx", "./no", "no/such/folder"])
def test_a_path_that_is_not_there_is_said_to_be_missing(name):
    with pytest.raises(FileNotFoundError, match=rf"^{re.escape(name)}: there is no such file or folder\. Expected"):
        load_pretrained(name)
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load_pretrained(pathlib.Path(name))


@pytest.mark.parametrize(
    ("ending", "advice"),
    [
        (".weights.h5", "load_weights"),
        (".onnx", "Recognizer"),
        (".pth", "convert"),
        (".safetensors", "convert"),
        (".txt", "another"),
    ],
)
def test_a_file_of_another_kind_says_what_to_do_with_it(tmp_path, ending, advice):
    path = tmp_path / f"model{ending}"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"expected a \.keras file or a folder.*{advice}"):
        load_pretrained(path)


def test_a_repository_without_its_scheme_is_told_of_it():
    with pytest.raises(ValueError, match=r"For a repository on the Hub: 'hf://someone/face-model'$"):
        load_pretrained("someone/face-model")


def test_revision_of_an_embedded_preset_is_an_error(toy):
    with pytest.raises(ValueError, match="revision='main'"):
        load_pretrained("toy", revision="main")


@pytest.mark.parametrize(
    "change",
    [
        {"status": "soon"},
        {"name": "../toy"},
        {"file": "../toy.h5"},
        {"file": "/etc/passwd"},
        {"sha256": "abc"},
        {"size": None},
        {"colour": "red"},
        {"status": "planned"},
        {"status": "planned", "obtain": "train", "default": False},
        {"status": "published", "default": False},
        {"status": "published", "default": False, "hub_id": "a/b", "revision": "main"},
        PUBLISHED,
        {**PUBLISHED, "file": "model.weights.h5", "size": -5},
        {"size": 0},
        {"embedding_dim": True},
        {"embedding_dim": -5},
        {"parameters": -1},
        {"parameters": True},
        {"thresholds": [{"far": 5, "threshold": 0.5}]},
        {"thresholds": [{"far": 0.01, "threshold": 9}]},
        {"size": True},
        {"preprocessing": {}},
        {"preprocessing": {"text": None}},
        {"metrics": [{**ENTRY["metrics"][0], "value": "x"}]},
        {"metrics": [{**ENTRY["metrics"][0], "value": float("nan")}]},
        {"metrics": [{**ENTRY["metrics"][0], "value": 10**400}]},
        {"metrics": [{**ENTRY["metrics"][0], "name": None}]},
        {"metrics": ["accuracy"]},
        {"thresholds": [{}]},
        {"thresholds": [{"far": 0.01, "threshold": "x"}]},
        {"thresholds": [{"far": 0.01, "threshold": 0.3, "tar": None}]},
        {"thresholds": [{"far": 0.01, "threshold": 0.3, "more": 1}]},
        {1: 2, "a": 3},
        {"metrics": [{"name": "accuracy", "value": 99}]},
    ],
)
def test_broken_entries_are_refused(change):
    presets.from_dict(ENTRY)
    with pytest.raises(FileFormatError, match="Correct the entry"):
        presets.from_dict({**ENTRY, **change})


def test_a_published_entry_is_taken():
    preset = presets.from_dict({**ENTRY, **PUBLISHED, "file": presets.HUB_FILE})
    assert preset.file == model_folder.WEIGHTS


def test_a_row_of_a_table_is_one_line():
    assert overview.row(["a | b", "c\nd", 5]) == "| a \\| b | c d | 5 |"


def test_overview_has_every_preset_and_escapes_cells(toy):
    text = overview.render()
    assert "[`toy`](#toy) (default) | embedded" in text
    assert "toys accuracy 51.25 %" in text
    assert "cosine thresholds: 0.25 at FAR 0.01" in text
    assert "speed: One image in a second." in text
    assert "`measure \\| it`" in text


def test_the_page_of_the_zoo_is_current():
    page = (ROOT / "zoo" / "README.md").read_text(encoding="utf-8")
    assert page == overview.render(), "run: python -m keras_sphereface.presets > zoo/README.md"


def test_the_command_writes_the_page():
    run = subprocess.run(
        [sys.executable, "-m", "keras_sphereface.presets"], capture_output=True, check=True, timeout=60
    )
    assert run.stdout.decode() == overview.render()


def test_presets_are_plain_data():
    for path in presets.FOLDER.glob("*.json"):
        preset = presets.get(path.stem)
        assert set(json.loads(path.read_text())) <= {field.name for field in dataclasses.fields(preset)}
        assert not re.search(r"/tmp|/work", path.read_text())


def test_weights_file_refuses_other_architectures(tmp_path):
    embedder = build_embedder(backbones.get("mobilefacenet", **ARCHITECTURE))
    weights_file.write(embedder, tmp_path / "m.h5")
    before = [np.array(value) for value in embedder.get_weights()]
    narrow = build_embedder(backbones.get("mobilefacenet", **{**ARCHITECTURE, "embedding_dim": 4}))
    with pytest.raises(FileFormatError, match=r"linear1_conv/kernel has shape \(512|linear1_conv/kernel has shape"):
        weights_file.read(narrow, tmp_path / "m.h5")
    longer = {**ARCHITECTURE, "bottlenecks": [[2, 16, 2, 2]]}
    with pytest.raises(FileFormatError, match="missing blocks_1_conv"):
        weights_file.read(build_embedder(backbones.get("mobilefacenet", **longer)), tmp_path / "m.h5")
    for value, old in zip(embedder.get_weights(), before):
        np.testing.assert_array_equal(value, old)


def test_weights_file_keeps_no_infinite_weight(tmp_path):
    embedder = build_embedder(backbones.get("mobilefacenet", **ARCHITECTURE))
    embedder.get_layer("mobilefacenet").get_layer("conv1_bn").beta.assign(np.full(16, 1e6))  # beyond float16
    with pytest.raises(ValueError, match="conv1_bn/beta"):
        weights_file.write(embedder, tmp_path / "m.h5")
    weights_file.write(embedder, tmp_path / "m.h5", dtype="float32")


def test_a_weights_file_stays_where_its_successor_cannot_be_finished(tmp_path, monkeypatch):
    import h5py

    embedder = build_embedder(backbones.get("mobilefacenet", **ARCHITECTURE))
    weights_file.write(embedder, tmp_path / "m.h5")
    before = (tmp_path / "m.h5").read_bytes()
    monkeypatch.setattr(h5py.File, "create_dataset", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        weights_file.write(embedder, tmp_path / "m.h5")
    assert (tmp_path / "m.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.h5"]


@pytest.mark.parametrize("dtype", ["int8", "bfloat16", "float64", None, ["float16"]])
def test_weights_are_written_in_two_dtypes_only(tmp_path, dtype):
    embedder = build_embedder(backbones.get("mobilefacenet", **ARCHITECTURE))
    with pytest.raises(ValueError, match=r"^`dtype` must be one of float16, float32\. Received: dtype="):
        weights_file.write(embedder, tmp_path / "m.h5", dtype)
    assert not (tmp_path / "m.h5").exists()


def test_a_weights_file_with_one_name_twice_is_refused(tmp_path):
    import h5py

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False, name="fc")])
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["format"] = weights_file.FORMAT_VERSION
        file["index"] = np.frombuffer(json.dumps([["fc/kernel", [3, 2]]] * 2).encode(), np.uint8)
        file["values"] = np.arange(12, dtype="float32")
    with pytest.raises(FileFormatError, match="`index` has 'fc/kernel' twice"):
        weights_file.read(model, tmp_path / "m.h5")
