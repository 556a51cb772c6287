"""The card of a published model: the README.md of its repository, with metadata that the Hub reads."""

import dataclasses
import re
from typing import TYPE_CHECKING

from keras_sphereface.presets.overview import value as format_value

if TYPE_CHECKING:
    from keras_sphereface.presets import Preset

FILE = "README.md"
TAGS = ("keras", "face-recognition", "face-verification", "sphereface", "keras-sphereface")
PIPELINE = "image-feature-extraction"
LIBRARY = "keras"
METRIC_FIELDS = ("name", "dataset", "value", "unit", "command")
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
        description: A sentence or more. Defaults to one about the kind of model.
        data: What it was trained on, with its terms. Defaults to a sentence that says that it is not known.
        license: Identifier of the weights' licence, e.g. `"mit"`, or its name in words. Defaults to `"unknown"`.
        preprocessing: The preprocessing in words and numbers. Defaults to a sentence that it is inside the model.
        intended_use: Defaults to verification and research.
        limits: What it should not be used for, and where it is weak.
        metrics: List of dictionaries `name`, `dataset`, `value`, `unit`, `command` (the one that measured it).
            Defaults to none.
        thresholds: List of dictionaries `far`, `threshold` (cosine), `tar` (optional, in percent). Defaults to none.
        speed: A sentence with machine and figure. Defaults to none.

    Raises:
        ValueError: If a metric lacks a field or its value is not a number.
    """

    name: str | None = None
    description: str = "A face embedding network trained with a SphereFace-R head."
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
        for metric in self.metrics:
            if set(metric) != set(METRIC_FIELDS) or not isinstance(metric["value"], (int, float)):
                raise ValueError(f"A metric needs {', '.join(METRIC_FIELDS)}, `value` a number. Received: {metric}")
        for threshold in self.thresholds:
            if not {"far", "threshold"} <= set(threshold):
                raise ValueError(f"A threshold needs `far` and `threshold`. Received: {threshold}")

    def description_fields(self) -> dict:
        """The fields that also go into `preset.json`."""
        names = ("name", "description", "data", "license", "preprocessing", "metrics", "thresholds")
        return {name: getattr(self, name) for name in names}


def from_preset(preset: "Preset") -> Card:
    """Makes the card of a `presets.Preset`.

    Args:
        preset: The `Preset`.

    Returns:
        A `Card`.
    """
    return Card(
        name=preset.name,
        description=preset.description,
        data=preset.data,
        license=preset.license,
        preprocessing=preset.preprocessing["text"],
        metrics=list(preset.metrics),
        thresholds=list(preset.thresholds),
        speed=preset.speed,
        limits=" ".join([*preset.notes, Card.limits]),
    )


def metadata(card: Card, repo_id: str) -> dict:
    """The card's metadata, as the Hub's model cards have it.

    Args:
        card: The `Card`.
        repo_id: `"organization/repository"`.

    Returns:
        Dictionary for the YAML block at the beginning: library, pipeline, licence, tags, and `model-index` with metrics.
    """
    license_id = card.license.lower()
    fields = {"library_name": LIBRARY, "pipeline_tag": PIPELINE, "tags": list(TAGS)}
    if license_id in KNOWN_LICENSES:
        fields["license"] = license_id
    else:
        fields["license"] = "other"
        fields["license_name"] = re.sub(r"[^a-z0-9.]+", "-", license_id).strip("-")[:60]
    if card.metrics:
        fields["metrics"] = sorted({_metric_type(metric) for metric in card.metrics})
        fields["model-index"] = [{"name": card.name or repo_id.partition("/")[2], "results": _results(card.metrics)}]
    return fields


def _metric_type(metric):
    return re.sub(r"[^a-z0-9]+", "_", metric["name"].lower()).strip("_")


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
            "dataset": {"name": dataset, "type": re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-")},
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
    """
    import yaml

    front = yaml.safe_dump(metadata(card, repo_id), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n".join(_body(card, repo_id, description)) + "\n"


def _body(card, repo_id, description):
    height, width = description["image_size"]
    yield f"# {card.name or repo_id.partition('/')[2]}\n"
    yield f"{card.description}\n"
    yield (
        f"Images of {height}x{width}, RGB 0..255, aligned to the five-point template, give embeddings of "
        f"{description['embedding_dim']} numbers and unit length; {description['parameters']:,} parameters.\n"
    )
    yield "```python\nimport keras_sphereface as ksf\n"
    yield f'model = ksf.load_pretrained("hf://{repo_id}")  # revision="<commit>" pins it'
    yield "embeddings = model.predict(crops)\ncosines = embeddings @ embeddings.T\n```\n"
    yield f'Without this package: `keras.saving.load_model("hf://{repo_id}")`.\n'
    yield f"## Preprocessing\n\n{card.preprocessing}\n"
    yield f"## Data and terms\n\n{card.data}\n\nLicence of the weights: {card.license}\n"
    yield f"## Intended use\n\n{card.intended_use}\n"
    yield f"## Limits\n\n{card.limits}\n"
    yield "## Measured\n"
    if card.metrics:
        yield "| data set | metric | value | by |\n| --- | --- | --- | --- |"
        for metric in card.metrics:
            yield f"| {metric['dataset']} | {metric['name']} | {format_value(metric)} | `{metric['command']}` |"
        yield ""
    else:
        yield "Nothing was measured by the publisher.\n"
    if card.thresholds:
        yield "## Thresholds\n\n| FAR | cosine threshold | TAR |\n| --- | --- | --- |"
        for entry in card.thresholds:
            tar = f"{entry['tar']:g} %" if "tar" in entry else ""
            yield f"| {entry['far']:g} | {entry['threshold']:g} | {tar} |"
        yield ""
    if card.speed:
        yield f"## Speed\n\n{card.speed}\n"
    yield "## Files\n\n| file | sha256 |\n| --- | --- |"
    for name, digest in description["sha256"].items():
        yield f"| {name} | `{digest}` |"
