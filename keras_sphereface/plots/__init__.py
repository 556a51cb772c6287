"""Pictures, each a `matplotlib.figure.Figure`: margins, the digits' embedding, and a report's curves and histograms.

Drawing needs the extra [plots].
"""

from keras_sphereface.evaluation.curves import (
    det_figure,
    det_overlay,
    read_curve,
    report_curve,
    roc_figure,
    roc_overlay,
)
from keras_sphereface.evaluation.drawing import (
    angle_figure,
    hardest_figure,
    norm_figure,
    save_report_plots,
    score_figure,
)
from keras_sphereface.plots.digits import DigitsRun, train_on_digits
from keras_sphereface.plots.margins import MARGIN_VALUES, margin_figure, parse_margin
from keras_sphereface.plots.spheres import embedding_figure, save_animation

__all__ = [
    "MARGIN_VALUES",
    "DigitsRun",
    "angle_figure",
    "det_figure",
    "det_overlay",
    "embedding_figure",
    "hardest_figure",
    "margin_figure",
    "norm_figure",
    "parse_margin",
    "read_curve",
    "report_curve",
    "roc_figure",
    "roc_overlay",
    "save_animation",
    "save_report_plots",
    "score_figure",
    "train_on_digits",
]
