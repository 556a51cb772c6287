"""Writes the golden files of tests/test_versions.py: `python tests/golden/make.py`.

They are kept as they were written: a later version must read them. Run this only to add files of a new format, under a new
name.
"""

import pathlib

import keras
import numpy as np

from keras_sphereface import backbones, heads, model_folder, weights_file
from keras_sphereface.classifier import FaceClassifier
from keras_sphereface.embedder import build_embedder

FOLDER = pathlib.Path(__file__).parent
SEED = 2021
BACKBONES = {
    "sfnet": {"units": (0, 1, 0, 0), "channels": (4, 4, 8, 8), "batch_norm": True},
    "mobilefacenet": {"width": 0.125, "bottlenecks": ((2, 16, 2, 2), (2, 16, 1, 1))},
}
_CLASSES = {"sfnet": backbones.SFNet, "mobilefacenet": backbones.MobileFaceNet}


def images():
    """The images that the recorded embeddings are of."""
    return np.random.default_rng(SEED).integers(0, 256, size=(2, 32, 32, 3), dtype="uint8")


def build(name):
    """A small network."""
    return _CLASSES[name](embedding_dim=8, input_shape=(32, 32, 3), name=name, **BACKBONES[name])


def main():
    """Writes all files."""
    keras.utils.set_random_seed(SEED)
    embeddings = {}
    for name in BACKBONES:
        backbone = build(name)
        embedder = build_embedder(backbone)
        weights_file.write(embedder, FOLDER / f"{name}_v1.h5", dtype="float32")
        embeddings[name] = embedder.predict(images(), verbose=0)
        if name == "sfnet":  # Keras's own files are larger: one network will do
            model_folder.write(embedder, FOLDER / f"{name}_v1")
            FaceClassifier(backbone, heads.SphereFaceR(num_classes=3)).save(FOLDER / f"{name}_trainer_v1.keras")
    np.savez(FOLDER / "embeddings.npz", **embeddings)


if __name__ == "__main__":
    main()
