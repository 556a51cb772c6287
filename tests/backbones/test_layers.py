"""The backbones' own layers are Keras's, to the value, the gradient and the moving statistics."""

import inspect

import gradients
import keras
import numpy as np
import pytest
from keras import ops

from keras_sphereface.backbones import layers

pytestmark = pytest.mark.core

SHAPE, UPSTREAM = (3, 5, 4, 6), 1000
BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-5}
CASES = {
    "batch_norm": (layers.BatchNormalization, BATCH_NORM),
    "prelu": (layers.PReLU, {"shared_axes": [1, 2]}),
    "conv": (layers.Conv2D, {"filters": 4, "kernel_size": 3, "padding": "same"}),
    "conv, strided": (layers.Conv2D, {"filters": 4, "kernel_size": (2, 3), "strides": (2, 1), "use_bias": False}),
    "conv, strided, same": (layers.Conv2D, {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"}),
    "conv, even, same": (layers.Conv2D, {"filters": 4, "kernel_size": (2, 4), "padding": "same"}),
    "conv, groups": (layers.Conv2D, {"filters": 4, "kernel_size": 1, "groups": 2, "activation": "tanh"}),
    "conv, dilated": (layers.Conv2D, {"filters": 4, "kernel_size": 3, "padding": "same", "dilation_rate": 2}),
    "depthwise": (layers.DepthwiseConv2D, {"kernel_size": (3, 1), "padding": "same", "depth_multiplier": 2}),
    "depthwise, strided": (layers.DepthwiseConv2D, {"kernel_size": 3, "strides": 2, "activation": "tanh"}),
    "depthwise, same": (layers.DepthwiseConv2D, {"kernel_size": 2, "padding": "same", "use_bias": False}),
    "pick": (layers.MaxPooling2D, {"pool_size": 1, "strides": 2}),
    "pick, same": (layers.MaxPooling2D, {"pool_size": 1, "strides": (1, 3), "padding": "same"}),
    "pool": (layers.MaxPooling2D, {"pool_size": 2}),
}
cases = pytest.mark.parametrize("case", CASES)


def make_both(case, rng, dtype="float32"):
    """Ours and Keras's layer with the same weights, none of them at its initial value."""
    kind, arguments = CASES[case]
    ours, theirs = kind(**arguments, dtype=dtype), getattr(keras.layers, kind.__name__)(**arguments, dtype=dtype)
    for layer in (ours, theirs):
        layer.build(SHAPE)
    values = [rng.uniform(-0.5, 1.5, weight.shape).astype("float32") for weight in theirs.get_weights()]
    for layer in (ours, theirs):
        layer.set_weights(values)
    return ours, theirs


def trained(layer, x, upstream):
    """Everything that one training step sees: the output, all gradients, all weights after it."""
    outputs = ops.convert_to_numpy(ops.cast(layer(x, **training(layer)), "float32"))
    upstream = upstream.reshape(-1)[: outputs.size].reshape(outputs.shape)
    layer_weights = layer.get_weights()

    def function(x):
        outputs = ops.cast(layer(x, **training(layer)), "float32")
        return ops.sum(outputs * ops.convert_to_tensor(upstream))

    _, inputs, variables = gradients.value_and_gradients(function, [x], layer.trainable_variables)
    return [outputs, *inputs, *variables, *layer_weights]


def training(layer):
    return {"training": True} if "training" in inspect.signature(layer.call).parameters else {}


@cases
def test_training_equals_keras(case, rng):
    ours, theirs = make_both(case, rng)
    x, upstream = rng.normal(size=SHAPE).astype("float32") + 0.5, rng.normal(size=UPSTREAM).astype("float32")
    x[0, 0, 0] = 0.0  # PReLU's kink: both take the side of the negative slope
    expected, results = trained(theirs, x, upstream), trained(ours, x, upstream)
    for index, (result, wanted) in enumerate(zip(results, expected, strict=True)):
        where = np.s_[:] if index != 1 or case != "prelu" else np.nonzero(x)
        np.testing.assert_allclose(result[where], wanted[where], rtol=2e-5, atol=2e-5)


@cases
def test_inference_equals_keras(case, rng):
    ours, theirs = make_both(case, rng)
    ours.set_weights([np.abs(value) for value in ours.get_weights()])
    theirs.set_weights(ours.get_weights())
    x = rng.normal(size=SHAPE).astype("float32")
    np.testing.assert_allclose(*(ops.convert_to_numpy(layer(x)) for layer in (ours, theirs)), rtol=1e-6, atol=1e-6)


@cases
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_trains_close_to_float32(case, policy, rng):
    ours, theirs = make_both(case, rng, policy)
    x, upstream = rng.normal(size=SHAPE).astype("float32"), rng.normal(size=UPSTREAM).astype("float32")
    for result, wanted in zip(trained(ours, x, upstream), trained(theirs, x, upstream), strict=True):
        np.testing.assert_allclose(result, wanted, atol=0.02 * max(1.0, np.abs(wanted).max()))


@cases
def test_saved_weights_and_configuration_are_keras_own(case, rng):
    ours, theirs = make_both(case, rng)
    assert [w.path.split("/")[-1] for w in ours.weights] == [w.path.split("/")[-1] for w in theirs.weights]
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(ours))
    assert type(again) is type(ours)
    assert again.get_config() == ours.get_config()
