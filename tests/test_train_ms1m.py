"""The training program: trains on RecordIO, measures pairs, saves, and goes on where it was stopped."""

import csv
import json
import os
import pathlib
import runpy
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_sphereface as ksf

PROGRAM = pathlib.Path(__file__).resolve().parent.parent / "examples" / "train_ms1m.py"
PEOPLE, PICTURES, KILLS = 4, 4, 4


def write_training_set(folder):
    dataset = ksf.data.synthetic(PEOPLE, PICTURES, seed=3)
    images, labels = zip(*(dataset.read(record) for record in range(dataset.num_images)))
    ksf.data.write_recordio(folder / "train.rec", images, labels)
    return images, labels


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A folder in InsightFace's layout: four synthetic people, and pairs of them."""
    folder = tmp_path_factory.mktemp("faces")
    images, labels = write_training_set(folder)
    images, labels = np.stack(images), np.array(labels)
    left, right = np.triu_indices(len(images), 1)
    pairs = ksf.data.PairSet.from_arrays(images, left, right, labels[left] == labels[right], name="toy")
    ksf.data.write_bin(folder / "toy.bin", pairs)
    return folder


def run(*flags):
    command = [sys.executable, str(PROGRAM), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_trains_measures_saves_and_resumes(faces, tmp_path):
    flags = [
        f"--data_dir={faces}",
        f"--output_dir={tmp_path}",
        "--backbone=sfnet4",
        "--embedding_dim=16",
        "--batch_size=8",
        "--steps_per_epoch=2",
        "--learning_rate=0.001",
        "--schedule=constant",
        "--ema=0.9",
        "--dtype_policy=mixed_bfloat16",
        "--xla=false",
    ]
    first = run(*flags, "--steps=2")
    assert first.returncode == 0, first.stderr[-3000:]
    assert "accuracy (10 folds)" in first.stdout
    assert f"Next, measure it on more pairs: keras-sphereface evaluate {tmp_path / 'model.keras'} " in first.stdout
    second = run(*flags, "--steps=3")
    assert second.returncode == 0, second.stderr[-3000:]
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"], "the second run goes on after the first"
    kept = [json.loads(path.read_text()) for path in sorted((tmp_path / "checkpoints").glob("*.json"))]
    assert all(one["run"]["--warmup_steps"] == 0 for one in kept), "a longer run does not warm up again"
    saved = [one["step"] for one in kept]
    assert saved == [2, 3], "the last epoch ends with the last step"
    assert all(np.isfinite(float(row["loss"])) for row in rows)
    assert all(0 <= float(row["val_toy_accuracy"]) <= 1 for row in rows)
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}, "whatever it was trained in"
    embeddings = model.predict(np.zeros((1, 112, 112, 3), "uint8"), verbose=0)
    np.testing.assert_allclose(np.linalg.norm(embeddings), 1.0, rtol=1e-5)
    other = run(
        *flags,
        "--steps=3",
        "--margin=1.5",
        "--feature_norm=soft",
        "--learning_rate=0.002",
        "--may_change=learning_rate",
    )
    assert other.returncode != 0
    assert (
        "begun with --feature_norm='hard', --margin=1.4. Received: --feature_norm='soft', --margin=1.5." in other.stderr
    )
    third = run(*flags, "--steps=3")
    assert third.returncode == 0, third.stderr[-3000:]
    again = keras.saving.load_model(tmp_path / "model.keras").predict(np.zeros((1, 112, 112, 3), "uint8"), verbose=0)
    np.testing.assert_allclose(again, embeddings, atol=1e-6, err_msg="a finished run gives its averaged weights again")
    report = json.loads(next(tmp_path.glob("toy*.json")).read_text())
    assert report["num_pairs"] == 120


@pytest.fixture(scope="module")
def program():
    """The program's own names; its flags can be defined only once in a process."""
    return runpy.run_path(str(PROGRAM), run_name="train_ms1m")


def with_defaults(program, names, *given):
    """Values of flags that were not given."""
    flags = program["FLAGS"]
    flags.unparse_flags()
    flags(["train_ms1m.py", *given])
    for name in names:
        if not any(flag.startswith(f"--{name}=") for flag in given):
            flags[name].value = flags[name].default
    program["fill_in_defaults"]({})
    return [flags[name].value for name in names]


def test_the_margin_grows_late_without_hard_normalization(program):
    """A quarter of the way is left to leaving chance, and half of it to growing."""
    names = ("margin_wait", "margin_interval", "margin_increase", "loss_weight")
    for feature_norm, expected in (("none", (175, 35, 0.04, 1.0)), ("soft", (175, 35, 0.04, 50.0))):
        assert with_defaults(program, names, f"--feature_norm={feature_norm}") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), ["sgd", "cosine", 0.03, 5e-4]),
        (("--data_dir=faces",), ["sgd", "steps", 0.1, 5e-4]),
        (("--data_dir=faces", "--backbone=vit_b"), ["adamw", "cosine", 0.001, 0.1]),
        (("--backbone=vit_b", "--optimizer=sgd"), ["sgd", "cosine", 0.03, 5e-4]),
        (("--optimizer=adamw", "--weight_decay=0.05"), ["adamw", "cosine", 0.001, 0.05]),
    ],
)
def test_a_vit_is_trained_as_insightfaces(program, given, expected):
    names = ("optimizer", "schedule", "learning_rate", "weight_decay")
    further = ("data_dir", "backbone", "steps", "warmup_steps")
    assert with_defaults(program, (*names, *further), *given)[: len(names)] == expected
    optimizer = program["make_optimizer"]()
    assert isinstance(optimizer, keras.optimizers.AdamW if expected[0] == "adamw" else keras.optimizers.SGD)
    assert optimizer.weight_decay == pytest.approx(expected[3] * (10 if expected[0] == "sgd" else 1))


@pytest.mark.slow
def test_a_wrong_folder_is_refused_in_a_line(tmp_path):
    result = run("--data_dir=nowhere", f"--output_dir={tmp_path}")
    assert result.returncode != 0
    assert result.stderr.endswith("\nnowhere/train.rec: there is no such file or folder\n")
    assert "Traceback" not in result.stderr


forks = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or not hasattr(os, "fork"), reason="forks, with TensorFlow"
)


def run_script(name, *arguments):
    """A script of this folder, which forks, in a process of its own."""
    here = pathlib.Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(here.parent)}
    command = [sys.executable, str(here / name), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@forks
def test_the_same_command_after_kills_gives_the_same_bits(tmp_path):
    write_training_set(tmp_path)
    result = run_script("killed_program.py", tmp_path, tmp_path, KILLS)
    assert f"survived {KILLS} kills; another batch size: exit status 1" in result.stdout, result.stderr[-3000:]
    assert "this run was begun with --batch_size=4. Received: --batch_size=8" in result.stderr


@pytest.mark.slow
@forks
def test_wrong_flags_are_refused_in_a_line(tmp_path):
    messages = {
        ("--pairs=lfw",): "--pairs=['lfw']: must be FILE.bin or FOLDER:PAIRS.txt",
        ("--margin=0.5",): "flag --margin=0.5",
        ("--sample_rate=0",): "--sample_rate=0.0: must be above 0 and at most 1",
        ("--loss_weight=0",): "--loss_weight=0.0: must be above 0",
        ("--weight_decay=-5", "--optimizer=adamw"): "--weight_decay=-5.0: must be finite and not negative",
        ("--margin_increase=inf",): "--margin_increase=inf: must be finite and not negative",
        ("--momentum=3",): "--momentum=3.0: must be of 0 to 1",
        ("--seed=-1",): "flag --seed=-1",
        ("--clip_norm=1", "--distribute=mirrored"): "clips each replica",
        ("--accumulate=2", "--distribute=mirrored"): "--accumulate: Keras can't accumulate",
    }
    (tmp_path / "runs.json").write_text(json.dumps([[*flags, f"--output_dir={tmp_path}"] for flags in messages]))
    result = run_script("program_runs.py", tmp_path / "runs.json")
    runs = json.loads(result.stdout)
    assert [run["status"] for run in runs] == [1] * len(messages), result.stderr[-3000:]
    for run_of_flags, message in zip(runs, messages.values()):
        assert message in run_of_flags["output"]


PARTS = ("corrupt JPEG", "zero bytes", "label beyond", "wrong magic", "index outside", "cut record")


def write_broken_set(folder):
    """The training set with one image of each kind broken; returns the number of each one's record."""
    dataset = ksf.data.synthetic(PEOPLE, PICTURES, seed=3)
    images, labels = zip(*(dataset.read(record) for record in range(dataset.num_images)))
    images, labels = [ksf.data.encode_jpeg(image) for image in images], list(labels)
    images[2], images[4], labels[6] = images[2][:40] + b"junk", b"", PEOPLE + 5
    path = ksf.data.write_recordio(folder / "train.rec", images, labels, image_size=(112, 112))
    (folder / "property").write_text(f"{PEOPLE},112,112")
    lines = (folder / "train.idx").read_text().splitlines()
    offsets = [int(line.split("\t")[1]) for line in lines]
    data = bytearray(path.read_bytes())
    data[offsets[8] : offsets[8] + 4] = b"\0\0\0\0"
    path.write_bytes(data[: offsets[-1] + 50])
    lines[10] = lines[10].split("\t")[0] + "\t999999999"
    (folder / "train.idx").write_text("\n".join(lines) + "\n")
    return dict(zip(PARTS, (2, 4, 6, 8, 10, len(offsets) - 1)))


@pytest.mark.slow
@forks
def test_broken_images_are_named_skipped_and_too_many_at_some_point(tmp_path):
    """Every kind at once: by default all are named and replaced; a limit and --strict stop the run."""
    broken = write_broken_set(tmp_path)
    flags = [
        f"--data_dir={tmp_path}",
        "--backbone=sfnet4",
        "--embedding_dim=8",
        "--batch_size=8",
        "--steps=4",
        "--steps_per_epoch=4",
        "--learning_rate=0.001",
        "--schedule=constant",
        "--dtype_policy=float32",
    ]
    more = [[], [f"--max_bad={len(broken) - 1}"], ["--strict"]]
    runs = [[*flags, f"--output_dir={tmp_path / str(number)}", *last] for number, last in enumerate(more)]
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    result = run_script("program_runs.py", tmp_path / "runs.json")
    assert result.returncode == 0, result.stderr[-3000:]
    default, limited, strict = json.loads(result.stdout.splitlines()[-1])
    assert default["status"] == 0, default["output"][-3000:]
    assert f"{len(broken)} broken images were replaced" in default["output"]
    for part, record in broken.items():
        assert f"train.rec, record {record} at offset" in default["output"], part
    assert limited["status"] == strict["status"] == 1
    assert f"{len(broken)} broken images, more than max_bad={len(broken) - 1}" in limited["output"]
    assert "strict: stopped at the first broken image" in strict["output"]
    assert not (tmp_path / "2" / "model.keras").exists()
