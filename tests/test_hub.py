import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from hub_server import TOKEN, HubServer

from keras_sphereface import backbones, hub, hub_files, model_card, model_folder, presets
from keras_sphereface.embedder import build_embedder
from keras_sphereface.errors import FileFormatError
from keras_sphereface.hub import HubError, load_pretrained, push_to_hub
from keras_sphereface.recognition import Recognizer

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
    assert result.sha256 == hashlib.sha256(files["model.weights.h5"]).hexdigest()
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


def test_a_repository_that_keras_made_of_a_compiled_model(server, load, backbone, expected, tmp_path):
    model = build_embedder(backbone)
    model.compile("sgd", "mse")
    keras.saving.save_model(model, tmp_path / "m", zipped=False)
    server.create(REPO)
    server.commit(REPO, {name: (tmp_path / "m" / name).read_bytes() for name in model_folder.KERAS_FILES})
    np.testing.assert_allclose(load().predict(IMAGES, verbose=0), expected, atol=1e-6)


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


def die(server):
    """No server any more, and no connection that was kept."""
    import huggingface_hub

    server.close()
    huggingface_hub.close_session()


def cached(tmp_path, name):
    """The file that holds this one in the cache."""
    (path,) = (tmp_path / "cache").glob(f"models--*/snapshots/*/{name}")
    return path.resolve()


@pytest.mark.parametrize("pinned", [True, False])
def test_a_dead_server_with_a_repository_that_keras_made(server, load, published, monkeypatch, pinned):
    from huggingface_hub import file_download

    revision = server.commit(REPO, {}, deleted=["preset.json"]) if pinned else None
    server.commit(REPO, {}, deleted=["preset.json"])
    load(revision=revision)
    die(server)
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: pytest.fail("waited for what is known"))
    assert load(revision=revision).output_shape == (None, 8)


def test_a_dead_server_with_a_cache_that_another_program_filled(server, load, published, tmp_path):
    """It has the model, but not whether the repository has a description."""
    server.commit(REPO, {}, deleted=["preset.json"])
    load()
    (marker,) = (tmp_path / "cache").glob("models--*/.no_exist/*/preset.json")
    marker.unlink()
    die(server)
    assert load().output_shape == (None, 8)


def test_without_a_network_the_description_is_not_done_without_for_files_yet_to_come(server, load, published):
    server.faults += [("HEAD", "preset.json", 503)] * 100
    with pytest.raises(HubError, match=r"preset\.json.*could not be reached"):
        load()


def test_a_dead_server_and_damaged_weights_in_the_cache(server, load, published, tmp_path):
    load()
    weights = cached(tmp_path, "model.weights.h5")
    weights.write_bytes(weights.read_bytes()[:-10])
    die(server)
    with pytest.raises(FileFormatError, match=rf"^hf://{REPO}/model\.weights\.h5: sha256 is"):
        load(revision=published.revision)


@pytest.mark.parametrize("content", [b'{"trunc', b"[]", b"\xff"])
def test_a_damaged_description_in_the_cache_is_downloaded_again(server, load, published, tmp_path, content):
    load()
    description = cached(tmp_path, "preset.json")
    description.write_bytes(content)
    assert load().output_shape == (None, 8)
    cached(tmp_path, "preset.json").write_bytes(content)
    die(server)
    with pytest.raises(FileFormatError, match=rf"^hf://{REPO}/preset\.json: not ") as caught:
        load(revision=published.revision)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("digest", [[], {}, None, 5, "A" * 64, "0" * 63])
def test_checksums_that_are_none_are_refused(server, load, published, digest):
    preset = json.loads(server.files(REPO)["preset.json"])
    preset["sha256"]["config.json"] = digest
    server.commit(REPO, {"preset.json": json.dumps(preset).encode()})
    with pytest.raises(FileFormatError, match=rf"^hf://{REPO}/preset\.json: the sha256 of config\.json is .*64"):
        load()


def test_white_space_around_a_token_is_none_of_it(server, load, backbone, published):
    assert load(token=" ").output_shape == (None, 8)
    server.repos[REPO]["private"] = True
    assert load(token=f"{TOKEN}\n").output_shape == (None, 8)
    push_to_hub(backbone, REPO, token=f" {TOKEN}\r\n", endpoint=server.url)


@pytest.mark.parametrize("token", ["hf_secr\u00e9t", "hf_sec ret", "hf_secret\nX: y", b"hf_secret", 5])
def test_no_error_shows_the_token(server, load, backbone, token):
    calls = (
        lambda: load(token=token),
        lambda: push_to_hub(backbone, REPO, token=token, endpoint=server.url),
        lambda: hub_files.download(REPO, token=token, endpoint=server.url),
        lambda: hub_files.upload({}, REPO, token=token, endpoint=server.url),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"^token: expected printable ASCII[^\n]*$") as caught:
            call()
        assert "sec" not in str(caught.value)
    assert server.log == []


@pytest.mark.parametrize(
    "name", [123, 1.5, True, [], {}, b"x", np.zeros((30, 3)), "", " ", "a" * 5000, "\ud800", "a\0b"]
)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match=r"^Expected the name of a preset[^\n]*Received: name=") as caught:
        load_pretrained(name)
    assert len(str(caught.value)) < 500
    if isinstance(name, str) and len(name) > 1000:
        with pytest.raises(ValueError, match="Expected the name of a preset"):
            load_pretrained(pathlib.Path(name))


def test_a_path_with_a_line_end_is_told_on_one_line():
    with pytest.raises(FileNotFoundError, match=r"^'a/b\\nc/d': there is no such file[^\n]*$"):
        load_pretrained("a/b\nc/d")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("hf://me/faces@v1", "'hf://me/faces', revision='v1'"),
        ("me/faces@main", "'hf://me/faces', revision='main'"),
        ("https://hub.example.org/me/faces", "'hf://me/faces'"),
        ("https://hub.example.org/me/faces/tree/dev", "'hf://me/faces', revision='dev'"),
        ("HF://me/faces", "'hf://me/faces'"),
        ("hf:/me/faces", "'hf://me/faces'"),
    ],
)
def test_misspelt_names_of_repositories_are_told_how_to_write_them(backbone, name, hint):
    with pytest.raises(ValueError, match=rf"Hint: .*{hint}$"):
        load_pretrained(name)
    with pytest.raises(ValueError, match=rf"Hint: .*{hint}$"):
        push_to_hub(backbone, name)


WRONG_OPTIONS = [
    *(("revision", value) for value in (123, True, b"main", "", " ", "main\n")),
    *(
        ("endpoint", value)
        for value in ("http://[::1", "nonsense", "", "ftp://a", "http://a b", "http://a:x", 123, b"http://a")
    ),
]


@pytest.mark.parametrize(("option", "value"), [*WRONG_OPTIONS, ("cache_dir", 123), ("cache_dir", "")])
def test_wrong_options_of_the_hub_are_named(backbone, option, value):
    for name in (f"hf://{REPO}", None):
        with pytest.raises(ValueError, match=rf"^{option}: expected [^\n]*Received: "):
            load_pretrained(name, **{option: value})
    if option != "cache_dir":
        with pytest.raises(ValueError, match=rf"^{option}: expected "):
            push_to_hub(backbone, REPO, **{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("card", {"data": "x"}),
        ("card", {}),
        ("private", "no"),
        ("message", 5),
        ("revision", "0" * 40),
    ],
)
def test_wrong_arguments_of_an_upload_are_named(server, backbone, option, value):
    with pytest.raises(ValueError, match=rf"^{option}: expected "):
        push_to_hub(backbone, REPO, token=TOKEN, endpoint=server.url, **{option: value})
    assert server.log == []


@pytest.mark.parametrize("repo_id", [None, pathlib.Path(REPO), 5, b"a/b"])
def test_what_is_no_repository_is_refused_before_an_upload(backbone, repo_id):
    with pytest.raises(ValueError, match="organization/repository"):
        push_to_hub(backbone, repo_id)


def test_an_upload_to_a_new_branch_makes_it_from_main(server, load, changed, published):
    result = push_to_hub(changed, REPO, token=TOKEN, revision="dev", endpoint=server.url)
    assert server.repos[REPO]["refs"] == {"main": published.revision, "dev": result.revision}
    assert load(revision="dev").output_shape == (None, 8)
    again = push_to_hub(changed, REPO, token=TOKEN, revision="dev", message="again", endpoint=server.url)
    assert server.repos[REPO]["refs"]["dev"] == again.revision
    push_to_hub(changed, "faces/other", token=TOKEN, revision="dev", endpoint=server.url)
    with pytest.raises(HubError, match=r"hf://.*upload failed"):  # of a pull request, which the Hub itself makes
        push_to_hub(changed, REPO, token=TOKEN, revision="refs/pr/1", endpoint=server.url)


def test_a_card_that_the_hub_refuses_is_one_line(server, backbone):
    server.card_problems += ["license_name is odd", "so is the rest"]
    message = (
        r"^hf://faces/tiny: the upload was refused: [^\n]*license_name is odd - so is the rest\. Correct the card$"
    )
    with pytest.raises(HubError, match=message):
        push_to_hub(backbone, REPO, token=TOKEN, endpoint=server.url)
    assert server.repos[REPO]["commits"] == {}


def test_a_card_in_other_letters_is_taken(server, backbone):
    metric = {
        "name": "\u7cbe\u5ea6",
        "dataset": "\u9854",
        "value": 100 * np.mean([0.9, 0.8]),
        "unit": "%",
        "command": "x | y",
    }
    card = model_card.Card(license="\u5c02\u7528", metrics=[metric])
    push_to_hub(backbone, REPO, card, token=TOKEN, endpoint=server.url)
    assert "\u5c02\u7528" in server.files(REPO)["README.md"].decode()


def test_a_cache_that_cannot_be_used_is_told_so(server, published, tmp_path, monkeypatch):
    import huggingface_hub

    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(HubError, match=r"the cache cannot be used .*cache_dir="):
        load_pretrained(f"hf://{REPO}", endpoint=server.url, cache_dir=file)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(HubError, match=r"Permission denied.*cache_dir=$"):
        load_pretrained(f"hf://{REPO}", endpoint=server.url, cache_dir=tmp_path)


def test_the_token_of_a_login_that_is_not_there(server, load, backbone, published, monkeypatch):
    from huggingface_hub.utils import _headers

    monkeypatch.setattr(_headers, "get_token", lambda: None)
    with pytest.raises(HubError, match=r"token=True.*Log in"):
        load(token=True)
    with pytest.raises(HubError, match=r"token=True.*Log in"):
        push_to_hub(backbone, REPO, token=True, endpoint=server.url)


def test_what_the_reader_may_not_see_is_told_apart(server, load, published):
    server.repos[REPO]["answers"] = (403, "GatedRepo")
    with pytest.raises(HubError, match=r"gated \(HTTP 403\)\. Accept the terms"):
        load()
    server.repos[REPO]["answers"] = (403, None)
    with pytest.raises(HubError, match=r"no access \(HTTP 403\)"):
        load()
    server.repos[REPO]["answers"] = (200, None)  # a network's login page
    with pytest.raises(HubError, match="what answered is not the Hub"):
        load()


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


def test_who_may_write_to_a_repository_need_not_have_the_right_to_make_one(server, changed, published):
    server.faults += [("POST", "/api/repos/create", 403)] * 9
    result = push_to_hub(changed, REPO, token=TOKEN, endpoint=server.url)
    assert server.repos[REPO]["refs"]["main"] == result.revision != published.revision
    with pytest.raises(HubError, match=r"no right to write \(HTTP 403\)"):
        push_to_hub(changed, "faces/new", token=TOKEN, endpoint=server.url)


def test_an_upload_where_no_network_may_be_asked(backbone, monkeypatch):
    offline(monkeypatch)
    with pytest.raises(HubError, match=rf"^hf://{REPO}: nothing was uploaded, HF_HUB_OFFLINE is set\. Unset it$"):
        push_to_hub(backbone, REPO, token=TOKEN)


def test_a_token_of_the_environment_that_no_header_can_carry(server, load, backbone, published, monkeypatch):
    from huggingface_hub.utils import _headers

    monkeypatch.setattr(_headers, "get_token", lambda: "hf_secr\u00e9t")
    for call in (load, lambda: push_to_hub(backbone, REPO, endpoint=server.url)):
        with pytest.raises(
            HubError, match=r"the token of HF_TOKEN or of the login is not ASCII\. Set it again"
        ) as caught:
            call()
        assert "secr" not in str(caught.value)


def test_no_error_shows_the_password_of_an_endpoint(server, backbone, published, tmp_path):
    endpoint = server.url.replace("http://", "http://me:secret@")
    server.faults += [("GET", "model.weights.h5", 500)] * hub_files.ATTEMPTS
    with pytest.raises(HubError, match=r"for url 'http://127\.0\.0\.1:") as caught:
        load_pretrained(f"hf://{REPO}", endpoint=endpoint, cache_dir=tmp_path)
    assert "secret" not in str(caught.value)
    with pytest.raises(HubError) as caught:  # with a password in it, the client sends no token
        push_to_hub(backbone, "faces/new", token=TOKEN, endpoint=endpoint)
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^endpoint: expected a URL.* Received: 'http://127\.0\.0\.1:x'$"):
        load_pretrained(endpoint="http://me:secret@127.0.0.1:x")


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
    with pytest.raises(FileFormatError, match="'/outside' is a link"):
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
    entry = preset_entry(published)
    monkeypatch.setattr(presets, "table", lambda: {"toy": presets.from_dict(entry)})
    assert load("toy").output_shape == (None, 8)
    monkeypatch.setattr(presets, "table", lambda: {"toy": presets.from_dict({**entry, "sha256": "0" * 64})})
    with pytest.raises(FileFormatError, match="expected 0000"):
        load("toy")
    with pytest.raises(FileFormatError, match=r"must be 'model\.weights\.h5'"):  # of others, no checksum is looked up
        presets.from_dict({**entry, "file": "weights.h5"})
    with pytest.raises(ValueError, match=r"^sha256: .*'weights\.h5'"):
        hub_files.download(REPO, endpoint=server.url, sha256={"weights.h5": "0" * 64})


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


def test_a_model_and_its_thresholds_are_of_one_download(backbone, tmp_path, monkeypatch):
    """Else the thresholds could be those of a model that was published in between."""
    folders = []
    for number, cosine in enumerate((0.25, 0.5)):
        folders.append(tmp_path / str(number))
        thresholds = [{"far": 1e-3, "threshold": cosine}]
        model_folder.write(backbone, folders[-1], model_card.Card(thresholds=thresholds).description_fields())
    downloads = iter(folders)
    monkeypatch.setattr(hub_files, "download", lambda *args, **options: next(downloads))
    assert Recognizer(f"hf://{REPO}", detector=None).threshold == 0.25
    assert next(downloads) == folders[1]


def test_thresholds_that_are_given_take_the_place_of_a_card_s_broken_ones(backbone, tmp_path):
    model_folder.write(backbone, tmp_path, {"thresholds": [{"far": 5, "threshold": 0.5}]})
    with pytest.raises(FileFormatError, match=r"preset\.json: A threshold needs"):
        Recognizer(tmp_path, detector=None)
    assert Recognizer(tmp_path, detector=None, thresholds={1e-3: 0.5}).threshold == 0.5


def test_publishing_a_model_folder_keeps_its_card_and_thresholds(backbone, tmp_path):
    from keras_sphereface.cli import main

    known = model_card.Card(
        name="Club",
        data="toy",
        license="mit",
        limits="For toys.",
        speed="Fast.",
        metrics=[{"name": "accuracy", "dataset": "toys", "value": 91.2, "unit": "%", "command": "measure"}],
        thresholds=[{"far": 0.01, "threshold": 0.25}],
    )
    first, second = tmp_path / "first", tmp_path / "second"
    model_folder.write(backbone, first, known.description_fields())
    assert main(["publish", str(first), REPO, "--dry-run", str(second)]) == 0
    assert model_card.from_description(second / "preset.json") == known
    text = (second / "README.md").read_text()
    assert all(words in text for words in ("# Club", "license: mit", "For toys.", "| 0.01 | 0.25 |", "91.2 %", "Fast."))
    (tmp_path / "card.json").write_text(json.dumps({"license": "cc0-1.0"}))
    arguments = ["publish", str(second), REPO, "--card", str(tmp_path / "card.json"), "--dry-run", str(second)]
    assert main(arguments) == 0
    assert model_card.from_description(second / "preset.json") == dataclasses.replace(known, license="cc0-1.0")
    model_folder.write(backbone, first, {"data": 5})
    with pytest.raises(FileFormatError, match=r"preset\.json: data: expected a text. Received: 5"):
        model_card.from_description(first / "preset.json")


def test_the_help_of_publish_names_every_field_of_a_card():
    from keras_sphereface.cli import publish

    words = set(re.findall(r"\w+", publish.__doc__))
    assert {field.name for field in dataclasses.fields(model_card.Card)} | set(presets.METRIC_FIELDS) <= words


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
    assert main([*arguments[:2], f"hf://{REPO}", *arguments[3:], "--dry-run", str(tmp_path / "out")]) == 0
    assert f'load_pretrained("hf://{REPO}")' in (tmp_path / "out" / "README.md").read_text()
    assert main([*arguments[:2], "no name", "--dry-run", str(tmp_path / "out")]) == 2
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("My project")
    assert main([*arguments, "--dry-run", str(tmp_path / "project")]) == 1
    assert (tmp_path / "project" / "README.md").read_text() == "My project"
    told = capsys.readouterr().err.splitlines()
    assert ["'no name'" in told[0], "project, with other files" in told[1]] == [True, True]
    assert main(arguments) == 0
    assert server.repos[REPO]["refs"]["main"] in capsys.readouterr().out
    for content, told in (
        (b'{"licence": "mit"}', "Received: 'licence'. Known: name, description, data, license, "),
        (b'{"licence": "mit"}', "Did you mean 'license'?"),
        (b"[]", "expected a dictionary. Received: []"),
        (b'{"data": "caf\xe9"}', "'utf-8' codec"),
    ):
        (tmp_path / "card.json").write_bytes(content)
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert "card.json: not the fields of a model card" in error
        assert told in error
        assert error.count("\n") == 1
