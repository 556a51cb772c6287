"""Sequences in other processes, forked or sent there, as PyTorch's DataLoader does with its workers."""

import os
import pickle
import signal
import time

import numpy as np
import pytest

from keras_sphereface import data as faces

pytestmark = pytest.mark.core


def opened(kind, folder):
    images = [np.full((16, 16, 3), 20 * number, np.uint8) for number in range(9)]
    if kind == "recordio":
        return faces.from_recordio(faces.write_recordio(folder / "a.rec", images, np.arange(9) // 3))
    if kind == "tfrecord":
        return faces.from_tfrecord(faces.write_tfrecord(folder / "a.tfrecord", images, np.arange(9) // 3))
    return faces.synthetic(3, 3, image_size=16)


@pytest.mark.parametrize("kind", ["recordio", "tfrecord", "synthetic"])
def test_a_sequence_that_was_pickled_gives_the_same_batches(kind, tmp_path):
    sequence = opened(kind, tmp_path).sequence(4, seed=1, augment="strong")
    expected = sequence[1]
    for array, other in zip(pickle.loads(pickle.dumps(sequence))[1], expected):
        np.testing.assert_array_equal(array, other)


def test_a_fork_reads_on_with_threads_of_its_own(tmp_path):
    sequence = opened("recordio", tmp_path).sequence(4)
    expected = sequence[0]
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(sequence[0][0], expected[0]) else 1)
    for _ in range(200):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the fork hangs")
