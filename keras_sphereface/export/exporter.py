"""Export with a check: the written file is loaded by its own runtime and compared with the Keras model."""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from keras_sphereface.errors import shown
from keras_sphereface.evaluator import center_crop, check_pairs
from keras_sphereface.export.comparison import ExportReport, compare
from keras_sphereface.files import draft
from keras_sphereface.hints import Path

if TYPE_CHECKING:
    import keras

FORMATS = {
    "saved_model": "keras_sphereface.export.saved_model",
    "onnx": "keras_sphereface.export.onnx_file",
    "litert": "keras_sphereface.export.litert",
}
PRECISIONS = ("float32", "float16", "int8")
_KERAS_SUFFIXES = (".keras", ".h5")  # endings of files of a model: no names for a SavedModel's folder
SUFFIXES = {"saved_model": "", "onnx": ".onnx", "litert": ".tflite"}
# Smallest cosine to the Keras model's embedding that is still the same model. float32 differs by the order of sums,
# float16 by the rounding of weights; what int8 costs depends on the model and is measured, not judged.
LEAST_COSINE = {"float32": 0.99999, "float16": 0.999, "int8": 0.0}
CROPS = (None, "center")
_OF_SAVED_MODEL = {"saved_model.pb", "fingerprint.pb", "keras_metadata.pb", "variables", "assets"}


class ExportError(RuntimeError):
    """The file would not give the model's embeddings. The message has the figures; an older file is as it was."""


def export(
    model: "keras.Model",
    path: Path,
    format: str = "saved_model",
    precision: str = "float32",
    calibration_images: ArrayLike | None = None,
    pairs: Any = None,
    crop: str | None = None,
) -> ExportReport:
    """Writes a model for another runtime, reads the file again and compares.

    float16 stores weights in 16 bits and computes in float32. int8 quantizes weights and activations, with ranges from
    the calibration images; inputs and outputs stay float32, RGB 0..255 and unit length. SavedModel has no int8. A model that
    computes in 16 or 64 bits in Keras is compared and written as the same one in float32.

    Args:
        model: A `FaceClassifier`, a backbone or an embedder.
        path: File, ending in `.onnx` or `.tflite`, or folder for SavedModel.
        format: `"saved_model"`, `"onnx"` or `"litert"`. Defaults to `"saved_model"`.
        precision: `"float32"`, `"float16"` or `"int8"`. Defaults to `"float32"`.
        calibration_images: `(n, height, width, 3)` RGB 0..255, a hundred or more of what the model will see; needed for
            int8. Defaults to `None`.
        pairs: A `PairSet` on which the loss of TAR at FAR is measured. Defaults to `None`.
        crop: `"center"`: of calibration images and pairs the middle is taken, in the size of the model's input, as in
            `evaluate` (112x96 models take the columns 8..104 of 112x112 images). Defaults to `None`: images as they are.

    Returns:
        An `ExportReport`.

    Raises:
        ValueError: If an argument is unknown or missing, the path has the wrong ending, images have another size than the
            model's input, or the model's own embeddings are not of unit length. Nothing is written then.
        RuntimeError: On Keras's OpenVINO backend, which only predicts.
        MissingDependencyError: If a package that the format needs is not installed (extra `[export]`), or SavedModel or
            LiteRT are to be written on another backend than TensorFlow.
        ExportError: If the file's embeddings are not the model's. An older file stays as it was.

    Example:
    >>> report = export(keras_sphereface.load_pretrained(), "face.onnx", format="onnx")
    >>> print(report)
    """
    from keras_sphereface.embedder import as_embedder
    from keras_sphereface.layer_graph import check_writes, inline

    check_writes("Export")
    path = pathlib.Path(path)
    path = path.resolve() if path.is_symlink() else path  # what it leads to is written over, not the link
    _check_arguments(path, format, precision, calibration_images, crop)
    original = as_embedder(model)
    flat = inline(original)
    if format != "saved_model":
        _check_not_quantized(flat)
    embedder = _in_float32(flat)
    # What is written may be a copy: it is compared with the model itself, unless that computes in other digits.
    reference = original if embedder is flat else embedder
    shape = _fixed_shape(embedder)
    size = None if crop is None else shape[:2]
    if calibration_images is not None:
        calibration_images = _check_images(calibration_images, shape, size)
    if pairs is not None:
        _check_pairs(pairs, shape, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft(path) as unfinished:  # an older file stays until this one is known to be right
        importlib.import_module(FORMATS[format]).write(embedder, unfinished, precision, calibration_images)
        report = compare(
            reference, load(unfinished, format), unfinished, format, precision, calibration_images, pairs, size
        )
        least = _least_cosine(embedder, precision)
        if not report.smallest_cosine >= least:  # also when it is not a number
            raise ExportError(
                f"{path}: the file's embeddings are not the model's: smallest cosine {report.smallest_cosine:.6f}, "
                f"expected at least {least}. Nothing was written{_cause(flat, precision)}"
            )
    return dataclasses.replace(report, path=str(path))


def _check_not_quantized(embedder):
    for layer in embedder.layers:
        if getattr(layer, "quantization_mode", None):
            raise ValueError(
                "Expected a model that was not quantized: files have their own int8. Received: "
                f"{embedder.name!r}, whose layer {layer.name!r} is quantized ({layer.quantization_mode}). Export the model "
                "of before model.quantize with precision='int8', or as a SavedModel"
            )


def _cause(embedder, precision):
    """What a file of the wrong embeddings may come of, where it is known."""
    import keras

    for variable in embedder.weights if precision == "float16" else ():
        largest = float(np.abs(keras.ops.convert_to_numpy(variable.value)).max(initial=0))
        if largest > np.finfo("float16").max:
            return f": the weight {variable.path} has {largest:.3g}, beyond float16's 65504. Use float32"
    return ""


def _fixed_shape(embedder):
    """`(height, width, 3)` of the input."""
    shape = tuple(embedder.input_shape[1:])
    if None in shape:
        raise ValueError(
            f"Expected a model with a fixed input size. Received: input_shape={embedder.input_shape}. Call it on "
            "keras.Input((112, 112, 3)) and export keras.Model of the two"
        )
    return shape


def _in_float32(embedder):
    """The same model computing in float32, as the files do; one with models inside that do not unfold stays as it is."""
    import keras

    from keras_sphereface.precision import with_dtype

    is_folded = any(isinstance(layer, keras.Model) for layer in embedder.layers)
    if is_folded or not _computes_in(embedder, "float16", "float64"):
        return embedder
    return with_dtype(embedder, "float32")


def _computes_in(embedder, *dtypes):
    return any(dtype in layer.compute_dtype for layer in embedder.layers for dtype in dtypes)  # float16: bfloat16 too


def _least_cosine(embedder, precision):
    """The bound of `LEAST_COSINE`; a model that computes in 16 bits in Keras rounds more there than in the file."""
    return LEAST_COSINE["float16" if _computes_in(embedder, "float16") and precision == "float32" else precision]


def load(path: Path, format: str) -> Callable[[np.ndarray], np.ndarray]:
    """Loads an exported model by its own runtime.

    Args:
        path: File or folder.
        format: `"saved_model"`, `"onnx"` or `"litert"`.

    Returns:
        A function from images `(n, height, width, 3)`, RGB 0..255, to embeddings `(n, d)`, NumPy arrays. It raises
        `ValueError` for images of another size than the file's input.

    Raises:
        ValueError: If the format is unknown, or the file broken.
        MissingDependencyError: If the runtime is not installed.

    Example:
    >>> run = keras_sphereface.export.load("face.onnx", "onnx")
    >>> embeddings = run(crops)
    """
    _check_format(format)
    run = importlib.import_module(FORMATS[format]).load(path)
    return lambda images: run(np.asarray(images, dtype="float32"))


def _check_format(format):
    if not isinstance(format, str) or format not in FORMATS:
        raise ValueError(f"Unknown format. Received: format={format!r}. Known: {', '.join(FORMATS)}")


def _check_arguments(path, format, precision, calibration_images, crop):
    _check_format(format)
    if precision not in PRECISIONS:
        raise ValueError(f"Unknown precision. Received: precision={precision!r}. Known: {', '.join(PRECISIONS)}")
    if crop not in CROPS:
        raise ValueError(f"Unknown crop. Received: crop={crop!r}. Known: {', '.join(map(repr, CROPS))}")
    if precision == "int8" and format == "saved_model":
        raise ValueError("SavedModel has no int8. Received: precision='int8'. Use format='onnx' or 'litert'")
    if precision == "int8" and calibration_images is None:
        raise ValueError(
            "int8 needs `calibration_images`, a hundred or more of what the model will see. Received: None"
        )
    _check_path(path, format)


def _check_path(path, format):
    """Refuses a path that the format cannot take, or where it would mix with other files."""
    expected = SUFFIXES[format] or "a folder without an ending"
    others = {*SUFFIXES.values(), *_KERAS_SUFFIXES} - {""}
    fits = path.suffix == SUFFIXES[format] if SUFFIXES[format] else path.suffix not in others
    if not fits:
        raise ValueError(f"The path for {format} must be {expected!r}. Received: path={str(path)!r}")
    if SUFFIXES[format]:
        if path.is_dir():
            raise ValueError(f"The path for {format} must be a file. Received: path={str(path)!r}, a folder")
        return
    if path.exists() and not path.is_dir():
        raise ValueError(f"The path for {format} must be a folder. Received: path={str(path)!r}, a file")
    inside = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    is_mixed = bool(inside) and ("saved_model.pb" not in inside or bool(inside - _OF_SAVED_MODEL))
    if path.name in ("", "..") or is_mixed:
        raise ValueError(
            f"The path for {format} must be a new folder, or one with nothing but a SavedModel, to write over. "
            f"Received: path={str(path)!r}{_others(inside)}. Add a name for the new folder"
        )


def _others(names):
    others = sorted(names - _OF_SAVED_MODEL)
    return f", which has {shown(others[0])}" if others else ""


def _check_images(images, shape, size):
    """The calibration images, their middle where a `size` is given."""
    images = np.asarray(images)
    if images.ndim != 4 or not len(images):
        raise ValueError(f"Expected images (n, {', '.join(map(str, shape))}). Received: images.shape={images.shape}")
    images = _check_size(center_crop(images, size), shape, "calibration images")
    if images.dtype.kind not in "uif" or not np.isfinite(images).all():
        raise ValueError(
            f"Expected finite numbers as calibration images. Received: NaN, infinity or dtype={images.dtype}"
        )
    if images.dtype.kind == "f" and images.max() <= 1:
        raise ValueError(
            f"Expected calibration images of 0..255. Received: images.max()={images.max():g}, of images scaled to 1. "
            "Scaling is inside the model: pass the images as they are read"
        )
    if images.min() == images.max():
        raise ValueError(
            f"Expected calibration images of what the model will see. Received: {len(images)} images of the one value "
            f"{images.min():g}, which tell nothing of the ranges"
        )
    return images


def _check_pairs(pairs, shape, size):
    """Looks at the first image before anything is written; `pairs.images` compares the others with it."""
    check_pairs(pairs)
    if not len(pairs):
        raise ValueError(f"Expected at least one pair. Received: pairs={pairs!r}")
    _check_size(center_crop(pairs.image(0)[None], size), shape, f"images of {pairs.name or 'pairs'}")


def _check_size(images, shape, what):
    if images.shape[1:] != tuple(shape):
        raise ValueError(
            f"Expected {what} (n, {', '.join(map(str, shape))}), the model's input. Received: images.shape={images.shape}"
            ". Align the images to this size, or take their middle with crop='center'"
        )
    return images
