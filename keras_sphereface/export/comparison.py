"""The exported model beside the Keras model: embeddings, TAR at FAR, and the report on both."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sphereface.evaluator import center_crop
from keras_sphereface.hints import Path

if TYPE_CHECKING:
    import keras

FARS = (1e-2, 1e-3)
NUM_CHECKED = 32
BATCH_SIZE = 32
LENGTH_TOLERANCE = 0.01  # of unit length; what computes in bfloat16 has it to three digits
_SEED = 0
FEW_IMAGES = 100  # below which int8's ranges are a guess


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
            this false accept rate, each model at its own threshold. Only of the rates that the pairs can tell: those
            with at least 1 / FAR nonmated pairs. Empty without pairs, and for pairs of one kind.
        pairs: Name and number of the pairs, or `None`.
        num_mated, num_nonmated: Numbers of the pairs of each kind, or `None`.
        notes: Why a rate is not in `tar`, and what the figures of an int8 file do not tell; one line each.

    Example:
    >>> report = keras_sphereface.export.export(model, "face.onnx", format="onnx", pairs=pairs)
    >>> report.smallest_cosine, report.size
    >>> report.save("face.json")
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
    num_mated: int | None = None
    num_nonmated: int | None = None
    notes: list = dataclasses.field(default_factory=list)

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
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def to_dict(self) -> dict:
        """The fields as plain Python values."""
        return dataclasses.asdict(self)

    def save(self, path: Path) -> None:
        """Writes the fields as JSON, complete or not at all."""
        from keras_sphereface.evaluation.results import save_json

        save_json(self.to_dict(), path)


def compare(
    embedder: "keras.Model",
    exported: Callable[[np.ndarray], np.ndarray],
    path: pathlib.Path,
    format: str,
    precision: str,
    calibration_images: np.ndarray | None = None,
    pairs: Any = None,
    size: tuple[int, int] | None = None,
) -> ExportReport:
    """Runs both models on the best images at hand: the pairs', else the first calibration images, else synthetic ones.

    Args:
        embedder: The Keras model.
        exported: The file read again, from images to embeddings.
        path, format, precision: For the report.
        calibration_images: `(n, h, w, 3)` of the model's input size. Defaults to `None`.
        pairs: A `PairSet`. Defaults to `None`.
        size: `(height, width)` of the middle of the pairs' images that is compared. Defaults to `None`: all of it.

    Returns:
        An `ExportReport`.

    Raises:
        ValueError: If an embedding of the Keras model is not of unit length.
    """
    measured = {}
    if pairs is not None:
        reference, found = _embed_pairs(embedder, exported, pairs, size)
        measured = _measured(reference, found, pairs)
    elif calibration_images is not None:
        images = calibration_images[:NUM_CHECKED]
        reference, found = _embed(embedder, images), exported(images)
    else:
        images = _synthetic_images(embedder.input_shape[1:])
        reference, found = _embed(embedder, images), exported(images)
    if precision == "int8" and (note := _about_calibration(calibration_images, pairs)):
        measured["notes"] = [*measured.get("notes", ()), note]
    reference, found = reference.astype("float64"), found.astype("float64")
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(found, axis=1)
    return ExportReport(
        path=str(path),
        format=format,
        precision=precision,
        size=_bytes_on_disk(path),
        num_images=len(reference),
        images="pairs" if pairs is not None else "synthetic" if calibration_images is None else "calibration",
        largest_difference=float(np.abs(reference - found).max()),
        smallest_cosine=float(((reference * found).sum(axis=1) / norms).min()),
        **{"tar": [], **measured},
    )


def _about_calibration(images, pairs):
    """What an int8 file's figures cannot show."""
    few = f"calibrated on {len(images)} images: {FEW_IMAGES} or more of what the model will see are better"
    seen = "compared on the images that it was calibrated on: pairs of others tell what it is worth"
    return "; ".join([few] * (len(images) < FEW_IMAGES) + [seen] * (pairs is None))


def _embed(embedder, images):
    embeddings = np.asarray(embedder.predict(np.asarray(images, "float32"), batch_size=BATCH_SIZE, verbose=0))
    lengths = np.linalg.norm(embeddings.astype("float64"), axis=1)
    if not (np.abs(lengths - 1.0) < LENGTH_TOLERANCE).all():  # also where they are not numbers
        raise ValueError(
            f"{embedder.name}: expected embeddings of length 1 from the Keras model itself. Received: lengths from "
            f"{lengths.min():.3g} to {lengths.max():.3g}, of values that are all zero, overflowed or not numbers. Train it "
            "first: deep networks overflow with initial weights"
        )
    return embeddings


def _embed_pairs(embedder, exported, pairs, size):
    from tqdm import tqdm

    blocks = tqdm(
        pairs.images(BATCH_SIZE), total=-(-pairs.num_images // BATCH_SIZE), desc="comparing", disable=None, leave=False
    )
    both = [(_embed(embedder, images), exported(images)) for images in (center_crop(block, size) for block in blocks)]
    return tuple(np.concatenate(side) for side in zip(*both))


def _measured(reference, found, pairs):
    """The report's fields about pairs."""
    num_mated = int(pairs.mated.sum())
    num_nonmated = len(pairs) - num_mated
    fars, notes = _resolved(num_mated, num_nonmated)
    return {
        "tar": _true_accept_rates(reference, found, pairs, fars),
        "pairs": f"{pairs.name or 'pairs'} ({len(pairs)} pairs)",
        "num_mated": num_mated,
        "num_nonmated": num_nonmated,
        "notes": notes,
    }


def _resolved(num_mated, num_nonmated):
    """The rates of `FARS` that so many pairs can tell, and notes about the others, by the rule of `evaluate`."""
    from keras_sphereface.evaluation import metrics

    if not (num_mated and num_nonmated):
        kind = "mated" if num_mated else "nonmated"
        return [], [f"TAR at FAR is not defined: all {num_mated + num_nonmated} pairs are {kind}"]
    fars = [far for far in FARS if metrics.supported(far, num_nonmated)]
    notes = [
        f"TAR at FAR {far:g} is left out: it needs at least {metrics.nonmated_needed(far)} nonmated pairs, "
        f"there are {num_nonmated}"
        for far in FARS
        if far not in fars
    ]
    return fars, notes


def _true_accept_rates(reference, found, pairs, fars):
    from keras_sphereface.evaluation import operating_point, pair_scores

    def rate(embeddings, far):
        scores = pair_scores(embeddings, pairs.left, pairs.right)
        return operating_point(np.sort(scores[pairs.mated]), np.sort(scores[~pairs.mated]), far).tar

    return [{"far": far, "keras": rate(reference, far), "exported": rate(found, far)} for far in fars]


def _synthetic_images(shape):
    """Smooth random images: noise alone would be a poor stand-in for photos."""
    rng = np.random.default_rng(_SEED)
    coarse = rng.uniform(0, 255, size=(8, 8, 8, shape[-1]))
    rows, columns = (np.arange(size) * 8 // size for size in shape[:2])
    noisy = coarse[:, rows][:, :, columns] + rng.normal(0, 4, size=(8, *shape))
    return np.rint(noisy.clip(0, 255)).astype("float32")  # whole, as photos are: a model may take uint8


def _bytes_on_disk(path):
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
