"""Several replicas: a run goes on with another number of them, all skip a bad batch or none, and draw the same classes."""

import os
import pathlib
import subprocess
import sys

import keras
import pytest

CHECKS = (
    "another_number_of_replicas_goes_on",
    "a_bad_batch_is_skipped_by_all_or_none",
    "stopping_leaves_the_weights_before",
    "they_draw_the_same_classes",
    "they_repel_the_same_classes",
    "what_keras_cannot_do_is_refused",
)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_two_replicas(tmp_path):
    """All checks in one test: those that run tests at several at a time would begin the program in each process."""
    here = pathlib.Path(__file__).parent
    result = subprocess.run(
        [sys.executable, str(here / "two_replicas.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(here.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [check for check in CHECKS if f"{check}: ok" not in result.stdout] == [], result.stderr[-3000:]
