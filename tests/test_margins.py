"""The margin table, and the application of margins to cosines."""

import keras
import numpy as np
import pytest
from gradients import value_and_gradients

from keras_sphereface import margins

pytestmark = pytest.mark.core

COSINES = np.cos(np.radians([[60.0, 90.0, 30.0], [120.0, 45.0, 180.0]]))
LABELS = np.array([0, 1], "int32")


def apply(name, value, cosines=COSINES, detach=True):
    tensor = keras.ops.convert_to_tensor(cosines, "float32")
    labels = keras.ops.convert_to_tensor(LABELS)
    return keras.ops.convert_to_numpy(margins.apply_margin(tensor, labels, margins.get(name), value, detach))


def test_only_the_target_column_changes():
    expected = COSINES.copy()
    expected[0, 0] = -0.5  # cos(2 * 60)
    expected[1, 1] = 0.0  # cos(2 * 45)
    np.testing.assert_allclose(apply("sphereface_r_v1", 2.0), expected, atol=1e-6)


def test_v2_changes_every_column_but_the_target():
    expected = np.cos(np.radians([[60.0, 45.0, 15.0], [60.0, 45.0, 90.0]]))
    # 180 degrees is clipped: arccos(1e-5 - 1) is 0.26 degrees short of it.
    np.testing.assert_allclose(apply("sphereface_r_v2", 2.0), expected, atol=3e-3)


def test_angles_stop_short_of_zero_and_pi():
    """Cosines are clipped to 1 - 1e-5, and 1 - theta^2 / 2 is that at sqrt(2e-5) = 0.004472; float32 errs by 1/7 percent."""
    short, pi_less = keras.ops.convert_to_numpy(margins.angles(keras.ops.convert_to_tensor([1.0, -1.0])))
    assert short == pytest.approx(0.004472, rel=2e-3)
    assert np.pi - pi_less == pytest.approx(0.004472, rel=2e-3)


@pytest.mark.parametrize("name", ["sphereface", "sphereface_r_v1", "sphereface_r_v2", "cosface", "arcface", "normface"])
def test_detachment_leaves_the_plain_cosine_gradient(name):
    value = margins.get(name).neutral + 0.4

    def total(cosines):
        return keras.ops.sum(
            margins.apply_margin(cosines, keras.ops.convert_to_tensor(LABELS), margins.get(name), value)
        )

    _, (gradient,), _ = value_and_gradients(total, [COSINES])
    np.testing.assert_array_equal(gradient, np.ones((2, 3)))


def test_without_detachment_the_gradient_is_the_derivative_of_psi():
    margin = margins.get("sphereface_r_v1")

    def total(cosines):
        return keras.ops.sum(margins.apply_margin(cosines, keras.ops.convert_to_tensor(LABELS), margin, 1.5, False))

    _, (gradient,), _ = value_and_gradients(total, [COSINES])
    # d cos(m theta) / d cos(theta) = m sin(m theta) / sin(theta).
    assert gradient[0, 0] == pytest.approx(1.5 * np.sin(np.pi / 2) / np.sin(np.pi / 3), rel=1e-5)
    assert gradient[1, 1] == pytest.approx(1.5 * np.sin(np.radians(67.5)) / np.sin(np.radians(45)), rel=1e-5)
    np.testing.assert_array_equal(gradient[[0, 0, 1, 1], [1, 2, 0, 2]], 1.0)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("name", ["sphereface", "sphereface_r_v1", "sphereface_r_v2", "cosface", "arcface"])
def test_finite_at_zero_and_pi(name, detach):
    ends = np.array([[1.0, -1.0, 1.0], [1.0, -1.0, -1.0]])

    def total(cosines):
        return keras.ops.sum(
            margins.apply_margin(cosines, keras.ops.convert_to_tensor(LABELS), margins.get(name), 1.4, detach)
        )

    value, (gradient,), _ = value_and_gradients(total, [ends])
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.fixture
def _registry(monkeypatch):
    monkeypatch.setattr(margins, "_TABLE", dict(margins._TABLE))


@pytest.mark.usefixtures("_registry")
def test_a_margin_of_ones_own():
    margin = margins.register("shifted", psi=lambda theta, m: keras.ops.cos(theta) - 2.0 * m, neutral=0.0)
    assert margins.get("shifted") is margin
    assert margins.serialize(margin) == "shifted"
    np.testing.assert_allclose(apply("shifted", 0.25)[0], [0.0, 0.0, np.cos(np.pi / 6)], atol=1e-6)
    with pytest.raises(ValueError, match="registered already"):
        margins.register("shifted", psi=lambda theta, m: theta)
    with pytest.raises(ValueError, match="registered already"):
        margins.register("arcface", psi=lambda theta, m: theta)


@pytest.mark.usefixtures("_registry")
def test_the_same_lines_may_run_again():
    """A notebook's cell."""

    def cell(factor=1.0, closed=None):
        def shifted(theta, m, factor=factor):
            return keras.ops.cos(theta) - factor * m

        def closing(theta, m):
            return keras.ops.cos(theta) - closed * m

        return margins.register("shifted", psi=shifted if closed is None else closing, neutral=0.0)

    assert cell() is cell() is margins.get("shifted")
    with pytest.raises(ValueError, match="registered already"):
        cell(factor=2.0)
    with pytest.raises(ValueError, match="registered already"):
        cell(closed=1.0)


@pytest.mark.usefixtures("_registry")
def test_a_cell_that_was_moved_or_changed_may_run_again():
    lines = "psi = lambda theta, m: [keras.ops.cos(theta) - m for _ in range(1)][0]"

    def run(cell):
        namespace = {"keras": keras}
        exec(cell, namespace)
        return namespace["psi"]

    first = margins.register("cell", psi=run(lines))
    assert first.neutral == 1.0  # of a multiplicative margin
    assert margins.register("cell", psi=run(f"# A comment.\n\n{lines}")) is first
    changed = run(lines.replace("- m", "- 2 * m"))
    with pytest.raises(ValueError, match=r"Choose another name, or give replace=True"):
        margins.register("cell", psi=changed)
    second = margins.register("cell", psi=changed, replace=True)
    assert margins.get("cell") is second is not first
    with pytest.raises(ValueError, match=r"named 'arcface' is registered already\. Choose another name\. Taken"):
        margins.register("arcface", psi=changed, replace=True)


def test_functions_of_other_arguments_are_refused_at_once():
    for wrong in ({"psi": lambda theta: theta}, {"eta": lambda theta, m, k: theta}):
        (field,) = wrong
        with pytest.raises(TypeError, match=rf"`{field}` of a margin must be a function \(theta, margin_value\)"):
            margins.register("narrow", **wrong)
    assert "narrow" not in margins.names()


def test_margins_in_degrees_are_refused():
    for name, most in (("arcface", "3.142"), ("cosface", "2")):
        with pytest.raises(
            ValueError, match=rf"must be at most {most}; angles are in radians\. Received: margin=28\.6"
        ):
            margins.get(name).validate(28.6)
    assert margins.get("sphereface").validate(28.6) == 28.6
    assert margins.get("arcface").validate(np.pi) == np.pi  # the largest is allowed
    assert margins.get("cosface").validate(2.0) == 2.0


def test_errors_name_what_came_and_what_was_expected():
    with pytest.raises(ValueError, match=r"one of \['arcface', .*'arcfase'"):
        margins.get("arcfase")
    with pytest.raises(ValueError, match=r"at least 1.0. Received: margin=0.9"):
        margins.get("sphereface").validate(0.9)
    with pytest.raises(ValueError, match=r"finite number. Received: margin=nan"):
        margins.get("arcface").validate(float("nan"))
    with pytest.raises(TypeError, match="must be a function"):
        margins.Margin("broken", psi=3.0)
    for neutral in (float("nan"), "a", True):
        with pytest.raises(ValueError, match=r"`neutral` of a margin must be a finite number\. Received: neutral="):
            margins.register("broken", neutral=neutral)
    with pytest.raises(ValueError, match="not registered"):
        margins.serialize(margins.Margin("unknown"))
    for name in ("", 3):
        with pytest.raises(ValueError, match="name must be a non-empty string"):
            margins.register(name)
