"""A run that is killed goes on exactly: at any step, in the middle of a save, and with a damaged newest checkpoint."""

import errno
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from test_classifier import coloured_squares, make_trainer

from keras_sphereface import callbacks
from keras_sphereface.callbacks import checkpoint_files, variables_file
from keras_sphereface.errors import CheckpointError

KILLS = 20


@pytest.mark.skipif(keras.backend.backend() != "tensorflow" or not hasattr(os, "fork"), reason="forks, with TensorFlow")
def test_twenty_kills_change_no_bit(tmp_path):
    """Weights, moving means, momentum, averages, margin, random states: all equal to an uninterrupted run's."""
    here = pathlib.Path(__file__).parent
    result = subprocess.run(
        [sys.executable, str(here / "killed_training.py"), str(tmp_path), str(KILLS)],
        env={**os.environ, "PYTHONPATH": str(here.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"survived {KILLS} kills" in result.stdout, result.stderr[-3000:]


pytestmark = pytest.mark.core


def fit(folder, epochs=1, **arguments):
    images, labels = coloured_squares(np.random.default_rng(0), 16)
    trainer, checkpoint = make_trainer(), callbacks.Checkpoint(folder, **arguments)
    first = checkpoint.resume(trainer)
    trainer.fit(
        images,
        labels,
        batch_size=8,
        shuffle=False,
        verbose=0,
        initial_epoch=first,
        epochs=epochs,
        callbacks=[checkpoint],
    )
    return checkpoint


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoint = fit(folder, epochs=2, run={"batch_size": 8})
    assert checkpoint.step == 4
    return folder


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip_a_bit, pathlib.Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("file", ["epoch-000002.npz", "epoch-000002.json"])
def test_a_damaged_checkpoint_is_passed_over(two_epochs, tmp_path, damage, file):
    folder = tmp_path / "copy"
    shutil.copytree(two_epochs, folder)
    damage(folder / file)
    checkpoint = callbacks.Checkpoint(folder, run={"batch_size": 8})
    assert checkpoint.resume(make_trainer()) == 1
    assert checkpoint.step == 2


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"format": 1}', b'{"format": 1, "seal": null}'])
def test_a_description_that_is_none_is_passed_over(two_epochs, tmp_path, content):
    folder = tmp_path / "copy"
    shutil.copytree(two_epochs, folder)
    (folder / "epoch-000002.json").write_bytes(content)
    checkpoint = callbacks.Checkpoint(folder, run={"batch_size": 8})
    assert checkpoint.saved_run() == {"batch_size": 8}
    assert checkpoint.resume(make_trainer()) == 1


def test_no_whole_checkpoint_is_an_error_not_a_new_start(two_epochs, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(two_epochs, folder)
    for path in folder.glob("*.npz"):
        cut(path)
    with pytest.raises(CheckpointError, match="none of its 2 checkpoints is whole"):
        callbacks.Checkpoint(folder).resume(make_trainer())


def test_a_run_that_changed_is_refused_with_the_reason(two_epochs):
    with pytest.raises(ValueError, match=r"begun with batch_size=8.*Received: batch_size=16"):
        callbacks.Checkpoint(two_epochs, run={"batch_size": 16}).resume(make_trainer())
    adam = make_trainer(keras.optimizers.Adam(0.001))
    with pytest.raises(ValueError, match=r"holds .* variables, .* Received: .*Use the network and the optimizer"):
        callbacks.Checkpoint(two_epochs, run={"batch_size": 8}).resume(adam)


def test_values_of_a_run_are_what_json_makes_of_them(two_epochs, tmp_path):
    assert fit(tmp_path, run={"channels": (1, 2), "batch_size": 8}).saved_run() == {"channels": [1, 2], "batch_size": 8}
    assert callbacks.Checkpoint(tmp_path, run={"channels": (1, 2)}).resume(make_trainer()) == 1
    assert callbacks.Checkpoint(tmp_path / "new").saved_run() == {}
    for wrong in ({"rate": np.float32(0.1)}, {"rate": float("nan")}):
        with pytest.raises(ValueError, match="values that JSON knows"):
            callbacks.Checkpoint(tmp_path, run=wrong)


def test_a_training_that_begins_again_in_its_folder_is_refused(two_epochs, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(two_epochs, folder)
    images, labels = coloured_squares(np.random.default_rng(0), 16)
    trainer = make_trainer()
    with pytest.raises(ValueError, match=r"has a checkpoint of epoch 2\. Received: .* begins with epoch 1\."):
        trainer.fit(images, labels, verbose=0, callbacks=[callbacks.Checkpoint(folder)])
    assert int(trainer.optimizer.iterations) == 0
    assert names(folder) == names(two_epochs)


def test_a_model_that_is_not_ready_is_refused(two_epochs):
    trainer = make_trainer()
    trainer.optimizer = None
    with pytest.raises(ValueError, match="not compiled"):
        callbacks.Checkpoint(two_epochs).resume(trainer)


def test_another_precision_is_refused_not_read_as_numbers(tmp_path):
    half, single = (keras.Variable(np.ones(3, "float32"), dtype=dtype, name="w") for dtype in ("bfloat16", "float32"))
    for number, (saved, other) in enumerate([(half, single), (single, half)]):
        variables_file.write(tmp_path / f"{number}.npz", [saved])
        with pytest.raises(ValueError, match=rf"in {saved.dtype}\. Received: .* in {other.dtype}\. .*dtype policy"):
            variables_file.read(tmp_path / f"{number}.npz", [other])
        variables_file.read(tmp_path / f"{number}.npz", [saved])


def test_a_change_on_purpose_is_let_through_and_logged(two_epochs, caplog):
    run = {"batch_size": 16, "network": "new in the description, so nothing to compare with"}
    checkpoint = callbacks.Checkpoint(two_epochs, run=run, may_change=["batch_size"])
    assert checkpoint.resume(make_trainer()) == 2
    assert "goes on with batch_size=16 instead of 8" in caplog.text
    with pytest.raises(ValueError, match=r"`may_change` must name values of `run`: \['batch_size'\].*\['margin'\]"):
        callbacks.Checkpoint(two_epochs, run={"batch_size": 8}, may_change=["margin"])


def test_a_full_disk_stops_cleanly_with_the_last_good_checkpoint(two_epochs, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(two_epochs, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(
            CheckpointError, match=r"No space left on device.*good one: epoch-000002\.npz.*Free some room"
        ):
            fit(folder, epochs=3, run={"batch_size": 8})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert fit(folder, epochs=3, run={"batch_size": 8}).step == 6


def test_a_folder_that_cannot_be_is_known_before_the_first_step(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file: checkpoints cannot be written there"):
        callbacks.Checkpoint(tmp_path / "file").on_train_begin()


LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import pathlib
from test_resume import fit
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
fit(pathlib.Path(sys.argv[2]), epochs=3, run={"batch_size": 8})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_write_that_fails_halfway_leaves_nothing(two_epochs, tmp_path):
    """The limit on a file's size makes the system refuse a write in the middle, as a full disk does."""
    folder = tmp_path / "copy"
    shutil.copytree(two_epochs, folder)
    before = names(folder)
    here = pathlib.Path(__file__).parent
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(here), str(folder)],
        env={**os.environ, "PYTHONPATH": str(here.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(r"CheckpointError.*could not be written", result.stderr), result.stderr[-2000:]
    assert result.returncode == 1
    assert names(folder) == before


PAUSED = """
import os, pathlib, sys, time
sys.path.insert(0, sys.argv[1])
from test_resume import fit
sync, calls = os.fsync, []

def pausing(file):
    calls.append(file)
    if len(calls) == int(sys.argv[3]):
        print("saving", flush=True)
        time.sleep(60)
    sync(file)

os.fsync = pausing
fit(pathlib.Path(sys.argv[2]), epochs=3, run={"batch_size": 8})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGTERM")
@pytest.mark.parametrize("sync", [1, 3])
def test_sigterm_in_the_middle_of_a_save(two_epochs, tmp_path, sync):
    """While the variables are flushed, and while the description is: the checkpoint before it, and no remains later."""
    folder = tmp_path / "copy"
    shutil.copytree(two_epochs, folder)
    here = pathlib.Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, "-c", PAUSED, str(here), str(folder), str(sync)],
        env={**os.environ, "PYTHONPATH": str(here.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "saving\n"
        process.send_signal(signal.SIGTERM)
    assert process.returncode == -signal.SIGTERM
    assert len(names(folder)) > 4, "a half-written file was left"
    assert fit(folder, epochs=2, run={"batch_size": 8}).step == 4, "the last good one"
    assert fit(folder, epochs=3, run={"batch_size": 8}).step == 6
    assert names(folder) == [f"epoch-{epoch:06d}.{suffix}" for epoch in (2, 3) for suffix in ("json", "npz")]


def test_what_another_run_left_is_never_preferred(tmp_path):
    """A folder with checkpoints of later epochs, without the descriptions that make them count."""
    for epoch in (7, 8):
        (tmp_path / f"epoch-{epoch:06d}.npz").write_bytes(b"old")
    files = checkpoint_files.CheckpointFiles(tmp_path, keep=1)
    assert files.newest() == (None, None)
    files.write(1, lambda path: path.write_bytes(b"new"), {"epoch": 1})
    path, description = files.newest()
    assert (path.read_bytes(), description["epoch"]) == (b"new", 1)
    assert names(tmp_path) == ["epoch-000001.json", "epoch-000001.npz"]
    assert json.loads((tmp_path / "epoch-000001.json").read_bytes())["format"] == 1
