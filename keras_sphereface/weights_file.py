"""Weights by name in an HDF5 file, complete or refused: what the embedded presets are stored in.

The data set `values` has all numbers one after the other, float16 (which halves the file) or float32; `index` is JSON text
with one `[name, shape]` for each weight in the same order; a name is `<layer>/<variable>`, e.g. `conv1_conv/kernel`. The
file's attribute `format` is 1. One long data set is read a hundred times faster than hundreds of short ones.
"""

import collections
import json
import math
import os
from typing import TYPE_CHECKING

import h5py
import numpy as np

from keras_sphereface.errors import FileFormatError, is_of_system, one_line, shown
from keras_sphereface.files import draft
from keras_sphereface.hints import Path

if TYPE_CHECKING:
    import keras

FORMAT_VERSION = 1
SUFFIX = ".h5"
DTYPES = ("float16", "float32")
_OPAQUE_BYTES = (1, 2)  # of float8 and bfloat16, for which HDF5 has no type
_NAMED_AT_MOST = 3

# What h5py raises on broken files, depending on where in them it notices.
BROKEN_HDF5 = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError)


def variables_by_name(model: "keras.Model") -> dict[str, "keras.Variable"]:
    """Names the weights of a model, those of models inside it included.

    Args:
        model: A `keras.Model` whose layers have different names.

    Returns:
        Dictionary from `"<layer>/<variable>"` to the Keras variable, in the layers' order. Random generators' states
        are left out.

    Raises:
        ValueError: If two weights have the same name.
    """
    named = {}
    for layer in _leaves(model):
        for variable in layer.weights:
            name = f"{layer.name}/{variable.name}"
            if name in named and named[name] is not variable:
                raise ValueError(
                    f"Two weights have one name: give the layers different names. Received: {name!r} twice"
                )
            named[name] = variable
    return named


def _leaves(model):
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _leaves(layer)
        else:
            yield layer


def write(model: "keras.Model", path: Path, dtype: str = "float16") -> None:
    """Writes the weights of a model.

    Args:
        model: A `keras.Model`.
        path: File to write, ending in `.h5`.
        dtype: `"float16"` or `"float32"`. Defaults to `"float16"`.

    Raises:
        ValueError: If the dtype is another, or a weight is not finite in it.
    """
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}. Received: dtype={dtype!r}")
    index, values = [], []
    for name, variable in variables_by_name(model).items():
        with np.errstate(over="ignore"):  # reported below, with the weight's name
            array = _to_numpy(variable).astype(dtype)
        if not np.isfinite(array).all():
            raise ValueError(f"Weight {name!r} is not finite in {dtype}; train again, or write another dtype")
        index.append([name, list(array.shape)])
        values.append(array.ravel())
    with draft(path) as unfinished, h5py.File(unfinished, "w") as file:
        file.attrs["format"] = FORMAT_VERSION
        file.create_dataset("index", data=np.frombuffer(json.dumps(index).encode(), np.uint8), track_times=False)
        file.create_dataset("values", data=np.concatenate(values), track_times=False)


def _to_numpy(variable):
    import keras

    # NumPy casts: OpenVINO would compile a program for each weight.
    return np.asarray(keras.ops.convert_to_numpy(variable.value)).astype("float32", copy=False)


def read(model: "keras.Model", path: Path) -> None:
    """Reads the weights of a model; every weight of the model and of the file must match.

    Args:
        model: A `keras.Model`.
        path: A file of `write`.

    Raises:
        FileFormatError: If a weight is missing, unknown, of another shape or not finite. The model then keeps its weights.
    """
    variables = variables_by_name(model)
    values = _read_arrays(path)
    missing, unknown = sorted(set(variables) - set(values)), sorted(set(values) - set(variables))
    if missing or unknown:
        raise FileFormatError(
            f"{path}: the weights are not those of the model {model.name!r}: missing {_few(missing)}; unknown "
            f"{_few(unknown)}. Use the architecture and arguments that the file was made with"
        )
    for name, variable in variables.items():
        if values[name].shape != tuple(variable.shape):
            raise FileFormatError(
                f"{path}: {name} has shape {values[name].shape}, the model {model.name!r} expected "
                f"{tuple(variable.shape)}. Use the architecture and arguments that the file was made with"
            )
    for name, variable in variables.items():
        variable.assign(values[name])


def _few(names):
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return ", ".join(names[:_NAMED_AT_MOST]) + more if names else "none"


def _read_arrays(path):
    """All weights of the file by name, float32."""
    check_hdf5(path)
    with h5py.File(path, "r") as file:
        version = _format_of(path, file)
        if version != FORMAT_VERSION:
            raise FileFormatError(
                f"{path}: the attribute `format` is {version}, expected {FORMAT_VERSION}. "
                "Update keras_sphereface, or write the file with keras_sphereface.weights_file.write"
            )
        try:
            index = [(str(name), _as_shape(shape)) for name, shape in json.loads(bytes(file["index"][()]))]
            values = np.asarray(file["values"], dtype="float32")
            ends = np.cumsum([math.prod(shape) for _, shape in index])
        except (*BROKEN_HDF5, RecursionError) as error:
            raise FileFormatError(f"{path}: `index` or `values` is broken ({error}). Get the file again") from error
    twice = next((name for name, times in collections.Counter(name for name, _ in index).items() if times > 1), None)
    if twice is not None:
        raise FileFormatError(f"{path}: `index` has {shown(twice)} twice, expected each name once. Get the file again")
    if not index or values.shape != (ends[-1],) or (np.diff(ends, prepend=0) < 0).any():
        raise FileFormatError(
            f"{path}: `values` has shape {values.shape}, expected what `index` lists. Get the file again"
        )
    if not np.isfinite(values).all():
        raise FileFormatError(f"{path}: holds values that are not finite. Get the file again")
    parts = np.split(values, ends[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(index, parts)}


def _as_shape(sizes):
    """What `index` has for a shape as a tuple; a size that is true, 2.0 or below zero would only fail much later."""
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise ValueError(f"shape {sizes!r}, expected a list of integers from 0")
    return tuple(sizes)


def _format_of(path, file):
    try:
        return int(file.attrs.get("format", 0))
    except BROKEN_HDF5 as error:
        raise FileFormatError(f"{path}: the attribute `format` is broken ({error}). Get the file again") from error


def check_finite(model: "keras.Model", source: str) -> None:
    """Refuses models whose embeddings would be NaN without a word.

    Args:
        model: A `keras.Model`.
        source: What to call it in errors.

    Raises:
        FileFormatError: If a weight is not finite.
    """
    for variable in model.weights:
        if not np.isfinite(_to_numpy(variable)).all():
            raise FileFormatError(
                f"{source}: the weight {variable.path} holds values that are not finite. Get the file again, or train again"
            )


def check_hdf5(path: Path, source: str | None = None) -> int:
    """Refuses HDF5 files that are broken, reach into other files, or claim more content than they hold.

    Refused are links, external and virtual data, and data sets that are not plain numbers, are compressed, or are longer
    than the bytes stored for them: they would take memory that the file does not have. So would data sets that share
    their bytes, and attributes of many texts, which may all be the same one.

    Args:
        path: Path of the file.
        source: What to call it in errors. Defaults to the path.

    Returns:
        Number of values in all data sets.

    Raises:
        FileFormatError: If the file is not readable HDF5 or holds such a thing.
    """
    source, stored = source or path, os.path.getsize(path)
    try:
        with h5py.File(path, "r") as file:
            values, claimed = _check_groups(source, file)
    except BROKEN_HDF5 as error:
        if isinstance(error, FileFormatError):
            raise
        if is_of_system(error):
            raise
        raise FileFormatError(f"{source}: not a readable HDF5 file ({one_line(error)}). Get the file again") from error
    if claimed > stored:  # each has as many as it claims, but they may be the same ones
        raise FileFormatError(f"{source}: claims {claimed} bytes, but has {stored} in all. Do not use this file")
    return values


def _check_groups(source, root):
    """Numbers of values and of bytes of all data sets."""
    pending, seen, values, claimed = [root], set(), 0, 0
    _check_attributes(source, root)
    while pending:  # no recursion: groups may be nested deep, or hold themselves
        group = pending.pop()
        for name in group:
            place = shown(f"{group.name.rstrip('/')}/{name}")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise FileFormatError(f"{source}: {place} is a link, expected plain data. Do not use this file")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise FileFormatError(f"{source}: {place} is a second name of something else. Do not use this file")
            seen.add(address)
            _check_attributes(source, item)
            if isinstance(item, h5py.Group):
                pending.append(item)
            else:
                _check_dataset(source, place, item)
                values, claimed = values + item.size, claimed + item.nbytes
    return values, claimed


def _check_dataset(source, place, item):
    if not isinstance(item, h5py.Dataset):
        raise FileFormatError(f"{source}: {place} is a type, expected plain data. Do not use this file")
    if item.is_virtual or item.external:
        raise FileFormatError(f"{source}: {place} lies in another file, expected plain data. Do not use this file")
    is_opaque = item.dtype.kind == "V" and item.dtype.names is None and item.dtype.itemsize in _OPAQUE_BYTES
    if item.dtype.kind not in "biuf" and not is_opaque:
        raise FileFormatError(f"{source}: {place} holds {shown(item.dtype)}, expected numbers. Do not use this file")
    if item.id.get_create_plist().get_nfilters():
        raise FileFormatError(
            f"{source}: {place} is compressed or filtered, expected plain data. Write the file without compression"
        )
    if item.nbytes > item.id.get_storage_size():
        raise FileFormatError(
            f"{source}: {place} claims {item.nbytes} bytes, but {item.id.get_storage_size()} are stored. Get the file again"
        )


def _check_attributes(source, item):
    """Refuses attributes that are not a text or plain numbers, without reading them."""
    for number in range(h5py.h5a.get_num_attrs(item.id)):
        attribute = h5py.h5a.open(item.id, index=number)
        is_text = attribute.shape == () and (h5py.check_string_dtype(attribute.dtype) is not None)
        if not is_text and attribute.dtype.kind not in "biufS":
            raise FileFormatError(
                f"{source}: an attribute of {shown(item.name)} holds {shown(attribute.dtype)}, expected a text or numbers. "
                "Do not use this file"
            )
