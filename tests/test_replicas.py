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


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    here = pathlib.Path(__file__).parent
    return subprocess.run(
        [sys.executable, str(here / "two_replicas.py"), str(tmp_path_factory.mktemp("replicas"))],
        env={**os.environ, "PYTHONPATH": str(here.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's")
@pytest.mark.parametrize("check", CHECKS)
def test_two_replicas(result, check):
    assert f"{check}: ok" in result.stdout, result.stderr[-3000:]
