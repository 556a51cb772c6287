"""What a ViT does in training alone, and its layers."""

import backbone_cases
import keras
import numpy as np
import pytest
from keras import ops

from keras_sphereface import backbones
from keras_sphereface.backbones import tokens

pytestmark = pytest.mark.core

DEPTH, DIM = 3, 8


def numpy(x):
    return ops.convert_to_numpy(x)


def small(**arguments):
    return backbones.ViT(DEPTH, DIM, num_heads=2, patch_size=28, embedding_dim=4, **arguments)


def test_heads_attend_apart():
    """Two heads of one dimension each; a head whose keys are all 0 takes the mean of its values."""
    queries, keys, values = [[1.0, 0.0], [1.0, 0.0]], [[np.log(3.0), 0.0], [0.0, 0.0]], [[4.0, 10.0], [0.0, 20.0]]
    inputs = np.concatenate([queries, keys, values], axis=1)[None].astype("float32")
    found = numpy(tokens.SelfAttention(num_heads=2)(inputs))
    # Of the first head the weights are 3/4 and 1/4, of the second 1/2 and 1/2.
    np.testing.assert_allclose(found, [[[3.0, 15.0], [3.0, 15.0]]], rtol=1e-6)


def test_attention_is_scaled_by_the_dimensions_of_a_head():
    """Scores of 4 * ln 3 through the root of 4 dimensions are 2 * ln 3, so that the weights are 9/10 and 1/10."""
    query, key = np.full(4, np.log(3.0)), np.ones(4)
    rows = [np.concatenate([query, key, np.full(4, 10.0)]), np.concatenate([query, 0 * key, np.zeros(4)])]
    found = numpy(tokens.SelfAttention(num_heads=1)(np.array([rows], "float32")))
    np.testing.assert_allclose(found, np.full((1, 2, 4), 9.0), rtol=1e-6)


def test_the_last_axis_holds_three_of_each_head():
    with pytest.raises(ValueError, match="Received: 8, num_heads=2"):
        tokens.SelfAttention(num_heads=2)(np.zeros((1, 2, 8), "float32"))


def test_masked_tokens_come_back_to_their_places():
    x = np.arange(2 * 5 * 1, dtype="float32").reshape(2, 5, 1)
    order = tokens.RandomOrder(seed=3)(x, training=True)
    assert sorted(numpy(order)[0, :, 0]) == sorted(numpy(order)[1, :, 0]) == [0, 1, 2, 3, 4]
    kept = tokens.KeepFirst(0.4)(x, order, training=True)
    assert kept.shape == (2, 3, 1)
    back = tokens.PutBack()
    back.build((2, 5, 1))
    back.mask_token.assign([[[-1.0]]])
    restored = numpy(back(kept, order))[..., 0]
    for row, original, numbers in zip(restored, x[..., 0], numpy(order)[..., 0]):
        expected = original.copy()
        expected[numbers[3:]] = -1.0
        np.testing.assert_array_equal(row, expected)
    np.testing.assert_array_equal(numpy(tokens.KeepFirst(0.4)(x, order, training=False)), x)
    np.testing.assert_array_equal(numpy(back(x, tokens.RandomOrder()(x))), x)


def test_masks_and_stochastic_depth_are_of_training_alone():
    images = backbone_cases.images((112, 112, 3))
    keras.utils.set_random_seed(1)
    plain = small()
    keras.utils.set_random_seed(1)
    masked = small(mask_ratio=0.5, drop_path=0.5)
    names = [layer.name for layer in masked.layers if layer.name.endswith("drop_path")]
    assert names == [f"blocks_{index}_{part}_drop_path" for index in (1, 2) for part in ("attn", "mlp")]
    assert [masked.get_layer(f"blocks_{index}_mlp_drop_path").rate for index in (1, 2)] == [0.25, 0.5]
    for weight in plain.weights:  # the masked one has a token more
        next(other for other in masked.weights if other.path == weight.path).assign(weight)
    np.testing.assert_array_equal(numpy(plain(images)), numpy(masked(images)))
    first, second = (numpy(masked(images, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3
    assert masked.count_params() == plain.count_params() + DIM


def test_initial_weights_infer_about_what_they_train_on():
    images = np.random.default_rng(0).integers(0, 256, (16, 112, 112, 3)).astype("float32")
    backbone = backbones.ViT(4, 64, 4, patch_size=14, embedding_dim=64)
    inferred, trained = numpy(backbone(images, training=False)), numpy(backbone(images, training=True))
    assert 0.5 < trained.std() < 2.0
    assert 0.3 < inferred.std() < 3.0


@pytest.mark.parametrize(
    ("make", "depth", "hidden_dim"),
    [
        (backbones.ViTTiny, 12, 256),
        (backbones.ViTSmall, 12, 512),
        (backbones.ViTBase, 24, 512),
        (backbones.ViTLarge, 24, 768),
    ],
)
def test_sizes_of_insightfaces(make, depth, hidden_dim):
    """Built without memory for the weights; the arithmetic is that which the golden cases are held to."""
    from test_backbones import parameters, vit_parameters

    from keras_sphereface.model_size import without_weights

    backbone = without_weights(make)
    config = backbone.get_config()
    assert (config["depth"], config["hidden_dim"], config["num_heads"]) == (depth, hidden_dim, 8)
    assert backbone.get_layer("tokens").output.shape == (None, 144, hidden_dim)
    assert parameters(backbone, trainable_only=True) == vit_parameters(config)
