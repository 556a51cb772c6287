"""The examples of heads on other people's networks run, at a size of seconds; their models load without custom_objects."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(program, *flags):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(ROOT / "examples" / program), *flags]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "UserWarning" not in result.stderr
    return result.stdout


@pytest.mark.slow
def test_keras_applications(tmp_path):
    logs = tmp_path / "logs"
    printed = run(
        "keras_applications.py", "--steps=2", "--identities=20", "--image_size=32", f"--tensorboard_dir={logs}"
    )
    assert "1000 pairs, 500 mated" in printed
    assert list(logs.rglob("events.out.tfevents.*")), "keras.callbacks.TensorBoard wrote its logs"


@pytest.mark.slow
def test_keras_hub(tmp_path):
    pytest.importorskip("keras_hub", reason="needs the package keras-hub")
    printed = run("keras_hub_backbone.py", "--steps=2", "--image_size=32", f"--output_dir={tmp_path}")
    difference = float(printed.rsplit("at most ", 1)[1].split(".\n")[0])
    assert difference < 1e-5
    assert (tmp_path / "trainer.keras").is_file()


@pytest.mark.slow
def test_figures(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra [plots]")
    pytest.importorskip("sklearn", reason="needs the extra [plots]")
    run("figures.py", f"--output_dir={tmp_path}", "--epochs=1", "--margins=softmax", "--margins=sphereface_r_v2")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"margins.png", "digits_2d.png", "digits_3d.png", "digits.gif", "curves.png"}
