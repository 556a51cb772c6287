"""On Keras's OpenVINO backend, which only predicts, models are the same; in a process of its own, as backends need."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import keras_sphereface as ksf
from keras_sphereface import embedder

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("openvino", "scipy")), reason="needs the extra [openvino]"
)

# OpenVINO computes in bfloat16 where the CPU multiplies it, else in float32.
LEAST_COSINE = 0.999
BACKBONES = {
    "sfnet4": {"channels": (8, 8, 16, 16), "embedding_dim": 32, "batch_norm": True},
    "iresnet18": {"channels": (8, 8, 16, 16), "embedding_dim": 32, "shortcut": "subsample", "se_reduction": 4},
    "mobilefacenet": {"width": 0.25, "embedding_dim": 32},
}

PROGRAM = """
import json, sys
import keras, numpy as np
import keras_sphereface as ksf
from keras_sphereface import model_folder

images = np.load("images.npy")
model = ksf.load_pretrained()
np.save("default.npy", model.predict(images, verbose=0))
np.save("one_by_one.npy", np.concatenate([model.predict_on_batch(images[i : i + 1]) for i in range(len(images))]))
np.save("recognizer.npy", ksf.Recognizer(model, detector=None).embed(list(images)))
for name in sys.argv[1:]:
    np.save(name + ".npy", keras.saving.load_model(name + ".keras").predict(images, verbose=0))
errors = {}
for name, function in {
    "export": lambda: ksf.export.export(model, "model.onnx", format="onnx"),
    "publish": lambda: model_folder.write(model, "folder"),
}.items():
    try:
        function()
    except RuntimeError as error:
        errors[name] = str(error)
print(json.dumps({"backend": keras.backend.backend(), "errors": errors}))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the program printed, and embeddings by name: TensorFlow's and OpenVINO's."""
    folder = tmp_path_factory.mktemp("openvino")
    images = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), "uint8")
    np.save(folder / "images.npy", images)
    models = {"default": ksf.load_pretrained()}
    for name, arguments in BACKBONES.items():
        models[name] = embedder.build_embedder(ksf.backbones.get(name, **arguments))
        models[name].save(folder / f"{name}.keras")
    expected = {name: model.predict(images, verbose=0) for name, model in models.items()}
    expected["one_by_one"] = expected["default"]
    expected["recognizer"] = ksf.Recognizer(models["default"], detector=None).embed(list(images))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *BACKBONES],
        cwd=folder,
        env={**os.environ, "KERAS_BACKEND": "openvino", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    return json.loads(done.stdout.splitlines()[-1]), expected, found


@pytest.mark.parametrize("name", ["default", "one_by_one", "recognizer", *BACKBONES])
def test_embeddings_are_those_of_tensorflow(results, name):
    _, expected, found = results
    assert (expected[name] * found[name]).sum(1).min() > LEAST_COSINE
    np.testing.assert_allclose(np.linalg.norm(found[name], axis=1), 1.0, atol=1e-5)


def test_what_only_other_backends_can_is_said_so(results):
    printed = results[0]
    assert printed["backend"] == "openvino"
    assert (
        "Export needs a backend of Keras that trains. Received: Keras backend 'openvino'" in printed["errors"]["export"]
    )
    assert "Publishing needs a backend" in printed["errors"]["publish"]
