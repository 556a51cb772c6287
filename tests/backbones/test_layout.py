"""A backbone with the channels first inside is the same network: same weights, same embeddings."""

import backbone_cases
import keras
import numpy as np
import pytest

from keras_sphereface import backbones, layer_graph
from keras_sphereface.backbones import layers, layout

pytestmark = pytest.mark.core

CASES = ("sfnet20_bn_relu_add_112x96", "iresnet18", "mobilefacenet_112x96", "vit_t_bias_112x96")
SMALL_PATCHES = {"units": (1, 1, 1), "channels": (8, 12, 12), "hidden": (8, 12, 16), "embedding_dim": 8}


@pytest.fixture
def channels_first(monkeypatch):
    """Makes this backend one whose backbones have the channels first."""
    try:
        keras.ops.conv(
            np.zeros((1, 2, 3, 3), "float32"), np.zeros((1, 1, 2, 2), "float32"), data_format="channels_first"
        )
    except Exception as error:  # each backend has a class of its own
        pytest.skip(f"this CPU's convolutions have the channels last alone ({type(error).__name__})")
    monkeypatch.setattr(layout, "CHANNELS_FIRST_BACKENDS", (keras.backend.backend(),))


def make(case):
    return backbones.PatchSFNet(**SMALL_PATCHES) if case == "patch_sfnet" else backbone_cases.make(case)


@pytest.mark.parametrize("case", [*CASES, "patch_sfnet"])
def test_the_same_weights_give_the_same_embeddings(case, rng, request, tmp_path):
    last = make(case)
    last.set_weights(
        [rng.uniform(-0.3 if weight.ndim > 1 else 0.1, 1.0, weight.shape) for weight in last.get_weights()]
    )
    images = backbone_cases.images(last.input_shape[1:])
    expected = last.predict(images, verbose=0)
    last.save_weights(tmp_path / "last.weights.h5")
    last.save(tmp_path / "last.keras")
    request.getfixturevalue("channels_first")
    first = make(case)
    first.load_weights(tmp_path / "last.weights.h5")
    for model in (first, keras.saving.load_model(tmp_path / "last.keras")):
        formats = {layer.data_format for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}
        assert formats == {"channels_first"}
        embeddings = model.predict(images, verbose=0)
        np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())


def test_slopes_are_the_channels_wherever_these_are(rng):
    last, first = layers.PReLU(shared_axes=[1, 2]), layers.PReLU(shared_axes=[1, 2], data_format="channels_first")
    x = rng.normal(size=(2, 3, 4, 5)).astype("float32")
    last.build(x.shape)
    first.build((2, 5, 3, 4))
    first.set_weights([slopes := rng.uniform(size=(1, 1, 5)).astype("float32")])
    last.set_weights([slopes])
    turned = keras.ops.convert_to_numpy(first(np.moveaxis(x, -1, 1)))
    np.testing.assert_allclose(np.moveaxis(turned, 1, -1), np.where(x > 0, x, slopes * x), rtol=1e-6)
    again = layers.PReLU.from_config(first.get_config())
    assert again.data_format == "channels_first"
    assert "data_format" not in last.get_config()


def test_slopes_of_channels_first_have_no_counterpart_in_keras(channels_first):
    model = backbones.MobileFaceNet(width=0.125, embedding_dim=4)
    kinds = {type(layer) for layer in layer_graph.with_keras_layers(layer_graph.inline(model)).layers}
    assert layers.PReLU in kinds
    assert keras.layers.BatchNormalization in kinds


def test_what_would_be_read_by_another_backend_is_not_written(channels_first):
    message = f"Export needs a backend of Keras that trains. Received: Keras backend '{keras.backend.backend()}'"
    with pytest.raises(RuntimeError, match=message):
        layer_graph.check_writes("Export")
