"""Pairs drawn of a folder of people."""

import collections

import numpy as np
import pytest

from keras_sphereface.data import encode_png, folder_pairs, read_bin, write_bin
from keras_sphereface.errors import FileFormatError

SIZES = {"Ann": 5, "Bob": 2, "Cid": 1, "Dan": 9, "Eve": 3, "Fay": 2, "Gus": 4, "Hal": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "people"
    for person, (name, count) in enumerate(SIZES.items()):
        (path / name).mkdir(parents=True)
        for number in range(count):
            (path / name / f"{number}.png").write_bytes(encode_png(np.full((4, 4, 3), 10 * person + number, np.uint8)))
    return path


def test_pairs_are_what_they_say_once_each_in_folds_that_share_nobody(folder):
    pairs = folder_pairs(folder, num_pairs=40, num_folds=2)
    first, second = pairs.pair_identities()
    np.testing.assert_array_equal(first == second, pairs.mated)
    sides = {tuple(sorted(pair)) for pair in zip(pairs.left.tolist(), pairs.right.tolist())}
    assert len(sides) == len(pairs) == 40
    assert all(left != right for left, right in sides)
    for fold in range(2):
        assert pairs.mated[pairs.folds == fold].sum() == 10 == (~pairs.mated[pairs.folds == fold]).sum()
    assert pairs.mated.tolist() == [True, False] * 20, "any part of a .bin file, which has no folds, has both kinds"
    people = [set(first[pairs.folds == fold]) | set(second[pairs.folds == fold]) for fold in range(2)]
    assert not people[0] & people[1]
    assert (pairs.name, pairs.protocol) == ("people", "drawn, seed 0")
    for index, name in enumerate(pairs.names):
        person, number = name.split("/")
        assert pairs.image(index)[0, 0, 0] == 10 * list(SIZES).index(person) + int(number[0])


def test_everybody_gives_about_as_many_mated_pairs(folder):
    pairs = folder_pairs(folder, num_pairs=40, num_folds=1)
    counts = collections.Counter(pairs.pair_identities()[0][pairs.mated].tolist())
    assert counts["Bob"] == counts["Fay"] == 1, "all that there are"
    assert counts["Eve"] == 3
    assert sorted(counts[name] for name in ("Ann", "Dan", "Gus")) == [5, 5, 5]


def test_no_more_than_there_are(folder):
    pairs = folder_pairs(folder, num_folds=1)
    assert pairs.mated.sum() == 10 + 1 + 36 + 3 + 1 + 6 == (~pairs.mated).sum()


def test_a_seed_gives_the_same_pairs_and_another_others(folder, tmp_path):
    one, again, other = (folder_pairs(folder, 20, 2, seed) for seed in (1, 1, 2))
    assert (one.names, one.left.tolist()) == (again.names, again.left.tolist())
    assert (one.names, one.left.tolist()) != (other.names, other.left.tolist())
    write_bin(tmp_path / "new" / "own.bin", one)
    read = read_bin(tmp_path / "new" / "own.bin")
    assert read.mated.tolist() == one.mated.tolist()
    np.testing.assert_array_equal(read.image(read.left[3]), one.image(one.left[3]))


def test_too_few_people_and_wrong_numbers_are_told(folder):
    with pytest.raises(
        FileFormatError, match=r"has 8 people, 6 of them with two images; 5 folds need 10 and 5\. Take fewer"
    ):
        folder_pairs(folder, num_folds=5)
    with pytest.raises(ValueError, match="`num_pairs` must be an integer of at least 4"):
        folder_pairs(folder, num_pairs=3, num_folds=2)
    with pytest.raises(FileNotFoundError):
        folder_pairs(folder / "absent")
