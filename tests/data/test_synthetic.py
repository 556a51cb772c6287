import numpy as np
import pytest

from keras_sphereface import data as faces
from keras_sphereface.data import synthetic_faces
from keras_sphereface.data.face_renderer import render


def test_a_picture_is_a_function_of_seed_person_and_number():
    together = render(3, [5, 900_000, 5, 7], [0, 2, 1, 2], size=48)
    np.testing.assert_array_equal(render(3, [5], [1], size=48)[0], together[2])
    np.testing.assert_array_equal(render(3, [900_000], [2], size=48)[0], together[1])
    assert (render(4, [5], [1], size=48)[0] != together[2]).mean() > 0.5
    assert together.shape == (4, 48, 48, 3)
    assert together.dtype == np.uint8


def test_people_differ_more_than_pictures_of_one_once_nuisance_is_averaged_out():
    people = np.repeat(np.arange(6), 80)
    images = render(0, people, np.tile(np.arange(80), 6), size=32).astype(float).reshape(6, 2, 40, -1)
    means = images.mean(axis=2)
    means -= means.mean(axis=(0, 1))
    halves = means / np.linalg.norm(means, axis=-1, keepdims=True)
    similarity = halves[:, 0] @ halves[:, 1].T
    np.testing.assert_array_equal(similarity.argmax(axis=1), np.arange(6))


def test_data_set():
    dataset = faces.synthetic(4, 3, seed=1, image_size=32)
    assert (dataset.num_images, dataset.num_classes, dataset.image_size) == (12, 4, (32, 32))
    image, label = dataset.read(7)
    assert label == 2
    np.testing.assert_array_equal(image, render(1, [2], [1], 32)[0])
    later = faces.synthetic(2, 3, seed=1, image_size=32, first_identity=2)
    np.testing.assert_array_equal(later.read(1)[0], image)


def test_views_agree_and_start_anywhere():
    pytest.importorskip("tensorflow")
    dataset = faces.synthetic(4, 3, image_size=32)
    batches = [
        (np.asarray(images), np.asarray(labels))
        for images, labels in dataset.batches(5, seed=2, augment="flip").take(4)
    ]
    fresh = faces.synthetic(4, 3, image_size=32).sequence(5, seed=2, augment="flip", start_step=3)
    np.testing.assert_array_equal(fresh[0][0], batches[3][0])
    np.testing.assert_array_equal(fresh[0][1], batches[3][1])


def test_a_large_set_is_not_kept_in_memory(monkeypatch):
    monkeypatch.setattr(synthetic_faces, "CACHE_BYTES", 1000)
    dataset = faces.synthetic(10**6, 50, image_size=32)
    assert dataset.source._cache is None
    image, label = dataset.read(49_999_999)
    assert label == 999_999
    np.testing.assert_array_equal(image, render(0, [999_999], [49], 32)[0])


def test_pairs_of_unseen_people():
    pairs = faces.synthetic_pairs(
        20, first_identity=300, images_per_identity=3, num_pairs=200, image_size=32, num_folds=5, progress=False
    )
    assert (len(pairs), pairs.num_images, int(pairs.mated.sum())) == (200, 60, 100)
    left, right = pairs.identities[pairs.left], pairs.identities[pairs.right]
    np.testing.assert_array_equal(left == right, pairs.mated)
    assert (pairs.left != pairs.right).all()
    assert (pairs.identities.min(), pairs.identities.max()) == (300, 319)
    people_of = [set(left[pairs.folds == fold]) | set(right[pairs.folds == fold]) for fold in range(5)]
    assert all(not one & other for i, one in enumerate(people_of) for other in people_of[:i])
    np.testing.assert_array_equal(np.bincount(pairs.folds), [40] * 5)
    np.testing.assert_array_equal(pairs.image(4), render(0, [301], [1], 32)[0])


def test_only_pictures_that_pairs_show_are_made(monkeypatch):
    made = []

    def counted(seed, people, numbers, size):
        made.extend(zip(people.tolist(), numbers.tolist()))
        return render(seed, people, numbers, size)

    monkeypatch.setattr(synthetic_faces, "render", counted)
    pairs = faces.synthetic_pairs(20, 300, images_per_identity=2, num_pairs=20, image_size=32, progress=False)
    # Each fold's two people: both pictures of one, who is the mated pair, and of the other one the nonmated pair's.
    assert pairs.num_images == len(made) == len(set(made)) == 30
    assert set(pairs.left) | set(pairs.right) == set(range(30))
    for index, (name, person) in enumerate(zip(pairs.names, pairs.identities)):
        assert 300 + int(name) // 2 == person
        np.testing.assert_array_equal(pairs.image(index), render(0, [person], [int(name) % 2], 32)[0])


def test_pairs_stay_as_they_were_drawn():
    """Reports that were made name these pairs: the numbers of their pictures."""
    pairs = faces.synthetic_pairs(4, images_per_identity=9, num_pairs=8, image_size=32, num_folds=2, progress=False)
    names = np.array(pairs.names).astype(int)
    assert names[pairs.left].tolist() == [3, 17, 11, 7, 32, 20, 23, 28]
    assert names[pairs.right].tolist() == [8, 9, 7, 10, 28, 19, 35, 22]


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_identities": 0},
        {"images_per_identity": 1.5},
        {"image_size": 8},
        {"image_size": 9999},
        {"seed": -1},
        {"first_identity": -1},
    ],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}.*Received"):
        faces.synthetic(**{"num_identities": 2, "images_per_identity": 2, **arguments})


def test_pairs_that_cannot_be_split_are_refused():
    with pytest.raises(ValueError, match="multiple of 20"):
        faces.synthetic_pairs(num_pairs=3001)
    with pytest.raises(ValueError, match="num_identities"):
        faces.synthetic_pairs(num_identities=10)


@pytest.mark.parametrize("wrong", [{"seed": 2**64}, {"first_identity": 2**63 - 1}])
def test_numbers_that_64_bits_cannot_hold_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must be below .* Received: "):
        faces.synthetic(2, 2, **wrong)
