"""Packaging of keras_sphereface. Tool settings are in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "keras_sphereface/version.py").read_text()).group(1)

EXTRAS = {
    "plots": ["matplotlib>=3.8", "scikit-learn>=1.5"],
    # Before 2.6 PyTorch's `weights_only` could be made to run code (CVE-2025-32434).
    "convert": ["torch>=2.6", "safetensors>=0.4"],
    "export": ["onnx>=1.16", "onnxruntime>=1.18"],
    "faces": ["mtcnn>=1.0", "pillow-heif>=0.18"],
    "demo": ["gradio>=5"],
    "search": ["usearch>=2.12"],
    "jax": ["jax>=0.4.30"],
    "openvino": ["keras>=3.15", "openvino>=2026.0", "scipy>=1.13"],  # what was tried; the backend imports SciPy too
    "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26", "latex2mathml>=3.77"],
}
EXTRAS["test"] = [
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
    "tensorboard>=2.18",
    "ruff>=0.6",
    "build>=1.2",
    *EXTRAS["plots"],
    *EXTRAS["export"],
    *EXTRAS["openvino"],
    *EXTRAS["docs"],
    "nbclient>=0.10",
    "nbformat>=5.10",
    "ipykernel>=6.29",
    *EXTRAS["faces"],
    *EXTRAS["search"],
    *EXTRAS["demo"],
    "selenium>=4.20",  # with Debian's chromium and chromium-driver, where they are installed
    "keras-hub>=0.18",
]

setup(
    name="keras_sphereface",
    version=VERSION,
    description="Hyperspherical face recognition in Keras 3: SphereFace-R heads, training, evaluation, pretrained models",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    packages=find_packages(include=["keras_sphereface", "keras_sphereface.*"]),
    py_modules=["keras_sphereface_command"],
    package_data={"keras_sphereface": ["py.typed", "weights/*", "presets/*.json"]},
    python_requires=">=3.10",
    install_requires=[
        "tensorflow>=2.18",
        "keras>=3.8",
        "h5py>=3.10",
        "huggingface_hub>=0.27",
        "absl-py>=2.0",
        "numpy>=1.26",
        "pillow>=10",
        "tqdm>=4.66",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["keras-sphereface = keras_sphereface_command:main"]},
    classifiers=[
        "License :: OSI Approved :: MIT License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
