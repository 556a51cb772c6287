import itertools
import warnings

import numpy as np
import pytest

from keras_sphereface.evaluation import (
    accept_counts,
    auc,
    best_cut,
    equal_error_rate,
    fuse,
    operating_point,
    pair_scores,
    roc,
    verification,
)
from keras_sphereface.evaluation.bootstrap import WeightedRates, identity_weights, intervals
from keras_sphereface.evaluation.embeddings import check_embeddings
from keras_sphereface.evaluation.metrics import (
    cut_thresholds,
    fold_accuracies,
    nonmated_needed,
    roc_corners,
    standard_deviation,
    supported,
)
from keras_sphereface.version import __version__

# Mated 0.9 0.8 0.4, nonmated 0.6 0.3 0.1. By hand: of the 9 mated/nonmated couples 8 are in order (0.4 < 0.6).
# Operating points (FAR, FRR): (0,1) (0,2/3) (0,1/3) | 0.6: (1/3,1/3). EER is 1/3, exactly at a point.
SCORES = [0.9, 0.6, 0.8, 0.3, 0.4, 0.1]
MATED = [1, 0, 1, 0, 1, 0]


def test_hand_derived_rates():
    report = verification(SCORES, MATED, bootstrap=0, fars=(0.4,))
    assert report.auc == 8 / 9
    assert report.eer == pytest.approx(1 / 3, abs=1e-15)
    # Accepting {0.9, 0.8} or {0.9, 0.8, 0.6, 0.4} is right in 5 of 6; the higher of the two middle cuts is taken.
    assert report.best_threshold_accuracy == 5 / 6
    assert report.best_threshold == pytest.approx(0.7, abs=1e-15)
    # FAR 0.4 of three allows one, so the threshold must exceed 0.3: 0.4 accepts all mated.
    assert report.tar_at_far[0.4] == (0.4, 3, 1, 1.0, 1 / 3)


def test_equal_error_rate_is_interpolated():
    # Points (FAR, FRR): (0,1), 0.9: (0,1/2), 0.5: (1,1/2), 0.1: (1,0). FAR = FRR = 1/2 inside the second step.
    assert equal_error_rate(accept_counts([0.9, 0.5, 0.1], [1, 0, 1])) == 0.5
    # One step from (0,1) to (1,0): the diagonal is cut in its middle.
    assert equal_error_rate(accept_counts([0.3, 0.3], [1, 0])) == 0.5
    # From (0, 1/2) to (1/3, 0): gap 1/2 to -1/3, so 3/5 of the way: 1/5.
    assert equal_error_rate(accept_counts([0.9, 0.5, 0.5, 0.2, 0.1], [1, 1, 0, 0, 0])) == pytest.approx(0.2, abs=1e-15)


def test_all_equal_scores():
    report = verification([0.5] * 6, [1, 1, 1, 0, 0, 0], bootstrap=0, fars=(0.5, 1.0))
    assert (report.auc, report.eer, report.best_threshold_accuracy) == (0.5, 0.5, 0.5)
    assert report.tar_at_far[0.5].tar == 0.0  # all three nonmated are tied: accepting one accepts all
    assert report.tar_at_far[1.0].tar == 1.0


def test_perfect_separation():
    report = verification([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], folds=[0, 1, 0, 1], bootstrap=0)
    assert (report.auc, report.eer, report.accuracy, report.best_threshold_accuracy) == (1.0, 0.0, 1.0, 1.0)
    assert report.fold_thresholds == pytest.approx([(0.8 + 0.1) / 2, (0.9 + 0.2) / 2], abs=1e-15)


def test_fold_threshold_comes_from_the_other_folds():
    # Fold 0 is best at any cut in (0.1, 0.2), fold 1 in (0.8, 0.9): each is measured at the other's threshold.
    scores, mated, folds = [0.2, 0.1, 0.9, 0.8], [1, 0, 1, 0], [0, 0, 1, 1]
    report = verification(scores, mated, folds, bootstrap=0)
    assert report.fold_thresholds == pytest.approx([0.85, 0.15], abs=1e-15)
    assert report.accuracy_folds == [0.5, 0.5]  # 0.2 and 0.1 both rejected; 0.9 and 0.8 both accepted
    assert report.accuracy == 0.5
    # The best threshold on the same pairs decides three of four: that is what must not be called accuracy.
    assert report.best_threshold_accuracy == 0.75


def test_accuracy_is_the_mean_over_folds_with_sample_deviation():
    scores = np.array([0.9, 0.1, 0.9, 0.1, 0.1, 0.9, 0.9, 0.1])
    mated = np.array([1, 0, 1, 0, 1, 0, 1, 0])
    report = verification(scores, mated, folds=[3, 3, 5, 5, 7, 7, 9, 9], bootstrap=0)
    assert report.accuracy_folds == [1, 1, 0, 1]
    assert report.accuracy == 0.75
    assert report.accuracy_std == pytest.approx(0.5)  # sqrt((3 * 0.25**2 + 0.75**2) / 3)
    assert standard_deviation([0.5, 1.0]) == pytest.approx(0.5**1.5)  # sqrt(2 * 0.25**2), of two folds
    assert standard_deviation([0.5]) == 0


def test_threshold_tie_takes_the_middle_cut():
    # Every cut from "nobody" on is equally good: cuts 0, 2, 4; the middle one lies between 0.7 and 0.5.
    counts = accept_counts([0.9, 0.7, 0.5, 0.3], [1, 0, 1, 0])
    assert best_cut(counts).accuracy == 0.75
    counts = accept_counts([0.9, 0.7, 0.5, 0.3], [0, 1, 0, 1])
    assert best_cut(counts) == (pytest.approx(0.6), 0.5)


def test_cut_between_neighbouring_floats_still_separates():
    upper, lower = np.nextafter(0.5, 1), 0.5
    thresholds = cut_thresholds([upper, lower])
    assert [int(np.sum(np.array([upper, lower]) >= threshold)) for threshold in thresholds] == [0, 1, 2]


def test_given_threshold_replaces_the_folds():
    report = verification(SCORES, MATED, folds=[0, 0, 0, 1, 1, 1], threshold=0.6, bootstrap=0)
    assert report.accuracy == 4 / 6  # 0.6 itself is accepted, and wrong; so is 0.4 rejected
    assert report.accuracy_folds == []
    assert "threshold:given-0.6|" in report.signature
    assert report.to_dict()["threshold"] == 0.6
    assert "accuracy (given threshold)  66.67 %  at threshold 0.6000" in str(report)


def test_pairs_of_one_kind_have_no_folds():
    report = verification([0.5, 0.4], [1, 1], folds=[0, 1])
    assert "folds" not in report.signature
    assert "\n\n" not in str(report)


def test_wrong_identities_are_shown_as_they_are():
    with pytest.raises(ValueError, match="identities 1 and '1'"):
        verification([0.5, 0.4], [1, 0], identities=([1, 2], ["1", "3"]))
    with pytest.raises(ValueError, match="hardest"):
        verification(SCORES, MATED, hardest=-1)


@pytest.mark.parametrize("levels", [11, 10**6])
def test_agrees_with_sklearn_on_random_data(rng, levels):
    metrics = pytest.importorskip("sklearn.metrics")
    mated = rng.random(2000) < 0.4
    scores = np.round((rng.normal(size=2000) + mated) * levels / 6) / levels
    far, tar, thresholds = metrics.roc_curve(mated, scores, drop_intermediate=False)
    curve = roc(accept_counts(scores, mated))
    np.testing.assert_allclose(curve.far, far, rtol=1e-12)
    np.testing.assert_allclose(curve.tar, tar, rtol=1e-12)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    assert auc(accept_counts(scores, mated)) == pytest.approx(metrics.roc_auc_score(mated, scores), abs=1e-12)
    report = verification(scores, mated, bootstrap=0)
    for limit in (1e-2, 1e-3):
        if report.tar_at_far[limit] is not None:
            assert report.tar_at_far[limit].tar == pytest.approx(tar[far <= limit].max(), abs=1e-12)


def test_one_class_only_gives_no_rates_and_says_why():
    for mated, missing in (([1, 1, 1], "no nonmated pairs"), ([0, 0, 0], "no mated pairs")):
        report = verification([0.1, 0.5, 0.9], mated, folds=[0, 1, 2])
        assert report.accuracy is report.eer is report.auc is report.best_threshold_accuracy is None
        assert report.tar_at_far == report.intervals == {}
        assert missing in str(report)


def test_far_without_enough_nonmated_scores_is_none():
    scores = np.linspace(0, 1, 200)
    report = verification(scores, np.arange(200) >= 100, bootstrap=0)
    assert list(report.tar_at_far) == [1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
    assert report.tar_at_far[1e-2].tar == 1.0
    assert report.tar_at_far[1e-3] is report.tar_at_far[1e-6] is None
    assert "needs at least 1000 nonmated scores, there are 100" in str(report)
    assert [nonmated_needed(far) for far in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 0.3, 1.0)] == [
        10, 100, 1000, 10**4, 10**5, 10**6, 4, 1,
    ]  # fmt: skip
    assert [nonmated_needed(1 / count) for count in range(1, 1000)] == list(range(1, 1000))
    assert supported(1e-3, 1000)
    assert not supported(1e-3, 999)


def test_a_rate_limit_is_shown_with_its_digits():
    report = verification(np.arange(8.0), np.arange(8) >= 4, fars=(0.25, 0.0015), bootstrap=0)
    assert "TAR at FAR 2.5e-01          100.00 %" in str(report)
    assert "TAR at FAR 1.5e-03 and below is left out" in str(report)


def test_order_of_comparisons_does_not_matter(rng):
    scores, mated = np.round(rng.random(300), 2), rng.random(300) < 0.5
    folds = rng.integers(0, 10, 300)
    order = rng.permutation(300)
    one = verification(scores, mated, folds, bootstrap=0).to_dict()
    other = verification(scores[order], mated[order], folds[order], bootstrap=0).to_dict()
    assert {**one, "hardest": 0} == {**other, "hardest": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [0.1, np.nan, 0.2]}, r"scores\[1\]=nan"),
        ({"scores": [0.1, np.inf, 0.2]}, r"scores\[1\]=inf"),
        ({"scores": [], "mated": []}, "at least one comparison"),
        ({"mated": [1, 0]}, "one mated flag per score"),
        ({"folds": [1, 2]}, "one fold per score"),
        ({"identities": (["a"], ["b"])}, "two arrays of 3"),
        ({"identities": (["a", "b", "c"], ["a", "b", "d"])}, r"mated\[1\]=False"),
        ({"identities": (["a", "b", "c"], ["a", "b", "d"])}, "identities 'b' and 'b'"),
        ({"fars": (0.0,)}, "above 0"),
        ({"bootstrap": -1}, "bootstrap=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"threshold": np.nan}, "threshold=nan"),
        ({"threshold": "0.3"}, "`threshold` must be a finite number. Received: threshold='0.3'"),
        ({"threshold": True}, "`threshold` must be a finite number. Received: threshold=True"),
    ],
)
def test_bad_input_is_refused(changes, message):
    arguments = {"scores": [0.9, 0.1, 0.2], "mated": [1, 0, 0], "bootstrap": 0, **changes}
    with pytest.raises(ValueError, match=message):
        verification(**arguments)


def test_signature_says_how_it_was_done():
    folds = [0, 1, 0, 1, 0, 1]
    report = verification(
        SCORES, MATED, folds, name="lfw-view2", details={"flip": "sum", "distance": "cosine"}, bootstrap=0
    )
    assert report.signature == f"lfw-view2|folds:2|flip:sum|distance:cosine|threshold:other-folds|v:{__version__}"
    assert "intervals:pairs-20-3" in verification(SCORES, MATED, folds, bootstrap=20, seed=3).signature


def test_unit_weights_give_the_unweighted_rates(rng):
    mated = rng.random(400) < 0.5
    scores, folds = np.round(rng.normal(size=400) + mated, 1), rng.integers(0, 5, 400)
    report = verification(scores, mated, folds, bootstrap=0)
    rates = WeightedRates(scores, mated, folds, (1e-2,))(np.ones((2, 400)))
    for name in ("accuracy", "best_threshold_accuracy", "eer", "auc"):
        np.testing.assert_allclose(rates[name], getattr(report, name), rtol=1e-12)
    np.testing.assert_allclose(rates["tar@0.01"], report.tar_at_far[1e-2].tar)


def test_weighted_accuracy_of_folds_by_hand():
    """Each fold's cut lies between 0.9 and 0.1, or 0.8 and 0.2, of the other; the cut that accepts nobody gains nothing."""
    rates = WeightedRates([0.9, 0.1, 0.8, 0.2], [1, 0, 1, 0], [0, 0, 1, 1], ())
    assert rates(np.array([[1, 1, 1, 1], [3, 1, 1, 2]]))["accuracy"].tolist() == [1, 1]
    # Fold 0 has its scores the wrong way round: the other's cut decides both wrongly. Fold 1 is decided by "accept nobody",
    # the best that fold 0 knows, as it would gain -1 by accepting 0.9: right is the nonmated 0.2, of weight 2 of 3.
    rates = WeightedRates([0.9, 0.1, 0.8, 0.2], [0, 1, 1, 0], [0, 0, 1, 1], ())
    assert rates(np.array([[2, 1, 1, 2]]))["accuracy"][0] == pytest.approx((0 + 2 / 3) / 2)


def test_a_score_at_the_given_threshold_is_accepted_in_every_draw():
    rates = WeightedRates([0.5, 0.4], [1, 0], None, (), threshold=0.5)
    assert rates(np.array([[1, 1], [3, 1]]))["accuracy"].tolist() == [1, 1]


def test_integer_weights_are_repeated_comparisons(rng):
    mated = np.arange(60) % 2 == 0
    scores = np.round(rng.normal(size=60) + mated, 1)
    weights = rng.integers(1, 4, 60)
    rates = WeightedRates(scores, mated, None, (0.1,))(weights[None])
    repeated = verification(np.repeat(scores, weights), np.repeat(mated, weights), bootstrap=0, fars=(0.1,))
    for name in ("best_threshold_accuracy", "eer", "auc"):
        np.testing.assert_allclose(rates[name], getattr(repeated, name), rtol=1e-12)
    np.testing.assert_allclose(rates["tar@0.1"], repeated.tar_at_far[0.1].tar)


def test_identity_weights_follow_the_people(rng):
    left, right = np.array([0, 0, 1, 2]), np.array([0, 1, 2, 2])
    mated = left == right
    weights = identity_weights(rng, 500, left, right, mated, 3)
    drawn = np.stack([weights[:, 0], weights[:, 1], weights[:, 3]])
    first, third = weights[:, 0], weights[:, 3]
    second = 3 - first - third  # three people are drawn, each draw names one
    np.testing.assert_array_equal(weights[:, 1], first * second)
    np.testing.assert_array_equal(weights[:, 2], second * third)
    assert drawn.min() == 0


def test_intervals_are_seeded_and_cover_the_estimate(rng):
    people = 80
    left = np.concatenate([np.arange(people), rng.integers(0, people, 400)])
    right = np.concatenate([np.arange(people), (left[people:] + rng.integers(1, people, 400)) % people])
    mated = left == right
    scores = rng.normal(size=len(left)) + 2 * mated
    folds = np.arange(len(left)) % 10
    report = verification(scores, mated, folds, (left, right), bootstrap=200, seed=1)
    again = verification(scores, mated, folds, (left, right), bootstrap=200, seed=1)
    assert report.intervals == again.intervals
    assert report.intervals != verification(scores, mated, folds, (left, right), bootstrap=200, seed=2).intervals
    for name in ("accuracy", "eer", "auc"):
        low, high = report.intervals[name]
        assert low < getattr(report, name) < high
    assert set(report.intervals) == {"accuracy", "best_threshold_accuracy", "eer", "auc", "tar@0.01"}


def test_intervals_are_quantiles_of_all_draws(monkeypatch):
    """Of the numbers 0, 1, ..., 1000 the middle 95 % lie between 25 and 975, the middle half between 250 and 750."""
    monkeypatch.setattr("keras_sphereface.evaluation.bootstrap.BLOCK_ELEMENTS", 4 * 300)  # three blocks and a rest
    for confidence, expected in (({}, (25, 975)), ({"confidence": 0.5}, (250, 750))):
        numbers = itertools.count()

        def rates(weights, numbers=numbers):
            return {"rate": np.array([float(next(numbers)) for _ in weights])}

        assert intervals(rates, [1, 1, 0, 0], replicates=1001, **confidence) == {"rate": pytest.approx(expected)}


def test_a_nonmated_pair_is_drawn_as_often_as_both_its_people():
    """Pair 0 is Ann's, pair 1 Bob's, pair 2 of Ann and Bob: its weight is the product of theirs."""
    drawn = []

    def rates(weights):
        drawn.append(weights)
        return {"rate": np.zeros(len(weights))}

    identities = ["Ann", "Bob", "Ann"], ["Ann", "Bob", "Bob"]
    intervals(rates, np.array([True, True, False]), identities, replicates=50)
    (weights,) = drawn
    np.testing.assert_array_equal(weights[:, 2], weights[:, 0] * weights[:, 1])
    assert {0, 1} == set(weights[:, 2].tolist())  # two people are drawn: both once, or one of them twice


def test_two_folds_have_an_interval_of_their_accuracy():
    scores, mated = [0.9, 0.8, 0.2, 0.1] * 5, [1, 1, 0, 0] * 5
    report = verification(scores, mated, folds=[0, 1] * 10, bootstrap=20)
    assert report.accuracy == report.intervals["accuracy"][1] == 1.0


def test_draws_that_tell_nothing_leave_no_interval():
    # Ann's pair counts only where she is drawn, Bob and Cy's only where both are: each of these two draws lost one.
    people = (["Ann", "Bob"], ["Ann", "Cy"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = verification([0.9, 0.1], [1, 0], [0, 1], people, bootstrap=2, seed=1)
    assert report.intervals == {}
    assert "intervals" not in report.signature


def test_interval_of_comparisons_has_the_binomial_width(rng):
    # 400 independent comparisons decided at a given threshold, 80 % rightly: standard error sqrt(0.8 * 0.2 / 400) = 0.02.
    mated = np.arange(400) % 2 == 0
    scores = np.where(np.arange(400) % 10 < 8, mated, ~mated).astype(float)
    rates = WeightedRates(scores, mated, None, (), threshold=0.5)
    low, high = intervals(rates, mated, replicates=2000, seed=0)["accuracy"]
    assert high - low == pytest.approx(2 * 1.96 * 0.02, rel=0.08)
    assert low + high == pytest.approx(2 * 0.8, abs=0.01)


def test_hardest_pairs_are_listed_with_their_decision():
    report = verification(SCORES, MATED, threshold=0.5, bootstrap=0, hardest=2)
    listed = [(entry["pair"], entry["mated"], entry["score"], entry["wrong"]) for entry in report.hardest]
    assert listed == [(4, True, 0.4, True), (2, True, 0.8, False), (1, False, 0.6, True), (3, False, 0.3, False)]


def test_hardest_pairs_are_judged_at_their_own_folds_threshold():
    report = verification([0.2, 0.1, 0.9, 0.8], [1, 0, 1, 0], [0, 0, 1, 1], bootstrap=0)
    assert {entry["pair"]: entry["wrong"] for entry in report.hardest} == {0: True, 1: False, 2: False, 3: True}


def test_without_folds_hardest_pairs_are_judged_at_the_best_threshold():
    # The best threshold is 0.7: it rejects the mated 0.4, and nothing else is wrong.
    report = verification(SCORES, MATED, bootstrap=0, hardest=2)
    assert {entry["pair"]: entry["wrong"] for entry in report.hardest} == {4: True, 2: False, 1: False, 3: False}
    one_kind = verification([0.9, 0.4], [1, 1], bootstrap=0)
    assert [entry["wrong"] for entry in one_kind.hardest] == [None, None]


def test_what_a_reader_has_to_know_is_noted():
    report = verification(SCORES, MATED, bootstrap=20, fars=(1,))
    assert [note.split(":")[0] for note in report.notes] == [
        "no accuracy",
        "intervals draw pairs, not people (identities unknown)",
    ]
    people = [1, 2, 3, 4, 5, 6], [1, 3, 3, 5, 5, 1]
    assert verification(SCORES, MATED, identities=people, bootstrap=20, fars=(1,), threshold=0.5).notes == []


def test_corners_of_the_curve_are_saved():
    # From the highest score on: mated, mated, nonmated, mated, nonmated, nonmated.
    saved = verification(SCORES, MATED, bootstrap=0).to_dict()["roc"]
    assert saved == {"accepted_nonmated": [0, 1, 2, 3], "accepted_mated": [2, 3, 3, 3]}
    # Nine corners (0, 1), (1, 2), ... (7, 8), (8, 8), of which three are kept: the ends, and the third by its rank.
    counts = accept_counts(np.arange(16.0, 0, -1), np.arange(16) % 2 == 0)
    assert [side.tolist() for side in roc_corners(counts, 9)] == [list(range(9)), [1, 2, 3, 4, 5, 6, 7, 8, 8]]
    assert [side.tolist() for side in roc_corners(counts, 3)] == [[0, 2, 8], [1, 3, 8]]
    # Of the ranks 1, 1.7, 3, 5.2, 9 the second is the first again.
    assert [side.tolist() for side in roc_corners(counts, 5)] == [[0, 2, 4, 8], [1, 3, 5, 8]]
    # Nobody can be accepted before the nonmated 0.9.
    assert [side.tolist() for side in roc_corners(accept_counts([0.9, 0.8], [0, 1]), 9)] == [[0, 1], [0, 1]]


def test_fold_accuracies_of_hand_made_folds():
    cuts = fold_accuracies([0.9, 0.1, 0.8, 0.2], [1, 0, 1, 0], [1, 1, 2, 2])
    assert [cut.accuracy for cut in cuts] == [1.0, 1.0]
    assert [cut.threshold for cut in cuts] == pytest.approx([0.5, 0.5])


def test_equal_embeddings_score_1_to_the_last_bit(rng):
    embeddings = np.repeat(rng.normal(size=(50, 512)) * rng.uniform(0.01, 100, (50, 1)), 2, axis=0)
    assert (pair_scores(embeddings, np.arange(0, 100, 2), np.arange(1, 100, 2)) == 1).all()


def test_pair_scores_are_cosines_at_known_angles():
    angles = np.radians([0, 60, 90, 180])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32) * [[1], [5], [0.1], [70]]
    scores = pair_scores(embeddings, np.array([0, 0, 0, 1]), np.array([1, 2, 3, 1]))
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, [0.5, 0, -1, 1], atol=1e-6)
    assert np.abs(scores).max() <= 1


@pytest.mark.parametrize("size", [1e100, 1e-100, 1e300, 5e-324 * 2**10])
def test_pair_scores_do_not_depend_on_the_norms(size):
    embeddings = np.array([[size, 0.0], [size, size], [1.0, 1.0], [0.0, -size]])
    scores = pair_scores(embeddings, [0, 1, 0, 1, 2], [1, 2, 3, 3, 1])
    np.testing.assert_allclose(scores, [np.sqrt(0.5), 1, 0, -np.sqrt(0.5), 1], atol=1e-15)
    assert scores[1] == 1


def test_pair_scores_are_computed_in_float64(rng):
    # <(1, 1 + 1e-9), (1, -1)> = -1e-9, over the product of two lengths of sqrt(2); float32 has no 1 + 1e-9.
    assert pair_scores([[1, 1 + 1e-9], [1, -1]], [0], [1]) == pytest.approx(-5e-10, rel=1e-6)
    assert pair_scores([[3, 4], [2, 0]], [0], [1]) == pytest.approx(0.6)  # lists of integers too
    parallel = rng.normal(size=(2000, 7))
    for factor in (0.3, -0.3):
        scores = pair_scores(np.concatenate([parallel, factor * parallel]), np.arange(2000), np.arange(2000, 4000))
        assert np.abs(scores).max() == 1  # rounding would go beyond
        np.testing.assert_allclose(scores, np.sign(factor), atol=1e-15)


def test_fusions_at_known_vectors():
    image, mirror = np.array([[3.0, 0.0]]), np.array([[0.0, 1.0]])
    assert fuse(image, mirror, "none").tolist() == [[3, 0]]
    assert fuse(image, mirror, "sum").tolist() == [[3, 1]]  # raw: the longer embedding weighs more
    assert fuse(image, mirror, "concat").tolist() == [[3, 0, 0, 1]]
    with pytest.raises(ValueError, match="flip='mean'"):
        fuse(image, mirror, "mean")


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ([[1.0, 0.0], [np.nan, 1.0]], r"row 11 \(b\.jpg\) holds NaN"),
        ([[1.0, 0.0], [0.0, 0.0]], r"row 11 \(b\.jpg\) is all zeros"),
        ([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], r"shape \(n, 2\).*\(2, 3\)"),
        ([1.0, 2.0], "from row 10 on"),
    ],
)
def test_unusable_embeddings_are_named(embeddings, message):
    with pytest.raises(ValueError, match=message):
        check_embeddings(np.array(embeddings), ["a.jpg", "b.jpg"], width=2, first_row=10)


@pytest.mark.parametrize("folds", [[0, 1, np.nan, 1], [0.5, 1, 1, 0], ["a", "b", "a", "b"], [0, 1, None, 0]])
def test_folds_are_integers(folds):
    with pytest.raises(ValueError, match="Expected folds as integers"):
        verification([0.9, 0.6, 0.4, 0.1], [1, 1, 0, 0], folds=folds)


@pytest.mark.parametrize(
    "mated", [["1", "1", "0", "0"], [1, 1, 0, 2], [0.5, 1, 0, 0], [np.nan, 1, 0, 0], [1, 1, 0, None]]
)
def test_mated_is_yes_or_no(mated):
    with pytest.raises(ValueError, match="Expected mated as booleans or 0 and 1"):
        verification([0.9, 0.6, 0.4, 0.1], mated)


def test_rates_may_come_one_by_one():
    report = verification([0.9, 0.6, 0.4, 0.1], [1, 1, 0, 0], fars=iter((0.5,)), bootstrap=0)
    assert list(report.tar_at_far) == [0.5]


def test_folds_of_one_kind_are_said():
    scores, mated = [0.9, 0.6, 0.4, 0.1], [1, 1, 0, 0]
    apart = verification(scores, mated, folds=[0, 0, 1, 1], bootstrap=0, fars=(1,))
    assert apart.notes[0].startswith("2 of 2 folds have pairs of one kind only")
    assert verification(scores, mated, folds=[0, 1, 0, 1], bootstrap=0, fars=(1,)).notes == []


def test_details_cannot_say_what_the_report_says():
    with pytest.raises(ValueError, match="Received: folds"):
        verification([0.9, 0.1], [1, 0], details={"folds": 3})


@pytest.mark.parametrize("rate", [auc, roc, equal_error_rate])
def test_rates_of_one_kind_are_refused(rate):
    with pytest.raises(ValueError, match="Received: 2 mated, 0 nonmated"):
        rate(accept_counts([0.1, 0.2], [True, True]))


def test_the_best_cut_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"at least one comparison.* Received: counts of none"):
        best_cut(accept_counts([], []))


@pytest.mark.parametrize(
    ("mated", "nonmated", "far"),
    [([0.1], [0.2], 2.0), ([0.1], [0.2], -1), ([], [0.2], 0.1), ([0.1], [0.2], "a"), ([0.1], [0.2], None)],
)
def test_an_operating_point_of_nothing_is_refused(mated, nonmated, far):
    with pytest.raises(ValueError, match="Expected scores of both kinds and a rate"):
        operating_point(mated, nonmated, far)
    assert operating_point([0.8], [0.2], 0.0).tar == 1.0  # lists are as good as arrays


@pytest.mark.parametrize(
    ("left", "right"),
    [([0, 1], [2]), ([-1], [0]), ([3], [0]), ([0, 3], [0, 1]), ([-1, 2], [0, 1]), ([[0]], [[1]]), ([True], [False])],
)
def test_rows_of_pairs_are_rows(left, right):
    with pytest.raises(ValueError, match="row"):
        pair_scores(np.eye(3), left, right)
