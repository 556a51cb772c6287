import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.core

SCRIPT = """
import sys

sys.modules["tensorflow"] = None  # any import of it raises ImportError
import numpy as np
from keras_sphereface import data

folder = sys.argv[1]
faces = data.synthetic(3, 2, image_size=32)
images = [faces.read(number)[0] for number in range(6)]
sets = [
    faces,
    data.from_recordio(data.write_recordio(folder + "/r/a.rec", images, [0, 0, 1, 1, 2, 2])),
    data.from_tfrecord(data.write_tfrecord(folder + "/t/a.tfrecord", images, [0, 0, 1, 1, 2, 2])),
]
for one in sets:
    images, labels = one.sequence(4, augment="strong")[1]
    assert images.shape == (4, 32, 32, 3) and images.dtype == np.uint8, images.shape
    assert labels.dtype == np.int32
assert data.synthetic_pairs(20, images_per_identity=2, num_pairs=20, image_size=32).num_images == 30
try:
    faces.batches(4)
except ImportError as error:
    assert "`sequence` does without" in str(error)
assert sys.modules["tensorflow"] is None
print("done")
"""


def test_every_source_works_where_tensorflow_cannot_be_imported(tmp_path):
    backend = next((name for name in ("jax", "torch") if importlib.util.find_spec(name)), None)
    if backend is None:
        pytest.skip("needs JAX or PyTorch: without TensorFlow, Keras runs on one of them")
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend},
        timeout=300,
    )
    assert result.stdout.strip() == "done", result.stderr[-2000:]
