"""What a score means: the cosine thresholds that belong to false accept rates."""

import contextlib
import math
import os
from collections.abc import Iterable, Mapping

import numpy as np

from keras_sphereface.arguments import is_number
from keras_sphereface.errors import FileFormatError, shown
from keras_sphereface.evaluation.report import VerificationReport
from keras_sphereface.files import read_json
from keras_sphereface.hints import Path
from keras_sphereface.presets import check_thresholds

USUAL_FAR = 1e-3  # of a decision: one pair of strangers in a thousand is taken for the same person


Entries = Iterable[Mapping[str, float]] | Mapping[float, float] | VerificationReport | Path


class Thresholds:
    """The measured thresholds of a model, each with the false accept rate (FAR) that it stands for.

    Args:
        entries: What was measured: a list of dictionaries `far`, `threshold` (as presets and cards have it), a dictionary
            from FAR to threshold, or a `VerificationReport`, as it is, as its dictionary, or as the file that `report.save`
            or `keras-sphereface evaluate --save` wrote. Defaults to none.

    Raises:
        FileFormatError: If a file is no saved report.
        ValueError: If a FAR is not between 0 and 1, a threshold is no cosine, or a lower FAR has a lower threshold.

    Example:
    >>> thresholds = Thresholds({1e-2: 0.2, 1e-3: 0.3})
    >>> thresholds.at(1e-3)
    0.3
    >>> f"{thresholds.far_of(0.25):.4f}"
    '0.0032'
    """

    def __init__(self, entries: Entries = ()):
        pairs = sorted(_pairs(entries), reverse=True)
        check_thresholds({"far": far, "threshold": threshold} for far, threshold in pairs)
        self.fars = tuple(far for far, _ in pairs)
        self.cosines = tuple(threshold for _, threshold in pairs)

    def __bool__(self):
        return bool(self.fars)

    def at(self, far: float) -> float:
        """Returns the threshold of a measured FAR.

        Raises:
            ValueError: If the model has no threshold measured at this FAR.
        """
        for known, cosine in zip(self.fars, self.cosines):
            if math.isclose(known, far, rel_tol=1e-6):
                return cosine
        known = ", ".join(f"{value:g}" for value in self.fars) or "none at all"
        raise ValueError(
            f"No threshold is known for this model at FAR {far:g}. Known: {known}. Choose one of them, give a threshold "
            "(a cosine, -1..1), or measure: keras-sphereface evaluate --save report.json makes what `thresholds` takes"
        )

    def decide(self, threshold: float | None = None, far: float | None = None) -> tuple[float | None, float | None]:
        """Returns the threshold to decide at, and the FAR that it stands for.

        Args:
            threshold: A cosine chosen by the user. Defaults to `None`.
            far: A measured FAR. Defaults to `None`: 1e-3, or the nearest that was measured.

        Returns:
            `(threshold, far)`; both `None` where nothing is known, the FAR alone for a cosine outside the measured ones.

        Raises:
            ValueError: If both are given, the threshold is no cosine, or none is known at the FAR.
        """
        if threshold is not None and far is not None:
            raise ValueError(f"Expected threshold or far, not both. Received: threshold={threshold}, far={far}")
        if threshold is not None:
            if not (is_number(threshold) and -1 <= threshold <= 1):
                raise ValueError(f"Expected threshold as a cosine, -1..1. Received: threshold={threshold!r}")
            return float(threshold), self.far_of(threshold)
        if far is not None and not (is_number(far) and 0 < far < 1):
            raise ValueError(f"Expected far between 0 and 1, e.g. 1e-3. Received: far={far!r}")
        far = self.nearest(USUAL_FAR) if far is None else float(far)
        return (None, None) if far is None else (self.at(far), far)

    def nearest(self, far: float) -> float | None:
        """Returns the measured FAR that is nearest to a wanted one in proportion, or `None` where nothing is known."""
        return min(self.fars, key=lambda known: abs(math.log(known / far)), default=None)

    def far_of(self, score: float) -> float | None:
        """The FAR that a score would have as a threshold: log-linear between measured ones.

        Args:
            score: A cosine.

        Returns:
            The FAR, from the smallest to the largest measured; `None` outside, where nobody knows it.
        """
        if not self.fars or not self.cosines[0] <= score <= self.cosines[-1]:
            return None
        return float(np.exp(np.interp(score, self.cosines, np.log(self.fars))))

    def far_in_words(self, threshold: float | None, far: float | None) -> str:
        """What `decide` returned, for people to read: the FAR, or whether it is above or below the measured ones."""
        if far is not None:
            return f"{far:.1e}"
        if threshold is None or not self.fars:
            return "unknown"
        if threshold < self.cosines[0]:
            return f"above {self.fars[0]:.1e}, the highest measured"
        return f"below {self.fars[-1]:.1e}, the lowest measured"

    def in_words(self, score: float) -> str:
        """How rare a score is among strangers, for people to read; `""` where nothing is known."""
        if not self.fars:
            return ""
        if score < self.cosines[0]:
            relation, far = "more than", self.fars[0]
        elif score > self.cosines[-1]:
            relation, far = "fewer than", self.fars[-1]
        else:
            relation, far = "about", self.far_of(score)
        return f"{relation} 1 in {1 / far:,.0f} pairs of strangers look this alike"


def _pairs(entries):
    if isinstance(entries, str | os.PathLike):
        entries = _saved(entries)
    if hasattr(entries, "tar_at_far"):
        entries = entries.to_dict()
    try:
        if isinstance(entries, Mapping) and "tar_at_far" in entries:
            points = [(float(far), float(point["threshold"])) for far, point in entries["tar_at_far"].items() if point]
            # A FAR of 1 accepts everybody; a threshold above 1, the next number above a pair of equal embeddings, nobody.
            return [(far, threshold) for far, threshold in points if far < 1 and threshold <= 1]
        if isinstance(entries, Mapping):
            return [(float(far), float(threshold)) for far, threshold in entries.items()]
        return [(float(entry["far"]), float(entry["threshold"])) for entry in entries]
    except (AttributeError, TypeError, KeyError, ValueError, OverflowError) as error:
        raise ValueError(
            "Expected thresholds as a list of dictionaries with `far` and `threshold`, a dictionary from FAR to "
            f"threshold, or a report. Received: {shown(entries)}"
        ) from error


def _saved(path):
    """The dictionary of a saved report."""
    report = None
    with contextlib.suppress(FileFormatError):
        report = read_json(path)
    if not isinstance(report, dict) or "tar_at_far" not in report:
        raise FileFormatError(
            f"{path}: expected a report on pairs, as keras-sphereface evaluate --save and report.save write it. "
            "Measure the model again"
        )
    return report
