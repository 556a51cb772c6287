"""Angular functions: hand-derived values and the properties every margin must have."""

import math

import keras
import numpy as np
import pytest

from keras_sphereface import angular, margins

pytestmark = pytest.mark.core

THETAS = np.linspace(0.0, math.pi, 401)
SIZES = {"sphereface": (1.0, 1.5, 2.6, 4.0), "sphereface_r_v1": (1.0, 1.4, 3.0), "sphereface_r_v2": (1.0, 1.4, 3.0)}
SIZES.update(cosface=(0.0, 0.35), arcface=(0.0, 0.5), normface=(0.0,))


def psi(name, value):
    function = margins.get(name).psi or angular.cosine
    return keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(THETAS, "float32"), value))


def eta(name, value):
    function = margins.get(name).eta or angular.cosine
    return keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(THETAS, "float32"), value))


def at(function, degrees, margin):
    theta = keras.ops.convert_to_tensor(math.radians(degrees), "float32")
    return float(function(theta, margin))


def test_hand_derived_values():
    # m theta = 120 degrees: still the first fold, cos 120 = -1/2.
    assert at(angular.sphereface_psi, 60, 2.0) == pytest.approx(-0.5, abs=1e-6)
    # m theta = 240 degrees: the second fold, -cos 240 - 2 = 1/2 - 2.
    assert at(angular.sphereface_psi, 60, 4.0) == pytest.approx(-1.5, abs=1e-6)
    # m theta = 420 degrees: the third fold, cos 60 - 4.
    assert at(angular.sphereface_psi, 105, 4.0) == pytest.approx(-3.5, abs=1e-5)
    # v1 stops at 180 degrees.
    assert at(angular.sphereface_r_v1_psi, 100, 2.0) == pytest.approx(-1.0, abs=1e-6)
    assert at(angular.sphereface_r_v1_psi, 45, 2.0) == pytest.approx(0.0, abs=1e-6)
    # v2 makes the angle to the other classes smaller: 120 / 2 = 60 degrees.
    assert at(angular.sphereface_r_v2_eta, 120, 2.0) == pytest.approx(0.5, abs=1e-6)
    assert at(angular.cosface_psi, 60, 0.35) == pytest.approx(0.15, abs=1e-6)
    assert at(angular.arcface_psi, 60, math.pi / 6) == pytest.approx(0.0, abs=1e-6)
    assert at(angular.arcface_psi, 170, math.pi / 6) == pytest.approx(-1.0, abs=1e-6)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in SIZES.items() for value in values])
def test_properties_of_every_margin(name, value):
    assert np.diff(psi(name, value)).max() <= 1e-5, "psi never increases with the angle"
    assert np.diff(eta(name, value)).max() <= 1e-5, "eta never increases with the angle"
    assert (eta(name, value) - psi(name, value)).min() >= -1e-5, "Delta = eta - psi is never negative"


@pytest.mark.parametrize("name", SIZES)
def test_the_neutral_margin_is_the_cosine(name):
    neutral = margins.get(name).neutral
    # At theta = pi exactly, v0 of m = 1 opens its second fold: -cos(pi) - 2 = -1, the cosine again.
    np.testing.assert_allclose(psi(name, neutral), np.cos(THETAS), atol=2e-6)
    np.testing.assert_allclose(eta(name, neutral), np.cos(THETAS), atol=2e-6)


@pytest.mark.parametrize("margin", [1.0, 1.1, 1.4, 2.0, 3.0, 4.0, 50.0])
def test_the_polynomial_of_v2_errs_by_less_than_1e_6(margin):
    """Against cos(arccos(c) / m) in float64, at both ends and where neighbouring cosines lie close."""
    cosines = np.unique(np.concatenate([np.linspace(-1, 1, 20001), np.cos(np.linspace(0, math.pi, 20001))]))
    cosines = cosines.astype("float32")
    values = angular.sphereface_r_v2_eta_of_cosine(keras.ops.convert_to_tensor(cosines), margin)
    exact = np.cos(np.arccos(cosines.astype("float64")) / margin)
    assert np.abs(keras.ops.convert_to_numpy(values) - exact).max() < 1e-6


def test_the_polynomial_of_v2_needs_no_matrix_product(monkeypatch):
    """On accelerators its factors are rounded to 10 or 7 bits."""
    monkeypatch.setattr(keras.ops, "matmul", None)
    values = angular.sphereface_r_v2_eta_of_cosine(keras.ops.convert_to_tensor([-0.5]), 2.0)
    assert float(values[0]) == pytest.approx(0.5, abs=1e-6)  # cos(120 degrees / 2)


def test_the_polynomial_of_v2_outside_its_range():
    """A cosine that rounding puts below -1 counts as -1, one above 1 goes on smoothly; m below 1 is refused."""
    below = angular.sphereface_r_v2_eta_of_cosine(keras.ops.convert_to_tensor([-1.0 - 1e-6, -1.0]), 1.4)
    below = keras.ops.convert_to_numpy(below)
    assert below[0] == below[1] == pytest.approx(math.cos(math.pi / 1.4), abs=1e-6)
    just_above = angular.sphereface_r_v2_eta_of_cosine(keras.ops.convert_to_tensor([1.0 + 1e-6]), 1.4)
    assert float(just_above[0]) == pytest.approx(1.0, abs=2e-6)
    with pytest.raises(ValueError, match=r"must be at least 1\.0"):
        margins.get("sphereface_r_v2").validate(0.9)


def test_all_registered_margins_are_tested():
    assert set(SIZES) <= set(margins.names())
    assert {"sphereface", "sphereface_r_v1", "sphereface_r_v2", "cosface", "arcface", "normface"} == set(SIZES)
