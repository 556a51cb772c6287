r"""Measures a weights file of the recipe on both views of LFW: once, when its weights are final.

    KERAS_BACKEND=torch python zoo/patch_sfnet_celeba/measure.py --lfw=lfw_112x112 --lfw_protocol=lfw_protocol \
        --weights=runs/patch_sfnet_celeba/patch_sfnet_celeba.weights.h5 --output=results.json

View 1 chooses; View 2 is only reported. The recipe watches View 1 by `Lfw.watch` while it trains.
"""

import json
import pathlib
import time

import numpy as np
from absl import app, flags
from student import make_student

import keras_sphereface as ksf
from keras_sphereface import weights_file

REPORTED_FARS = (1e-2, 1e-3)  # 3,000 nonmated pairs support no smaller one
THRESHOLD_FARS = (1e-2, 1e-3, 1e-4)  # of the pairs of 4,038 strangers, 8,150,703
SPEED_BATCHES = (1, 64)
SPEED_SECONDS = 5.0


class Lfw:
    """LFW's two views.

    Args:
        folder: Folder of LFW, aligned to 112x112.
        protocol: Folder of `pairs.txt`, `pairsDevTrain.txt` and `pairsDevTest.txt`.
    """

    def __init__(self, folder, protocol):
        self.folder, self.protocol = folder, pathlib.Path(protocol)

    def _pairs(self, name):
        return ksf.data.read_lfw(self.folder, self.protocol / name)

    def watch(self, embedder):
        """Accuracy on View 1's DevTest at the best threshold: quick, to see how far training is."""
        report = ksf.evaluate(embedder, self._pairs("pairsDevTest.txt"), bootstrap=0)
        return {"view1_devtest_best_threshold_accuracy": report.best_threshold_accuracy, "eer": report.eer}

    def view1(self, embedder):
        """Accuracy on DevTest at the threshold that is best on DevTrain: View 1 as LFW defines it."""
        threshold = ksf.evaluate(embedder, self._pairs("pairsDevTrain.txt"), bootstrap=0).best_threshold
        return ksf.evaluate(embedder, self._pairs("pairsDevTest.txt"), threshold=threshold, bootstrap=0)

    def view2(self, embedder):
        """The ten folds, with intervals."""
        return ksf.evaluate(embedder, self._pairs("pairs.txt"), fars=REPORTED_FARS)

    def thresholds(self, embedder, view2):
        """The cosines that so many pairs of strangers reach, and what they accept of View 2.

        The strangers are the first pictures of View 1's training people, each beside each: a threshold is a choice, and
        View 2 is for none.
        """
        people = (self.protocol / "peopleDevTrain.txt").read_text().split("\n")[1:]
        names = [line.split("\t")[0] for line in people if line]
        photos = [f"{self.folder}/{name}/{name}_0001.jpg" for name in names]
        embeddings = ksf.Recognizer(embedder, detector=None, thresholds={}).embed(photos)
        scores = np.sort((embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)])
        entries = []
        for far in THRESHOLD_FARS:
            threshold = float(scores[-1 - int(far * len(scores))])
            accepted = view2.scores >= threshold
            entries.append(
                {
                    "far": far,
                    "threshold": round(threshold, 4),
                    "tar_on_view2": round(100 * float(accepted[view2.mated].mean()), 2),
                    "far_on_view2": round(100 * float(accepted[~view2.mated].mean()), 2),
                }
            )
        return entries


def speed(embedder):
    """Images a second by batch size, on this machine as it is."""
    rates = {}
    for size in SPEED_BATCHES:
        images = np.zeros((size, 112, 112, 3), np.float32)
        embedder.predict_on_batch(images)
        start, done = time.time(), 0
        while time.time() - start < SPEED_SECONDS:
            embedder.predict_on_batch(images)
            done += size
        rates[f"batch_{size}"] = done / (time.time() - start)
    return rates


def report(embedder, lfw):
    """All that the card and the preset say of a model."""
    view1, view2 = lfw.view1(embedder), lfw.view2(embedder)
    print(view1, view2, sep="\n")
    return {
        "parameters": embedder.count_params(),
        "images_per_second": speed(embedder),
        "view1": view1.to_dict(),
        "view2": view2.to_dict(),
        "thresholds": lfw.thresholds(embedder, view2),
    }


def main(argv):
    """Measures and writes."""
    del argv
    backbone = make_student("float32")
    weights_file.read(backbone, FLAGS.weights)
    results = report(ksf.embedder.build_embedder(backbone), Lfw(FLAGS.lfw, FLAGS.lfw_protocol))
    pathlib.Path(FLAGS.output).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    FLAGS = flags.FLAGS
    flags.DEFINE_string("weights", None, "The weights file.", required=True)
    flags.DEFINE_string("lfw", None, "Folder of LFW, aligned to 112x112.", required=True)
    flags.DEFINE_string("lfw_protocol", None, "Folder of LFW's pairs*.txt and peopleDevTrain.txt.", required=True)
    flags.DEFINE_string("output", "results.json", "File to write.")
    app.run(main)
