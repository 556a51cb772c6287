"""Pictures of reports: each function takes a report and returns a `matplotlib.figure.Figure`."""

from keras_sphereface.evaluation.drawing import (
    angle_figure,
    det_figure,
    hardest_figure,
    norm_figure,
    roc_figure,
    save_report_plots,
    score_figure,
)

__all__ = [
    "angle_figure",
    "det_figure",
    "hardest_figure",
    "norm_figure",
    "roc_figure",
    "save_report_plots",
    "score_figure",
]
