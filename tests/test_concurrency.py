"""Several processes and threads at the same files."""

import os
import threading

import numpy as np
import pytest

from keras_sphereface import data as faces
from keras_sphereface.data.recordio_index import scan
from keras_sphereface.files import atomic_writer

WRITERS, ROUNDS = 4, 25


def pictures():
    return [np.full((8, 8, 3), 10 * number, np.uint8) for number in range(6)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_processes_that_rebuild_one_index_disturb_nobody(tmp_path):
    """Each removes the index now and then, so that all the others find it missing, whole, or being written."""
    path = faces.write_recordio(tmp_path / "a.rec", pictures(), [0, 0, 1, 1, 2, 2])
    offsets = scan(path)[1].tolist()
    children = []
    for number in range(WRITERS):
        child = os.fork()
        if child == 0:
            os._exit(_use_index(path, offsets, number))
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * WRITERS
    assert [name for name in os.listdir(tmp_path) if name.endswith(".tmp")] == []


def _use_index(path, offsets, number):
    try:
        for attempt in range(ROUNDS):
            if attempt % WRITERS == number:
                path.with_suffix(".idx").unlink(missing_ok=True)
            reader = faces.RecordIOReader(path)
            assert reader.offsets.tolist() == offsets
            reader.close()
        return 0
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1


def test_threads_that_write_one_file_leave_one_whole_content(tmp_path):
    path, failures = tmp_path / "cache", []

    def write(number):
        try:
            for _ in range(ROUNDS):
                with atomic_writer(path) as file:
                    for _ in range(20):
                        file.write(bytes([number]) * 1000)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = path.read_bytes()
    assert failures == []
    assert len(content) == 20_000
    assert len(set(content)) == 1
    assert os.listdir(tmp_path) == ["cache"]


def test_threads_share_a_reader(tmp_path):
    path = faces.write_recordio(tmp_path / "a.rec", pictures(), [0, 0, 1, 1, 2, 2])
    dataset, failures = faces.from_recordio(path), []
    expected = [dataset.read(number) for number in range(6)]

    def read(seed):
        for record in np.random.default_rng(seed).integers(0, 6, 100).tolist():
            image, label = dataset.read(record)
            if label != expected[record][1] or not np.array_equal(image, expected[record][0]):
                failures.append(record)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
