"""Export with a check: the written file is loaded by its own runtime and compared with the Keras model."""

import dataclasses
import importlib
import json
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from keras_sphereface.hints import Path

if TYPE_CHECKING:
    import keras

FORMATS = {
    "saved_model": "keras_sphereface.export.saved_model",
    "onnx": "keras_sphereface.export.onnx_file",
    "litert": "keras_sphereface.export.litert",
}
PRECISIONS = ("float32", "float16", "int8")
SUFFIXES = {"saved_model": "", "onnx": ".onnx", "litert": ".tflite"}
# Smallest cosine to the Keras model's embedding that is still the same model. float32 differs by the order of sums,
# float16 by the rounding of weights; what int8 costs depends on the model and is measured, not judged.
LEAST_COSINE = {"float32": 0.99999, "float16": 0.999, "int8": 0.0}
FARS = (1e-2, 1e-3)
NUM_CHECKED = 32
BATCH_SIZE = 32
_SEED = 0


class ExportError(RuntimeError):
    """The written file does not give the model's embeddings. The message has the figures."""


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares with the Keras model.

    Args:
        path: The file or folder.
        format: `"saved_model"`, `"onnx"` or `"litert"`.
        precision: `"float32"`, `"float16"` or `"int8"`.
        size: Bytes on disk.
        num_images: Number of images compared.
        images: Where they come from: `"pairs"`, `"calibration"` or `"synthetic"`.
        largest_difference: Largest absolute difference of an embedding's number.
        smallest_cosine: Smallest cosine between the two embeddings of an image.
        tar: List of dictionaries `far`, `keras`, `exported`: true accept rates, 0..1, at the lowest threshold that keeps
            this false accept rate, each model at its own threshold. Empty without pairs.
        pairs: Name and number of the pairs, or `None`.
    """

    path: str
    format: str
    precision: str
    size: int
    num_images: int
    images: str
    largest_difference: float
    smallest_cosine: float
    tar: list
    pairs: str | None = None

    def __str__(self):
        lines = [
            f"{self.path}: {self.format}, {self.precision}, {self.size:,} bytes",
            f"embeddings of {self.num_images} {self.images} images: largest difference {self.largest_difference:.3g}, "
            f"smallest cosine {self.smallest_cosine:.6f}",
        ]
        for row in self.tar:
            loss = 100 * (row["keras"] - row["exported"])
            lines.append(
                f"TAR at FAR {row['far']:g} on {self.pairs}: {100 * row['keras']:.2f} % in Keras, "
                f"{100 * row['exported']:.2f} % exported, loss {loss:.2f}"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """The fields as plain Python values."""
        return dataclasses.asdict(self)

    def save(self, path: Path) -> None:
        """Writes the fields as JSON."""
        pathlib.Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")


def export(
    model: "keras.Model",
    path: Path,
    format: str = "saved_model",
    precision: str = "float32",
    calibration_images: ArrayLike | None = None,
    pairs: Any = None,
) -> ExportReport:
    """Writes a model for another runtime, reads the file again and compares.

    float16 stores weights in 16 bits and computes in float32. int8 quantizes weights and activations, with ranges from
    the calibration images; inputs and outputs stay float32, RGB 0..255 and unit length. SavedModel has no int8. A model that
    computes in 16 bits in Keras is compared and written as the same one in float32.

    Args:
        model: A `FaceClassifier`, a backbone or an embedder.
        path: File, ending in `.onnx` or `.tflite`, or folder for SavedModel.
        format: `"saved_model"`, `"onnx"` or `"litert"`. Defaults to `"saved_model"`.
        precision: `"float32"`, `"float16"` or `"int8"`. Defaults to `"float32"`.
        calibration_images: `(n, height, width, 3)` RGB 0..255, a hundred or more of what the model will see; needed for
            int8. Defaults to `None`.
        pairs: A `PairSet` on which the loss of TAR at FAR is measured. Defaults to `None`.

    Returns:
        An `ExportReport`.

    Raises:
        ValueError: If an argument is unknown or missing, or the path has the wrong ending.
        ExportError: If the file's embeddings are not the model's. The file is left for study.

    Example:
    >>> report = export(keras_sphereface.load_pretrained(), "face.onnx", format="onnx")
    >>> print(report)
    """
    from keras_sphereface.model_folder import as_embedder, inline

    path = pathlib.Path(path)
    _check_arguments(path, format, precision, calibration_images)
    embedder = _in_float32(inline(as_embedder(model)))
    if calibration_images is not None:
        calibration_images = _check_images(calibration_images, embedder.input_shape[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    importlib.import_module(FORMATS[format]).write(embedder, path, precision, calibration_images)
    exported = load(path, format)
    report = _compare(embedder, exported, path, format, precision, calibration_images, pairs)
    least = _least_cosine(embedder, precision)
    if not report.smallest_cosine >= least:  # also when it is not a number
        raise ExportError(
            f"{path}: the file's embeddings are not the model's: smallest cosine {report.smallest_cosine:.6f}, expected "
            f"at least {least}. Do not use this file"
        )
    return report


def _in_float32(embedder):
    """The same model computing in float32, as the files do; one with models inside that do not unfold stays as it is."""
    import keras

    from keras_sphereface.precision import with_dtype

    if not _computes_in_half(embedder) or any(isinstance(layer, keras.Model) for layer in embedder.layers):
        return embedder
    return with_dtype(embedder, "float32")


def _computes_in_half(embedder):
    return any("float16" in layer.compute_dtype for layer in embedder.layers)  # bfloat16 too


def _least_cosine(embedder, precision):
    """The bound of `LEAST_COSINE`; a model that computes in 16 bits in Keras rounds more there than in the file."""
    return LEAST_COSINE["float16" if _computes_in_half(embedder) and precision == "float32" else precision]


def load(path: Path, format: str) -> Callable[[np.ndarray], np.ndarray]:
    """Loads an exported model by its own runtime.

    Args:
        path: File or folder.
        format: `"saved_model"`, `"onnx"` or `"litert"`.

    Returns:
        A function from images `(n, height, width, 3)`, RGB 0..255, to embeddings `(n, d)`, NumPy arrays.
    """
    if format not in FORMATS:
        raise ValueError(f"Unknown format. Received: format={format!r}. Known: {', '.join(FORMATS)}")
    run = importlib.import_module(FORMATS[format]).load(path)
    return lambda images: run(np.asarray(images, dtype="float32"))


def _check_arguments(path, format, precision, calibration_images):
    if format not in FORMATS:
        raise ValueError(f"Unknown format. Received: format={format!r}. Known: {', '.join(FORMATS)}")
    if precision not in PRECISIONS:
        raise ValueError(f"Unknown precision. Received: precision={precision!r}. Known: {', '.join(PRECISIONS)}")
    if precision == "int8" and format == "saved_model":
        raise ValueError("SavedModel has no int8. Received: precision='int8'. Use format='onnx' or 'litert'")
    if precision == "int8" and calibration_images is None:
        raise ValueError(
            "int8 needs `calibration_images`, a hundred or more of what the model will see. Received: None"
        )
    if path.suffix != SUFFIXES[format]:
        expected = SUFFIXES[format] or "a folder without an ending"
        raise ValueError(f"The path for {format} must be {expected!r}. Received: path={str(path)!r}")


def _check_images(images, shape):
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != tuple(shape) or not len(images):
        raise ValueError(f"Expected images (n, {', '.join(map(str, shape))}). Received: images.shape={images.shape}")
    return images


def _compare(embedder, exported, path, format, precision, calibration_images, pairs):
    """Runs both models on the best images at hand and makes the report."""
    tar = []
    if pairs is not None:
        reference, found = _embed_pairs(embedder, exported, pairs)
        tar = _true_accept_rates(reference, found, pairs)
    elif calibration_images is not None:
        images = calibration_images[:NUM_CHECKED]
        reference, found = _embed(embedder, images), exported(images)
    else:
        images = _synthetic_images(embedder.input_shape[1:])
        reference, found = _embed(embedder, images), exported(images)
    reference, found = reference.astype("float64"), found.astype("float64")
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(found, axis=1)
    return ExportReport(
        path=str(path),
        format=format,
        precision=precision,
        size=_size(path),
        num_images=len(reference),
        images="pairs" if pairs is not None else "synthetic" if calibration_images is None else "calibration",
        largest_difference=float(np.abs(reference - found).max()),
        smallest_cosine=float(((reference * found).sum(axis=1) / norms).min()),
        tar=tar,
        pairs=None if pairs is None else f"{pairs.name or 'pairs'} ({len(pairs)} pairs)",
    )


def _embed(embedder, images):
    return np.asarray(embedder.predict(np.asarray(images, "float32"), batch_size=BATCH_SIZE, verbose=0))


def _embed_pairs(embedder, exported, pairs):
    from tqdm import tqdm

    blocks = tqdm(
        pairs.images(BATCH_SIZE), total=-(-pairs.num_images // BATCH_SIZE), desc="comparing", disable=None, leave=False
    )
    both = [(_embed(embedder, images), exported(images)) for images in blocks]
    return tuple(np.concatenate(side) for side in zip(*both))


def _true_accept_rates(reference, found, pairs):
    from keras_sphereface.evaluation import operating_point, pair_scores

    def rate(embeddings, far):
        scores = pair_scores(embeddings, pairs.left, pairs.right)
        return operating_point(np.sort(scores[pairs.mated]), np.sort(scores[~pairs.mated]), far).tar

    return [{"far": far, "keras": rate(reference, far), "exported": rate(found, far)} for far in FARS]


def _synthetic_images(shape):
    """Smooth random images: noise alone would be a poor stand-in for photos."""
    rng = np.random.default_rng(_SEED)
    coarse = rng.uniform(0, 255, size=(8, 8, 8, shape[-1]))
    rows, columns = (np.arange(size) * 8 // size for size in shape[:2])
    return (coarse[:, rows][:, :, columns] + rng.normal(0, 4, size=(8, *shape))).clip(0, 255).astype("float32")


def _size(path):
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
