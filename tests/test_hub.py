import importlib.util
import json
import os
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from hub_server import TOKEN, HubServer

from keras_sphereface import backbones, hub, hub_files, model_card, model_folder
from keras_sphereface.embedder import build_embedder
from keras_sphereface.errors import FileFormatError
from keras_sphereface.hub import HubError, load_pretrained, push_to_hub

REPO = "faces/tiny"
IMAGES = np.random.default_rng(0).integers(0, 256, size=(3, 32, 32, 3), dtype="uint8")


@pytest.fixture
def server(monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants, file_download

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hub_files, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)  # the client's own waits
    huggingface_hub.close_session()
    server = HubServer()
    yield server
    server.close()


@pytest.fixture
def load(server, tmp_path):
    """Loads from the test server, with one cache for the test."""

    def call(name=f"hf://{REPO}", **options):
        return load_pretrained(name, endpoint=server.url, cache_dir=tmp_path / "cache", **options)

    return call


@pytest.fixture(scope="module")
def backbone():
    return backbones.SFNet((0, 0, 0, 0), channels=(4, 4, 8, 8), embedding_dim=8, input_shape=(32, 32, 3), name="tiny")


@pytest.fixture
def expected(backbone):
    return build_embedder(backbone).predict(IMAGES, verbose=0)


@pytest.fixture
def published(server, backbone):
    server.create(REPO)
    return push_to_hub(backbone, REPO, token=TOKEN, endpoint=server.url)


def offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_upload_and_download(server, load, backbone, expected):
    card = model_card.Card(data="toy images", license="mit")
    result = push_to_hub(backbone, REPO, card, token=TOKEN, endpoint=server.url)
    files = server.files(REPO)
    assert set(files) == {"config.json", "metadata.json", "model.weights.h5", "preset.json", "README.md"}
    assert server.repos[REPO]["refs"]["main"] == result.revision
    assert len(server.requests("POST", "/commit/")) == 1
    assert result.sha256 == model_folder.hashlib.sha256(files["model.weights.h5"]).hexdigest()
    model = load()
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(model.predict(IMAGES, verbose=0), axis=1), 1, atol=1e-6)
    assert json.loads(files["preset.json"])["data"] == "toy images"


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="Keras reads hf:// by TensorFlow's file system"
)
def test_keras_alone_reads_the_repository(server, published, expected, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    program = (
        "import sys, keras, numpy as np\n"
        f"model = keras.saving.load_model('hf://{REPO}')\n"
        f"np.save(r'{tmp_path / 'out.npy'}', model.predict(np.load(r'{tmp_path / 'images.npy'}'), verbose=0))\n"
        "assert 'keras_sphereface' not in sys.modules\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=300)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-6)


def test_a_repository_that_keras_made(server, load, published, expected):
    server.commit(REPO, {}, deleted=["preset.json"])
    np.testing.assert_allclose(load().predict(IMAGES, verbose=0), expected, atol=1e-6)
    server.commit(REPO, {"x": b""})  # another commit, whose weights come damaged: the Hub itself knows their checksum
    content = server.files(REPO)["model.weights.h5"]
    server.commit(REPO, {"model.weights.h5": content + b"more"})
    server.large["served instead"] = content + b"evil"
    with pytest.raises(FileFormatError, match="sha256"):
        load()


def test_a_revision_pins_the_files(server, load, published, backbone, expected):
    other = backbones.SFNet4(channels=(4, 4, 8, 8), embedding_dim=8, input_shape=(32, 32, 3))
    other.set_weights([value + 0.1 for value in other.get_weights()])
    second = push_to_hub(other, REPO, token=TOKEN, endpoint=server.url)
    assert second.revision != published.revision
    np.testing.assert_allclose(load(revision=published.revision).predict(IMAGES, verbose=0), expected, atol=1e-6)
    assert np.abs(load().predict(IMAGES, verbose=0) - expected).max() > 1e-3
    with pytest.raises(HubError, match="no such revision"):
        load(revision="v9")


def test_private_repositories_need_the_token(server, load, published):
    server.repos[REPO]["private"] = True
    with pytest.raises(HubError, match=r"no access \(HTTP 401\).*pass token="):
        load()
    assert load(token=TOKEN).output_shape == (None, 8)


def test_a_new_repository_can_be_private(server, backbone):
    push_to_hub(backbone, "faces/secret", private=True, token=TOKEN, endpoint=server.url)
    assert server.repos["faces/secret"]["private"]


def test_absent_repository_and_absent_file(server, load, published):
    with pytest.raises(HubError, match="no such repository"):
        load("hf://faces/absent", token=TOKEN)
    server.commit(REPO, {}, deleted=["model.weights.h5"])
    with pytest.raises(HubError, match=r"model\.weights\.h5.*no such file"):
        load()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_temporary_errors_are_tried_again(server, load, published, status):
    server.faults += [("GET", "model.weights.h5", status)] * 2
    assert load().output_shape == (None, 8)
    assert server.faults == []


def test_errors_that_stay_are_reported(server, load, published):
    server.faults += [("GET", "model.weights.h5", 500)] * 100
    with pytest.raises(HubError, match=r"model\.weights\.h5"):
        load()
    assert len(server.requests("GET", "model.weights.h5")) == hub_files.ATTEMPTS


def test_a_body_that_breaks_off_is_resumed(server, load, published, expected, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what has arrived is kept in such pieces
    server.faults.append(("GET", "model.weights.h5", "truncated"))
    np.testing.assert_allclose(load().predict(IMAGES, verbose=0), expected, atol=1e-6)
    ranges = [entry[2] for entry in server.requests("GET", "model.weights.h5")]
    half = len(server.files(REPO)["model.weights.h5"]) // 2
    assert ranges == [None, f"bytes={half // 1000 * 1000}-"]


def test_wrong_content_is_refused(server, load, published):
    content = server.files(REPO)["model.weights.h5"]
    server.large["served instead"] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(FileFormatError, match=r"sha256 is .* expected"):
        load()
    del server.large["served instead"]
    assert load().output_shape == (None, 8)  # the damaged copy in the cache is replaced


def test_wrong_configuration_is_refused(server, load, published):
    server.commit(REPO, {"config.json": server.files(REPO)["config.json"] + b" "})
    with pytest.raises(FileFormatError, match=r"config\.json: sha256"):
        load()


def test_offline_with_and_without_cache(load, published, expected, monkeypatch):
    with monkeypatch.context() as context:
        offline(context)
        with pytest.raises(HubError, match="not in the cache, and HF_HUB_OFFLINE is set"):
            load()
    load()
    offline(monkeypatch)
    np.testing.assert_allclose(load().predict(IMAGES, verbose=0), expected, atol=1e-6)
    assert load(revision=published.revision).output_shape == (None, 8)


def test_a_dead_server_with_cache(server, load, published):
    load()
    server.close()
    assert load(revision=published.revision).output_shape == (None, 8)


@pytest.mark.parametrize("failing", [("PUT", "/large/", 400), ("POST", "/commit/", 400), ("POST", "/preupload/", 403)])
def test_a_broken_upload_leaves_the_repository_as_it_was(server, backbone, published, failing):
    before = dict(server.repos[REPO]["commits"])
    server.faults += [failing] * 20
    with pytest.raises(HubError):
        push_to_hub(backbone, REPO, token=TOKEN, endpoint=server.url)
    assert server.repos[REPO]["commits"] == before


@pytest.fixture
def changed(backbone):
    """Another model than the published one, so that there is something to upload."""
    model = keras.models.clone_model(backbone)
    model.set_weights([value + 0.1 for value in backbone.get_weights()])
    return model


@pytest.mark.parametrize("part", ["/large/", "/commit/", "/preupload/", "/objects/batch"])
def test_a_connection_lost_in_mid_upload_leaves_the_repository_as_it_was(server, load, changed, published, part):
    """In the weights, in the commit, before either: the same revision and files; trying again succeeds."""
    repo = server.repos[REPO]
    before = {"refs": dict(repo["refs"]), "commits": {name: dict(files) for name, files in repo["commits"].items()}}
    method = "PUT" if part == "/large/" else "POST"
    server.faults += [(method, part, "cut")] * 20
    with pytest.raises(HubError, match=f"hf://{REPO}.*Try again"):
        push_to_hub(changed, REPO, token=TOKEN, endpoint=server.url)
    assert len(server.faults) < 20, "the connection was cut"
    assert {"refs": repo["refs"], "commits": repo["commits"]} == before
    server.faults.clear()
    again = push_to_hub(changed, REPO, token=TOKEN, endpoint=server.url)
    assert (repo["refs"]["main"], len(repo["commits"])) == (again.revision, 2)
    expected = build_embedder(changed).predict(IMAGES, verbose=0)
    np.testing.assert_allclose(load().predict(IMAGES, verbose=0), expected, atol=1e-6)


def test_a_connection_lost_after_the_commit_leaves_the_whole_commit(server, load, changed, published):
    """Nobody can know then whether it was carried out; it is whole, and trying again is harmless."""
    server.faults.append(("POST", "/commit/", "unanswered"))
    with pytest.raises(HubError):
        push_to_hub(changed, REPO, token=TOKEN, endpoint=server.url)
    expected = build_embedder(changed).predict(IMAGES, verbose=0)
    np.testing.assert_allclose(load().predict(IMAGES, verbose=0), expected, atol=1e-6)
    push_to_hub(changed, REPO, token=TOKEN, endpoint=server.url)
    np.testing.assert_allclose(load().predict(IMAGES, verbose=0), expected, atol=1e-6)


def test_upload_without_a_right(server, backbone):
    with pytest.raises(HubError, match="write access"):
        push_to_hub(backbone, "faces/new", token="hf_wrong", endpoint=server.url)
    assert server.repos == {}


@pytest.mark.parametrize(
    "name", ["../..", "a/../b", "a", "a/b/c", "/etc/passwd", "a/b@main", "a/..", "-a/b", "a/b--c", ""]
)
def test_names_that_are_no_repository(server, load, backbone, name):
    with pytest.raises(ValueError, match="organization/repository"):
        load(f"hf://{name}")
    with pytest.raises(ValueError, match="organization/repository"):
        push_to_hub(backbone, name, endpoint=server.url)
    assert server.log == []


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "sub/model.weights.h5"])
def test_checksums_of_files_outside_are_refused(server, load, published, name):
    preset = json.loads(server.files(REPO)["preset.json"])
    preset["sha256"][name] = "0" * 64
    server.commit(REPO, {"preset.json": json.dumps(preset).encode()})
    with pytest.raises(FileFormatError, match="and nothing else"):
        load()


def change_first_layer(model, **changes):
    model["config"]["layers"][1].update(changes)
    return model


def lambda_layer(config):
    code = {"class_name": "__lambda__", "config": {"code": "", "defaults": None, "closure": None}}
    return change_first_layer(config, class_name="Lambda", config={"function": code})


HOSTILE = {
    "lambda": lambda_layer,
    "module": lambda config: change_first_layer(config, module="os", class_name="system"),
    "keras function": lambda config: change_first_layer(config, module="keras.utils", class_name="get_file"),
    "own function": lambda config: change_first_layer(
        config, module="keras_sphereface.hub", class_name="push_to_hub", registered_name=None
    ),
    "registered": lambda config: change_first_layer(config, registered_name="Elsewhere>Rescaling"),
    "framework": lambda config: change_first_layer(config, class_name="TFSMLayer"),
    "no module": lambda config: change_first_layer(config, module=None),
    "typespec": lambda config: {**config, "extra": {"class_name": "__typespec__", "config": {}}},
    "not a name": lambda config: change_first_layer(config, class_name=["Lambda"]),
    "function": lambda config: {**config, "x": {"class_name": "function", "module": "builtins", "config": "eval"}},
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("form", ["hub", "keras"])
def test_configurations_with_code_are_refused(server, load, backbone, tmp_path, monkeypatch, kind, form):
    preset = model_folder.write(backbone, tmp_path / "m")
    config = HOSTILE[kind](json.loads((tmp_path / "m" / "config.json").read_text()))
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    preset["sha256"]["config.json"] = model_folder.sha256(tmp_path / "m" / "config.json")  # the attacker owns it all
    (tmp_path / "m" / "preset.json").write_text(json.dumps(preset))
    monkeypatch.setattr(keras.saving, "load_model", lambda *args, **kwargs: pytest.fail("reached Keras"))
    if form == "hub":
        server.create(REPO)
        server.commit(REPO, {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()})
        name = f"hf://{REPO}"
    else:
        name = str(tmp_path / "evil.keras")
        with model_folder.zipfile.ZipFile(name, "w") as archive:
            archive.write(tmp_path / "m" / "config.json", "config.json")
    with pytest.raises(FileFormatError, match="refused to build"):
        load(name)


def test_weights_that_reach_into_other_files_are_refused(backbone, tmp_path):
    preset = model_folder.write(backbone, tmp_path / "m")
    weights = tmp_path / "m" / "model.weights.h5"
    with h5py.File(weights, "a") as file:
        file["outside"] = h5py.ExternalLink("/etc/hostname", "/x")
    preset["sha256"]["model.weights.h5"] = model_folder.sha256(weights)
    (tmp_path / "m" / "preset.json").write_text(json.dumps(preset))
    with pytest.raises(FileFormatError, match="/outside is a link"):
        load_pretrained(tmp_path / "m")


def test_incomplete_weights_are_refused(backbone, tmp_path):
    model_folder.write(backbone, tmp_path / "m")
    (tmp_path / "m" / "preset.json").unlink()  # a repository that Keras alone made
    with h5py.File(tmp_path / "m" / "model.weights.h5", "a") as file:
        first = sorted(file["layers"])[0]
        names = [name for name in file["layers"] if "dense" in name]
        assert names, first
        del file["layers"][names[0]]
    with pytest.raises(FileFormatError, match="could not load the whole model"):
        load_pretrained(tmp_path / "m")


def test_models_of_other_kinds_are_refused(tmp_path):
    model_path = tmp_path / "m.keras"
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(model_path)
    with pytest.raises(ValueError, match="from images"):
        load_pretrained(str(model_path))


def test_folders_and_keras_files(backbone, expected, tmp_path):
    build_embedder(backbone).save(tmp_path / "m.keras")
    model_folder.write(backbone, tmp_path / "m")
    model_folder.write(backbone, tmp_path / "m")  # over itself
    backbone.save(tmp_path / "raw.keras")
    for path in (tmp_path / "m.keras", str(tmp_path / "m"), tmp_path / "raw.keras"):
        np.testing.assert_allclose(load_pretrained(path).predict(IMAGES, verbose=0), expected, atol=1e-6)
    with pytest.raises(ValueError, match="revision"):
        load_pretrained(tmp_path / "m", revision="main")
    (tmp_path / "broken.keras").write_bytes(b"PK")
    with pytest.raises(FileFormatError, match=r"not a \.keras file"):
        load_pretrained(tmp_path / "broken.keras")


def preset_entry(published):
    """A preset named toy, of the repository."""
    return {
        "name": "toy",
        "status": "published",
        "architecture": "sfnet4",
        "arguments": {},
        "preprocessing": {"text": ""},
        "data": "",
        "license": "",
        "description": "",
        "file": published.file,
        "size": published.size,
        "sha256": published.sha256,
        "hub_id": REPO,
        "revision": published.revision,
    }


def test_a_published_preset_is_pinned_by_commit_and_checksum(server, load, published, monkeypatch):
    from keras_sphereface import presets

    entry = preset_entry(published)
    monkeypatch.setattr(presets, "table", lambda: {"toy": presets.from_dict(entry)})
    assert load("toy").output_shape == (None, 8)
    monkeypatch.setattr(presets, "table", lambda: {"toy": presets.from_dict({**entry, "sha256": "0" * 64})})
    with pytest.raises(FileFormatError, match="expected 0000"):
        load("toy")


def test_two_processes_at_once(server, published, expected, tmp_path):
    """Both load the same preset by way of one cache, which is empty before."""
    np.save(tmp_path / "images.npy", IMAGES)
    cache = tmp_path / "cache"
    program = (
        "import sys, numpy as np\n"
        "from keras_sphereface import hub, presets\n"
        f"presets.table = lambda: {{'toy': presets.from_dict({preset_entry(published)!r})}}\n"
        f"model = hub.load_pretrained('toy', endpoint='{server.url}', cache_dir=r'{cache}')\n"
        f"np.save(sys.argv[1], model.predict(np.load(r'{tmp_path / 'images.npy'}'), verbose=0))\n"
    )
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"}
    outputs = [tmp_path / "first.npy", tmp_path / "second.npy"]
    runs = [subprocess.Popen([sys.executable, "-c", program, str(output)], env=environment) for output in outputs]
    assert [run.wait(timeout=300) for run in runs] == [0, 0]
    for output in outputs:
        np.testing.assert_allclose(np.load(output), expected, atol=1e-6)
    (snapshot,) = cache.glob("models--*/snapshots/*")
    model_folder.read_checksums(snapshot / "preset.json")
    assert not list(cache.rglob("*.incomplete"))


def test_publish_command(server, backbone, tmp_path, monkeypatch, capsys):
    from keras_sphereface.cli import main

    backbone.save(tmp_path / "m.keras")
    (tmp_path / "card.json").write_text(json.dumps({"data": "toy", "license": "mit"}))
    monkeypatch.setattr(hub, "push_to_hub", lambda *args, **kwargs: push_to_hub(*args, **kwargs, **to_server))
    to_server = {"token": TOKEN, "endpoint": server.url}
    arguments = ["publish", str(tmp_path / "m.keras"), REPO, "--card", str(tmp_path / "card.json")]
    assert main([*arguments, "--dry-run", str(tmp_path / "out")]) == 0
    assert server.repos == {}
    assert "license: mit" in (tmp_path / "out" / "README.md").read_text()
    assert main(arguments) == 0
    assert server.repos[REPO]["refs"]["main"] in capsys.readouterr().out
    (tmp_path / "card.json").write_text('{"colour": 1}')
    assert main(arguments) == 1
    assert "colour" in capsys.readouterr().err
