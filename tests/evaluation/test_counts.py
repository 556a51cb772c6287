import numpy as np
import pytest

from keras_sphereface.evaluation.counts import (
    accept_counts,
    allowed_accepts,
    check_mated,
    check_scores,
    count_accepted,
    operating_point,
    run_ends,
    run_starts,
)


def test_ties_are_accepted_together():
    # Distinct scores 0.9, 0.5, 0.1; at 0.5 one mated and two nonmated join at once.
    counts = accept_counts([0.5, 0.9, 0.1, 0.5, 0.5], [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(counts.thresholds, [0.9, 0.5, 0.1])
    np.testing.assert_array_equal(counts.accepted_mated, [1, 2, 3])
    np.testing.assert_array_equal(counts.accepted_nonmated, [0, 2, 2])
    assert (counts.num_mated, counts.num_nonmated) == (3, 2)
    assert counts.accepted_mated.dtype == counts.accepted_nonmated.dtype == np.int64
    assert counts.thresholds.dtype == np.float64


def test_all_equal_scores_give_one_operating_point():
    counts = accept_counts(np.full(7, 0.25, np.float32), [1, 0, 1, 0, 0, 0, 1])
    assert counts.thresholds.tolist() == [0.25]
    assert counts.accepted_mated.tolist() == [3]
    assert counts.accepted_nonmated.tolist() == [4]


def test_scores_that_are_integers_keep_their_digits():
    """Float32 has no 2^24 + 1: as float32 the two would be tied."""
    counts = accept_counts([2**24, 2**24 + 1], [0, 1])
    assert counts.thresholds.tolist() == [2**24 + 1, 2**24]
    assert (counts.accepted_mated.tolist(), counts.accepted_nonmated.tolist()) == ([1, 1], [0, 1])


def test_no_scores_give_no_operating_points():
    counts = accept_counts([], [])
    assert len(counts.thresholds) == counts.num_mated == counts.num_nonmated == 0


@pytest.mark.parametrize(
    ("values", "starts", "ends"),
    [([7, 7, 3, 3, 3, 7], [0, 2, 5], [1, 4, 5]), ([5], [0], [0]), ([2, 2], [0], [1]), ([], [], [])],
)
def test_runs_begin_and_end_where_values_change(values, starts, ends):
    assert run_starts(np.array(values)).tolist() == starts
    assert run_ends(np.array(values)).tolist() == ends


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [5, 10**6])
def test_agrees_with_sklearn(rng, dtype, levels):
    roc_curve = pytest.importorskip("sklearn.metrics").roc_curve
    scores = (rng.integers(0, levels, 3000) / levels).astype(dtype)
    mated = rng.random(3000) < 0.3
    far, tar, thresholds = roc_curve(mated, scores, drop_intermediate=False)
    counts = accept_counts(scores, mated)
    np.testing.assert_array_equal(counts.thresholds, thresholds[1:].astype(np.float64))
    np.testing.assert_allclose(counts.accepted_nonmated / counts.num_nonmated, far[1:], rtol=1e-12)
    np.testing.assert_allclose(counts.accepted_mated / counts.num_mated, tar[1:], rtol=1e-12)


def test_count_accepted_includes_the_threshold():
    assert count_accepted(np.array([0.1, 0.5, 0.5, 0.9]), [0.0, 0.1, 0.5, 0.6, 0.9, 1.0]).tolist() == [4, 4, 3, 1, 1, 0]


def test_allowed_accepts_is_exact_where_floats_are_not():
    assert 0.29 * 100 < 29  # the product is rounded down, yet 29 / 100 == 0.29
    assert allowed_accepts(0.29, 100) == 29
    for count in (1, 3, 7, 10, 49, 3000, 10**6):
        for allowed in {0, 1, count // 3, count - 1, count}:
            assert allowed_accepts(allowed / count, count) == allowed


def test_allowed_accepts_stays_below_a_rate_just_below_a_share():
    """Of 10 the rate just below 0.9 allows 8: the product is rounded up to 9, and 9 / 10 is above the rate."""
    rate = np.nextafter(0.9, 0)
    assert rate * 10 == 9
    assert allowed_accepts(rate, 10) == 8


def test_operating_point_rejects_all_tied_nonmated():
    # FAR 0.4 of five nonmated allows two. The 2nd to 4th are tied at 0.6, so only the one at 0.8 may pass:
    # the lowest observed score above 0.6 is the mated 0.7.
    mated, nonmated = np.array([0.2, 0.6, 0.7, 0.9]), np.array([0.1, 0.6, 0.6, 0.6, 0.8])
    point = operating_point(mated, nonmated, 0.4)
    assert point == (0.7, 2, 1, 0.5, 0.2)


def test_operating_point_where_nobody_can_be_accepted():
    point = operating_point(np.array([0.5]), np.array([0.5, 0.5]), 0.5)
    assert point.threshold == np.nextafter(0.5, 1)
    assert (point.tar, point.far) == (0.0, 0.0)


def test_operating_point_at_rate_one_accepts_everybody():
    assert operating_point(np.array([0.2, 0.9]), np.array([0.1, 0.3]), 1.0) == (0.1, 2, 2, 1.0, 1.0)
    assert operating_point(np.array([0.05, 0.2]), np.array([0.1, 0.3]), 1.0) == (0.05, 2, 2, 1.0, 1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [7, 10**6])
def test_operating_point_is_the_best_allowed_point_of_the_curve(rng, dtype, levels):
    scores = (rng.integers(0, levels, 500) / levels).astype(dtype)
    mated = rng.random(500) < 0.5
    counts = accept_counts(scores, mated)
    for far in (0.0, 0.003, 0.01, 0.1, 0.5, 1.0):
        point = operating_point(np.sort(scores[mated]), np.sort(scores[~mated]), far)
        allowed = counts.accepted_nonmated / counts.num_nonmated <= far
        assert point.accepted_mated == max([0, *counts.accepted_mated[allowed]])
        assert point.far <= far
        # The threshold itself, as a float64, decides as the counts say, also against the scores as they came.
        assert np.sum(scores[mated].astype(np.float64) >= point.threshold) == point.accepted_mated


def test_nan_is_refused_with_its_row():
    with pytest.raises(ValueError, match=r"scores\[2\]=nan"):
        check_scores([0.1, 0.2, np.nan])
    with pytest.raises(ValueError, match="1-D"):
        check_scores([[0.1]])


def test_mated_flags_are_checked():
    np.testing.assert_array_equal(check_mated([1, 0], 2), [True, False])
    with pytest.raises(ValueError, match="0 and 1"):
        check_mated([1, 2], 2)
    with pytest.raises(ValueError, match="one mated flag per score"):
        check_mated([1], 2)
