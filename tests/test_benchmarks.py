"""What the benchmarks call the same network is the same network."""

import importlib.util
import math
import pathlib

import pytest

from keras_sphereface import backbones

PATH = pathlib.Path(__file__).parents[1] / "benchmarks" / "plain_torch.py"


@pytest.mark.parametrize("name", ["iresnet50", "sfnet64"])
def test_plain_networks_have_the_backbones_parameters(name):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    spec = importlib.util.spec_from_file_location("plain_torch", PATH)
    plain_torch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain_torch)
    make, units = plain_torch.NETWORKS[name]
    with torch.device("meta"):
        plain = sum(parameter.numel() for parameter in make(units, 512).parameters())
    backbone = backbones.get(name, embedding_dim=512)
    assert plain == sum(math.prod(weight.shape) for weight in backbone.trainable_weights)
