"""Which margins train stably, and what characteristic gradient detachment (CGD) has to do with it.

    python zoo/stability/study.py            # trains what results.jsonl lacks, then writes README.md and curves.png

Trains a small convolutional network on scikit-learn's 1,797 handwritten digits (10 classes; real images of 8 x 8 pixels)
with every variant of SphereFace-R (v0, v1, v2), every feature normalization (none, hard, soft), with and without
detachment, for several margins and seeds: no annealing of the margin, no warm-up, one optimizer for all. A run has

- diverged, if a loss or gradient was not finite;
- failed to learn, if it names fewer than 80 % of the test digits right (chance is 10 %);
- learned, otherwise.

Every finished run is a line of results.jsonl; a run that is there is not trained again. The paper (arXiv 2109.05565)
says that detachment makes training stable; the table shows where it did so here.
"""

import argparse
import itertools
import json
import pathlib

import keras
import numpy as np
from tqdm import tqdm

import keras_sphereface as ksf
from keras_sphereface.errors import DivergenceError

FOLDER = pathlib.Path(__file__).parent
VARIANTS, FEATURE_NORMS, DETACH = ("v0", "v1", "v2"), ("none", "hard", "soft"), (True, False)
MARGINS, SEEDS = (1.5, 2.0, 3.0), (0, 1, 2)
EPOCHS, BATCH, TRAINING_IMAGES = 12, 32, 1200
LEARNING_RATE, MOMENTUM, SCALE, EMBEDDING_DIM = 0.02, 0.9, 16.0, 16
LEARNED = 0.8
OUTCOMES = ("learned", "failed to learn", "diverged")


def digits():
    """Returns `((images, labels), (images, labels))` for training and test; `(n, 8, 8, 1)`, 0..1."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images, labels = (data.images[order, :, :, None] / 16.0).astype("float32"), data.target[order].astype("int32")
    return (images[:TRAINING_IMAGES], labels[:TRAINING_IMAGES]), (images[TRAINING_IMAGES:], labels[TRAINING_IMAGES:])


def configurations():
    """All runs, as dictionaries."""
    names = ("seed", "margin", "variant", "feature_norm", "detach")  # a study that is cut short has all variants
    return [dict(zip(names, values)) for values in itertools.product(SEEDS, MARGINS, VARIANTS, FEATURE_NORMS, DETACH)]


def make_trainer(variant, feature_norm, detach, margin):
    """The network and the head, compiled."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(16, 3, activation="relu")(inputs)
    x = keras.layers.Conv2D(32, 3, strides=2, activation="relu")(x)
    backbone = keras.Model(inputs, keras.layers.Dense(EMBEDDING_DIM)(keras.layers.Flatten()(x)))
    head = ksf.heads.SphereFaceR(
        10, variant=variant, feature_norm=feature_norm, margin=margin, scale=SCALE, loss_weight=None, detach=detach
    )
    trainer = ksf.FaceClassifier(backbone, head)
    trainer.compile(ksf.GuardedOptimizer(keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)))
    return trainer


class Curves(keras.callbacks.Callback):
    """Keeps loss and gradient norm of every epoch."""

    def __init__(self):
        super().__init__()
        self.curves = {"loss": [], "gradient_norm": [], "gradient_norm_max": []}

    def on_epoch_end(self, epoch, logs=None):
        """Keeps the epoch's values."""
        for name, values in self.curves.items():
            values.append(float(f"{logs[name]:.4g}"))


def train(seed, margin, variant, feature_norm, detach, data):
    """Trains one configuration; returns its outcome, accuracy and curves."""
    keras.utils.set_random_seed(seed)
    (images, labels), (test_images, test_labels) = data
    trainer, curves, accuracy, outcome = make_trainer(variant, feature_norm, detach, margin), Curves(), None, "diverged"
    try:
        guard = ksf.callbacks.NonFiniteGuard(every=10)
        trainer.fit(images, labels, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[guard, curves])
        accuracy = trainer.evaluate(test_images, test_labels, batch_size=256, verbose=0, return_dict=True)["accuracy"]
        outcome = "learned" if accuracy >= LEARNED else "failed to learn"
    except DivergenceError:
        pass
    keras.backend.clear_session()
    return {"outcome": outcome, "accuracy": accuracy, **curves.curves}


def read(path):
    """The finished runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def finish(path, todo):
    """Trains the runs that are not in the file, and adds a line for each."""
    known = [{name: run[name] for name in todo[0]} for run in read(path)]
    data = digits()
    for configuration in tqdm([one for one in todo if one not in known], desc="runs", disable=None):
        result = train(**configuration, data=data)
        with open(path, "a") as file:
            file.write(json.dumps({**configuration, **result}) + "\n")


def counts(runs, **wanted):
    """How many of the runs with these values ended how, in the order of `OUTCOMES`; and two numbers over all of them.

    They are the median of the runs' largest gradient norms, and the mean of their accuracies on the test digits.
    """
    chosen = [run for run in runs if all(run[name] == value for name, value in wanted.items())]
    largest = [max(run["gradient_norm_max"]) for run in chosen if run["gradient_norm_max"]]
    accuracy = [run["accuracy"] for run in chosen if run["accuracy"] is not None]
    ends = [sum(run["outcome"] == outcome for run in chosen) for outcome in OUTCOMES]
    return ends, np.median(largest or [np.nan]), np.mean(accuracy or [np.nan])


def table(runs):
    """The results as lines of a Markdown table, one a configuration, seeds and margins together."""
    numbers = ("mean accuracy", "largest gradient norm, median of the runs")
    head = ("variant", "feature norm", "detached: learned / failed / diverged", *numbers, "not detached", *numbers)
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for variant, feature_norm in itertools.product(VARIANTS, FEATURE_NORMS):
        cells = []
        for detach in DETACH:
            ends, gradient, accuracy = counts(runs, variant=variant, feature_norm=feature_norm, detach=detach)
            cells += [
                " / ".join(map(str, ends)),
                f"{100 * accuracy:.1f} %" if np.isfinite(accuracy) else "-",
                f"{gradient:.3g}",
            ]
        yield f"| {variant} | {feature_norm} | {' | '.join(cells)} |"


def plot(runs, path):
    """Draws loss and gradient norm of every run at the largest margin."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 9, figsize=(22, 5.5), sharex=True, sharey="row")
    for column, (variant, feature_norm) in enumerate(itertools.product(VARIANTS, FEATURE_NORMS)):
        for run in runs:
            if (run["variant"], run["feature_norm"], run["margin"]) != (variant, feature_norm, max(MARGINS)):
                continue
            for row, name in enumerate(("loss", "gradient_norm_max")):
                axes[row, column].semilogy(run[name], color="C0" if run["detach"] else "C3", linewidth=1)
        axes[0, column].set_title(f"{variant}, {feature_norm}")
        axes[1, column].set_xlabel("epoch")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("largest gradient norm")
    figure.suptitle(f"Margin {max(MARGINS)}, {len(SEEDS)} seeds each. Blue: detached (CGD). Red: not")
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def write_report(runs, folder):
    """Writes README.md and curves.png."""
    totals = {detach: counts(runs, detach=detach)[0] for detach in DETACH}
    finished = f"{len(runs)} of its {len(configurations())} runs are finished"
    lines = [
        "# Stability of the variants with and without detachment",
        "",
        f"`python zoo/stability/study.py`: {finished}; margins {', '.join(map(str, MARGINS))}, seeds "
        f"{', '.join(map(str, SEEDS))}, handwritten digits (its docstring says how).",
        "",
        *table(runs),
        "",
        *(
            f"{'With' if detach else 'Without'} detachment {totals[detach][0]} of {sum(totals[detach])} runs learned, "
            f"{totals[detach][1]} failed to learn, {totals[detach][2]} diverged."
            for detach in DETACH
        ),
        "",
        "![loss and gradient norm](curves.png)",
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n")
    plot(runs, folder / "curves.png")


def main():
    """Trains, and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=FOLDER, help="folder (default: this file's)")
    parser.add_argument("--runs", type=int, help="only so many of the runs, evenly chosen")
    parser.add_argument("--report-only", action="store_true", help="train nothing; report the finished runs")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    todo = configurations()
    if not args.report_only:
        finish(args.output / "results.jsonl", todo[:: max(1, len(todo) // args.runs)] if args.runs else todo)
    write_report(read(args.output / "results.jsonl"), args.output)


if __name__ == "__main__":
    main()
