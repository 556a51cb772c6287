"""Identification on circles: embeddings at known angles, ranks and rates counted by hand."""

import dataclasses

import numpy as np
import pytest

from keras_sphereface.evaluation import blocks
from keras_sphereface.evaluation.distractors import distractors
from keras_sphereface.evaluation.identification import identification
from keras_sphereface.evaluation.templates import template_embeddings


def at(*degrees):
    """Unit vectors in the plane; the cosine of two is that of the angle between them."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def without(result, *fields):
    return {key: value for key, value in dataclasses.asdict(result).items() if key not in fields}


def test_cmc_by_hand():
    # Distances of the probes from A 0, B 40, C 100 degrees: the first is nearest to its own identity, the second (C at 60)
    # has B at 20 and C at 40, the third (C at 5) has A at 5, B at 35, C at 95.
    result = identification(at(0, 40, 100), ["A", "B", "C"], at(10, 60, 5), ["A", "C", "C"], ranks=(1, 2, 3))
    assert result.rank_rates == {1: 1 / 3, 2: 2 / 3, 3: 1.0}
    assert (result.num_gallery, result.num_identities, result.num_mated, result.num_nonmated) == (3, 3, 3, 0)


def test_labels_that_are_never_equal_are_refused():
    for labels in (["1", "2"], [b"1", b"2"]):
        with pytest.raises(
            ValueError, match=r"of one kind.*gallery_labels of dtype int64, probe_labels of dtype [<|][US]1"
        ):
            identification(at(0, 40), [1, 2], at(0, 40), labels)
    same = identification(at(0, 40), np.int32([1, 2]), at(0, 40), np.uint8([1, 2]), ranks=(1,))
    assert (same.num_mated, same.rank_rates) == (2, {1: 1.0})
    texts = np.array(["2", "1"], object)  # as pandas has them
    assert identification(at(0, 40), ["1", "2"], at(0, 40), texts, ranks=(1,)).rank_rates == {1: 0.0}


def test_ranks_are_shown_once_each_and_ascending():
    result = identification(at(0), ["A"], at(0), ["A"], ranks=(10, np.int64(1), 5, 5))
    assert [(k, type(k)) for k in result.rank_rates] == [(1, int), (5, int), (10, int)]


def test_identity_with_several_entries_counts_once_and_by_its_best():
    # Probe at 0 of A. A's entries are at 80 and 20; B has two entries nearer than 20: they are one rival, not two.
    gallery, labels = at(80, 5, 10, 20, 50), ["A", "B", "B", "A", "C"]
    result = identification(gallery, labels, at(0), ["A"], ranks=(1, 2, 3))
    assert result.rank_rates == {1: 0.0, 2: 1.0, 3: 1.0}
    assert result.num_identities == 3


@pytest.mark.parametrize("labels", [["A", "B"], ["B", "A"]])
def test_a_tie_with_another_identity_is_no_hit_whatever_the_order(labels):
    result = identification(at(30, 30), labels, at(30), ["A"], ranks=(1, 2))
    assert result.rank_rates == {1: 0.0, 2: 1.0}


def test_scores_nearer_than_the_error_of_a_product_are_told_apart():
    """Cosines 3e-7 apart, five float32 numbers: the error of a float32 product of two rows may be 3.6e-7."""
    gallery = at(60 - 2e-5, 60)
    assert 0 < -np.diff(blocks.exact_scores(*map(blocks.unit_rows, (at(0, 0), gallery)), [0, 1], [0, 1]))[0] < 3.6e-7
    for label, rate in (("A", 1.0), ("B", 0.0)):
        assert identification(gallery, ["A", "B"], at(0), [label], ranks=(1,)).rank_rates == {1: rate}


def test_a_tie_within_the_own_identity_is_harmless():
    assert identification(at(30, 30), ["A", "A"], at(0), ["A"], ranks=(1,)).rank_rates == {1: 1.0}


def test_equal_everything_is_last_rank():
    result = identification(np.ones((20, 3)), np.arange(20), np.ones((5, 3)), np.arange(5), ranks=(1, 19, 20))
    assert result.rank_rates == {1: 0.0, 19: 0.0, 20: 1.0}


def test_open_set_by_hand():
    # Gallery A 0, B 90. Nonmated probes 30, 35, ..., 75 have their nearest entry at 30, 35, 40, 45, 40, 35, 30, 25, 20, 15.
    nonmated = np.arange(30, 80, 5)
    # Mated: A at 10 (hit at 10), A at 17 (hit at 17), A at 22 (hit at 22), A at 70 (B nearer: rank 2, own score at 70).
    probes = at(10, 17, 22, 70, *nonmated)
    labels = ["A"] * 4 + [f"stranger {i}" for i in range(10)]
    result = identification(at(0, 90), ["A", "B"], probes, labels, ranks=(1, 2), fpirs=(0.1, 0.2, 0.5, 0.01))
    # FPIR 0.1 allows 1 of 10: the threshold is just above the second nearest, 20 degrees; 0.2 just above 25; 0.5 above 35.
    assert result.thresholds[0.1] == pytest.approx(np.cos(np.deg2rad(20)), abs=1e-6)
    assert result.thresholds[0.2] == pytest.approx(np.cos(np.deg2rad(25)), abs=1e-6)
    assert result.tpir[0.1] == {1: 2 / 4, 2: 2 / 4}
    assert result.tpir[0.2] == {1: 3 / 4, 2: 3 / 4}
    assert (result.fpir[0.1], result.fpir[0.2]) == (0.1, 0.2)
    # FPIR 0.5 allows 5. Nearest first: 15, 20, 25, 30, 30, 35, 35, 40, 40, 45: the sixth is at 35, five pass.
    assert result.fpir[0.5] == 0.5
    assert result.thresholds[0.5] == pytest.approx(np.cos(np.deg2rad(35)), abs=1e-6)
    assert result.tpir[0.01] == {1: None, 2: None}
    assert result.thresholds[0.01] is None


def test_ties_among_nonmated_are_rejected_together():
    # Four strangers, three of them at the same place: FPIR 0.5 allows two, the tie of three cannot be cut, one or none pass.
    probes = at(0, 40, 40, 40, 10)
    result = identification(at(0), ["A"], probes, ["A", "s", "t", "u", "v"], ranks=(1,), fpirs=(0.5,))
    assert result.fpir == {0.5: 0.25}
    assert result.tpir == {0.5: {1: 1.0}}


def test_threshold_comes_from_nonmated_probes_only():
    strangers = at(40, 50, 60, 70)
    few = identification(at(0), ["A"], np.concatenate([at(10), strangers]), ["A", *"stuv"], fpirs=(0.25,))
    many = identification(at(0), ["A"], np.concatenate([at(10, 44, 48), strangers]), [*"AAA", *"stuv"], fpirs=(0.25,))
    assert few.thresholds == many.thresholds
    assert many.tpir[0.25][1] == 1.0  # 44 and 48 degrees are nearer than the first rejected stranger, at 50


def test_tpir_counts_probes_and_needs_rank_and_score():
    # The own identity scores above the threshold, but B scores higher: no hit at rank 1, a hit at rank 2.
    result = identification(at(0, 20), ["A", "B"], at(15, 80, 85), ["A", "s", "t"], ranks=(1, 2), fpirs=(0.5,))
    assert result.tpir == {0.5: {1: 0.0, 2: 1.0}}


def test_gallery_of_one():
    assert identification(at(0), ["A"], at(179), ["A"], ranks=(1,)).rank_rates == {1: 1.0}


def test_only_nonmated_probes():
    result = identification(at(0), ["A"], at(10, 20), ["s", "t"], fpirs=(0.5,))
    assert result.rank_rates == {1: None, 5: None, 10: None}
    assert result.tpir == {0.5: {1: None, 5: None, 10: None}}
    assert result.fpir == {0.5: 0.5}
    assert "-" in str(result)


@pytest.mark.parametrize("block_size", [1, 7, 64, 1000])
@pytest.mark.parametrize("grouped", [True, False])
def test_block_size_changes_nothing_and_brute_force_agrees(rng, block_size, grouped, monkeypatch):
    monkeypatch.setattr(blocks, "PROBE_ROWS", 13)
    labels = rng.integers(0, 40, 150)
    labels = np.sort(labels) if grouped else labels
    gallery = rng.normal(size=(150, 8)).astype("float32")
    gallery[10:20] = gallery[:10]  # exact ties between identities
    probes, probe_labels = rng.normal(size=(60, 8)), rng.integers(0, 60, 60)
    ranks = tuple(range(1, 41))
    result = identification(gallery, labels, probes, probe_labels, ranks, (0.1, 0.3), block_size)
    assert result == identification(gallery, labels, probes, probe_labels, ranks, (0.1, 0.3))
    scores = cosines(probes, gallery)
    names = np.unique(labels)
    best = np.stack([scores[:, labels == name].max(axis=1) for name in names], axis=1)
    own = {p: int(np.searchsorted(names, label)) for p, label in enumerate(probe_labels) if label in names}
    found = np.array([(best[p] >= best[p, i]).sum() for p, i in own.items()])
    assert result.rank_rates == {k: (found <= k).mean() for k in ranks}


def cosines(left, right):
    left, right = blocks.unit_rows(left), blocks.unit_rows(right)
    rows = np.indices((len(left), len(right))).reshape(2, -1)
    return blocks.exact_scores(left, right, *rows).reshape(len(left), len(right))


def test_order_of_gallery_and_length_of_embeddings_change_nothing(rng):
    gallery, labels = rng.normal(size=(50, 6)), rng.integers(0, 20, 50)
    probes, probe_labels = rng.normal(size=(30, 6)), rng.integers(0, 30, 30)
    order = rng.permutation(50)
    first = identification(gallery, labels, probes, probe_labels, fpirs=(0.5,))
    second = identification(gallery[order] * 4.0, labels[order], probes * 0.5, probe_labels, fpirs=(0.5,))
    assert without(first) == without(second)


def test_gallery_may_be_a_memory_map_or_an_hdf5_dataset(rng, tmp_path):
    import h5py

    gallery = rng.normal(size=(60, 5)).astype("float32")
    labels, probe_labels = rng.integers(0, 25, 60), rng.integers(0, 30, 20)
    probes = rng.normal(size=(20, 5))
    expected = identification(gallery, labels, probes, probe_labels)
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    assert identification(mapped, labels, probes, probe_labels, block_size=16) == expected
    with h5py.File(tmp_path / "gallery.h5", "w") as file:
        dataset = file.create_dataset("x", data=gallery)
        assert identification(dataset, labels, probes, probe_labels, block_size=16) == expected


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"gallery_embeddings.shape=\(1, 2\), probe_embeddings.shape=\(1, 3\)"):
        identification(np.ones((1, 2)), ["A"], np.ones((1, 3)), ["A"])
    with pytest.raises(ValueError, match=r"probe_embeddings.shape=\(0, 2\)"):
        identification(np.ones((1, 2)), ["A"], np.ones((0, 2)), [])
    with pytest.raises(ValueError, match=r"gallery_embeddings\[1\] holds NaN"):
        identification(np.array([[1, 0], [np.nan, 1]]), ["A", "B"], at(0), ["A"])
    with pytest.raises(ValueError, match=r"probe_embeddings\[0\] holds NaN or infinity"):
        identification(at(0), ["A"], np.array([[np.inf, 0]]), ["A"])
    with pytest.raises(ValueError, match=r"probe_embeddings\[0\]=0"):
        identification(at(0), ["A"], np.zeros((1, 2)), ["A"])
    with pytest.raises(ValueError, match=r"gallery_labels\.shape"):
        identification(at(0), ["A", "B"], at(0), ["A"])
    with pytest.raises(ValueError, match="fpirs="):
        identification(at(0), ["A"], at(0), ["A"], fpirs=(0.0,))
    with pytest.raises(ValueError, match="ranks="):
        identification(at(0), ["A"], at(0), ["A"], ranks=(0,))


def test_result_prints_saves_and_says_how(tmp_path):
    import json

    result = identification(at(0, 90), ["A", "B"], at(10, 45), ["A", "s"], ranks=(1,), fpirs=(0.5,), name="toy")
    assert "rank 1" in str(result)
    assert "100.00 %" in str(result)
    assert result.signature.startswith("toy|distance:cosine|")
    result.save(tmp_path / "r.json")
    saved = json.loads((tmp_path / "r.json").read_text())
    assert saved["rank_rates"] == {"1": 1.0}
    assert saved["tpir"] == {"0.5": {"1": None}}


def test_rates_by_limit_are_shown_from_high_to_low():
    # Four strangers: 0.5 allows two, whose threshold is just above 60 degrees; 0.01 allows none.
    probes, labels = at(10, 40, 50, 60, 70), ["A", *"stuv"]
    result = identification(at(0), ["A"], probes, labels, ranks=(1,), fpirs=(0.01, 0.5, 0.5))
    assert list(result.tpir) == [0.5, 0.01]
    assert result.rows()[2:] == [
        ("rank 1", "100.00 %"),
        ("TPIR at FPIR 0.5, rank 1", "100.00 %  at threshold 0.5000"),
        ("TPIR at FPIR 0.01", "too few nonmated probes"),
    ]
    assert list(identification(at(0), ["A"], probes, labels).tpir) == [0.1, 0.01, 0.001]


@pytest.mark.parametrize(
    "wrong",
    [{"ranks": value} for value in (1, [None], [np.inf], [1.5], [True], [0], "15", [])]
    + [{"fpirs": value} for value in (0.1, ["a"], [None], [np.nan], [True], [1.0], "0.1")],
    ids=str,
)
def test_ranks_and_limits_that_are_none_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"^`{name}` must be .*, e\.g\. \[.*\]\. Received: {name}=.*$"):
        identification(at(0), ["A"], at(0), ["A"], **wrong)


def test_ranks_and_limits_are_distinct_numbers_of_any_kind():
    ranks, fpirs = np.array([2, 1, 2]), iter((np.float32(0.25), 0.5, 0.25))
    result = identification(at(0, 90), ["A", "B"], at(10), ["A"], ranks=ranks, fpirs=fpirs)
    assert list(result.rank_rates) == [1, 2]
    assert {type(k) for k in result.rank_rates} == {int}
    assert list(result.tpir) == [0.5, 0.25]


def test_reading_in_groups_by_hand():
    order, names, index = blocks.grouped(["b", "b", "a", "c"])
    assert (order, names.tolist(), index.tolist()) == (None, ["a", "b", "c"], [1, 1, 0, 2])
    order, names, index = blocks.grouped(["b", "a", "b", "a"])
    assert (order.tolist(), names.tolist(), index.tolist()) == ([1, 3, 0, 2], ["a", "b"], [0, 0, 1, 1])


def test_top_k_is_exact_and_ties_keep_the_gallery_order(rng):
    gallery, probes = rng.normal(size=(300, 16)), rng.normal(size=(20, 16))
    gallery[250] = gallery[3]
    expected = np.argsort(-cosines(probes, gallery), axis=1, kind="stable")[:, :7]
    for block_size in (1, 9, 300):
        scores, rows = blocks.top_k(probes, gallery, 7, block_size)
        np.testing.assert_array_equal(rows, expected)
        assert (np.diff(scores, axis=1) <= 0).all()
    assert blocks.top_k(probes, gallery[:2], 7)[1].shape == (20, 2)
    for k in (0, -1, 1.5):
        with pytest.raises(ValueError, match=rf"`k` must be an integer of at least 1\. Received: k={k}"):
            blocks.top_k(probes, gallery, k)


def test_exact_scores_depend_on_the_two_rows_alone(rng):
    rows = blocks.unit_rows(rng.normal(size=(100, 33)))
    scores = blocks.exact_scores(rows, rows, np.arange(100), np.full(100, 5))
    alone = [blocks.exact_scores(rows[i : i + 1], rows[5:6], [0], [0])[0] for i in range(100)]
    np.testing.assert_array_equal(scores, alone)


def test_distractors_by_hand():
    # A at 0 and 20, B at 90 and 100. Trials: A both ways at 20 degrees, B both ways at 10 degrees.
    # Distractor 1 at 15 is nearer than the mate to A's first (15) and second (5), far from B. Distractor 2 at 95 beats B.
    result = distractors(at(0, 20, 90, 100), [*"AABB"], at(15, 95, 180), counts=(1, 2, 3), ranks=(1, 2))
    assert result.num_trials == 4
    assert result.rank_rates == {1: {1: 0.5, 2: 1.0}, 2: {1: 0.0, 2: 1.0}, 3: {1: 0.0, 2: 1.0}}


def test_distractors_ties_count_against_and_blocks_change_nothing(rng):
    assert distractors(at(0, 20), ["A", "A"], at(20), ranks=(1,)).rank_rates == {1: {1: 0.0}}
    rows, labels, others = rng.normal(size=(40, 6)), rng.integers(0, 10, 40), rng.normal(size=(100, 6))
    expected = distractors(
        rows, labels, others, counts=(1e1, np.float64(33), 100)
    )  # whole, if written as powers of ten are
    assert distractors(rows, labels, others, counts=(10, 33, 100), block_size=7) == expected
    rates = [expected.rank_rates[count][1] for count in (10, 33, 100)]
    assert rates == sorted(rates, reverse=True)


def test_distractors_are_taken_by_powers_of_ten_and_then_all():
    # A has three images, six ordered pairs of them; B and C have one, which is no probe.
    rows, labels = at(0, 1, 2, 45, 60), [*"AAABC"]
    result = distractors(rows, labels, np.tile(at(180), (1001, 1)))
    assert result.rank_rates == {count: {1: 1.0, 10: 1.0} for count in (10, 100, 1000, 1001)}
    assert (result.num_probes, result.num_trials) == (3, 6)


def test_distractors_refuse_what_makes_no_trial():
    with pytest.raises(ValueError, match="two embeddings"):
        distractors(at(0, 20), ["A", "B"], at(20))
    for counts in ((2,), 1, [None], [np.inf], [0.5], [True], "1"):
        with pytest.raises(
            ValueError, match=r"^`counts` must be numbers of distractors from 1 to 1, .*Received: counts="
        ):
            distractors(at(0, 20), ["A", "A"], at(20), counts=counts)


@pytest.mark.parametrize("block_size", [0, -1, 2.5, True])
def test_a_block_size_that_is_none_is_refused(block_size):
    calls = (
        lambda: identification(np.eye(2), [0, 1], np.eye(2), [0, 1], block_size=block_size),
        lambda: blocks.top_k(np.eye(2), np.eye(2), block_size=block_size),
        lambda: distractors(np.eye(2), [0, 0], np.eye(2), block_size=block_size),
        lambda: template_embeddings(np.eye(2), [0, 1], [0, 1], block_size=block_size),
    )
    for call in calls:
        with pytest.raises(ValueError, match="`block_size` must be an integer of at least 1"):
            call()


LARGE = np.array([2**60, 2**60 + 1, 2**60 + 2], np.uint64)


@pytest.mark.parametrize(
    ("gallery", "probes", "mated"),
    [
        (LARGE, LARGE.astype(np.int64), 3),
        (LARGE, LARGE.astype(np.int64) + 1, 2),
        ([1, 2, 3], [1.0, 2.5, 3.0], 2),
        (["a", "b", "c"], np.array(["a", None, "c"], object), 2),
        (np.array([7, 8, 9], object), np.array(["7", 8, None], object), 1),
        (["a", "b", "c"], ["a", "bbb", "c"], 2),
        (np.array(["a", 8, None], object), ["a", "bbb", "c"], 1),
    ],
)
def test_identities_are_equal_only_where_they_are(gallery, probes, mated):
    result = identification(np.eye(3), gallery, np.eye(3), probes, ranks=(1,))
    assert (result.num_mated, result.num_nonmated) == (mated, 3 - mated)


def test_details_cannot_take_the_place_of_what_was_done():
    with pytest.raises(ValueError, match="Received: distance"):
        identification(np.eye(2), [0, 1], np.eye(2), [0, 1], details={"distance": "euclidean"})
    with pytest.raises(ValueError, match="Received: ties"):
        distractors(np.eye(2), [0, 0], np.eye(2), details={"ties": "for"})


def test_counts_of_distractors_may_come_one_by_one():
    rates = distractors(np.eye(3)[:2], [0, 0], np.eye(3), counts=iter((1, 2)), ranks=(1,)).rank_rates
    assert list(rates) == [1, 2]
    with pytest.raises(ValueError, match=r"Received: counts=\(\)"):
        distractors(np.eye(2), [0, 0], np.eye(2), counts=())
