"""What the recipe measures: View 1 of LFW while training, everything else once at the end."""

import pathlib
import time

import numpy as np

import keras_sphereface as ksf

REPORTED_FARS = (1e-2, 1e-3)  # 3,000 nonmated pairs support no smaller one
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
