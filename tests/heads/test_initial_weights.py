"""Initial class weights: unit columns, independent of each other, also where they are drawn in blocks."""

import keras
import numpy as np
import pytest
from keras import initializers, ops

from keras_sphereface import heads
from keras_sphereface.heads import initial_weights

pytestmark = pytest.mark.core

SHAPE = (16, 50)
in_blocks = pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch draws in blocks")


@pytest.fixture
def blocks_of_eight(monkeypatch):
    monkeypatch.setattr(initial_weights, "_BLOCK_NUMBERS", 8 * SHAPE[0])


def drawn(initializer, shape=SHAPE):
    return ops.convert_to_numpy(initial_weights.draw_unit_columns(initializer, shape, "float32"))


@pytest.mark.parametrize(
    "initializer",
    [
        initializers.GlorotNormal(seed=1),
        initializers.HeUniform(seed=1),
        initializers.RandomNormal(seed=1),
        initializers.TruncatedNormal(seed=keras.random.SeedGenerator(1)),
        initializers.Orthogonal(seed=1),
        initializers.GlorotNormal(),
        lambda shape, dtype: ops.cos(ops.reshape(ops.arange(1, 1 + np.prod(shape), dtype=dtype), shape)),
    ],
    ids=lambda initializer: type(initializer).__name__,
)
def test_columns_have_unit_length_and_differ(initializer, blocks_of_eight):
    weights = drawn(initializer)
    assert (weights.shape, weights.dtype) == (SHAPE, np.float32)
    np.testing.assert_allclose(np.linalg.norm(weights, axis=0), 1, rtol=1e-6)
    cosines = weights.T @ weights - np.eye(SHAPE[1])
    assert cosines.max() < 1 - 1e-6, "a block that is drawn again"


def test_a_seed_gives_the_same_weights(blocks_of_eight):
    np.testing.assert_array_equal(drawn(initializers.GlorotNormal(seed=3)), drawn(initializers.GlorotNormal(seed=3)))
    assert np.abs(drawn(initializers.GlorotNormal(seed=3)) - drawn(initializers.GlorotNormal(seed=4))).max() > 0.1


def test_blocks_are_drawn_alike(monkeypatch):
    """The numbers of unit vectors in d dimensions have the mean 0 and the variance 1/d, and no block another."""
    monkeypatch.setattr(initial_weights, "_BLOCK_NUMBERS", 512 * 64)
    weights = drawn(initializers.GlorotNormal(seed=5), (64, 4096))
    for block in np.split(weights, 8, axis=1):
        assert abs(block.mean()) < 4 / np.sqrt(64 * block.size)
        np.testing.assert_allclose(block.var() * 64, 1, rtol=1e-3)


@in_blocks
def test_a_small_head_has_the_weights_of_one_drawing(blocks_of_eight):
    small = (SHAPE[0], 8)
    whole = ops.convert_to_numpy(initializers.GlorotNormal(seed=3)(small))
    np.testing.assert_allclose(
        drawn(initializers.GlorotNormal(seed=3), small), whole / np.linalg.norm(whole, axis=0), rtol=1e-6
    )


def test_a_head_is_built_of_them(blocks_of_eight):
    keras.utils.set_random_seed(1)
    head = heads.CosFace(SHAPE[1])
    head.build((None, SHAPE[0]))
    first = ops.convert_to_numpy(head.kernel)
    keras.utils.set_random_seed(1)
    again = heads.CosFace(SHAPE[1])
    again.build((None, SHAPE[0]))
    np.testing.assert_array_equal(ops.convert_to_numpy(again.kernel), first)
    np.testing.assert_allclose(np.linalg.norm(first, axis=0), 1, rtol=1e-6)
