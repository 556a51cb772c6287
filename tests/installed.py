"""Run by CI with an installed copy, away from the source tree: the package imports and predicts."""

import pathlib

import numpy as np

import keras_sphereface as ksf

assert "site-packages" in ksf.__file__, ksf.__file__
images = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), "uint8")
embeddings = ksf.embedder.build_embedder(ksf.backbones.SFNet4(embedding_dim=32, channels=(8, 16, 16, 32))).predict(
    images
)
assert embeddings.shape == (2, 32)
assert np.allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)
if list((pathlib.Path(ksf.__file__).parent / "weights").glob("*.h5")):
    embeddings = ksf.load_pretrained().predict(images)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)
print("The installed copy imports and predicts.")
