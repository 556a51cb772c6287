"""The networks IR and IR-SE of InsightFace_Pytorch, face.evoLVe, AdaFace and CVLface: sizes and names in their files.

They are IResNets whose modules stand in sequences, so that a name is a number: `body.7.res_layer.1` is the first
convolution of the eighth unit.
"""

import itertools

import numpy as np

from keras_sphereface import errors
from keras_sphereface.conversion.tensors import check_units, shape_of
from keras_sphereface.hints import Path

SE_REDUCTION = 16  # of all these projects
_STAGES = 4
_ENDS = {
    "conv1": "input_layer.0",
    "bn1": "input_layer.1",
    "prelu": "input_layer.2",
    "bn2": "output_layer.0",  # 1 is dropout, 2 flattens
    "fc": "output_layer.3",
    "features": "output_layer.4",
}
_FEATURES = _ENDS["features"]
_SE_NAMES = ("se_block", "6", "5")  # AdaFace's and CVLface's; of a sequence with and without the inner normalization


def with_scale(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds the scale of 1 and the offset of 0 that AdaFace's and CVLface's last normalization has without tensors."""
    statistics = tensors.get(f"{_FEATURES}.running_var")
    if statistics is None or f"{_FEATURES}.weight" in tensors or f"{_FEATURES}.bias" in tensors:
        return tensors
    return {
        **tensors,
        f"{_FEATURES}.weight": np.ones_like(statistics),
        f"{_FEATURES}.bias": np.zeros_like(statistics),
    }


def arguments(tensors: dict[str, np.ndarray], path: Path) -> dict:
    """Reads the arguments of `IResNet` off the tensors.

    Args:
        tensors: Tensor names to arrays.
        path: The file, for error messages.

    Returns:
        `units`, `channels`, `embedding_dim`, `shortcut`, `inner_norm` and `se_reduction`.

    Raises:
        FileFormatError: If the names are not those of four stages.
    """
    bounds = _stage_bounds(tensors, path)
    se_name = _se_name(tensors)
    se_reduction = None
    if se_name:
        outputs, inputs, *_ = shape_of(tensors, f"body.0.res_layer.{se_name}.fc1.weight", 4, path)
        se_reduction = max(1, inputs // outputs)
    return {
        "units": tuple(end - start for start, end in itertools.pairwise(bounds)),
        "channels": tuple(shape_of(tensors, f"body.{start}.res_layer.1.weight", 4, path)[0] for start in bounds[:-1]),
        "embedding_dim": shape_of(tensors, f"{_ENDS['fc']}.weight", 2, path)[0],
        "shortcut": "subsample",
        "inner_norm": "body.0.res_layer.2.running_var" in tensors,
        "se_reduction": se_reduction,
    }


def module_names(config: dict, tensors: dict[str, np.ndarray]) -> dict[str, str]:
    """Tells what the modules of an IResNet are called in the file.

    Args:
        config: The network's `units`, `inner_norm` and `se_reduction`.
        tensors: Tensor names to arrays.

    Returns:
        Dictionary of InsightFace's names, e.g. `"layer1.0.conv1"`, to the file's, e.g. `"body.0.res_layer.1"`.
    """
    inner_norm = ("bn2",) if config["inner_norm"] else ()
    sequence = ("bn1", "conv1", *inner_norm, "prelu", "conv2", "bn3")
    se_name = _se_name(tensors) or len(sequence)
    of_unit = {name: f"res_layer.{position}" for position, name in enumerate(sequence)}
    of_unit |= {f"se.{name}": f"res_layer.{se_name}.{name}" for name in ("fc1", "fc2")}
    of_unit |= {f"downsample.{position}": f"shortcut_layer.{position}" for position in (0, 1)}
    units = [(stage, index) for stage, count in enumerate(config["units"], start=1) for index in range(count)]
    return _ENDS | {
        f"layer{stage}.{index}.{name}": f"body.{number}.{place}"
        for number, (stage, index) in enumerate(units)
        for name, place in of_unit.items()
    }


def _se_name(tensors):
    """What squeeze and excitation is called in the file's first unit; `None` if there is none."""
    return next((name for name in _SE_NAMES if f"body.0.res_layer.{name}.fc1.weight" in tensors), None)


def _stage_bounds(tensors, path):
    """Numbers of the units that begin a stage, the first and those with a convolution beside them, and of all units."""
    count = 0
    while f"body.{count}.res_layer.0.weight" in tensors:
        count += 1
    check_units(count, path)
    starts = [n for n in range(count) if n == 0 or f"body.{n}.shortcut_layer.0.weight" in tensors]
    if len(starts) != _STAGES:
        raise errors.FileFormatError(
            f"{path}: the tensors' names are those of {count} units `body.<number>.res_layer` in {len(starts)} stages, "
            f"expected {_STAGES} stages. Does the file hold this architecture?"
        )
    return [*starts, count]
