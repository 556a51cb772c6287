"""What the hardware is asked, and what follows for the precision."""

import types

import keras
import pytest

from keras_sphereface import devices

pytestmark = pytest.mark.core
CPU = "processor\t: 0\nflags\t\t: fpu sse2 {flag} avx2\n\nprocessor\t: 1\nflags\t\t: fpu\n"


def on(backend):
    return pytest.mark.skipif(keras.backend.backend() != backend, reason=f"needs the {backend} backend")


def test_the_flags_of_a_cpu_are_read(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    path.write_text(CPU.format(flag="amx_bf16"))
    monkeypatch.setattr(devices, "CPU_INFO", path)
    assert devices.cpu_flags() == {"fpu", "sse2", "amx_bf16", "avx2"}
    path.write_text("Processor : ARM\n")
    assert devices.cpu_flags() == set()
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "not there")
    assert devices.cpu_flags() == set()


@on("tensorflow")
@pytest.mark.parametrize(
    ("flag", "policy"),
    [("amx_bf16", "mixed_bfloat16"), ("avx512_bf16", "mixed_bfloat16"), ("avx512f", "float32")],
)
def test_a_cpu_that_multiplies_bfloat16_trains_in_it(monkeypatch, flag, policy):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(devices, "cpu_flags", lambda: {"fpu", flag})
    assert devices.fastest_dtype_policy() == policy


@on("tensorflow")
@pytest.mark.parametrize(
    ("capabilities", "policy"),
    [
        ([(9, 0)], "mixed_bfloat16"),
        ([(8, 0), (8, 6)], "mixed_bfloat16"),
        ([(8, 0), (7, 5)], "float32"),
        ([None], "float32"),
    ],
)
def test_gpus_of_tensorflow_must_all_multiply_it(monkeypatch, capabilities, policy):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: capabilities if kind == "GPU" else [])
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda one: {"compute_capability": one} if one else {}
    )
    assert devices.fastest_dtype_policy() == policy


@on("jax")
@pytest.mark.parametrize(
    ("platform", "capability", "policy"),
    [
        ("tpu", None, "mixed_bfloat16"),
        ("gpu", "10.0", "mixed_bfloat16"),
        ("gpu", "7.5", "float32"),
        ("gpu", "gfx942", "float32"),
        ("cpu", None, "float32"),
    ],
)
def test_devices_of_jax(monkeypatch, platform, capability, policy):
    import jax

    device = types.SimpleNamespace(platform=platform, compute_capability=capability)
    monkeypatch.setattr(jax, "devices", lambda: [device])
    assert devices.fastest_dtype_policy() == policy


@on("torch")
@pytest.mark.parametrize(
    ("capabilities", "policy"), [([], "float32"), ([(9, 0)], "mixed_bfloat16"), ([(8, 0), (7, 0)], "float32")]
)
def test_gpus_of_pytorch(monkeypatch, capabilities, policy):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: capabilities[gpu])
    assert devices.fastest_dtype_policy() == policy


def test_cores_are_those_the_process_may_use(monkeypatch):
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda process: {3}, raising=False)
    assert devices.cpu_cores() == 1
    monkeypatch.delattr(devices.os, "sched_getaffinity")
    monkeypatch.setattr(devices.os, "cpu_count", lambda: None)
    assert devices.cpu_cores() == 1
