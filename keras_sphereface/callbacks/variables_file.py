"""The values of variables in one file, in their order: a NumPy archive (.npz), uncompressed, written piece by piece.

Not HDF5: when a disk is full its library ends the process, where plain writing raises an error that can be handled.
"""

import zipfile
from collections.abc import Sequence

import keras
import numpy as np

from keras_sphereface import distribution
from keras_sphereface.hints import Path


def write(path: Path, variables: Sequence[keras.Variable]) -> None:
    """Writes the values of Keras variables.

    Args:
        path: Path of the file.
        variables: List of Keras variables.

    Raises:
        OSError: If the disk is full.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number, variable in enumerate(variables):
            values = distribution.gathered(variable)
            if values.dtype.kind == "V":  # bfloat16 is no type of NumPy's own
                values = values.view(np.uint16)
            with archive.open(f"{number}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)


def read(path: Path, variables: Sequence[keras.Variable]) -> None:
    """Assigns the values of a file to variables; either all or none.

    Args:
        path: Path of the file.
        variables: List of Keras variables, as those that were written.

    Raises:
        ValueError: If number, shapes or precision of the variables are others.
    """
    with np.load(path, allow_pickle=False) as archive:
        arrays = (archive[f"{number}"] for number in range(len(archive.files)))
        shapes, kinds = zip(*((values.shape, values.dtype) for values in arrays)) if archive.files else ((), ())
        shapes = list(shapes)
        wanted = [tuple(variable.shape) for variable in variables]
        if shapes != wanted:
            differs = [place for place, pair in enumerate(zip(shapes, wanted)) if pair[0] != pair[1]]
            first = f", first {variables[differs[0]].path} of shape {wanted[differs[0]]}" if differs else ""
            raise ValueError(
                f"{path}: holds {len(shapes)} variables, of the model and its optimizer. Received: {len(wanted)}, "
                f"{len(differs)} of other shapes{first}. Use the network and the optimizer (momentum, averaging, "
                "accumulation and guard included) that the run was begun with"
            )
        for variable, kind in zip(variables, kinds):
            if _is_bfloat16(variable) != (kind == np.uint16):
                stored = "bfloat16" if kind == np.uint16 else kind
                raise ValueError(
                    f"{path}: holds {variable.path} in {stored}. Received: a model that has it in {variable.dtype}. Use the "
                    "dtype policy that the run was begun with"
                )
        for number, variable in enumerate(variables):
            values = archive[f"{number}"]
            if _is_bfloat16(variable):
                values = values.view(keras.ops.convert_to_numpy(variable).dtype)
            variable.assign(values)


def _is_bfloat16(variable):
    return keras.backend.standardize_dtype(variable.dtype) == "bfloat16"
