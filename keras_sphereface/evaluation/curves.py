"""ROC and DET curves of one or several verification reports, drawn with matplotlib's figure objects."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from keras_sphereface.arguments import whole_number
from keras_sphereface.errors import FileFormatError, require
from keras_sphereface.evaluation.counts import accept_counts, check_both_kinds
from keras_sphereface.evaluation.metrics import roc_corners
from keras_sphereface.files import read_json
from keras_sphereface.hints import Path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_sphereface.evaluation.report import VerificationReport

# Curves of millions of operating points are drawn with at most this many: more than a picture has pixels.
MAX_CURVE_POINTS = 5000


class Curve(NamedTuple):
    """The corners of a ROC's steps, as counts.

    Attributes:
        accepted_nonmated: `(k,)` integers, ascending, from 0.
        accepted_mated: `(k,)` integers.
        num_nonmated, num_mated: Numbers of comparisons.
    """

    accepted_nonmated: np.ndarray
    accepted_mated: np.ndarray
    num_nonmated: int
    num_mated: int

    @property
    def far(self) -> np.ndarray:
        """False accept rates."""
        return self.accepted_nonmated / self.num_nonmated

    @property
    def tar(self) -> np.ndarray:
        """True accept rates."""
        return self.accepted_mated / self.num_mated


def report_curve(report: "VerificationReport") -> Curve:
    """Returns the curve of a report.

    Args:
        report: A `VerificationReport` that holds its scores.

    Returns:
        A `Curve` of at most 5,000 corners.

    Raises:
        ValueError: If its comparisons are all of one kind.

    Example:
    >>> report = keras_sphereface.evaluation.verification([0.9, 0.7, 0.6, 0.1], [True, False, True, False], bootstrap=0)
    >>> keras_sphereface.plots.report_curve(report).tar
    array([0.5, 1. , 1. ])
    """
    counts = accept_counts(report.scores, report.mated)
    check_both_kinds(counts)
    return Curve(*roc_corners(counts, MAX_CURVE_POINTS), counts.num_nonmated, counts.num_mated)


def read_curve(path: Path) -> tuple[str, Curve]:
    """Reads the curve from a report that `VerificationReport.save` or `IJBReport.save` wrote.

    Args:
        path: The JSON file.

    Returns:
        `(name, Curve)`: the report's name, and the at most 200 corners that a saved report holds.

    Raises:
        FileFormatError: If the file isn't such a report, its curve is none, or its comparisons were all of one kind.

    Example:
    >>> name, curve = keras_sphereface.plots.read_curve("lfw.json")
    >>> keras_sphereface.plots.roc_overlay({name: curve}).savefig("roc.png")
    """
    values = read_json(path, advice="Give a report that `keras-sphereface evaluate --save` wrote")
    values = values if isinstance(values, dict) else {}
    values = values.get("verification") or values
    try:
        sides = ("nonmated", "mated")
        curve = Curve(
            *(_whole_numbers(values["roc"][f"accepted_{side}"]) for side in sides),
            *(whole_number(f"num_{side}", values[f"num_{side}"]) for side in sides),
        )
        _check_curve(curve)
        return str(values["name"]), curve
    except (KeyError, TypeError, ValueError, OverflowError):
        has = sorted(values)[:8] if isinstance(values, dict) else type(values).__name__
        raise FileFormatError(
            f"{path}: expected a report with mated and nonmated pairs and its curve ('roc'). Received: a file with "
            f"{has}. Measure again with `keras-sphereface evaluate MODEL --save FILE`"
        ) from None


def _whole_numbers(values):
    return np.array([whole_number("accepted", value, least=0) for value in values], np.int64)


def _check_curve(curve):
    nonmated, mated = curve.accepted_nonmated, curve.accepted_mated
    if not 0 < len(nonmated) == len(mated) or (nonmated[-1], mated[-1]) != (curve.num_nonmated, curve.num_mated):
        raise ValueError("Expected as many corners on both sides, of which the last accepts all comparisons")
    if (np.diff(nonmated) < 0).any() or (np.diff(mated) < 0).any():
        raise ValueError("Expected ascending counts")


def roc_figure(report: "VerificationReport") -> "Figure":
    """Draws the ROC of a report: TAR over the logarithm of FAR.

    Args:
        report: A `VerificationReport` that holds its scores.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If its comparisons are all of one kind.
        MissingDependencyError: If matplotlib is not installed.

    Example:
    >>> report = keras_sphereface.evaluation.verification(scores, mated)
    >>> keras_sphereface.plots.roc_figure(report).savefig("roc.png")
    """
    return roc_overlay({"": report_curve(report)}, f"{report.name}: ROC")


def det_figure(report: "VerificationReport") -> "Figure":
    """Draws the DET of a report: FRR over FAR, both logarithmic.

    Args:
        report: A `VerificationReport` that holds its scores.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If its comparisons are all of one kind.
        MissingDependencyError: If matplotlib is not installed.

    Example:
    >>> report = keras_sphereface.evaluation.verification(scores, mated)
    >>> keras_sphereface.plots.det_figure(report).savefig("det.png")
    """
    return det_overlay({"": report_curve(report)}, f"{report.name}: DET")


def roc_overlay(curves: Mapping[str, Curve], title: str = "ROC") -> "Figure":
    """Draws several ROCs over each other: TAR over the logarithm of FAR.

    Args:
        curves: Dict of label -> `Curve`, e.g. of `read_curve`.
        title: The title. Defaults to `"ROC"`.

    Returns:
        A `matplotlib.figure.Figure`. A curve begins where its own comparisons can: at half a false accept.

    Raises:
        ValueError: If there are no curves.

    Example:
    >>> curves = dict(ksf.plots.read_curve(path) for path in ("softmax.json", "sphereface_r.json"))  # doctest: +SKIP
    >>> ksf.plots.roc_overlay(curves).savefig("roc.png")  # doctest: +SKIP
    """
    lowest = _lowest_far(curves)
    figure, axes = labelled_axes("False accept rate", "True accept rate", title)
    for label, curve in curves.items():
        axes.step(_drawn_far(curve), curve.tar, where="post", label=_shown(label))
    axes.set_xscale("log")
    axes.set_xlim(lowest, 1)
    axes.set_ylim(0, 1.01)
    _legend(axes)
    return figure


def det_overlay(curves: Mapping[str, Curve], title: str = "DET") -> "Figure":
    """Draws several DETs over each other: FRR over FAR, both logarithmic.

    Args:
        curves: Dict of label -> `Curve`, e.g. of `read_curve`.
        title: The title. Defaults to `"DET"`.

    Returns:
        A `matplotlib.figure.Figure`. A curve begins where its own comparisons can: at half a false accept.

    Raises:
        ValueError: If there are no curves.
        MissingDependencyError: If matplotlib is not installed.

    Example:
    >>> curves = {label: keras_sphereface.plots.report_curve(report) for label, report in reports.items()}
    >>> keras_sphereface.plots.det_overlay(curves).savefig("det.png")
    """
    lowest = _lowest_far(curves)
    figure, axes = labelled_axes("False accept rate", "False reject rate", title)
    for label, curve in curves.items():
        axes.step(_drawn_far(curve), 1 - curve.tar, where="post", label=_shown(label))
    axes.plot([1e-7, 1], [1e-7, 1], ":", color="gray", label="equal error")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(lowest, 1)
    axes.set_ylim(min(0.5 / curve.num_mated for curve in curves.values()), 1)
    _legend(axes)
    return figure


def labelled_axes(xlabel: str, ylabel: str, title: str) -> tuple["Figure", "Axes"]:
    """Returns a figure and its only axes, with texts and a light grid."""
    figure = require("matplotlib.figure", "plots").Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.3)
    return figure, axes


def _lowest_far(curves):
    """Where the axis begins: with the curve of the largest experiment."""
    if not curves:
        raise ValueError("Expected at least one curve to draw. Received: curves={}")
    return min(0.5 / curve.num_nonmated for curve in curves.values())


def _drawn_far(curve):
    """False accept rates, none as half a one: a smaller experiment's curve would else reach the end of a larger one's."""
    return np.maximum(curve.far, 0.5 / curve.num_nonmated)


def _legend(axes):
    if any(axes.get_legend_handles_labels()[1]):
        for text in axes.legend().get_texts():
            text.set_parse_math(False)  # a file's name may have "$"


def _shown(label):
    """A label that Matplotlib does not leave out: it does those that begin with "_"."""
    return f" {label}" if label.startswith("_") else label
