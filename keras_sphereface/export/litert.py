"""LiteRT (TFLite) files."""

import functools
import os
import pathlib
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sphereface.devices import cpu_cores
from keras_sphereface.errors import MissingDependencyError, one_line
from keras_sphereface.export import constants
from keras_sphereface.export.file_input import checked
from keras_sphereface.hints import Path

if TYPE_CHECKING:
    import keras

MAX_CALIBRATION_IMAGES = 500
THREADS = 2
FLOAT_OPERATIONS = ["SQUARE", "SUM", "RSQRT", "MINIMUM", "MAXIMUM", "MUL"]  # of int8 files
# XNNPACK, LiteRT's default, refuses a file with a product of int8 numbers whose scale is that many times its result's.
_TOO_FINE, _FINEST = 2.0**8, 2.0**7
_PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def write(
    model: "keras.Model", path: pathlib.Path, precision: str, calibration_images: np.ndarray | None = None
) -> None:
    """Writes a `.tflite` file: float32 images in, of any batch size, float32 embeddings out.

    Args:
        model: The embedder.
        path: File.
        precision: `"float32"`, `"float16"` or `"int8"`.
        calibration_images: For int8: `(n, h, w, 3)`, of which at most 500 are used.
    """
    tf = constants.tensorflow()
    embed = constants.constant_function(model)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([embed.get_concrete_function()])
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    path.write_bytes(_quantized(converter, calibration_images) if precision == "int8" else converter.convert())


def _quantized(converter, images):
    """The bytes of the int8 file. Rescaling and the last normalization stay float: squares and sums are beyond int8."""
    tf = constants.tensorflow()
    images = np.asarray(images[:MAX_CALIBRATION_IMAGES], "float32")
    dataset = lambda: ([image[None]] for image in images)  # noqa: E731
    converter.representative_dataset = dataset
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=FLOAT_OPERATIONS)
    quantizer = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=dataset, debug_options=options
    )
    return _coarser(quantizer.get_nondebug_quantized_model())


def _coarser(content):
    """The file with a scale that XNNPACK takes for layers whose numbers, in the calibration, are all zero."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    kinds = {getattr(schema.BuiltinOperator, name) for name in _PRODUCTS}
    for graph in model.subgraphs:
        products = [one for one in graph.operators if model.operatorCodes[one.opcodeIndex].builtinCode in kinds]
        for product in products:
            taken, weights, given = (graph.tensors[index] for index in (*product.inputs[:2], product.outputs[0]))
            scales = [_scale(tensor) for tensor in (taken, weights, given)]
            if not all(scale.size for scale in scales) or (scales[0] * scales[1] / scales[2]).max() < _TOO_FINE:
                continue
            scale = (scales[0] * scales[1]).max() / _FINEST
            given.quantization.scale = np.float32([scale])
            for reader in products:
                if reader.inputs[0] == product.outputs[0] and len(reader.inputs) > 2 and reader.inputs[2] >= 0:
                    _rescale_bias(model, graph.tensors[reader.inputs[2]], scale / scales[2][0])
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _scale(tensor):
    quantization = tensor.quantization
    return np.float64([] if quantization is None or quantization.scale is None else quantization.scale)


def _rescale_bias(model, bias, factor):
    """A bias is counted in the product of the scales of what it is added to."""
    numbers = np.frombuffer(bytes(model.buffers[bias.buffer].data), "<i4")
    model.buffers[bias.buffer].data = np.frombuffer(np.rint(numbers / factor).astype("<i4").tobytes(), np.uint8)
    bias.quantization.scale = np.float32(_scale(bias) * factor)


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Loads a `.tflite` file; returns a function from float32 images to embeddings. Errors as `open_interpreter`."""
    return runner(open_interpreter(path))


def open_interpreter(path: Path) -> Any:
    """Opens a `.tflite` file in LiteRT on the CPU; returns its `Interpreter`.

    Raises:
        MissingDependencyError: If neither `ai-edge-litert` nor TensorFlow is installed.
        FileNotFoundError: If there is no such file.
        ValueError: If the file is broken.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path}")
    try:
        runtime, schema = _runtime()
        _check_whole(path, schema)
        return _interpreter(runtime, path)
    except ValueError as error:
        raise ValueError(f"{path}: LiteRT cannot load it ({one_line(error)}). Export the model again") from error


def _check_whole(path, schema):
    """Reads the file's structure by its schema: LiteRT trusts every offset in it, and a cut file would end the program."""
    try:
        model = schema.ModelT.InitFromPackedBuf(pathlib.Path(path).read_bytes(), 0)
    except Exception as error:  # whatever a wrong offset leads to
        raise ValueError("it is cut off or damaged") from error
    if not model.subgraphs:
        raise ValueError("it has no model")


def runner(interpreter: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The function from float32 images, of any number, to embeddings that an `Interpreter` has; for one thread at a time.

    It raises `ValueError` for images of another size than the file's: LiteRT itself would end the program.
    """
    images_details, embeddings_details = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    entry, result = images_details["index"], embeddings_details["index"]

    def run(images):
        interpreter.resize_tensor_input(entry, images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(entry, images)
        interpreter.invoke()
        return interpreter.get_tensor(result).copy()

    return checked(run, images_details["shape_signature"], embeddings_details["shape"])


def _runtime():
    """Runtime and file schema: of LiteRT's own package where installed, else TensorFlow's."""
    try:
        from ai_edge_litert import interpreter as runtime
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        try:
            import tensorflow as tf
            from tensorflow.lite.python import schema_py_generated as schema
        except ImportError as error:
            raise MissingDependencyError(
                "LiteRT files are run by ai-edge-litert or by TensorFlow; neither could be imported. Install one: "
                "python -m pip install ai-edge-litert"
            ) from error
        runtime = tf.lite
    return runtime, schema


def _interpreter(runtime, path):
    """With XNNPACK, the default, if it takes the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make = functools.partial(runtime.Interpreter, str(path), num_threads=min(THREADS, cpu_cores()))
        interpreter = make()
        try:
            interpreter.allocate_tensors()
        except RuntimeError:  # It refuses some int8 operators, which the built-in ones can do.
            return make(experimental_op_resolver_type=_resolvers(runtime))
        return interpreter


def _resolvers(runtime):
    """LiteRT's own operators, without XNNPACK."""
    types = getattr(runtime, "OpResolverType", None) or runtime.experimental.OpResolverType
    return types.BUILTIN_WITHOUT_DEFAULT_DELEGATES
