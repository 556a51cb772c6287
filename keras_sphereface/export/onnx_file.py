"""ONNX files, written from the Keras graph itself: no TensorFlow, the same on every backend."""

import functools
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sphereface.devices import cpu_cores
from keras_sphereface.errors import require
from keras_sphereface.export import onnx_layers
from keras_sphereface.export.file_input import checked
from keras_sphereface.export.onnx_graph import Graph
from keras_sphereface.hints import Path

if TYPE_CHECKING:
    import keras

OPSET = 17
IR_VERSION = 8  # read by ONNX Runtime since 1.10; newer ones only add what is not used here
INPUT, OUTPUT = "images", "embeddings"
MAX_CALIBRATION_IMAGES = 500
_CALIBRATION_BATCH = 16
_QUANTIZED = ["Conv", "Gemm"]  # what costs; sums and the normalization of the output stay float


def write(
    model: "keras.Model", path: pathlib.Path, precision: str, calibration_images: np.ndarray | None = None
) -> None:
    """Writes an `.onnx` file: input `images` (n, h, w, 3) float32 RGB 0..255, output `embeddings` (n, d).

    Args:
        model: The embedder, flat and functional.
        path: File.
        precision: `"float32"`, `"float16"` or `"int8"`.
        calibration_images: For int8: `(n, h, w, 3)`, of which at most 500 are used.
    """
    require("onnx", "export")
    require("onnxruntime", "export")  # reads the file again; missing, it should be missed before anything is written
    if precision != "int8":
        _save(build(model, half=precision == "float16"), path)
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = pathlib.Path(folder) / "float32.onnx"
        _save(build(model), plain)
        _quantize(plain, path, calibration_images[:MAX_CALIBRATION_IMAGES])


def build(model: "keras.Model", half: bool = False) -> Any:
    """Builds the ONNX model.

    Args:
        model: A flat functional `keras.Model`.
        half: Whether weights are stored in float16. Defaults to `False`.

    Returns:
        An `onnx.ModelProto`.

    Raises:
        ValueError: If a layer has no counterpart here; the message names it.
    """
    import keras
    import onnx

    graph = Graph(half)
    images = keras.Input(batch_shape=model.inputs[0].shape, dtype="float32", name=INPUT)
    graph.start(images, INPUT)
    traced = keras.models.clone_model(
        model,
        input_tensors=_like(model.input, images),
        clone_function=lambda layer: layer,
        call_function=functools.partial(onnx_layers.add, graph),
    )
    graph.finish(traced.outputs[0], OUTPUT)
    height, width, channels = model.input_shape[1:]
    proto = onnx.helper.make_graph(
        graph.nodes,
        model.name,
        [onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, ["n", height, width, channels])],
        [onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["n", model.output_shape[-1]])],
        initializer=graph.initializers,
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    result = onnx.helper.make_model(
        proto, producer_name="keras_sphereface", opset_imports=opsets, ir_version=IR_VERSION
    )
    onnx.checker.check_model(result, full_check=True)
    return result


def _like(structure, tensor):
    """`tensor` in the structure of a model's input: itself, or a list or dictionary of one."""
    if isinstance(structure, dict):
        return dict.fromkeys(structure, tensor)
    return type(structure)([tensor]) if isinstance(structure, (list, tuple)) else tensor


def _save(proto, path):
    pathlib.Path(path).write_bytes(proto.SerializeToString())


def _quantize(plain, path, images):
    """Quantizes with ONNX Runtime: 8-bit weights per channel, activations by the ranges seen in the images."""
    quantization = require("onnxruntime.quantization", "export")
    from onnxruntime.quantization.shape_inference import quant_pre_process

    folded = plain.with_name("folded.onnx")
    quant_pre_process(str(plain), str(folded), skip_symbolic_shape=True)  # batch norms go into the convolutions
    quantization.quantize_static(
        str(folded),
        str(path),
        _Batches(quantization.CalibrationDataReader, np.asarray(images, "float32")).reader,
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=_QUANTIZED,
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,  # unsigned ones overflow on CPUs without VNNI: cosines of 0.64
        weight_type=quantization.QuantType.QInt8,
    )


class _Batches:
    """Hands the calibration images to ONNX Runtime, whose base class is only there with the extra."""

    def __init__(self, base, images):
        batches = (images[start : start + _CALIBRATION_BATCH] for start in range(0, len(images), _CALIBRATION_BATCH))
        get_next = lambda _: next(({INPUT: batch} for batch in batches), None)  # noqa: E731
        self.reader = type("Reader", (base,), {"get_next": get_next})()


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Loads an `.onnx` file; returns a function from float32 images to embeddings."""
    return runner(open_session(path))


def runner(session: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The function from float32 images, of any number, to embeddings that an `InferenceSession` has.

    It raises `ValueError` for images of another size than the file's.
    """
    images, embeddings = session.get_inputs()[0], session.get_outputs()[0]
    source, target = images.name, embeddings.name
    return checked(lambda images: session.run([target], {source: images})[0], images.shape, embeddings.shape)


def open_session(path: Path) -> Any:
    """Opens an `.onnx` file in ONNX Runtime on the CPU; returns its `InferenceSession`.

    Args:
        path: The file.

    Raises:
        MissingDependencyError: If `onnxruntime` is not installed: extra `[export]`.
        FileNotFoundError: If there is no such file.
        ValueError: If the file is broken.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path}")
    try:
        return session_of(os.fspath(path))
    except Exception as error:  # ONNX Runtime has a class of its own for each kind of failure
        raise ValueError(f"{path}: ONNX Runtime cannot load it ({error}). Export the model again") from error


def session_of(model: str | bytes) -> Any:
    """An `InferenceSession` of ONNX Runtime on the CPU, of a path or of a serialized model; raises what it raises.

    Raises:
        MissingDependencyError: If `onnxruntime` is not installed: extra `[export]`.
    """
    onnxruntime = require("onnxruntime", "export")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors are raised; its warnings are of its own optimizer
    # By itself it takes threads for the whole machine, which spin while they wait, in each other's way on fewer cores.
    if (cores := cpu_cores()) < (os.cpu_count() or 1):
        options.intra_op_num_threads = cores
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
