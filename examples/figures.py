r"""Draws the pictures of README and of the documentation, about four minutes on two CPU cores.

The command: python examples/figures.py

margins.png: psi, eta and Delta of every margin. digits_2d.png, digits_3d.png and digits.gif: scikit-learn's handwritten
digits embedded on the circle and the sphere. curves.png: "are these two pictures the same digit?", asked of every pair of
held-out digits, by the cosine of three-dimensional embeddings.
"""

import pathlib

import numpy as np
from absl import app, flags
from PIL import Image
from tqdm import tqdm

import keras_sphereface as ksf

flags.DEFINE_string("output_dir", "docs/pictures", "Where the pictures go.")
flags.DEFINE_integer("epochs", 60, "Passes over the digits.")
flags.DEFINE_multi_string("margins", ["softmax", *ksf.plots.MARGIN_VALUES], "What to train on the digits.")
FLAGS = flags.FLAGS
DPI = 90
IN_MOTION = ("softmax", "sphereface_r_v2, m = 1.4")  # The two that digits.gif shows.


def save(figure, name):
    """Saves a figure as a PNG of at most 256 colours, a third of the size."""
    path = pathlib.Path(FLAGS.output_dir) / name
    figure.savefig(path, dpi=DPI)
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)
    print(f"drawn: {path}")


def same_digit_curve(run):
    """The ROC of deciding whether two held-out digits are the same, by the cosine of their embeddings."""
    left, right = np.triu_indices(len(run.labels), k=1)
    scores = ksf.evaluation.pair_scores(run.embeddings[-1], left, right)
    report = ksf.evaluation.verification(scores, run.labels[left] == run.labels[right], bootstrap=0, name=run.label)
    return ksf.plots.report_curve(report)


def main(argv):
    """Draws all pictures."""
    pathlib.Path(FLAGS.output_dir).mkdir(parents=True, exist_ok=True)
    save(ksf.plots.margin_figure(), "margins.png")
    for dimensions in (2, 3):
        runs = [
            ksf.plots.train_on_digits(name, dimensions, FLAGS.epochs)
            for name in tqdm(FLAGS.margins, desc=f"{dimensions}-D digits", disable=None)
        ]
        save(ksf.plots.embedding_figure(runs), f"digits_{dimensions}d.png")
        if dimensions == 2:
            in_motion = [run for run in runs if run.label in IN_MOTION]
            ksf.plots.save_animation(in_motion, pathlib.Path(FLAGS.output_dir) / "digits.gif")
    save(ksf.plots.roc_overlay({run.label: same_digit_curve(run) for run in runs}, "Same digit or not"), "curves.png")


if __name__ == "__main__":
    app.run(main)
