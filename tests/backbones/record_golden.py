"""Records tests/reference/backbones_golden.npz with PyTorch's functions, not with the Keras backbones it will judge.

Run from the project's root: python tests/backbones/record_golden.py
"""

import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import backbone_cases  # noqa: E402

from keras_sphereface.conversion import torch_reference  # noqa: E402


def main():
    golden = {}
    for case in backbone_cases.CASES:
        backbone = backbone_cases.make(case)
        config = backbone.get_config()
        images = backbone_cases.images(config["input_shape"]).astype("float32")
        golden[case] = torch_reference.embeddings(
            type(backbone).__name__.lower(),
            backbone_cases.seeded_tensors(backbone),
            (images - config["image_mean"]) / config["image_std"],
            config,
        )
    np.savez(ROOT / "reference" / "backbones_golden.npz", **golden)


if __name__ == "__main__":
    main()
