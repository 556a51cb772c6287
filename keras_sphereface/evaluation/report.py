"""What an evaluation measured, as one object: a table to print, JSON to save, pictures to draw."""

import dataclasses
from typing import Any

import numpy as np

from keras_sphereface.evaluation.counts import accept_counts
from keras_sphereface.evaluation.metrics import roc_corners
from keras_sphereface.evaluation.results import Result
from keras_sphereface.hints import Path
from keras_sphereface.version import __version__

# Rates of one digit and of two stand in one column; a round 100 % may stick out.
RATE_WIDTH, INTERVAL_WIDTH = len("99.99 %"), len("  [99.99, 99.99]")
# A saved report's curve has at most this many corners: enough to draw it, and a file that can still be read.
SAVED_CORNERS = 200


def signature(name: str, **parts) -> str:
    """Joins what was done into one line, e.g. `lfw-view2|folds:10|flip:sum|v:0.1.0`; parts that are `None` are left out."""
    said = [f"{key.replace('_', '-')}:{value}" for key, value in parts.items() if value is not None]
    return "|".join([name, *said, f"v:{__version__}"])


def check_details(details: dict | None, *own: str) -> dict:
    """Returns a user's parts of a signature, `None` as none.

    Raises:
        ValueError: If one has the name of a part that says how the numbers were computed.
    """
    details = details or {}
    if taken := [key for key in details if key in ("name", *own)]:
        raise ValueError(f"Expected details of other names than {', '.join(own)}. Received: {', '.join(taken)}")
    return details


def percent(value: float | None, width: int = 0) -> str:
    """Formats a rate for the table, at the right of `width` characters."""
    return "-" if value is None else f"{100 * value:.2f} %".rjust(width)


def scientific(rate: float) -> str:
    """Formats a rate limit, e.g. `1e-03` or `2.5e-01`."""
    return np.format_float_scientific(rate, precision=3, trim="-")


@dataclasses.dataclass
class VerificationReport(Result):
    """Result of `verification` and of `keras_sphereface.evaluate`; `None` marks what the comparisons cannot tell.

    Attributes:
        name: Name of the experiment, the signature's first part.
        signature: One line that says how every number was computed.
        num_pairs, num_mated, num_nonmated: Numbers of comparisons.
        accuracy: Mean of the folds' accuracies, each at the threshold that is best on the other folds (or the accuracy
            at the given threshold).
        threshold: The given threshold of `accuracy`; `None` where the folds chose theirs.
        accuracy_std: Sample standard deviation (divisor n - 1) over the folds.
        accuracy_folds, fold_thresholds: Accuracy and threshold of each fold, in ascending order of its number.
        best_threshold_accuracy, best_threshold: Accuracy at the threshold that is best on these same comparisons: an
            upper bound, not an accuracy to quote.
        eer: Equal error rate.
        auc: Area under the ROC.
        tar_at_far: Per false accept rate the `OperatingPoint`, or `None` where too few nonmated scores support it.
        intervals: Per rate (`"accuracy"`, `"eer"`, `"auc"`, `"tar@0.001"`, ...) the 95 % bootstrap interval.
        notes: What a reader has to know about the numbers above.
        hardest: The mated pairs with the lowest and the nonmated pairs with the highest scores, hardest first; each
            with `pair`, `mated`, `score`, `wrong`, `left` and `right`.
        scores, mated: The comparisons, `(n,)`; not saved in the JSON.
        norms: `(num_images,)` norms of the embeddings where images were embedded.
        pairs: The `PairSet` where there was one; for the picture sheet.

    Example:
    >>> report = keras_sphereface.evaluate(model, keras_sphereface.data.read_bin("lfw.bin"))
    >>> report.accuracy, report.intervals["accuracy"]
    >>> report.save("lfw.json")
    """

    name: str
    signature: str
    num_pairs: int
    num_mated: int
    num_nonmated: int
    accuracy: float | None = None
    threshold: float | None = None
    accuracy_std: float | None = None
    accuracy_folds: list = dataclasses.field(default_factory=list)
    fold_thresholds: list = dataclasses.field(default_factory=list)
    best_threshold_accuracy: float | None = None
    best_threshold: float | None = None
    eer: float | None = None
    auc: float | None = None
    tar_at_far: dict = dataclasses.field(default_factory=dict)
    intervals: dict = dataclasses.field(default_factory=dict)
    notes: list = dataclasses.field(default_factory=list)
    hardest: list = dataclasses.field(default_factory=list)
    scores: np.ndarray | None = dataclasses.field(default=None, repr=False)
    mated: np.ndarray | None = dataclasses.field(default=None, repr=False)
    norms: np.ndarray | None = dataclasses.field(default=None, repr=False)
    pairs: Any = dataclasses.field(default=None, repr=False)

    _unsaved = ("scores", "mated", "norms", "pairs")

    @property
    def _heading(self):
        return f"{self.name}: {self.num_pairs} pairs, {self.num_mated} mated, {self.num_nonmated} nonmated"

    def rows(self) -> list[tuple[str, str]]:
        """Returns the table's rows: a label and a text each."""
        folds = f"{len(self.accuracy_folds)} folds" if self.accuracy_folds else "given threshold"
        spread = f"  std {100 * self.accuracy_std:.2f}" if self.accuracy_folds else _at(self.threshold)
        rows = [
            (f"accuracy ({folds})", self._rate("accuracy", self.accuracy) + spread),
            (
                "best-threshold accuracy",
                self._rate("best_threshold_accuracy", self.best_threshold_accuracy) + _at(self.best_threshold),
            ),
            ("EER", self._rate("eer", self.eer)),
            ("AUC", self._rate("auc", self.auc)),
        ]
        rows = [row for row in rows if not row[1].startswith("-")]
        for far, point in self.tar_at_far.items():
            if point is not None:
                rows.append(
                    (f"TAR at FAR {scientific(far)}", self._rate(f"tar@{far:g}", point.tar) + _at(point.threshold))
                )
            else:
                rows.append((f"TAR at FAR {scientific(far)}", "too few nonmated scores"))
        return rows

    def _rate(self, name, value):
        low_high = self.intervals.get(name)
        interval = "" if low_high is None else f"  [{100 * low_high[0]:.2f}, {100 * low_high[1]:.2f}]"
        # What follows stands in columns too, where there are intervals.
        return percent(value, RATE_WIDTH) + (interval.ljust(INTERVAL_WIDTH) if self.intervals else "")

    def to_dict(self) -> dict:
        """Returns plain values for JSON: everything but the arrays, and instead of them the ROC's corners as `"roc"`.

        A false accept rate becomes a text like `"0.001"`.
        """
        values = super().to_dict()
        values["tar_at_far"] = values.pop("tar_at_far")  # beside the ROC, as files have always had it
        if self.scores is not None and self.num_mated and self.num_nonmated:
            corners = roc_corners(accept_counts(self.scores, self.mated), SAVED_CORNERS)
            values["roc"] = dict(zip(("accepted_nonmated", "accepted_mated"), (side.tolist() for side in corners)))
        return values

    def plot(self, folder: Path) -> list[str]:
        """Draws the report's pictures as PNG files.

        Scores and angles always; ROC and DET where there are pairs of both kinds; embedding norms and the sheet of the
        hardest pairs where images are known.

        Args:
            folder: Folder for the files; made if it is not there.

        Returns:
            The list of paths.

        Raises:
            MissingDependencyError: If matplotlib is not installed.
        """
        from keras_sphereface.evaluation.drawing import save_report_plots

        return save_report_plots(self, folder)


def _at(threshold):
    return f"  at threshold {threshold:.4f}" if threshold is not None else ""
