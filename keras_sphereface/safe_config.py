"""Refuses model configurations that could do more than build known layers. Nothing of a configuration runs here."""

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from keras_sphereface.errors import FileFormatError, shown

KERAS_MODULES = frozenset(
    {
        "keras.layers",
        "keras.initializers",
        "keras.regularizers",
        "keras.constraints",
        "keras.dtype_policies",
        "keras.models",
        "keras.src.models.functional",
        "keras.src.models.sequential",
    }
)
# What `x + y`, `x[:, 1:]` and the like of a functional model are: they compute and do nothing else.
OPERATIONS_MODULE = "keras.src.ops.numpy"
OPERATIONS = frozenset(
    {
        "Add",
        "Subtract",
        "Multiply",
        "Divide",
        "TrueDivide",
        "Power",
        "Negative",
        "Absolute",
        "Maximum",
        "Minimum",
        "GetItem",
    }
)
# How a quantized layer keeps its numbers. Those of GPTQ and AWQ carry a data set, and are for language models.
QUANTIZERS_MODULE = "keras.quantizers"
QUANTIZERS = frozenset(
    {"AbsMaxQuantizer", "Int8QuantizationConfig", "Int4QuantizationConfig", "Float8QuantizationConfig"}
)
KERAS_TOP_LEVEL = frozenset({"DTypePolicy", "FloatDTypePolicy", "Sequential", "Model"})
# Layers that run code of their configuration, or read files that it names.
REFUSED_LAYERS = frozenset(
    {
        "Lambda",
        "TorchModuleWrapper",
        "TFSMLayer",
        "JaxLayer",
        "FlaxLayer",
        "StringLookup",
        "IntegerLookup",
        "TextVectorization",
    }
)
DATA_CLASSES = frozenset({"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"})
# Data classes that become an array of their `dtype`: of a text's or a structure's, a few letters would fill the memory.
_ARRAYS = frozenset({"__tensor__", "__numpy__"})
_NUMBERS = re.compile(r"u?int\d+|float\d+(_\w+)?|bfloat16|bool")
_ADVICE = "If you trust the model, load it with keras.saving.load_model"
_LORA = ("lora_rank", "lora_alpha")
OWN_PACKAGE = "keras_sphereface"
_OWN_MODULES = ("keras_sphereface.backbones", "keras_sphereface.heads", "keras_sphereface.classifier")


def without_compilation(node: dict) -> dict:
    """Leaves out how an object was compiled, because models are read to be used and Keras would build optimizer and losses.

    Left out is also that a layer was tuned by LoRA: its file has the tuned weights, and the two factors are not in it.

    It is the `object_hook` of `json.loads`, which gives it all dictionaries from the inside out: those of inner models too.

    Args:
        node: A dictionary of a configuration.

    Returns:
        A dictionary without `compile_config`, and without `lora_...` in its `config`, if it names a class. In others they
        mean nothing to Keras and stay, to be checked like the rest.

    Example:
    >>> without_compilation({"class_name": "Sequential", "config": {}, "compile_config": {"optimizer": "sgd"}})
    {'class_name': 'Sequential', 'config': {}}
    """
    if "class_name" not in node:
        return node
    node = {key: value for key, value in node.items() if key != "compile_config"}
    if isinstance(config := node.get("config"), dict):
        node["config"] = {key: value for key, value in config.items() if key not in _LORA}
    return node


def needs_package(config: Any) -> bool:
    """Whether a configuration names classes of this package, without which Keras alone cannot build it."""
    return any(str(node.get("module")).partition(".")[0] == OWN_PACKAGE for node in classes(config))


def check(config: Any, source: str, advice: str = _ADVICE) -> None:
    """Checks the configuration of a saved model, as in its `config.json`.

    Allowed are the layers, initializers, regularizers and constraints of Keras without those that run code (`Lambda` and
    wrappers of other frameworks) or read files, its arithmetic, and the registered classes of this package.

    Args:
        config: The configuration, a dictionary of plain JSON values.
        source: What to call it in errors, e.g. `"hf://org/repo/config.json"`.
        advice: What to do about a class that is not allowed. Defaults to what helps who loads a model.

    Raises:
        FileFormatError: If the configuration is not a model's or names anything else.
    """
    if not isinstance(config, dict) or "class_name" not in config:
        raise FileFormatError(f"{source}: expected the configuration of a Keras model, a dictionary with `class_name`")
    for node in classes(config):
        _check_class(node, source, advice)


def classes(node: Any) -> Iterator[dict]:
    """All dictionaries in a configuration that name a class, the outer ones first."""
    pending = [node]  # no recursion: a nested file must not exhaust the stack
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if "class_name" in node:
                yield node
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _check_class(node, source, advice):
    name, module, registered = node["class_name"], node.get("module"), node.get("registered_name")
    if module is None and isinstance(name, str) and name in DATA_CLASSES:
        if name in _ARRAYS:
            _check_array(node, source)
        return
    known = isinstance(name, str) and isinstance(module, str) and _known(name, module, registered)
    if not known:
        raise FileFormatError(
            f"{source}: refused to build {shown(name)} of module {shown(module)}: only Keras's own layers that run no code "
            f"from a file, and this package's classes, are loaded. {advice}"
        )


def _check_array(node, source):
    config = node.get("config")
    dtype = config.get("dtype") if isinstance(config, dict) else None
    if not isinstance(dtype, str) or not _NUMBERS.fullmatch(dtype):
        raise FileFormatError(
            f"{source}: refused to build an array of dtype {str(dtype)[:50]!r}, expected numbers, e.g. 'float32'. "
            "Do not use this file"
        )


def _known(name, module, registered):
    if module.partition(".")[0] == OWN_PACKAGE:
        return _own_class(name, registered)
    if registered not in (None, name):  # a registered name would be looked up before the module
        return False
    if module == "keras":
        return name in KERAS_TOP_LEVEL
    if module == OPERATIONS_MODULE:
        return name in OPERATIONS
    if module == QUANTIZERS_MODULE:
        return name in QUANTIZERS
    if module not in KERAS_MODULES or name in REFUSED_LAYERS:
        return False
    return inspect.isclass(getattr(importlib.import_module(module), name, None))


def _own_class(name, registered):
    import keras

    for module in _OWN_MODULES:
        importlib.import_module(module)
    found = keras.saving.get_registered_object(registered) if registered == f"{OWN_PACKAGE}>{name}" else None
    return inspect.isclass(found)
