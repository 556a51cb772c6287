"""The commands that people call: answers, exit codes, JSON, one-line errors."""

import io
import json
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess
import sys
import zlib

import keras
import numpy as np
import pytest

import keras_sphereface as ksf
from keras_sphereface.cli import COMMANDS, ERROR, NO, UNREAD, USAGE, build_parser, detect, main, start
from keras_sphereface.recognition import Gallery

pytestmark = pytest.mark.core
CROPS = ["--detector", "none"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small random model and three synthetic people, two photos each."""
    path = tmp_path_factory.mktemp("cli")
    backbone = ksf.backbones.SFNet4(embedding_dim=16, channels=(8, 8, 8, 8))
    ksf.embedder.build_embedder(backbone).save(path / "model.keras")
    (path / "cut.keras").write_bytes((path / "model.keras").read_bytes()[:9000])
    (path / "empty.db").touch()
    black = ksf.data.PairSet.from_arrays(np.zeros((2, 112, 112, 3), np.uint8), [0], [1], mated=[True])
    ksf.data.write_bin(path / "pairs.bin", black)
    dataset = ksf.data.synthetic(3, 2, seed=1)
    for number in range(6):
        image, label = dataset.read(number)
        (path / "people" / f"p{label}").mkdir(parents=True, exist_ok=True)
        (path / "people" / f"p{label}" / f"{number}.png").write_bytes(ksf.data.encode_png(image))
    return path


@pytest.fixture
def run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)

    def call(*words):
        code = main([*words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


MODEL = ["--model", "model.keras", *CROPS]
A, B = "people/p0/0.png", "people/p1/2.png"


def test_verify_answers_by_exit_code_and_json(run):
    code, out, _ = run("verify", A, A, *MODEL, "--threshold", "0.9", "--json")
    assert code == 0
    assert json.loads(out)["score"] == pytest.approx(1, abs=1e-5)
    code, out, _ = run("verify", A, B, *MODEL, "--threshold", "1")
    assert code == NO
    assert out.startswith("different people: score")
    code, out, err = run("verify", A, B, *MODEL)
    assert code == ERROR
    assert out.startswith("no decision")
    assert "--threshold" in err


def test_gallery_from_enroll_to_removal(run, tmp_path):
    gallery = str(tmp_path / "people.db")
    assert run("enroll", gallery, "--folder", "people", *MODEL)[1].count("2 added") == 3
    code, out, _ = run("identify", gallery, A, *MODEL, "--threshold", "0.99", "--json")
    assert code == 0
    (answer,) = json.loads(out)
    assert (answer["name"], answer["num_people"]) == ("p0", 3)
    assert "name=''" in run("gallery", gallery, "--remove", "")[2]
    assert run("gallery", gallery, "--remove", "p0")[1].startswith("removed p0: 2 faces\n")
    assert json.loads(run("gallery", gallery, "--json")[1])["people"] == {"p1": 2, "p2": 2}
    assert run("identify", gallery, A, *MODEL, "--threshold", "1")[0] == NO
    assert "there is no such gallery" in run("identify", "typo.db", A, *MODEL)[2]


def test_embed_writes_a_folder_and_names_what_it_left_out(run, tmp_path, folder):
    (folder / "people" / "p2" / "broken.png").write_text("nothing")
    output = str(tmp_path / "faces.npz")
    code, out, err = run("embed", "people", "--output", output, *MODEL)
    (folder / "people" / "p2" / "broken.png").unlink()
    assert code == 0
    assert "6 photos, 16 numbers each; 1 left out" in out
    assert "broken.png: cannot be decoded as an image (of no known kind)" in err
    with np.load(output) as arrays:
        assert arrays["embeddings"].shape == (6, 16)
        assert arrays["names"][0].endswith("0.png")


def test_identify_goes_on_after_a_photo_that_cannot_be_read(run, tmp_path):
    gallery, broken, tiny = (str(tmp_path / name) for name in ("people.db", "broken.jpg", "tiny.png"))
    pathlib.Path(broken).write_text("nothing")
    pathlib.Path(tiny).write_bytes(ksf.data.encode_png(np.zeros((1, 1, 3), np.uint8)))
    assert run("enroll", gallery, "Ann", A, *MODEL)[0] == 0
    code, out, err = run("identify", gallery, broken, tiny, A, *MODEL, "--threshold", "0.9", "--json")
    assert (code, [answer["name"] for answer in json.loads(out)]) == (ERROR, ["Ann"])
    assert err.startswith(f"left out: {broken}: cannot be decoded")
    assert f"left out: {tiny}: expected an aligned crop" in err
    code, out, err = run("identify", gallery, broken, *MODEL, "--threshold", "0.9", "--json")
    assert (code, out) == (ERROR, "")
    assert err.startswith(f"keras-sphereface identify: {broken}: cannot be decoded")
    assert "(threshold 0.9000, 1 person)" in run("identify", gallery, A, *MODEL, "--threshold", "0.9")[1]


def test_a_picture_that_is_too_large_is_told_once(run, tmp_path, recwarn):
    """By the package; Pillow would warn of it as well."""
    chunk = b"IHDR" + (10000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    header = (13).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + bytes(4) + b"IDAT" + bytes(4))
    words = ["verify", str(tmp_path / "huge.png"), A, *MODEL]
    fails_in_one_line(run, words, "claims 10000 x 10000 pixels, more than the limit", ERROR)
    assert not [warning for warning in recwarn if "decompression" in str(warning.message)]


def test_a_damaged_gallery_is_not_blamed_on_the_photos(run, tmp_path):
    gallery = str(tmp_path / "people.db")
    assert run("enroll", gallery, "Ann", A, *MODEL)[0] == 0
    with sqlite3.connect(gallery) as other:
        other.execute("UPDATE faces SET embedding = 'abc'")
    words = ["identify", gallery, A, B, *MODEL, "--threshold", "0.9"]
    fails_in_one_line(run, words, f"{gallery}: a face of 'Ann' (number 1) is damaged", ERROR)


def test_enroll_goes_on_after_a_person_whose_photo_cannot_be_read(run, tmp_path):
    gallery, people = str(tmp_path / "people.db"), tmp_path / "people"
    for name in ("Ann", "Bob", "Cid"):
        (people / name).mkdir(parents=True)
    (people / "Ann" / "a.png").write_bytes(pathlib.Path(A).read_bytes())
    (people / "Bob" / "b.jpg").write_text("nothing")
    (people / "Cid" / "c.png").write_bytes(pathlib.Path(B).read_bytes())
    code, out, err = run("enroll", gallery, "--folder", str(people), *MODEL, "--json")
    assert (code, [one["name"] for one in json.loads(out)]) == (ERROR, ["Ann", "Cid"])
    assert err.startswith(f"left out: {people / 'Bob' / 'b.jpg'}: cannot be decoded")
    (people / "Bob" / "b.jpg").write_bytes(pathlib.Path(A).read_bytes())  # Ann's
    code, out, err = run("enroll", gallery, "--folder", str(people), *MODEL, "--json")
    assert (code, [one["name"] for one in json.loads(out)]) == (ERROR, ["Ann", "Cid"])
    assert "enrolled as 'Ann' already" in err
    (people / "Empty").mkdir()
    (people / "No\nbody").mkdir()
    (people / "No\nbody" / "d.png").write_bytes(pathlib.Path("people/p2/4.png").read_bytes())
    code, out, err = run("enroll", gallery, "--folder", str(people), *MODEL, "--json")
    assert (code, [one["name"] for one in json.loads(out)]) == (ERROR, ["Ann", "Cid"])
    assert [line.partition(": ")[0] for line in err.splitlines()] == ["left out"] * 3
    assert f"There are no images under {people / 'Empty'}" in err
    assert "printable characters. Received: name='No\\nbody'" in err


def test_a_report_is_saved_where_nobody_reads_what_is_printed(run, tmp_path, monkeypatch):
    def gone(*args, **kwargs):
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", gone)
    save = tmp_path / "r.json"
    words = ["evaluate", "model.keras", "--pairs", "pairs.bin", "--bootstrap", "0", "--save", str(save)]
    assert main(words) == UNREAD
    assert json.loads(save.read_text())["num_pairs"] == 1


def test_names_of_files_that_are_no_text_are_printed(run, folder, tmp_path):
    photo = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")  # in Latin-1
    try:
        pathlib.Path(photo).write_bytes((folder / A).read_bytes())
    except OSError:
        pytest.skip("this system has no such names")
    assert run("enroll", str(tmp_path / "people.db"), "Ann", A, *MODEL)[0] == 0
    code, out, _ = run("identify", str(tmp_path / "people.db"), photo, *MODEL, "--threshold", "0.9", "--json")
    assert (code, json.loads(out)[0]["photo"]) == (0, photo)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "UTF8"])
def test_json_is_json_in_every_encoding(folder, tmp_path, monkeypatch, encoding):
    with Gallery(tmp_path / "people.db") as gallery:
        gallery.add("Zo\u00e9 \u4f60", [b"1"], np.float32([[0.6, 0.8]]))
    output = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["gallery", str(tmp_path / "people.db"), "--json"]) == 0
    assert json.loads(output.buffer.getvalue().decode(encoding))["people"] == {"Zo\u00e9 \u4f60": 1}


@pytest.fixture
def shell(tmp_path):
    """Runs `keras-sphereface gallery FILE` in a shell, with more of the shell's words behind; returns code and texts."""
    with Gallery(tmp_path / "people.db") as gallery:
        gallery.add("Ann", [b"1"], np.float32([[0.6, 0.8]]))
    code = "import sys, keras_sphereface_command as c; sys.argv[0] = ''; sys.exit(c.main())"

    def call(words):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        command = f'"{sys.executable}" -c "{code}" gallery {words}'
        result = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
        )
        return result.returncode, result.stdout, result.stderr

    return call


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("words", "code", "out", "message"),
    [
        ("people.db >&-", 0, "", ""),
        ("typo.db 2>&-", ERROR, "", ""),  # where nobody listens, nothing goes to the wrong stream
        ("typo.db <&- >&- 2>&-", ERROR, "", ""),
        ("people.db | true; exit ${PIPESTATUS[0]}", 0, "", ""),  # the answer was known
        ("people.db >/dev/full", ERROR, "", "gallery: the output cannot be written (No space left on device)"),
    ],
)
def test_streams_that_are_closed_full_or_unread(shell, words, code, out, message):
    if "/dev/full" in words and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    found = shell(words)
    assert found[:2] == (code, out)
    assert found[2].count("\n") == bool(message)
    assert message in found[2]


def fails_in_one_line(run, words, message, exit_code):
    """Runs a command that must print nothing but one line that names it and says the message."""
    code, out, err = run(*words)
    assert (code, out) == (exit_code, "")
    assert message in err
    assert err.startswith(f"keras-sphereface {words[0]}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "people", A, *MODEL], "people: expected a file, this is a folder"),
        (["gallery", os.devnull], f"{os.devnull}: there is no such gallery"),
        (["gallery", "people"], "people: a folder, not a gallery"),
        (["identify", "people", A, *MODEL], "people: a folder, not a gallery"),
        (["gallery", "empty.db"], "empty.db: an empty file, not a gallery"),
        (["embed", "cut.keras", "cut.keras", "--output", "x.npz", *MODEL], "cut.keras: cannot be decoded"),
        (["verify", "nowhere.jpg", A, *MODEL], "nowhere.jpg: there is no such file"),
        (["verify", A, A, "--model", "nowhere.keras", *CROPS], "nowhere.keras"),
        (["verify", A, A, *MODEL, "--far", "1e-3"], "Known: none at all"),
        (["enroll", "", "Ann", A, *MODEL], "path=''"),
        (["enroll", "x.db", "--folder", "people/p0", *MODEL], "people/p0: has no folders"),
        (["enroll", "x.db", "Ann", "model.keras", *MODEL], "cannot be decoded"),
        (["train", "nowhere", "--output", "x.keras"], "nowhere"),
        (["evaluate", "cut.keras", "--pairs", "pairs.bin"], "cut.keras: not a .keras file"),
        (["detect", "people", "--output", A], f"{A}: a file stands where a folder is expected"),
        (["pack", A, "packed"], f"{A}: a file stands where a folder is expected"),
        (["pack", "people", f"{A}/train.rec"], f"{A}: a file stands where a folder is expected"),
    ],
)
def test_errors_are_one_line_without_a_traceback(run, words, message):
    fails_in_one_line(run, words, message, ERROR)
    with pytest.raises((ValueError, OSError)):
        run(*words, "--debug")


def test_wrong_usage_is_exit_code_2(run):
    verify = ["verify", A, B]
    for words in (
        ["verify", A],
        ["nonsense"],
        [*verify, "--far", "0.1", "--threshold", "0.1"],
        [*verify, "--threshold", "2"],
        [*verify, "--threshold", "nan"],
        [*verify, "--far", "0"],
        ["evaluate", "m.keras", "--pairs", "pairs.bin", "--bootstrap", "-1"],
        ["demo", "--port", "99999999"],
    ):
        with pytest.raises(SystemExit) as caught:
            run(*words)
        assert caught.value.code == USAGE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", A, B, "--far", "x"], "--far: expected a rate between 0 and 1, e.g. 1e-3. Received: x"),
        (["verify", A, B, "--threshold", "x"], "--threshold: expected a cosine, -1..1. Received: x"),
        (["identify", "x.db", A, "--top", "two"], "--top: expected a whole number of at least 1. Received: two"),
        (["identify", "x.db", A, "--top", "0"], "--top: expected a whole number of at least 1. Received: 0"),
        (["train", "x", "--seed", "-1"], "--seed: expected a whole number from 0 to 2**32 - 1. Received: -1"),
        (["plot", "margins", "m.png", "--margins", "v=1", "arcface=x"], "expected arcface=VALUE with a number"),
        (["train", "x", "--learning-rate", "nan"], "--learning-rate: expected a finite number above 0. Received: nan"),
        (
            ["train", "x", "--weight-decay", "-1"],
            "--weight-decay: expected a finite number of at least 0. Received: -1",
        ),
        (["train", "x", "--margin", "inf"], "--margin: expected a finite number of at least 0. Received: inf"),
        (
            ["plot", "digits", "d.png", "--seed", "-1"],
            "--seed: expected a whole number from 0 to 2**32 - 1. Received: -1",
        ),
    ],
)
def test_numbers_that_are_none_are_told_what_is_expected(words, message, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["embed", "people", "--output", "x.txt", *MODEL], "x.txt"),
        (["enroll", "x.db"], "NAME PHOTO"),
        (["enroll", "x.db", "Ann", *MODEL], "NAME PHOTO"),
        (["train", "synthetic", "--output", "x.txt"], "x.txt"),
        (["train", "no.rec", "--head", "Softmax", "--margin", "0.3"], "--margin: Softmax has none"),  # before the data
        (["train", "synthetic", "--head", "Softmax", "--scale", "30"], "--scale: Softmax has none"),
        (["train", "synthetic", "--backbone", "nope"], "--backbone must be one of sfnet4, "),
        (
            ["train", "people", "--pretrained", "m.keras", "--backbone", "sfnet4"],
            "--backbone: --pretrained has its own",
        ),
        (["plot", "margins", "x.gif"], "ending in .png"),
        (["publish", "model.keras", "badname", "--dry-run", "pub"], "organization/"),
        (["detect", "people", "--size", "0", "5"], "Expected --size as 112 112 or 112 96. Received: --size 0 5"),
        (["pack", "people", "packed", "--jpeg-quality", "0"], "--jpeg-quality of 1 to 100"),
        (["export", "m.keras", "m.onnx", "--precision", "int8"], "--precision int8 needs --calibration"),
        (["export", "m.keras", "m.pb"], "Unknown ending '.pb'"),
        (["convert", "m.pth", "--architecture", "sfnet", "--output", "m.h5"], "--output must end in .keras"),
        (["evaluate", "m.keras", "--lfw", "people"], "--lfw needs --protocol as well"),
        (["evaluate", "m.keras", "--list", "pairs.txt"], "--list needs --images as well"),
        (["evaluate", "m.keras", "--ijb", "people"], "--ijb needs --features as well"),
        (["evaluate", "m.keras", "--pairs", "a.bin", "--protocol", "p.txt"], "--protocol is for --lfw. Received: "),
        (["evaluate", "m.keras", "--pairs", "a.bin", "--images", "people"], "--images is for --list, --cfp"),
        (["evaluate", "m.keras", "--pairs", "a.bin", "--no-norm"], "--no-norm is for --ijb. Received: --no-norm with"),
        (["evaluate", "m.keras", "--cfp", "people", "--layout", "pair"], "--layout is for --list"),
        (["evaluate", "m.keras", "--ijb", ".", "--features", "f.h5", "--seed", "0"], "--seed is for --pairs, --lfw, "),
    ],
)
def test_what_the_command_line_alone_shows_to_be_wrong_is_exit_code_2(run, words, message):
    fails_in_one_line(run, words, message, USAGE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--save", "people"], "Expected a file. Received: people, a folder"),
        (["--save", "taken/r.json"], "taken: a file stands where a folder is expected"),
        (["--plot", "taken"], "taken: a file stands where a folder is expected"),
    ],
)
def test_outputs_of_evaluate_are_checked_before_the_work(run, folder, words, message):
    """Before the model is looked for, which is not there."""
    if "--plot" in words:
        pytest.importorskip("matplotlib", reason="needs the extra [plots]")
    (folder / "taken").write_text("a file")
    fails_in_one_line(run, ["evaluate", "nowhere.keras", "--pairs", "pairs.bin", *words], message, ERROR)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(command, capsys):
    with pytest.raises(SystemExit) as caught:
        build_parser(command).parse_args([command, "--help"])
    assert caught.value.code == 0
    assert f"keras-sphereface {command}" in capsys.readouterr().out.split("options:")[0].replace("usage: ", "", 1)


def test_notices_of_tensorflow_are_held_back_and_errors_are_not(capfd):
    error = "E0000 00:00:1 7 cuda_dnn.cc:52] cuDNN is older than this library\n"
    no_gpu = "E0000 00:00:1 7 cuda_platform.cc:52] failed call to cuInit: CUDA error: UNKNOWN ERROR (303)\n"
    with start.without_notices():
        os.write(2, f"I0000 00:00:1 7 port.cc:153] oneDNN custom operations are on\n{error}{no_gpu}words\n".encode())
    assert capfd.readouterr().err == f"{error}words\n"


def test_an_error_in_a_shell_is_one_line():
    code = "import sys, keras_sphereface_command as c; sys.argv = ['', 'verify', 'no.jpg', 'no.jpg', '--model', 'no.keras']"
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", f"{code}; sys.exit(c.main())"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (result.returncode, result.stdout) == (ERROR, "")
    assert result.stderr.startswith("keras-sphereface verify: no.keras: there is no such file or folder")
    assert result.stderr.count("\n") == 1


def test_train_makes_a_model_that_the_other_commands_take(run, tmp_path, folder):
    output = str(tmp_path / "model.keras")
    words = ["train", "people", "--output", output, "--backbone", "sfnet4", "--embedding-dim", "8", "--steps", "2"]
    code, out, _ = run(*words, "--batch-size", "2", "--steps-per-epoch", "1", "--learning-rate", "0.01", "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["identities"], result["images"]) == (3, 6)
    assert run("verify", A, A, "--model", output, *CROPS, "--threshold", "0.9")[0] == 0
    again = [*words, "--batch-size", "2", "--steps-per-epoch", "1"]
    code, out, error = run(*again, "--head", "ArcFace", "--learning-rate", "0.02")
    assert (code, out) == (ERROR, "")
    assert (
        "begun with --head='SphereFaceR', --learning-rate=0.01. Received: --head='ArcFace', --learning-rate=0.02"
        in error
    )
    assert run(*again, "--learning-rate", "0.02", "--may-change", "learning-rate")[0] == 0


def test_train_takes_crops_of_any_size_and_a_run_can_be_made_longer(run, tmp_path, rng):
    people = tmp_path / "people"
    for number in range(4):
        (people / f"p{number % 2}").mkdir(parents=True, exist_ok=True)
        narrow = rng.integers(0, 256, (28, 24, 3)).astype(np.uint8)
        (people / f"p{number % 2}" / f"{number}.png").write_bytes(ksf.data.encode_png(narrow))
    output = str(tmp_path / "narrow.keras")
    words = ["train", str(people), "--output", output, "--backbone", "sfnet4", "--embedding-dim", "4"]
    words += ["--batch-size", "2", "--learning-rate", "0.001"]
    assert run(*words, "--steps", "20")[0] == 0
    assert keras.saving.load_model(output).input_shape == (None, 28, 24, 3)
    assert run(*words, "--steps", "30", "--may-change", "steps")[0] == 0
    steps = [json.loads(path.read_text())["step"] for path in sorted((tmp_path / "narrow_checkpoints").glob("*.json"))]
    assert steps == [28, 30], "two steps an epoch, as the run was begun"
    code, _, error = run(*words, "--steps", "40", "--may-change", "steps", "--pairs", "pairs.bin")
    assert code == ERROR
    assert "Expected images of the model's input size (28, 24). Received: images of (112, 112)" in error


def test_train_goes_on_from_a_trained_model(run, tmp_path):
    output = str(tmp_path / "mine.keras")
    words = ["train", "people", "--pretrained", "model.keras", "--output", output, "--batch-size", "2"]
    assert run(*words, "--steps", "1")[0] == 0
    images = np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3), "uint8")
    before, after = (ksf.load_pretrained(path).predict(images, verbose=0) for path in ("model.keras", output))
    assert 0 < np.abs(after - before).max() < 0.1, "the model's own weights, one small step on"
    code, _, error = run(*words, "--steps", "2", "--may-change", "steps", "--learning-rate", "0.01")
    assert code == ERROR
    assert "--learning-rate=0.0001. Received: --learning-rate=0.01" in error
    code, _, error = run("train", "people", "--output", output, "--batch-size", "2")
    assert code == ERROR
    assert "begun with --backbone=None" in error
    assert run(*words, "--steps", "2", "--may-change", "steps")[0] == 0


def test_train_names_the_size_that_a_trained_model_takes(run, tmp_path, rng):
    for person in ("a", "b"):
        (tmp_path / person).mkdir()
        picture = ksf.data.encode_png(rng.integers(0, 256, (32, 48, 3)).astype(np.uint8))
        (tmp_path / person / "1.png").write_bytes(picture)
    code, _, error = run("train", str(tmp_path), "--pretrained", "model.keras", "--output", str(tmp_path / "x.keras"))
    assert code == ERROR
    assert "expected images of 112x112 (height x width), as model.keras takes. Received: 32x48" in error


def test_train_says_what_was_hardly_meant(run, tmp_path, rng):
    """A folder too high up, of which all images are of one person; photos instead of crops."""
    for person in ("a", "b"):
        (tmp_path / "data" / "train" / person).mkdir(parents=True)
        picture = ksf.data.encode_png(rng.integers(0, 256, (32, 48, 3)).astype(np.uint8))
        (tmp_path / "data" / "train" / person / "1.png").write_bytes(picture)
    words = ["--backbone", "sfnet4", "--embedding-dim", "4", "--steps", "1", "--batch-size", "2"]
    words += ["--output", str(tmp_path / "new" / "model.keras")]
    code, _, error = run("train", str(tmp_path / "data"), *words)
    assert code == ERROR
    assert "has the images of one person, expected at least 2: one folder per person" in error
    code, _, error = run("train", str(tmp_path / "data" / "train"), *words)
    assert code == 0
    assert "the images are 32x48 (height x width), and so is what the model takes" in error
    assert (tmp_path / "new" / "model.keras").is_file()


def test_measured_thresholds_go_from_evaluate_to_verify(run, tmp_path):
    pairs, report = str(tmp_path / "new" / "own.bin"), str(tmp_path / "report.json")
    code, out, _ = run("pairs", "people", pairs, "--num-folds", "1", "--json")
    counts = {"pairs": 6, "mated": 3, "people": 3, "images": 6}
    assert (code, json.loads(out)) == (0, {"output": pairs, **counts})
    assert "measure with --num-folds 1" in run("pairs", "people", pairs, "--num-folds", "1")[1]
    code, out, _ = run("evaluate", "model.keras", "--pairs", pairs, "--num-folds", "1", "--bootstrap", "0", "--json")
    assert "folds:10" not in json.loads(out)["signature"]
    assert (
        run("evaluate", "model.keras", "--pairs", pairs, "--fars", "0.5", "--bootstrap", "0", "--save", report)[0] == 0
    )
    code, out, _ = run("verify", A, A, *MODEL, "--thresholds", report, "--json")
    answer = json.loads(out)
    assert (code, answer["match"], answer["far"]) == (0, True, 0.5)
    assert answer["threshold"] == json.loads(pathlib.Path(report).read_text())["tar_at_far"]["0.5"]["threshold"]
    code, _, error = run("verify", A, A, *MODEL, "--thresholds", "pairs.bin")
    assert code == ERROR
    assert "pairs.bin: expected a report on pairs" in error


def test_too_many_broken_images_are_told_in_one_line(run, tmp_path, rng):
    """tf.data passes the error on with a traceback before and behind it."""
    image = ksf.data.encode_png(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8))
    for number in range(150):
        path = tmp_path / "people" / f"p{number % 2}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image if number < 4 else image[:60])
    words = ["--backbone", "sfnet4", "--embedding-dim", "4", "--steps", "4", "--output", str(tmp_path / "model.keras")]
    code, _, error = run("train", str(tmp_path / "people"), *words)
    assert (code, error.splitlines()[-1].startswith("keras-sphereface train: ")) == (ERROR, True)
    # Several batches are read at a time: another image may be counted before the first error is told.
    assert re.search(r"\b10\d broken images, more than max_bad=100. The latest: ", error.splitlines()[-1])
    assert "Traceback" not in error


def test_detect_finds_and_cuts_out(run, shared, tmp_path):
    pytest.importorskip("mtcnn", reason="needs the extra [faces]")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("MTCNN runs on TensorFlow")
    photo = str(shared / "data/lfw_112x112/George_W_Bush/George_W_Bush_0253.jpg")
    code, out, _ = run("detect", photo, "--output", str(tmp_path / "crops"), "--size", "112", "96", "--json")
    (face,) = json.loads(out)[0]["faces"]
    assert (code, ksf.data.read_image(face["crop"]).shape) == (0, (112, 96, 3))
    (tmp_path / "wall.png").write_bytes(ksf.data.encode_png(np.full((90, 90, 3), 77, np.uint8)))
    wall, broken = str(tmp_path / "wall.png"), tmp_path / "broken.png"
    assert run("detect", wall)[:2] == (NO, f"{wall}: no face found\n")
    broken.write_text("nothing")
    code, out, err = run("detect", str(broken), wall)
    assert (code, out) == (ERROR, f"{wall}: no face found\n")
    assert err.startswith(f"left out: {broken}: cannot be decoded")


def test_crops_lie_as_the_photos_do_and_none_is_written_over():
    photos = ["p/ann/1.jpg", "p/ann/1.png", "p/bob/1.jpg", "q/ann/1.jpg", "x/1.jpg", "p/bob/1.jpg"]
    stems = detect._stems(["p", "q", "x/1.jpg"], photos)
    assert [stems[photo].as_posix() for photo in photos[:-1]] == ["ann/1", "ann/1-2", "bob/1", "ann/1-3", "1"]


def test_no_crop_takes_a_photos_place(run, monkeypatch, tmp_path, rng):
    """`detect photos --output photos`: of a.jpg the first crop would be a_0.png, which is another photo."""
    from keras_sphereface import faces

    template = ksf.data.alignment.ARCFACE_112X112
    middle = faces.Face(np.array([20.0, 20, 100, 100]), template, 1.0)
    monkeypatch.setattr(faces.FaceAligner, "faces", lambda self, image, name: [middle])
    monkeypatch.setattr(faces.aligner, "get", lambda detector: detector)
    data = {name: ksf.data.encode_png(rng.integers(0, 256, (112, 112, 3), np.uint8)) for name in ("a.jpg", "a_0.png")}
    photos, elsewhere, link = tmp_path / "photos", tmp_path / "elsewhere.png", tmp_path / "photos" / "b_0.png"
    photos.mkdir()
    for name in data:
        (photos / name).write_bytes(data[name])
    (photos / "b.png").write_bytes(data["a.jpg"])
    elsewhere.write_bytes(data["a_0.png"])
    link.symlink_to(elsewhere)
    code, out, _ = run("detect", str(photos), "--output", str(photos), "--json")
    crops = {pathlib.Path(one["photo"]).name: pathlib.Path(one["faces"][0]["crop"]).name for one in json.loads(out)}
    assert code == 0
    assert crops == {"a.jpg": "a-2_0.png", "a_0.png": "a_0_0.png", "b.png": "b-2_0.png", "b_0.png": "b_0_0.png"}
    assert {name: (photos / name).read_bytes() for name in data} == data
    assert link.is_symlink()
    assert elsewhere.read_bytes() == data["a_0.png"]


def test_crops_inside_the_folder_of_photos_are_no_photos(run, monkeypatch, tmp_path):
    from keras_sphereface import faces

    face = faces.Face(np.array([20.0, 20, 100, 100]), ksf.data.alignment.ARCFACE_112X112, 1.0)
    monkeypatch.setattr(faces.FaceAligner, "faces", lambda self, image, name: [face])
    monkeypatch.setattr(faces.aligner, "get", lambda detector: detector)
    photos, crops = tmp_path / "photos", tmp_path / "photos" / "crops"
    photos.mkdir()
    shutil.copy(A, photos / "a.png")
    words = ["detect", str(photos), "--output", str(crops)]
    for passed_over in ("", f"passed over: 1 images under {crops}, crops of earlier runs\n"):
        code, _, err = run(*words)
        assert (code, err) == (0, passed_over)
        assert [path.name for path in crops.iterdir()] == ["a_0.png"]
    (photos / "a.png").unlink()
    assert "no photos beside those under --output" in run(*words)[2]


def test_detect_names_the_crops_that_an_earlier_run_left(run, monkeypatch, tmp_path):
    from keras_sphereface import faces

    found = [faces.Face(np.array([20.0, 20, 100, 100]), ksf.data.alignment.ARCFACE_112X112, 1.0)] * 3
    monkeypatch.setattr(faces.FaceAligner, "faces", lambda self, image, name: found)
    monkeypatch.setattr(faces.aligner, "get", lambda detector: detector)
    words = ["detect", A, "--output", str(tmp_path)]
    assert "not of this run" not in run(*words)[2]
    del found[1:]
    assert [line.split(". ")[0] for line in run(*words)[2].splitlines()] == [
        f"not of this run: {tmp_path / f'0_{number}.png'}" for number in (1, 2)
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0_0.png", "0_1.png", "0_2.png"]
