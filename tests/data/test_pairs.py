import numpy as np
import pytest

from keras_sphereface.data.pairs import PairSet, contiguous_folds, number_names


def _images(count=5):
    return np.arange(count * 2 * 3 * 3, dtype=np.uint8).reshape(count, 2, 3, 3)


def test_images_come_in_order_whatever_the_batch_size():
    pairs = PairSet.from_arrays(_images(), [0, 4], [1, 2], [1, 0])
    for batch_size in (1, 2, 5, 64):
        blocks = list(pairs.images(batch_size))
        assert all(len(block) <= batch_size for block in blocks)
        np.testing.assert_array_equal(np.concatenate(blocks), _images())


def test_images_are_decoded_one_block_at_a_time():
    loaded = []

    def load(index):
        loaded.append(index)
        return _images()[index]

    blocks = PairSet(load, 5, [0], [1], [True]).images(2)
    next(blocks)
    assert loaded == [0, 1]


def test_pair_identities():
    pairs = PairSet.from_arrays(_images(3), [0, 0], [1, 2], [1, 0], identities=["Ann", "Ann", "Bob"])
    left, right = pairs.pair_identities()
    assert (left.tolist(), right.tolist()) == (["Ann", "Ann"], ["Ann", "Bob"])
    assert PairSet.from_arrays(_images(3), [0], [1], [1]).pair_identities() is None


def test_images_of_two_sizes_are_refused_by_name():
    sizes = [(2, 2, 3), (2, 3, 3)]
    pairs = PairSet(
        lambda index: np.zeros(sizes[index], np.uint8), 2, [0], [1], [1], names=["a.jpg", "b.jpg"], name="mine"
    )
    with pytest.raises(ValueError, match=r"'b\.jpg' of 'mine' has shape \(2, 3, 3\)"):
        list(pairs.images())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"left": [0, 5]}, r"left\[1\]=5"),
        ({"right": [-1, 0]}, r"right\[0\]=-1"),
        ({"right": [1]}, "2 right"),
        ({"left": [0.5, 1]}, "image indices"),
        ({"mated": [1]}, "2 mated"),
        ({"folds": [1, 2, 3]}, "2 folds"),
        ({"names": ["a"]}, "5 names"),
        ({"identities": ["a"]}, "5 identities"),
        ({"images": np.zeros((5, 2, 2))}, "uint8"),
    ],
)
def test_disagreeing_parts_are_refused(changes, message):
    parts = {"images": _images(), "left": [0, 1], "right": [2, 3], "mated": [1, 0], **changes}
    with pytest.raises(ValueError, match=message):
        PairSet.from_arrays(**parts)


def test_contiguous_folds_give_the_rest_to_the_first():
    assert contiguous_folds(12, 5).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4]
    assert contiguous_folds(3).tolist() == [0, 1, 2]
    assert contiguous_folds(0).tolist() == []


def test_sets_of_one_name_are_numbered():
    sets = [PairSet.from_arrays(_images(), [0], [1], [1], name=name) for name in ("lfw", "cfp", "lfw")]
    assert [one.name for one in number_names(sets)] == ["lfw_1", "cfp", "lfw_2"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"mated": [-1, 1]},
        {"mated": ["False", "0"]},
        {"mated": [0.5, np.nan]},
        {"mated": [[True], [False]]},
        {"folds": [0.5, 1.0]},
        {"folds": [np.nan, 1]},
    ],
)
def test_flags_and_folds_are_not_guessed(wrong):
    with pytest.raises(ValueError, match=f"Expected {next(iter(wrong))} as"):
        PairSet.from_arrays(_images(), [0, 1], [1, 2], **{"mated": [True, False], **wrong})


def test_a_numbered_name_takes_no_other_sets_place():
    sets = [PairSet.from_arrays(_images(), [0], [1], [True], name=name) for name in ("lfw", "lfw", "lfw_1")]
    assert [one.name for one in number_names(sets)] == ["lfw_2", "lfw_3", "lfw_1"]
