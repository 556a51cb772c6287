"""Whatever stands for a model, as one thing: a function from crops to embeddings, its input size, its thresholds."""

import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from keras_sphereface import hub
from keras_sphereface.data.images import check_size
from keras_sphereface.embedder import as_embedder
from keras_sphereface.errors import FileFormatError, one_line, shown
from keras_sphereface.evaluator import input_size
from keras_sphereface.export import litert, saved_model
from keras_sphereface.export.onnx_file import open_session, runner
from keras_sphereface.files import read_json
from keras_sphereface.hints import Path, Size
from keras_sphereface.precision import with_dtype
from keras_sphereface.recognition.thresholds import Thresholds

DEFAULT_SIZE = (112, 112)


class FaceModel(NamedTuple):
    """A model ready to use.

    Args:
        embed: A `keras.Model` or a callable, as `keras_sphereface.evaluate` takes it.
        size: `(height, width)` of its crops.
        thresholds: `Thresholds`, empty where none are known.
    """

    embed: object
    size: tuple
    thresholds: Thresholds


class _Exported:
    """What `keras-sphereface export` wrote; each kind sets `input_shape`, and `_run` on float32 images."""

    def __call__(self, images: ArrayLike) -> np.ndarray:
        """Embeds `(n, height, width, 3)` images."""
        return self._run(np.asarray(images, np.float32))


class OnnxModel(_Exported):
    """A model that `keras-sphereface export` wrote as ONNX, run by ONNX Runtime.

    Args:
        path: The file.

    Raises:
        MissingDependencyError: If `onnxruntime` is not installed: extra `[export]`.
        ValueError: If the file is broken, or has other inputs than `(n, height, width, 3)`.
    """

    def __init__(self, path: Path):
        session = open_session(path)
        inputs = session.get_inputs()
        self.input_shape = tuple(side if isinstance(side, int) else None for side in inputs[0].shape)
        _check_input(path, self.input_shape, inputs[0].type, len(inputs) == 1 and inputs[0].type == "tensor(float)")
        self._run = runner(session)


class LiteRTModel(_Exported):
    """A model that `keras-sphereface export` wrote as LiteRT, run by LiteRT or TensorFlow; for one thread at a time.

    Args:
        path: The file.

    Raises:
        MissingDependencyError: If neither `ai-edge-litert` nor TensorFlow is installed.
        ValueError: If the file is broken, or has other inputs than `(n, height, width, 3)`.
    """

    def __init__(self, path: Path):
        interpreter = litert.open_interpreter(path)
        inputs = interpreter.get_input_details()
        dtype = np.dtype(inputs[0]["dtype"])
        self.input_shape = tuple(None if side < 0 else side for side in inputs[0]["shape_signature"].tolist())
        _check_input(path, self.input_shape, dtype, len(inputs) == 1 and dtype == np.float32)
        self._run = litert.runner(interpreter)


def _check_input(path, shape, dtype, is_one_float):
    if not is_one_float or len(shape) != 4 or shape[0] is not None or shape[3] != 3:
        raise ValueError(
            f"{path}: expected one float input (n, height, width, 3), RGB 0..255, of any n, as keras-sphereface export "
            f"writes it. Received: {shape} of {dtype}. Give a function with your own preprocessing instead, or for an "
            "IResNet in ONNX what keras-sphereface convert makes of it"
        )


class SavedModel(_Exported):
    """A model that `keras-sphereface export` wrote as a SavedModel, run by TensorFlow.

    Args:
        path: The folder.

    Raises:
        MissingDependencyError: If TensorFlow is not installed.
        ValueError: If the folder is broken, or its model has other inputs than `(n, height, width, 3)`.
    """

    def __init__(self, path: Path):
        self._run = saved_model.load(path)
        self.input_shape, dtype = saved_model.input_of(self._run)
        _check_input(path, self.input_shape, dtype, dtype == np.float32)


_BY_ENDING = {".onnx": OnnxModel, ".tflite": LiteRTModel}


def exported(path: Path) -> type | None:
    """The class that runs a file or folder of `keras-sphereface export`; `None` for what is none, by name or content."""
    path = pathlib.Path(path)
    is_saved_model = (path / "saved_model.pb").is_file()
    return SavedModel if is_saved_model else _BY_ENDING.get(path.suffix.lower())


def open_model(model: Any = None, size: Size | None = None, thresholds: Any = None, dtype: Any = None) -> FaceModel:
    """Makes a `FaceModel` of whatever stands for a model.

    Args:
        model: What `load_pretrained` takes (`None`: the embedded default), the path of what `keras-sphereface export`
            wrote, a `keras.Model` from images to embeddings, a callable on uint8 `(n, h, w, 3)`
            images, or an object with such a `predict`. Defaults to `None`.
        size: `(height, width)` of the crops. Defaults to `None`: what the model says, else `(112, 112)`.
        thresholds: As in `Thresholds`. Defaults to `None`: those of the preset or of the model's card, where the model is
            named; none of a model that is given as an object.
        dtype: Dtype policy that a Keras model computes in, as in `load_pretrained`. Defaults to `None`: its own.

    Returns:
        `FaceModel`.

    Raises:
        ValueError: If nothing has this name, the size is none or not the model's, or `dtype` is given for what is no Keras
            model.
        TypeError: If it is no model.
    """
    if model is None or isinstance(model, str | os.PathLike):
        embed, known = _load(model)
    elif hasattr(model, "predict_on_batch"):
        embed, known = as_embedder(model), Thresholds
    elif callable(model) or callable(getattr(model, "predict", None)):
        embed, known = (model if callable(model) else model.predict), Thresholds
    else:
        raise TypeError(
            "Expected a model: a name, a path, a keras.Model, a callable or an object with predict(images). "
            f"Received: {type(model).__name__}"
        )
    if dtype is not None:
        embed = with_dtype(embed, dtype)
    fixed = input_size(embed) or (None, None)
    if size is None:
        size = [side or default for side, default in zip(fixed, DEFAULT_SIZE)]
    size = check_size(size, "size")
    if any(side not in (None, given) for side, given in zip(fixed, size)):
        raise ValueError(f"Expected the size of the model's input, {fixed}, or None. Received: size={size}")
    return FaceModel(embed, size, known() if thresholds is None else Thresholds(thresholds))


def _load(name):
    """Returns a model by its name, and what loads the thresholds that its preset or card states."""
    if name is not None and (kind := exported(name)):
        return kind(name), Thresholds
    described = hub.load_described(name)
    if described.preset is not None:
        return described.model, lambda: Thresholds(described.preset.thresholds)
    return described.model, lambda: _of_card(described.path)


def _of_card(path):
    """The thresholds of a model's `preset.json`, none where it states none."""
    if path is None or not path.is_file():
        return Thresholds()
    description = read_json(path)
    try:
        entries = description.get("thresholds") or ()
        if isinstance(entries, str):  # a user may name a report, a stranger's file none of the user's
            raise ValueError(f"expected thresholds as a list. Received: {shown(entries)}")
        return Thresholds(entries)
    except (AttributeError, ValueError) as error:
        raise FileFormatError(f"{path}: {one_line(error)}") from error
