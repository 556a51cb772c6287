"""Learning-rate schedules: hand-derived values."""

import keras
import numpy as np
import pytest

from keras_sphereface import schedules

pytestmark = pytest.mark.core


def test_steps_divide_by_ten():
    schedule = schedules.learning_rate("steps", peak=0.1, total_steps=240_000)
    for step, rate in (
        *((0, 0.1), (80_000, 0.1), (80_001, 0.01), (140_000, 0.01), (140_001, 1e-3)),
        *((200_000, 1e-3), (200_001, 1e-4), (239_999, 1e-4)),
    ):
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5), step


def test_warmup_is_linear_and_comes_before_the_schedule():
    schedule = schedules.learning_rate("polynomial", peak=0.4, total_steps=110, warmup_steps=10)
    assert float(schedule(0)) == pytest.approx(0.04)
    assert float(schedule(9)) == pytest.approx(0.4)
    assert float(schedule(10)) == pytest.approx(0.4)
    assert float(schedule(60)) == pytest.approx(0.4 * 0.5**2)
    assert float(schedule(110)) == pytest.approx(0.0, abs=1e-7)
    steps = schedules.learning_rate("steps", peak=1.0, total_steps=100, warmup_steps=10, boundaries=[50])
    assert float(steps(50)) == pytest.approx(1.0)
    assert float(steps(51)) == pytest.approx(0.1)


def test_boundaries_may_be_any_integers():
    """Those of a longer run too: whoever tries the recipe for a while changes the number of steps alone."""
    schedule = schedules.learning_rate("steps", peak=1.0, total_steps=100, boundaries=iter(np.array([50, 10**9])))
    assert [float(schedule(step)) for step in (50, 51, 99)] == pytest.approx([1.0, 0.1, 0.1])
    assert float(schedules.learning_rate("steps", peak=1.0, total_steps=100, boundaries=[])(99)) == 1.0


def test_cosine_and_constant():
    cosine = schedules.learning_rate("cosine", peak=0.2, total_steps=100)
    assert float(cosine(50)) == pytest.approx(0.1)
    assert float(cosine(100)) == pytest.approx(0.0, abs=1e-7)
    constant = schedules.learning_rate("constant", peak=0.2, total_steps=100, warmup_steps=4)
    assert [float(constant(step)) for step in (1, 4, 1000)] == pytest.approx([0.1, 0.2, 0.2])


def test_warmup_needs_a_schedule():
    with pytest.raises(TypeError, match=r"`schedule` must be a LearningRateSchedule .* Received: schedule=0\.1"):
        schedules.Warmup(0.1, 5)


@pytest.mark.parametrize("name", schedules.NAMES)
def test_round_trip(name):
    schedule = schedules.learning_rate(name, peak=0.1, total_steps=50, warmup_steps=5)
    config = keras.saving.serialize_keras_object(schedule)
    again = keras.saving.deserialize_keras_object(config)
    assert [float(again(step)) for step in (0, 7, 30, 45)] == [float(schedule(step)) for step in (0, 7, 30, 45)]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"one of \['steps', .*Received: name='linear'"):
        schedules.learning_rate("linear", 0.1, 100)
    with pytest.raises(ValueError, match=r"warmup_steps=100, total_steps=100"):
        schedules.learning_rate("cosine", 0.1, 100, warmup_steps=100)
    for boundaries in (10, "10", [1.7, 50], [50.0], [None], [True]):
        with pytest.raises(ValueError, match=r"^`boundaries` must be a list of steps, .* Received: boundaries="):
            schedules.learning_rate("steps", 0.1, 100, boundaries=boundaries)
    for boundaries in ([50, 40], [50, 50], [0]):
        with pytest.raises(
            ValueError, match=r"^`boundaries` must be increasing steps after the warm-up\. Received: \["
        ):
            schedules.learning_rate("steps", 0.1, 100, boundaries=boundaries)
    for numbers in ((100, None), (100, 0.5), (10.5, 0), (0, 0)):
        with pytest.raises(ValueError, match="_steps` must be an integer of at least "):
            schedules.learning_rate("cosine", 0.1, *numbers)
    with pytest.raises(ValueError, match=r"Did you mean 'cosine'\?"):
        schedules.learning_rate("cosin", 0.1, 100)
    with pytest.raises(ValueError, match=r"Only 'steps' has `boundaries`\. Received: name='cosine', boundaries=\[50\]"):
        schedules.learning_rate("cosine", 0.1, 100, boundaries=[50])
    for peak in (0.0, float("inf"), float("nan"), True, None):
        with pytest.raises(ValueError, match=f"a finite peak > 0 .* Received: peak={peak}"):
            schedules.learning_rate("cosine", peak, 100)
    for boundaries in ([10, 50], [20, 50], [50, 50], [60, 50]):
        with pytest.raises(ValueError, match="increasing steps after the warm-up"):
            schedules.learning_rate("steps", 0.1, 100, warmup_steps=20, boundaries=boundaries)
