"""Files of earlier versions load and give what they gave; `golden/make.py` wrote them once."""

import sys

import keras
import numpy as np
import pytest

from keras_sphereface import load_pretrained, weights_file
from keras_sphereface.embedder import as_embedder, build_embedder

NAMES = ("sfnet", "mobilefacenet")


@pytest.fixture
def golden(reference, monkeypatch):
    folder = reference.parent / "golden"
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("make", None)


def check(golden, name, model):
    import make

    recorded = np.load(golden / "embeddings.npz")[name]
    np.testing.assert_allclose(model.predict(make.images(), verbose=0), recorded, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_embedded_weights(golden, name):
    import make

    embedder = build_embedder(make.build(name))
    weights_file.read(embedder, golden / f"{name}_v1.h5")
    check(golden, name, embedder)


def test_a_model_folder(golden):
    check(golden, "sfnet", load_pretrained(golden / "sfnet_v1"))


def test_a_trainer(golden):
    path = golden / "sfnet_trainer_v1.keras"
    trainer = keras.saving.load_model(path)
    assert trainer.head.num_classes == 3
    check(golden, "sfnet", as_embedder(trainer))
    check(golden, "sfnet", load_pretrained(path))


def test_the_golden_files_stay_small(golden):
    assert all(path.stat().st_size < 100_000 for path in golden.rglob("*") if path.is_file())
