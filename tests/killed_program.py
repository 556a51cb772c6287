"""`examples/train_ms1m.py` killed by SIGKILL at random steps: run by `test_train_ms1m.py` in a process of its own.

    python tests/killed_program.py DATA_DIR FOLDER KILLS

Every attempt is the same command. At the end the last checkpoint (weights, optimizer, averages, margin, random states)
and the saved model equal those of a run that was not killed, bit for bit; then another batch size is refused.
"""

import os
import pathlib
import random
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import keras
import numpy as np
from forks import SAVE, STEP, attempt, train_ms1m

import keras_sphereface  # noqa: F401 - before the forks, as Keras is

STEPS, BATCH = 24, 4


def command(data, folder, *more):
    """The flags: everything that has a state or depends on the step."""
    return [
        f"--data_dir={data}",
        f"--output_dir={folder}",
        f"--steps={STEPS}",
        f"--batch_size={BATCH}",
        "--steps_per_epoch=4",
        "--checkpoint_steps=2",
        "--backbone=sfnet4",
        "--embedding_dim=16",
        "--feature_norm=soft",
        "--margin_increase=0.1",
        "--margin_interval=5",
        "--margin_wait=0",
        "--ema=0.9",
        "--schedule=cosine",
        "--learning_rate=0.001",
        "--augment=strong",
        "--seed=7",
        *more,
    ]


def assert_equal(folder, other):
    """The last checkpoint and the model of two runs are the same."""
    last = f"epoch-{STEPS // 2:06d}"
    for name in (f"{last}.npz", f"{last}.json"):
        first, second = ((where / "checkpoints" / name).read_bytes() for where in (folder, other))
        assert first == second, f"{name} differs"
    first, second = (keras.saving.load_model(where / "model.keras").get_weights() for where in (folder, other))
    for weight, expected in zip(first, second, strict=True):
        np.testing.assert_array_equal(weight, expected)


def main(data, folder, kills):
    """Trains once without and once with kills, and compares."""
    draw, survived = random.Random(1), 0

    def killed(pipe):
        train_ms1m(command(data, folder / "killed"), pipe)

    assert attempt(lambda pipe: train_ms1m(command(data, folder / "whole"), pipe)) == 0
    while survived < kills:
        kill_at = draw.choice([1, 3, 5])  # odd: by SIGKILL
        status = attempt(killed, kill_at, draw.choice([STEP, SAVE]), draw.uniform(0.0, 0.05))
        assert status < 0, f"after {survived} kills: {status}"
        survived += 1
    assert attempt(killed) == 0
    refused = attempt(lambda pipe: train_ms1m(command(data, folder / "killed", f"--batch_size={2 * BATCH}")))
    assert_equal(folder / "killed", folder / "whole")
    print(f"survived {survived} kills; another batch size: exit status {refused}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]))
