"""All recorded cases of the authors' public heads: loss and gradients."""

import json
import pathlib

import keras
import numpy as np
import pytest
from gradients import value_and_gradients
from head_cases import make_head

pytestmark = pytest.mark.core

RECORDING = np.load(pathlib.Path(__file__).parents[1] / "reference" / "heads_public.npz")
CASES = json.loads(str(RECORDING["meta"]))


def relative(ours, theirs):
    return np.abs(ours.reshape(theirs.shape) - theirs).max() / np.abs(theirs).max()


def test_the_recording_has_33_cases():
    assert len(CASES) == 33


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_loss_and_gradients(case):
    record = {key: RECORDING[f"{case['name']}/{key}"] for key in ("loss", "grad_embeddings", "grad_weights")}
    head = make_head(case)
    head.build((None, 16))
    head.kernel.assign(RECORDING["weights"])
    variables = [head.kernel]
    if case["head"] in ("sphereface2", "softmax"):
        np.testing.assert_allclose(
            np.ravel(keras.ops.convert_to_numpy(head.bias)),
            np.ravel(RECORDING[f"{case['name']}/bias"]),
            rtol=1e-6,
        )
        variables.append(head.bias)
        record["grad_bias"] = RECORDING[f"{case['name']}/grad_bias"]

    def mean_loss(embeddings):
        return keras.ops.mean(head.loss(embeddings, RECORDING["labels"]))

    loss, (grad_embeddings,), gradients = value_and_gradients(mean_loss, [RECORDING["embeddings"]], variables)
    assert loss == pytest.approx(float(record["loss"]), rel=2e-5)
    assert relative(grad_embeddings, record["grad_embeddings"]) < 1e-4
    for ours, name in zip(gradients, ("grad_weights", "grad_bias")):
        assert relative(ours, record[name]) < 1e-4, name
