import keras
import numpy as np
import pytest
from test_classifier import coloured_squares, make_trainer

from keras_sphereface.heads.constraints import SettledUnitNorm, UnitColumns, settled_columns

pytestmark = pytest.mark.core


@pytest.mark.parametrize("rows", [1, 8, 21])
def test_equals_keras_unit_norm(rows, rng):
    matrix = rng.normal(size=(rows, 13)).astype("float32")
    matrix[:, 4] = 0.0
    expected = keras.ops.convert_to_numpy(keras.constraints.UnitNorm(axis=0)(matrix))
    variable, project = keras.Variable(matrix), UnitColumns()
    np.testing.assert_allclose(keras.ops.convert_to_numpy(project(variable)), expected, atol=1e-6)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(lambda: project(variable))
        np.testing.assert_allclose(compiled().numpy(), expected, atol=1e-6)
    assert isinstance(keras.constraints.deserialize(keras.constraints.serialize(project)), UnitColumns)


@pytest.mark.parametrize("floatx", ["float16", "float64"])
def test_float32_is_projected_whatever_keras_takes_by_default(floatx, rng):
    keras.config.set_floatx(floatx)
    try:
        trainer = make_trainer()
        trainer.fit(*coloured_squares(rng, 8), verbose=0)
    finally:
        keras.config.set_floatx("float32")
    lengths = np.linalg.norm(keras.ops.convert_to_numpy(trainer.head.kernel), axis=0)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others have no graph")
def test_a_variable_is_projected_after_what_read_it_before(rng):
    import tensorflow as tf

    matrix = rng.normal(size=(9, 13)).astype("float32")
    variable, project = keras.Variable(matrix), UnitColumns()

    @tf.function
    def step():
        before = variable * 2.0
        variable.assign(project(variable))
        return before, variable + 0.0

    before, after = step()
    np.testing.assert_array_equal(before.numpy(), 2.0 * matrix)
    np.testing.assert_allclose(after.numpy(), variable.numpy())
    np.testing.assert_allclose(np.linalg.norm(variable.numpy(), axis=0), 1.0, rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, (0, 1)])
def test_what_has_unit_length_settles_and_nothing_else(axis, rng):
    """Along any axis; a length that is off by more than the rounding of its squares is put right."""
    matrix = keras.ops.convert_to_tensor(rng.normal(size=(512, 300)), "float32")
    constraint = SettledUnitNorm(axis=axis)
    once = keras.ops.convert_to_numpy(constraint(matrix))
    expected = keras.ops.convert_to_numpy(keras.constraints.UnitNorm(axis=axis)(matrix))
    np.testing.assert_array_equal(once, expected)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(constraint(once)), once)
    if axis == 0:
        assert settled_columns(once) is once
        np.testing.assert_allclose(settled_columns(keras.ops.convert_to_numpy(matrix)), expected, atol=1e-6)
    if axis != (0, 1):
        longer = keras.ops.convert_to_numpy(constraint((once * (1 + 2e-5)).astype("float32")))
        np.testing.assert_allclose(np.linalg.norm(longer.astype("float64"), axis=axis), 1, atol=2e-6)
