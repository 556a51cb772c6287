"""IJB from features of images: a protocol small enough to work out by hand."""

import json

import numpy as np
import pytest

from keras_sphereface.data.ijb import IJBMeta, TemplateList
from keras_sphereface.evaluation.ijb import ijb, template_pair_scores


def ints(*values):
    return np.array(values, np.int32)


def at(*degrees):
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype("float32")


def small_meta():
    """One image per template: 1 (Ann) at 0, 2 (Bob) at 90, 3 (Ann) at 10, 4 (Bob) at 40, 6 (nobody) at 50 degrees."""
    return IJBMeta(
        name="ijbc",
        image_names=[f"{i}.jpg" for i in range(5)],
        landmarks=np.zeros((5, 5, 2), np.float32),
        detector_scores=np.ones(5, np.float32),
        template_ids=ints(1, 2, 3, 4, 6),
        media_ids=ints(1, 2, 3, 4, 5),
        pair_left=ints(1, 2, 1, 2, 1, 3),
        pair_right=ints(3, 4, 4, 3, 6, 6),
        pair_mated=np.array([1, 1, 0, 0, 0, 0], bool),
        galleries=(TemplateList("G1", ints(1), ints(10)), TemplateList("G2", ints(2), ints(20))),
        probes=TemplateList("probes", ints(3, 4, 6), ints(10, 20, 60)),
    )


FEATURES = at(0, 90, 10, 40, 50)


def test_verification_by_hand():
    # Mated pairs are 10 and 50 degrees apart, nonmated ones 40, 80, 50, 40. At FAR 1/2 both at 40 pass, and the mated pair
    # at 10; at FAR 1/4 at most one of the nonmated does, and the same mated pair.
    report = ijb(small_meta(), FEATURES, fars=(0.5, 0.25, 0.1), fpirs=(0.5,))
    points = report.verification.tar_at_far
    assert (points[0.5].tar, points[0.5].far) == (0.5, 0.5)
    assert points[0.25].tar == 0.5
    assert points[0.1] is None
    assert report.verification.num_pairs == 6


def test_galleries_are_searched_apart_and_averaged():
    # FPIR 1/2 allows one stranger of two.
    # G1 (Ann at 0): mated probe 3 at 10; strangers 4 at 40 and 6 at 50: the threshold is above 50 degrees.
    # G2 (Bob at 90): mated probe 4 at 50; strangers 3 at 80 and 6 at 40: the threshold is above 80 degrees.
    report = ijb(small_meta(), FEATURES, fpirs=(0.5, 0.1), ranks=(1,))
    assert report.identification["G1"].rank_rates == {1: 1.0}
    assert report.identification["G1"].thresholds[0.5] == pytest.approx(np.cos(np.deg2rad(50)), abs=1e-6)
    assert report.identification["G2"].thresholds[0.5] == pytest.approx(np.cos(np.deg2rad(80)), abs=1e-6)
    assert report.rank_rates == {1: 1.0}
    assert report.tpir == {0.5: {1: 1.0}, 0.1: {1: None}}
    assert report.identification["G1"].num_nonmated == 2


def test_mean_of_galleries_that_differ():
    meta = small_meta()
    features = at(0, 90, 60, 40, 50)  # Ann's probe is now farther from Ann (60) than the strangers: TPIR 0 in G1
    report = ijb(meta, features, fpirs=(0.5,), ranks=(1,))
    assert report.identification["G1"].tpir == {0.5: {1: 0.0}}
    assert report.tpir[0.5][1] == 0.5 * report.identification["G2"].tpir[0.5][1]
    assert "TPIR at FPIR 0.5" in str(report)


def test_a_rate_that_a_gallery_cannot_tell_is_not_averaged():
    report = ijb(small_meta(), FEATURES, fars=(0.5,), fpirs=(0.5, 0.1), ranks=(1,))
    assert report.rows()[-1] == ("1:N TPIR at FPIR 0.1, rank 1", "too few probes")


def test_published_numbers_weigh_by_detector_score_and_norm():
    """Template 1 of an image of length 3 at 0 degrees and one of length 8 at 90, sure by 1 and 1/4; template 2 is at 0."""
    meta = IJBMeta(
        name="ijbb",
        image_names=["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
        landmarks=np.zeros((4, 5, 2), np.float32),
        detector_scores=np.array([1, 0.25, 1, 1], np.float32),
        template_ids=ints(1, 1, 2, 3),
        media_ids=ints(1, 2, 3, 4),
        pair_left=ints(1, 1),
        pair_right=ints(2, 3),
        pair_mated=np.array([1, 0], bool),
        galleries=(),
        probes=None,
    )
    features = np.array([[3, 0], [0, 8], [5, 0], [0, -1]], np.float32)
    for options, sums in (
        ({}, (3, 8 / 4)),
        ({"detector_score": False}, (3, 8)),
        ({"norm_weighting": False}, (1, 1 / 4)),
        ({"detector_score": False, "norm_weighting": False}, (1, 1)),
    ):
        report = ijb(meta, features, **options).verification
        assert report.scores == pytest.approx(np.array([1, -1]) * sums / np.hypot(*sums), abs=1e-6), options
    assert list(report.tar_at_far) == [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
    assert (report.intervals, report.hardest) == ({}, [])


def test_options_reach_the_templates_and_the_signature():
    report = ijb(small_meta(), FEATURES, FEATURES, detector_score=False, norm_weighting=False, details={"model": "toy"})
    assert report.signature.startswith(
        "ijbc|model:toy|flip:sum|detector-score:off|norm:off|media:mean-then-sum|distance:cosine"
    )
    assert "galleries:mean-of-G1-G2" in report.signature
    assert "flip:none" in ijb(small_meta(), FEATURES).signature


def test_report_prints_and_saves(tmp_path):
    report = ijb(small_meta(), FEATURES, fars=(0.5,), fpirs=(0.5,), ranks=(1,))
    text = str(report)
    assert "TAR at FAR 5e-01" in text
    assert "100.00 %  (G1 100.00 %, G2 100.00 %)" in text
    assert "no accuracy" not in text  # nor could there be one
    report.save(tmp_path / "r.json")
    saved = json.loads((tmp_path / "r.json").read_text())
    assert saved["verification"]["tar_at_far"]["0.5"]["tar"] == 0.5
    assert saved["identification"]["G2"]["rank_rates"] == {"1": 1.0}
    assert saved["signature"] == report.signature


def test_parts_can_be_missing():
    import dataclasses

    only_pairs = dataclasses.replace(small_meta(), galleries=(), probes=None)
    report = ijb(only_pairs, FEATURES, fars=(0.5,))
    assert (report.rank_rates, report.tpir, report.identification) == ({}, {}, {})
    no_pairs = dataclasses.replace(small_meta(), pair_left=ints(), pair_right=ints(), pair_mated=np.zeros(0, bool))
    report = ijb(no_pairs, FEATURES, fpirs=(0.5,), ranks=(1,))
    assert report.verification is None
    assert report.rank_rates == {1: 1.0}
    assert "rank 1" in str(report)


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="4 features"):
        ijb(small_meta(), FEATURES[:4])
    with pytest.raises(ValueError, match=r"features\[2\] holds NaN"):
        ijb(small_meta(), np.where(np.arange(5)[:, None] == 2, np.nan, FEATURES))


def test_pair_scores_depend_on_the_pair_alone(rng):
    templates = rng.normal(size=(30, 33)).astype("float32")
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    ids = np.arange(0, 90, 3)
    left, right = rng.integers(0, 30, (2, 2000)) * 3
    scores = template_pair_scores(templates, ids, left, right)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, np.sum(templates[left // 3] * templates[right // 3], axis=1), atol=1e-5)
    table = {}
    for pair, score in zip(zip(left.tolist(), right.tolist()), scores.tolist()):
        assert table.setdefault(tuple(sorted(pair)), score) == score
    assert np.abs(scores).max() <= 1  # a template with itself, in float32
    assert len(table) < len(scores)
    with pytest.raises(ValueError, match="template 4"):
        template_pair_scores(templates, ids, [4], [0])


@pytest.mark.parametrize(
    "wrong", [{"ranks": (0,)}, {"ranks": ()}, {"fpirs": (1.5,)}, {"fars": (2,)}, {"details": {"distance": "mine"}}]
)
def test_arguments_are_checked_before_the_features(wrong):
    with pytest.raises(ValueError, match=r"Received: (ranks=|fpirs=|fars=|distance)"):
        ijb(small_meta(), np.full_like(FEATURES, np.nan), **wrong)
