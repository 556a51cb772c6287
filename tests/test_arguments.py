"""Arguments that count something: the same rule and the same words everywhere."""

import numpy as np
import pytest

import keras_sphereface as ksf
from keras_sphereface.arguments import finite_number, positive_number, whole_number

CONSTANT = ksf.schedules.learning_rate("constant", 0.1, 10)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_a_whole_number_of_any_kind_is_an_int(value):
    assert whole_number("top", value) == 3
    assert type(whole_number("top", value)) is int


@pytest.mark.parametrize("value", [0, -1, 2.0, np.float32(2), True, "2", None, [2]])
def test_anything_else_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"`top` must be an integer of at least 1\. Received: top="):
        whole_number("top", value)


def test_the_least_value_may_be_another():
    assert whole_number("steps", 0, least=0) == 0
    with pytest.raises(ValueError, match=r"at least 0\. Received: steps=-1"):
        whole_number("steps", -1, least=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda number: ksf.heads.ArcFace(number).num_classes,
        lambda number: ksf.heads.ArcFace(5, class_block=number).class_block,
        lambda number: ksf.callbacks.StopAfter(number).batches,
        lambda number: ksf.callbacks.MarginSchedule(0.1, number).interval,
        lambda number: ksf.callbacks.NonFiniteGuard(every=number).every,
        lambda number: ksf.schedules.Warmup(CONSTANT, number).warmup_steps,
        lambda number: ksf.data.synthetic(number, 1, image_size=16).num_classes,
        lambda number: ksf.data.synthetic(1, 1, image_size=16).sequence(1, workers=number)._threads,
    ],
)
def test_numpy_integers_are_taken_and_truth_values_are_not(make):
    made = make(np.int32(2))
    assert (made, type(made)) == (2, int)
    with pytest.raises(ValueError, match=r"integer of at least [01]"):
        make(True)


@pytest.mark.parametrize("value", [3, 3.0, np.float32(3), np.int64(3)])
def test_a_finite_number_of_any_kind_is_a_float(value):
    assert finite_number("image_std", value) == 3
    assert type(finite_number("image_std", value)) is float


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, True, np.True_, "3", None, [3.0], 3j])
def test_what_is_no_finite_number_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"^`image_std` must be a finite number\. Received: image_std="):
        finite_number("image_std", value)


def test_a_positive_number_is_above_zero_unless_that_will_do():
    assert type(positive_number("scale", np.float32(64))) is float
    assert positive_number("norm_penalty", 0, zero_allowed=True) == 0.0
    with pytest.raises(ValueError, match=r"^`scale` must be a finite number above 0\. Received: scale=0$"):
        positive_number("scale", 0)
    with pytest.raises(ValueError, match=r"of at least 0\. Received: norm_penalty=-1"):
        positive_number("norm_penalty", -1, zero_allowed=True)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**400, True, "3", None])
def test_what_is_no_positive_number_is_refused(value):
    """An integer beyond floats is above 0 and below infinity, but no float."""
    with pytest.raises(ValueError, match=r"^`scale` must be a finite number above 0\. Received: scale="):
        ksf.heads.ArcFace(5, scale=value)
    with pytest.raises(ValueError, match=r"^`margin` must be a finite number\. Received: margin="):
        ksf.margins.get("arcface").validate(value)
