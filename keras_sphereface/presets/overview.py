"""The table of all presets as Markdown."""

from collections.abc import Iterable

from keras_sphereface import presets

HEADER = """\
# Pretrained models

Written by `python -m keras_sphereface.presets > zoo/README.md` from the preset data in `keras_sphereface/presets/`: edit
those files, not this page.

```python
import keras_sphereface as ksf

model = ksf.load_pretrained()                       # the embedded default
model = ksf.load_pretrained("<name>")               # an embedded or published name
model = ksf.load_pretrained("hf://<org>/<repo>", revision="<commit>")
```

All take RGB images of 0..255 (uint8 or float), aligned to the five-point template, and give embeddings of unit length.
A planned name has no weights yet: `load_pretrained` says so, with the command that makes them, and no random model is
returned.
"""

_COLUMNS = ("name", "status", "architecture", "parameters", "dimensions", "data", "measured", "licence and terms")


def render() -> str:
    """Renders the page.

    Returns:
        Markdown, ending in a newline.

    Example:
    >>> from keras_sphereface.presets import overview
    >>> overview.render().splitlines()[0]
    '# Pretrained models'
    """
    entries = presets.table().values()
    rows = [row(_COLUMNS), row(["---"] * len(_COLUMNS)), *(row(_cells(preset)) for preset in entries)]
    return HEADER + "\n" + "\n".join(rows) + "\n" + "".join(_section(preset) for preset in entries)


def row(cells: Iterable[object]) -> str:
    r"""A row of a Markdown table; bars and line ends within a cell would end it, so they are escaped.

    Args:
        cells: What the cells show.

    Returns:
        The row, without a line end.

    Example:
    >>> from keras_sphereface.presets import overview
    >>> print(overview.row(["LFW", 99.5, "a|b"]))
    | LFW | 99.5 | a\|b |
    """
    return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"


def _cells(preset):
    name = f"[`{preset.name}`](#{preset.name})" + (" (default)" if preset.default else "")
    measured = "; ".join(f"{metric['dataset']} {metric['name']} {value(metric)}" for metric in preset.metrics)
    parameters = "" if preset.parameters is None else f"{preset.parameters / 1e6:.2f} M"
    return (
        name,
        preset.status,
        preset.architecture,
        parameters,
        preset.embedding_dim,
        preset.data,
        measured or "not measured",
        preset.license,
    )


def value(metric: dict) -> str:
    """A metric's value with its unit."""
    return f"{metric['value']:g} {metric['unit']}".strip()


def _section(preset):
    lines = [f"\n## {preset.name}\n", preset.description, ""]
    lines += [f"- architecture: `{preset.architecture}`, arguments `{preset.arguments}`"]
    lines += [f"- preprocessing (inside the model): {preset.preprocessing['text']}"]
    if preset.sha256:
        lines += [f"- file: `{preset.file}`, {preset.size:,} bytes, sha256 `{preset.sha256}`"]
    if preset.hub_id:
        lines += [f"- Hub: `hf://{preset.hub_id}`" + (f" at `{preset.revision}`" if preset.revision else "")]
    if preset.thresholds:
        cuts = (f"{entry['threshold']:g} at FAR {entry['far']:g}" for entry in preset.thresholds)
        lines += [f"- cosine thresholds: {', '.join(cuts)}"]
    if preset.speed:
        lines += [f"- speed: {preset.speed}"]
    if preset.obtain:
        lines += [f"- to make it: `{preset.obtain}`, then `keras-sphereface publish`"]
    lines += [f"- {note}" for note in preset.notes]
    if preset.metrics:
        lines += ["", row(("measured on", "metric", "value", "by")), row(["---"] * 4)]
        lines += [row((m["dataset"], m["name"], value(m), f"`{m['command']}`")) for m in preset.metrics]
    return "\n".join(lines) + "\n"
