"""Presets as data: every pretrained model that has a name, one JSON file of this folder each.

`python -m keras_sphereface.presets > zoo/README.md` writes the table of all of them.
"""

import dataclasses
import functools
import itertools
import pathlib
import re
from collections.abc import Iterable
from typing import Any

from keras_sphereface.arguments import is_number
from keras_sphereface.errors import FileFormatError, did_you_mean, shown
from keras_sphereface.files import SHA256, read_json
from keras_sphereface.hints import Path

FOLDER = pathlib.Path(__file__).parent
WEIGHTS_FOLDER = FOLDER.parent / "weights"
STATUSES = ("embedded", "published", "planned")
NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_FILE = "model.weights.h5"  # the one weight file of a repository that is downloaded, and so can be checked
METRIC_FIELDS = ("name", "dataset", "value", "unit", "command")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclasses.dataclass(frozen=True)
class Preset:
    """What is known about one pretrained model.

    Args:
        name: Lower-case name, the argument of `load_pretrained`.
        status: `"embedded"` (the weights are in this package), `"published"` (on the Hub) or `"planned"` (no weights
            yet: `obtain` says how to make them).
        architecture: Name of the backbone, as in `backbones.get`.
        arguments: Keyword arguments of the backbone.
        preprocessing: Dictionary with `text`, `image_size` (height, width), `color`, `range`, `mean`, `std`.
        data: What it was trained on.
        license: Licence and terms of the weights.
        description: One sentence.
        default: Whether `load_pretrained()` returns it; one embedded preset has it. Defaults to `False`.
        embedding_dim: Length of an embedding. Defaults to `512`.
        parameters: Number of parameters, or `None`.
        file: Name of the weight file. Embedded: under `keras_sphereface/weights/`. Published: `"model.weights.h5"`.
        size: Its bytes.
        sha256: Its SHA-256, hexadecimal.
        hub_id: `"organization/repository"`, for published ones.
        revision: The commit there, 40 hexadecimal digits, for published ones.
        metrics: List of dictionaries `name`, `dataset`, `value`, `unit`, `command` (the one that measured it).
        thresholds: List of dictionaries `far` (between 0 and 1), `threshold` (cosine, which grows as the FAR falls) and
            optionally `tar` (percent).
        speed: A sentence with machine and figure, or `None`.
        obtain: For planned ones: the command that makes the weights.
        notes: More for the reader, as a list of sentences.

    Example:
    >>> preset = keras_sphereface.presets.get("sfnet20_ms1m")
    >>> preset.architecture, preset.embedding_dim
    ('sfnet20', 512)
    """

    name: str
    status: str
    architecture: str
    arguments: dict
    preprocessing: dict
    data: str
    license: str
    description: str
    default: bool = False
    embedding_dim: int = 512
    parameters: int | None = None
    file: str | None = None
    size: int | None = None
    sha256: str | None = None
    hub_id: str | None = None
    revision: str | None = None
    metrics: list = dataclasses.field(default_factory=list)
    thresholds: list = dataclasses.field(default_factory=list)
    speed: str | None = None
    obtain: str | None = None
    notes: list = dataclasses.field(default_factory=list)

    @property
    def weights_path(self) -> pathlib.Path:
        """Path of an embedded preset's weights."""
        return WEIGHTS_FOLDER / self.file


def read(path: Path) -> Preset:
    """Reads the file of a preset.

    Args:
        path: Path of a JSON file.

    Returns:
        The `Preset`.

    Raises:
        FileFormatError: If it is not JSON, or not as `from_dict` wants it.
        FileNotFoundError: If there is no such file.

    Example:
    >>> preset = keras_sphereface.presets.read(keras_sphereface.presets.FOLDER / "sfnet20_ms1m.json")
    >>> preset.name
    'sfnet20_ms1m'
    """
    return from_dict(read_json(path, advice="Install the package again"), path)


def from_dict(entry: dict, source: Path = "preset") -> Preset:
    """Makes a `Preset` of a dictionary, checked.

    Args:
        entry: Dictionary of the fields of `Preset`.
        source: What to call it in errors, e.g. the path of its file.

    Returns:
        The `Preset`.

    Raises:
        FileFormatError: If a field is missing, unknown or not what its description says.

    Example:
    >>> entry = {**vars(keras_sphereface.presets.get("sfnet20_ms1m")), "name": "sfnet20_own", "data": "our own photos"}
    >>> keras_sphereface.presets.from_dict(entry).data
    'our own photos'
    """
    fields = {field.name: field for field in dataclasses.fields(Preset)}
    required = {
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    if not isinstance(entry, dict):
        raise FileFormatError(f"{source}: expected a dictionary, found {type(entry).__name__}. Correct the entry")
    unknown, missing = sorted(set(entry) - set(fields), key=repr), sorted(required - set(entry))
    if unknown or missing:
        raise FileFormatError(f"{source}: unknown fields {unknown}, missing fields {missing}. Correct the entry")
    for name, value in entry.items():
        if not isinstance(value, fields[name].type):
            raise FileFormatError(
                f"{source}: `{name}` must be {fields[name].type}. Received: {value!r}. Correct the entry"
            )
    preset = Preset(**entry)
    for problem in _problems(preset):
        raise FileFormatError(f"{source}: {problem}. Correct the entry")
    return preset


def _problems(preset):
    """Yields what is wrong with a preset."""
    if not NAME.fullmatch(preset.name):
        yield f"`name` must be lower-case words joined by '_'. Received: {preset.name!r}"
    if preset.status not in STATUSES:
        yield f"`status` must be one of {STATUSES}. Received: {preset.status!r}"
    if preset.file is not None and not FILE_NAME.fullmatch(preset.file):
        yield f"`file` must be a plain file name. Received: {preset.file!r}"
    if preset.status in ("embedded", "published"):
        has_size = is_number(preset.size) and preset.size > 0
        if preset.file is None or not has_size or not SHA256.fullmatch(preset.sha256 or ""):
            yield f"{preset.status} presets need `file`, `size` in bytes and `sha256`. Received: size={preset.size!r}"
    elif not preset.obtain:
        yield "planned presets need `obtain`, the command that makes the weights"
    elif preset.metrics or preset.sha256:
        yield "planned presets have neither metrics nor `sha256`: nothing exists yet that could be measured"
    is_pinned = REPO_ID.fullmatch(preset.hub_id or "") and COMMIT.fullmatch(preset.revision or "")
    if preset.status == "published" and not is_pinned:
        yield "published presets need `hub_id` and the commit as `revision`, 40 hexadecimal digits"
    if preset.status == "published" and preset.file != HUB_FILE:
        yield f"`file` of a published preset must be {HUB_FILE!r}, the one that is checked. Received: {preset.file!r}"
    if not isinstance(preset.preprocessing.get("text"), str):
        yield f"`preprocessing` needs `text`. Received: {preset.preprocessing!r}"
    for name, number in (("embedding_dim", preset.embedding_dim), ("parameters", preset.parameters)):
        if number is not None and (isinstance(number, bool) or number < 1):
            yield f"`{name}` must be a positive integer. Received: {getattr(preset, name)!r}"
    for metric in preset.metrics:
        if not is_metric(metric):
            yield f"a metric needs {', '.join(METRIC_FIELDS)}, `value` a finite number. Received: {metric!r}"
    try:
        check_thresholds(preset.thresholds)
    except ValueError as error:
        yield str(error)
    if preset.default and preset.status != "embedded":
        yield "the default must be embedded"


def is_metric(entry: Any) -> bool:
    """Whether this is a metric of a preset or a card.

    Args:
        entry: Anything.

    Returns:
        `True` for a dictionary of exactly `METRIC_FIELDS`: `value` a finite number, the others texts. Else `False`.

    Example:
    >>> entry = {"name": "accuracy", "dataset": "LFW", "value": 99.5, "unit": "%", "command": "keras-sphereface evaluate"}
    >>> keras_sphereface.presets.is_metric(entry)
    True
    """
    if not isinstance(entry, dict) or set(entry) != set(METRIC_FIELDS):
        return False
    return is_number(entry["value"]) and all(isinstance(entry[key], str) for key in METRIC_FIELDS if key != "value")


def is_threshold(entry: Any) -> bool:
    """Whether this is a threshold of a preset or a card.

    Args:
        entry: Anything.

    Returns:
        `True` for a dictionary of `far` (between 0 and 1), `threshold` (a cosine) and perhaps `tar` (percent, 0..100), all
        numbers. Else `False`.

    Example:
    >>> keras_sphereface.presets.is_threshold({"far": 1e-3, "threshold": 0.35, "tar": 96.5})
    True
    """
    if not isinstance(entry, dict) or not {"far", "threshold"} <= set(entry) <= {"far", "threshold", "tar"}:
        return False
    if not all(is_number(value) for value in entry.values()):
        return False
    return 0 < entry["far"] < 1 and abs(entry["threshold"]) <= 1 and 0 <= entry.get("tar", 0) <= 100


def check_thresholds(entries: Iterable[Any]) -> None:
    """Checks the thresholds of one model: those of a preset, of a card, or that somebody measured.

    Args:
        entries: Dictionaries as `is_threshold` wants them, in any order.

    Raises:
        ValueError: If an entry is no threshold, or a lower FAR has a lower threshold than a higher one.

    Example:
    >>> keras_sphereface.presets.check_thresholds([{"far": 1e-2, "threshold": 0.25}, {"far": 1e-3, "threshold": 0.35}])
    """
    entries = list(entries)
    for entry in entries:
        if not is_threshold(entry):
            raise ValueError(
                "A threshold needs `far` and `threshold`, and may have `tar`: numbers between 0 and 1, a cosine and 0..100, "
                f"and nothing else. Received: {shown(entry)}"
            )
    points = sorted(((entry["far"], entry["threshold"]) for entry in entries), reverse=True)
    if any(higher[1] > lower[1] for higher, lower in itertools.pairwise(points)):
        raise ValueError(f"Expected thresholds that grow as the FAR falls. Received: (FAR, threshold) {shown(points)}")


@functools.cache
def table() -> dict[str, Preset]:
    """Reads all presets.

    Returns:
        Dictionary from name to `Preset`, the embedded ones first, then published, then planned.

    Raises:
        FileFormatError: If a file is broken.
    """
    presets = []
    for path in sorted(FOLDER.glob("*.json")):
        presets.append(read(path))
        if path.stem != presets[-1].name:
            raise FileFormatError(f"{path}: `name` is {presets[-1].name!r}, expected {path.stem!r}. Rename the file")
    presets.sort(key=lambda preset: (not preset.default, STATUSES.index(preset.status), preset.name))
    return {preset.name: preset for preset in presets}


def names() -> tuple[str, ...]:
    """The names of all presets, as a tuple; planned ones included.

    Example:
    >>> "sfnet20_ms1m" in keras_sphereface.presets.names()
    True
    """
    return tuple(table())


def get(name: str) -> Preset:
    """Returns a `Preset` by its name.

    Args:
        name: One of `names()`.

    Raises:
        ValueError: If no preset has this name.

    Example:
    >>> get("sfnet20_ms1m").architecture
    'sfnet20'
    """
    if name not in table():
        raise ValueError(
            f"Unknown preset. Received: name={name!r}. Known names: {', '.join(names())}.{did_you_mean(name, names())}"
        )
    return table()[name]


def default() -> Preset:
    """The embedded preset that `load_pretrained()` returns.

    Returns:
        The `Preset`.

    Raises:
        LookupError: If this copy of the package has none.

    Example:
    >>> preset = keras_sphereface.presets.default()
    >>> preset.status
    'embedded'
    """
    for preset in table().values():
        if preset.default:
            return preset
    raise LookupError(
        "This copy of keras_sphereface has no embedded default model: none has been trained to its standard yet (see "
        "zoo/README.md). Name a model: a folder, a .keras file, 'hf://organization/repository' or one of "
        f"{', '.join(names())}"
    )
