"""The card of a published model: the README.md of its repository, with metadata that the Hub reads."""

import dataclasses
import pathlib
import re
from typing import TYPE_CHECKING

from keras_sphereface import presets
from keras_sphereface.errors import FileFormatError, shown
from keras_sphereface.files import read_json
from keras_sphereface.hints import Path
from keras_sphereface.presets.overview import row
from keras_sphereface.presets.overview import value as format_value

if TYPE_CHECKING:
    from keras_sphereface.presets import Preset

FILE = "README.md"
TAGS = ("keras", "face-recognition", "face-verification", "keras-sphereface")  # true of converted models too
PIPELINE = "image-feature-extraction"
LIBRARY = "keras"
TEXTS = ("description", "data", "license", "preprocessing", "intended_use", "limits")
OPTIONAL_TEXTS = ("name", "speed")
# Licence identifiers that the Hub's metadata knows, of those likely here; others are written as "other" with their name.
KNOWN_LICENSES = frozenset(
    {
        "apache-2.0",
        "mit",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc0-1.0",
        "cc-by-4.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-4.0",
        "unknown",
    }
)


@dataclasses.dataclass(frozen=True)
class Card:
    """What a model's card says beside what the model itself shows.

    Args:
        name: Title. Defaults to `None`, the repository's name.
        description: A sentence or more. Defaults to one that is true of every model here: how it was trained is not known.
        data: What it was trained on, with its terms. Defaults to a sentence that says that it is not known.
        license: Identifier of the weights' licence, e.g. `"mit"`, or its name in words. Defaults to `"unknown"`.
        preprocessing: The preprocessing in words and numbers. Defaults to a sentence that it is inside the model.
        intended_use: Defaults to verification and research.
        limits: What it should not be used for, and where it is weak.
        metrics: List of dictionaries `name`, `dataset`, `value`, `unit`, `command` (the one that measured it).
            Defaults to none.
        thresholds: List of dictionaries `far` (between 0 and 1), `threshold` (cosine, which grows as the FAR falls), `tar`
            (optional, in percent). Defaults to none.
        speed: A sentence with machine and figure. Defaults to none.

    Raises:
        ValueError: If a text is none, a metric or threshold lacks a field, its numbers are not finite numbers of their
            range, or a lower FAR has a lower threshold. NumPy's numbers are taken, and kept as Python's.

    Example:
    >>> card = keras_sphereface.model_card.Card(
    ...     data="our members' photos, with their consent", license="mit", thresholds=[{"far": 1e-3, "threshold": 0.35}]
    ... )
    >>> keras_sphereface.push_to_hub(trainer, "me/my-face-model", card)
    """

    name: str | None = None
    description: str = "A face embedding network: two images are compared by the cosine of their embeddings."
    data: str = "Not stated by the publisher."
    license: str = "unknown"
    preprocessing: str = "Inside the model."
    intended_use: str = "Comparing aligned face images, for research and for verification with the person's consent."
    limits: str = (
        "Accuracy differs between groups of people and drops with pose, age difference and low resolution. Measure it on "
        "your own data before use. Not for surveillance, and not as the only ground of a decision about a person."
    )
    metrics: list = dataclasses.field(default_factory=list)
    thresholds: list = dataclasses.field(default_factory=list)
    speed: str | None = None

    def __post_init__(self):
        for name in (*TEXTS, *OPTIONAL_TEXTS):
            value = getattr(self, name)
            if not isinstance(value, str) and not (value is None and name in OPTIONAL_TEXTS):
                raise ValueError(f"{name}: expected a text. Received: {shown(value)}. Leave it out if nothing is known")
            object.__setattr__(self, name, None if value is None else str(value))  # NumPy's texts too
        for name in ("metrics", "thresholds"):
            if not isinstance(getattr(self, name), (list, tuple)):
                raise ValueError(f"{name}: expected a list of dictionaries. Received: {shown(getattr(self, name))}")
        object.__setattr__(self, "metrics", [_plain_metric(entry) for entry in self.metrics])
        presets.check_thresholds(self.thresholds)
        plain = [{key: float(value) for key, value in entry.items()} for entry in self.thresholds]
        object.__setattr__(self, "thresholds", plain)

    def description_fields(self) -> dict:
        """The fields as they also go into `preset.json`, where `from_description` finds them again."""
        return dataclasses.asdict(self)


def _plain_metric(entry):
    """A metric in Python's own types, which JSON and YAML can write."""
    if not presets.is_metric(entry):
        fields = ", ".join(presets.METRIC_FIELDS)
        raise ValueError(
            f"A metric needs {fields}: `value` a finite number, the others texts. Received: {shown(entry)}"
        )
    return {key: float(entry[key]) if key == "value" else str(entry[key]) for key in entry}


def from_preset(preset: "Preset") -> Card:
    """Makes the card of a `presets.Preset`.

    Args:
        preset: The `Preset`.

    Returns:
        A `Card`, whose description has the preset's notes as a list.

    Example:
    >>> preset = keras_sphereface.presets.get("sfnet20_ms1m")
    >>> keras_sphereface.model_card.from_preset(preset).name
    'sfnet20_ms1m'
    """
    notes = "".join(f"\n- {note}" for note in preset.notes)
    return Card(
        name=preset.name,
        description=f"{preset.description}\n{notes}" if notes else preset.description,
        data=preset.data,
        license=preset.license,
        preprocessing=preset.preprocessing["text"],
        metrics=list(preset.metrics),
        thresholds=list(preset.thresholds),
        speed=preset.speed,
    )


def from_description(path: Path) -> Card:
    """Makes the card of what a model's `preset.json` says.

    Args:
        path: Path of the file; where there is none, nothing is known.

    Returns:
        A `Card`.

    Raises:
        FileFormatError: If a field is not as a card has it.

    Example:
    >>> card = keras_sphereface.model_card.from_description("my-face-model/preset.json")
    >>> card.license, card.thresholds
    """
    path = pathlib.Path(path)
    entries = read_json(path) if path.is_file() else {}
    if not isinstance(entries, dict):
        raise FileFormatError(f"{path}: expected a model's description, a dictionary. Publish the model again")
    names = [field.name for field in dataclasses.fields(Card)]
    try:
        return Card(**{name: entries[name] for name in names if name in entries})
    except ValueError as error:
        raise FileFormatError(f"{path}: {error}. Correct the entry") from error


def metadata(card: Card, repo_id: str) -> dict:
    """The card's metadata, as the Hub's model cards have it.

    Args:
        card: The `Card`.
        repo_id: `"organization/repository"`.

    Returns:
        Dictionary for the YAML block at the beginning: library, pipeline, licence, tags, and `model-index` with metrics.

    Example:
    >>> card = keras_sphereface.model_card.Card(license="mit")
    >>> keras_sphereface.model_card.metadata(card, "me/my-face-model")["license"]
    'mit'
    """
    license_id = card.license.lower()
    fields = {"library_name": LIBRARY, "pipeline_tag": PIPELINE, "tags": list(TAGS)}
    if license_id in KNOWN_LICENSES:
        fields["license"] = license_id
    else:
        fields["license"] = "other"
        fields["license_name"] = _slug(license_id, r"[^a-z0-9.]+", "-")[:60] or "other"
    if card.metrics:
        fields["metrics"] = sorted({_metric_type(metric) for metric in card.metrics})
        fields["model-index"] = [{"name": card.name or repo_id.partition("/")[2], "results": _results(card.metrics)}]
    return fields


def _slug(text, others, joint):
    """The Latin letters and digits of a text, in lower case; empty if it has none: the Hub refuses an empty field."""
    return re.sub(others, joint, text.lower()).strip(joint)


def _metric_type(metric):
    return _slug(metric["name"], r"[^a-z0-9]+", "_") or "metric"


def _results(metrics):
    """One result for each data set, in the order of the metrics."""
    datasets = {}
    for metric in metrics:
        name = f"{metric['name']} ({metric['unit']})" if metric["unit"] else metric["name"]
        entry = {"type": _metric_type(metric), "name": name, "value": metric["value"]}
        datasets.setdefault(metric["dataset"], []).append(entry)
    return [
        {
            "task": {"type": PIPELINE, "name": "Face verification"},
            "dataset": {"name": dataset, "type": _slug(dataset, r"[^a-z0-9]+", "-") or "dataset"},
            "metrics": entries,
        }
        for dataset, entries in datasets.items()
    ]


def render(card: Card, repo_id: str, description: dict) -> str:
    """Writes the card.

    Args:
        card: The `Card`.
        repo_id: `"organization/repository"`.
        description: The content of the model's `preset.json`, from `model_folder.write`.

    Returns:
        Markdown with a YAML block before it.

    Example:
    >>> description = {"image_size": [112, 112], "embedding_dim": 512, "parameters": 1000, "sha256": {}}
    >>> text = keras_sphereface.model_card.render(keras_sphereface.model_card.Card(), "me/my-face-model", description)
    >>> print(text)
    """
    import yaml

    front = yaml.safe_dump(metadata(card, repo_id), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n".join(_body(card, repo_id, description)) + "\n"


def _body(card, repo_id, description):
    height, width = description["image_size"]
    yield f"# {card.name or repo_id.partition('/')[2]}\n"
    yield f"{card.description}\n"
    size = "any size" if None in (height, width) else f"{height}x{width}"
    yield (
        f"Images of {size}, RGB 0..255, aligned to the five-point template, give embeddings of "
        f"{description['embedding_dim']} numbers and unit length; {description['parameters']:,} parameters.\n"
    )
    yield "```python\nimport keras_sphereface as ksf\n"
    yield f'model = ksf.load_pretrained("hf://{repo_id}")  # revision="<commit>" pins it'
    yield "embeddings = model.predict(crops)\ncosines = embeddings @ embeddings.T\n```\n"
    if description.get("keras_alone"):
        yield f'Without this package: `keras.saving.load_model("hf://{repo_id}")`.\n'
    yield f"## Preprocessing\n\n{card.preprocessing}\n"
    yield f"## Data and terms\n\n{card.data}\n\nLicence of the weights: {card.license}\n"
    yield f"## Intended use\n\n{card.intended_use}\n"
    yield f"## Limits\n\n{card.limits}\n"
    yield "## Measured\n"
    if card.metrics:
        yield "| data set | metric | value | by |\n| --- | --- | --- | --- |"
        for metric in card.metrics:
            yield row((metric["dataset"], metric["name"], format_value(metric), f"`{metric['command']}`"))
        yield ""
    else:
        yield "Nothing was measured by the publisher.\n"
    if card.thresholds:
        yield "## Thresholds\n\n| FAR | cosine threshold | TAR |\n| --- | --- | --- |"
        for entry in card.thresholds:
            tar = f"{entry['tar']:g} %" if "tar" in entry else ""
            yield row((f"{entry['far']:g}", f"{entry['threshold']:g}", tar))
        yield ""
    if card.speed:
        yield f"## Speed\n\n{card.speed}\n"
    yield "## Files\n\n| file | sha256 |\n| --- | --- |"
    for name, digest in description["sha256"].items():
        yield row((name, f"`{digest}`"))
