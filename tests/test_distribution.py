"""keras.distribution on JAX: the losses of one device, on four virtual devices and over two processes."""

import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_sphereface as ksf
from keras_sphereface import distribution

PROGRAM = pathlib.Path(__file__).parent / "distributed_training.py"
pytestmark = pytest.mark.core
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX")
has_tensorflow = importlib.util.find_spec("tensorflow") is not None


def start(devices, *arguments):
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",  # else steps overlap, and on few cores wait for each other
        "PYTHONPATH": os.pathsep.join([str(PROGRAM.parent.parent), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results(process):
    stdout, stderr = process.communicate(timeout=300)
    assert "RESULTS" in stdout, stderr[-3000:]
    return json.loads(stdout.partition("RESULTS")[2])


@pytest.fixture(scope="module")
def on_one_machine(tmp_path_factory):
    ways = [
        "one:8",
        "data:8",
        "class:8",
        "one:6",
        "class:6",
        "one_sampled:24",
        "class_sampled:24",
        "one_faces:8",
        "data_faces:8",
    ]
    return results(start(4, tmp_path_factory.mktemp("four"), *ways))


def assert_same(actual, expected):
    np.testing.assert_allclose(actual["losses"], expected["losses"], rtol=1e-5)
    assert expected["losses"][-1] != expected["losses"][0]
    assert actual["embedder"] == expected["embedder"] == 0.0


@needs_jax
@pytest.mark.parametrize(
    ("way", "reference", "part"),
    [
        ("data:8", "one:8", "(8, 8)"),
        ("class:8", "one:8", "(8, 2)"),
        ("class:6", "one:6", "(8, 3)"),  # 6 classes on 4 devices: over 2, and the batch over 2
        ("class_sampled:24", "one_sampled:24", "(8, 6)"),
        ("data_faces:8", "one_faces:8", "(8, 8)"),
    ],
)
def test_four_devices_give_the_losses_of_one(way, reference, part, on_one_machine):
    assert_same(on_one_machine[way], on_one_machine[reference])
    assert on_one_machine[way]["kernel"] == part
    assert on_one_machine[way]["checkpoint"] == pytest.approx(on_one_machine[reference]["checkpoint"], rel=1e-5)


@needs_jax
def test_two_processes_give_the_losses_of_one(tmp_path, on_one_machine):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    ways = ["data_local:8", "class_local:8", "data_faces:8", "class_faces:8"]
    if has_tensorflow:  # Keras shares out tf.data sets
        ways += ["class:8", "data_faces_tf:8"]
    folders = [tmp_path / "0", tmp_path / "1"]
    processes = [
        start(1, folder, f"--process={number}", f"--address={address}", *ways) for number, folder in enumerate(folders)
    ]
    try:
        outcomes = [results(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for outcome in outcomes:
        for way in ways:
            assert_same(outcome[way], on_one_machine["one_faces:8" if "faces" in way else "one:8"])
            if "faces" in way:  # Each process reads its half of a batch, unless it is the classes that are divided.
                assert outcome[way]["rows"] == [8 if way.startswith("class") else 4]
    assert outcomes[0]["class_local:8"]["kernel"] == "(8, 4)"
    assert outcomes[0]["class_local:8"]["checkpoint"] == pytest.approx(on_one_machine["one:8"]["checkpoint"], rel=1e-5)
    assert outcomes[1]["class_local:8"]["checkpoint"] is None, "one process writes"


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="needs the JAX backend")
def test_classes_that_cannot_be_divided_are_refused(monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: [f"cpu:{number}" for number in range(4)])
    for arguments in ({"num_classes": 7}, {"num_classes": 8, "class_ways": 3}, {"num_classes": 6, "class_ways": 4}):
        with pytest.raises(ValueError, match=rf"num_classes={arguments['num_classes']}, 4 devices.*of 8 classes"):
            distribution.class_parallel(**arguments)
    for arguments in ({"num_classes": 8.0}, {"num_classes": 0}, {"num_classes": 8, "class_ways": 0}):
        with pytest.raises(ValueError, match="must be an integer of at least 1"):
            distribution.class_parallel(**arguments)
    with pytest.raises(ValueError, match="Received: process_id=2, num_processes=2"):
        distribution.initialize("127.0.0.1:1", 2, 2)


def test_a_part_of_a_sequence_reads_the_rows_of_this_process(monkeypatch):
    dataset = ksf.data.synthetic(4, 3, image_size=16)
    read, read_arrays = [], dataset.source.read_arrays
    monkeypatch.setattr(
        dataset.source, "read_arrays", lambda records: read.append(len(records)) or read_arrays(records)
    )
    monkeypatch.setattr(distribution, "local_rows", lambda size: slice(size // 2, size))
    whole, part = dataset.sequence(6, augment="flip"), distribution.local_part(dataset.sequence(6, augment="flip"))
    expected = [whole[step] for step in range(3)]
    read.clear()
    for step, (images, labels) in enumerate(expected):
        np.testing.assert_array_equal(part[step][0], images[3:])
        np.testing.assert_array_equal(part[step][1], labels[3:])
    assert set(read[-3:]) == {3}


def test_several_processes_need_a_distribution(monkeypatch):
    monkeypatch.setattr(distribution, "_num_processes", lambda: 2)
    with pytest.raises(ValueError, match=r"set_distribution first, in this thread\. Received: None, 2 processes"):
        distribution.local_rows(8)
    monkeypatch.undo()
    assert distribution.local_rows(8) == slice(0, 8)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has what is asked for")
def test_other_backends_are_refused():
    assert distribution.is_chief()
    for call in (distribution.initialize, distribution.data_parallel, lambda: distribution.class_parallel(8)):
        with pytest.raises(ValueError, match="needs the JAX backend: set KERAS_BACKEND=jax"):
            call()
