"""A small training that is killed again and again: run by `test_resume.py` in a process of its own.

    python tests/killed_training.py FOLDER KILLS

Every attempt reports its steps and saves through a pipe, and is killed at a random one of them, by SIGKILL or SIGTERM.
"""

import os
import pathlib
import random
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import keras
import numpy as np
from forks import SAVE, STEP, attempt

import keras_sphereface as ksf

STEPS, PER_EPOCH, BATCH, SIDE = 60, 2, 8, 16


def make_trainer():
    """A network with everything that has a state: dropout, moving means, momentum, averages, schedules, margin."""
    keras.utils.set_random_seed(5)
    images = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(4, 3, strides=2)(keras.layers.Rescaling(1 / 127.5, -1.0)(images))
    x = keras.layers.Dropout(0.3)(keras.layers.BatchNormalization()(x))
    backbone = keras.Model(images, keras.layers.Dense(6)(keras.layers.Flatten()(x)))
    trainer = ksf.FaceClassifier(backbone, ksf.heads.SphereFaceR(4, feature_norm="soft", margin=1.4, scale=10.0))
    rate = ksf.schedules.learning_rate("cosine", 0.01, STEPS, warmup_steps=5)
    trainer.compile(ksf.GuardedOptimizer(keras.optimizers.SGD(rate, momentum=0.9, use_ema=True, ema_momentum=0.9)))
    return trainer


class Reports(keras.callbacks.Callback):
    """Tells the parent, and puts noise into the random states, which must survive as well."""

    def __init__(self, pipe):
        super().__init__()
        self.pipe = pipe

    def on_train_batch_begin(self, batch, logs=None):
        self.model.head.norm_penalty += 0.0 * (random.random() + np.random.random())
        os.write(self.pipe, STEP)

    def on_epoch_end(self, epoch, logs=None):
        os.write(self.pipe, SAVE)  # the checkpoint's callback follows


def train(folder, pipe):
    """Trains from the last checkpoint to the end, and writes the final weights."""
    dataset = ksf.data.synthetic(4, 5, seed=1, image_size=SIDE)
    trainer = make_trainer()
    checkpoint = ksf.callbacks.Checkpoint(folder / "checkpoints", keep=2, run={"batch_size": BATCH, "seed": 3})
    epoch = checkpoint.resume(trainer)
    trainer.fit(
        dataset.batches(BATCH, seed=3, augment="strong", start_step=checkpoint.step),
        initial_epoch=epoch,
        epochs=STEPS // PER_EPOCH,
        steps_per_epoch=PER_EPOCH,
        verbose=0,
        callbacks=[
            ksf.callbacks.MarginSchedule(0.05, 7),
            ksf.callbacks.NonFiniteGuard(),
            Reports(pipe),
            checkpoint,
        ],
    )
    states = [*trainer.variables, *trainer.optimizer.variables]
    values = {str(number): keras.ops.convert_to_numpy(variable) for number, variable in enumerate(states)}
    np.savez(folder / "final.npz", draws=[random.random(), np.random.random()], **values)


def main(folder, kills):
    """Trains once without and once with kills, and compares every number."""
    draw = random.Random(0)
    (folder / "whole").mkdir()
    (folder / "killed").mkdir()
    assert attempt(lambda pipe: train(folder / "whole", pipe)) == 0
    survived = in_saving = 0

    def killed(pipe):
        train(folder / "killed", pipe)

    while survived < kills:
        kind = draw.choice([STEP, SAVE])
        status = attempt(killed, draw.randint(1, 3), kind, draw.uniform(0.0, 0.012))
        assert status <= 0, f"an attempt failed by itself: {status}"
        assert status < 0, f"the training ended after {survived} kills: make it longer"
        survived += 1
        in_saving += kind == SAVE
    assert attempt(killed) == 0
    whole, killed = (np.load(folder / name / "final.npz") for name in ("whole", "killed"))
    assert set(whole) == set(killed)
    for name in whole:
        np.testing.assert_array_equal(killed[name], whole[name], err_msg=name)
    print(
        f"survived {survived} kills, {in_saving} of them in or just before a save; {len(whole.files)} arrays are equal"
    )


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
