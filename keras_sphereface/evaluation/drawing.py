"""Pictures of a verification report, drawn with matplotlib's figure objects: no window, no global state."""

import os
from typing import TYPE_CHECKING

import numpy as np

from keras_sphereface.errors import require
from keras_sphereface.evaluation.curves import det_figure, labelled_axes, roc_figure
from keras_sphereface.hints import Path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_sphereface.evaluation.report import VerificationReport

BINS = 80
DPI = 120
SHEET_COLUMNS = 4
NAME_LENGTH = 34  # characters of an image's name in the sheet; of a long one the end, which tells it from others
# What a part of the signature says of the embeddings.
_FUSED = {"flip:sum": ", image and mirror image added", "flip:concat": ", image and mirror image joined"}


def score_figure(report: "VerificationReport") -> "Figure":
    """Draws the histograms of mated and nonmated scores.

    Args:
        report: A `VerificationReport` that holds its scores.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        MissingDependencyError: If matplotlib is not installed.

    Example:
    >>> report = keras_sphereface.evaluation.verification(scores, mated)
    >>> keras_sphereface.plots.score_figure(report).savefig("scores.png")
    """
    return _two_histograms(report, report.scores, "Score (cosine)", "scores")


def angle_figure(report: "VerificationReport") -> "Figure":
    """Draws the histograms of the angles between the two embeddings of a pair, in degrees.

    Args:
        report: A `VerificationReport` that holds its scores, which are cosines.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        MissingDependencyError: If matplotlib is not installed.

    Example:
    >>> report = keras_sphereface.evaluate(model, keras_sphereface.data.read_bin("lfw.bin"))
    >>> keras_sphereface.plots.angle_figure(report).savefig("angles.png")
    """
    angles = np.degrees(np.arccos(np.clip(report.scores, -1, 1)))
    return _two_histograms(report, angles, "Angle in degrees", "angles")


def norm_figure(report: "VerificationReport") -> "Figure":
    """Draws the histogram of the embeddings' norms, as they are compared: two of unit length added have up to 2.

    Args:
        report: A `VerificationReport` that holds its norms, as of `keras_sphereface.evaluate`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
        ValueError: If the report has no norms, as one of scores alone.

    Example:
    >>> report = keras_sphereface.evaluate(model, keras_sphereface.data.read_bin("lfw.bin"))
    >>> keras_sphereface.plots.norm_figure(report).savefig("norms.png")
    """
    if report.norms is None:
        raise ValueError(f"{report.name}: the report has no norms. Take one of keras_sphereface.evaluate")
    fused = next((text for part, text in _FUSED.items() if part in report.signature.split("|")), "")
    figure, axes = labelled_axes(f"Norm of the embedding{fused}", "Images", f"{report.name}: norms")
    low, high = float(report.norms.min()), float(report.norms.max())
    margin = 0.01 * max(abs(high), 1e-6)  # all norms equal (unit embeddings) still give a visible bar
    axes.hist(report.norms, bins=np.linspace(low - margin, high + margin, BINS))
    return figure


def hardest_figure(report: "VerificationReport") -> "Figure":
    """Draws the sheet of the hardest pairs: mated pairs of low, then nonmated pairs of high score.

    Args:
        report: A `VerificationReport` that holds its pairs, as of `keras_sphereface.evaluate`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
        ValueError: If the report has no images, as one of scores alone.

    Example:
    >>> report = keras_sphereface.evaluate(model, keras_sphereface.data.read_bin("lfw.bin"), hardest=8)
    >>> keras_sphereface.plots.hardest_figure(report).savefig("hardest.png")
    """
    if report.pairs is None:
        raise ValueError(f"{report.name}: the report has no images. Take one of keras_sphereface.evaluate")
    entries = report.hardest
    rows = max(1, -(-len(entries) // SHEET_COLUMNS))
    figure = require("matplotlib.figure", "plots").Figure(figsize=(4 * SHEET_COLUMNS, 2.6 * rows), layout="constrained")
    figure.suptitle(f"{report.name}: hardest pairs")
    for position, entry in enumerate(entries):
        axes = figure.add_subplot(rows, SHEET_COLUMNS, position + 1)
        sides = [report.pairs.image(side[entry["pair"]]) for side in (report.pairs.left, report.pairs.right)]
        height = min(side.shape[0] for side in sides)
        axes.imshow(np.concatenate([side[:height] for side in sides], axis=1))
        axes.set_axis_off()
        kind = "mated" if entry["mated"] else "nonmated"
        decision = {True: "wrong", False: "right", None: ""}[entry["wrong"]]
        title = f"#{entry['pair']} {kind} {entry['score']:.3f} {decision}\n{_short(entry['left'])}\n{_short(entry['right'])}"
        axes.set_title(title, fontsize=8, parse_math=False)
    return figure


def report_figures(report: "VerificationReport") -> dict[str, "Figure"]:
    """Returns the figures that a report's data allow, by name."""
    figures = {"scores": score_figure(report)}
    if report.num_mated and report.num_nonmated:
        figures |= {"roc": roc_figure(report), "det": det_figure(report)}
    if np.abs(report.scores).max() <= 1:
        figures["angles"] = angle_figure(report)
    if report.norms is not None:
        figures["norms"] = norm_figure(report)
    if report.pairs is not None and report.hardest:
        figures["hardest"] = hardest_figure(report)
    return figures


def save_report_plots(report: "VerificationReport", folder: Path) -> list[str]:
    """Draws a report's figures into a folder as PNG files.

    Args:
        report: A `VerificationReport` that holds its scores. What else it holds decides which figures there are.
        folder: Folder for the files; made if it is not there.

    Returns:
        List of the files' paths.

    Raises:
        MissingDependencyError: If matplotlib is not installed.

    Example:
    >>> report = keras_sphereface.evaluate(model, keras_sphereface.data.read_bin("lfw.bin"))
    >>> paths = keras_sphereface.plots.save_report_plots(report, "lfw_pictures")
    """
    figures = report_figures(report)
    os.makedirs(folder, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(os.path.join(folder, f"{name}.png"))
        figure.savefig(paths[-1], dpi=DPI)
    return paths


def _two_histograms(report, values, xlabel, what):
    figure, axes = labelled_axes(xlabel, "Share of pairs", f"{report.name}: {what}")
    edges = np.linspace(values.min(), max(values.max(), values.min() + 1e-6), BINS)
    for kind, label in ((report.mated, "mated"), (~report.mated, "nonmated")):
        if kind.any():
            axes.hist(values[kind], bins=edges, weights=np.full(kind.sum(), 1 / kind.sum()), alpha=0.6, label=label)
    axes.legend()
    return figure


def _short(name):
    return name if len(name) <= NAME_LENGTH else "..." + name[-NAME_LENGTH:]
