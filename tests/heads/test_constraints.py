import keras
import numpy as np
import pytest

from keras_sphereface.heads.constraints import UnitColumns

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
