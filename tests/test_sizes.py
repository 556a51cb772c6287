"""Sets of unusual size: very many people, one person, nobody."""

import keras
import numpy as np
import pytest
from test_classifier import tiny_backbone

import keras_sphereface as ksf
from keras_sphereface import evaluation
from keras_sphereface.data.images import encode_png
from keras_sphereface.errors import FileFormatError

MANY, SIDE = 100_000, 16


@pytest.fixture(scope="module", params=["people", "pictures"])
def many(request, tmp_path_factory):
    """100,000 people with one picture each, or one person with 100,000."""
    path = tmp_path_factory.mktemp(request.param) / "train.rec"
    picture = encode_png(np.zeros((SIDE, SIDE, 3), np.uint8))
    labels = np.arange(MANY) if request.param == "people" else np.zeros(MANY, np.int64)
    ksf.data.write_recordio(path, (picture for _ in range(MANY)), labels, image_size=(SIDE, SIDE))
    return path, len(set(labels.tolist()))


def test_a_set_of_100_000_is_read_and_trained_on(many):
    path, people = many
    dataset = ksf.data.from_recordio(path)
    assert (dataset.num_images, dataset.num_classes) == (MANY, people)
    assert dataset.read(MANY - 1)[1] == people - 1
    records = np.concatenate([dataset.records_of_step(step, 10_000) for step in range(10)])
    np.testing.assert_array_equal(np.sort(records), np.arange(MANY))
    trainer = ksf.FaceClassifier(tiny_backbone(), ksf.heads.SphereFaceR(people))
    trainer.compile(keras.optimizers.SGD(0.001))
    history = trainer.fit(dataset.sequence(4, seed=1), steps_per_epoch=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert people > 1 or history["accuracy"] == [1.0]


def test_nothing_to_evaluate_is_said_so():
    images = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    nothing = ksf.data.PairSet.from_arrays(images[:0], [], [], [])
    with pytest.raises(ValueError, match="at least one"):
        ksf.evaluate(tiny_backbone(), nothing)
    with pytest.raises(ValueError, match="at least one comparison"):
        evaluation.verification([], [])


@pytest.mark.parametrize("empty", ["gallery", "probe"])
def test_an_empty_gallery_and_no_probe_are_said_so(empty):
    one, none = (np.eye(3)[:1], ["ann"]), (np.empty((0, 3)), [])
    gallery, probe = (none, one) if empty == "gallery" else (one, none)
    with pytest.raises(ValueError, match=f"{empty}_embeddings"):
        evaluation.identification(*gallery, *probe, progress=False)


def test_an_empty_folder_of_people_is_said_so(tmp_path):
    with pytest.raises(FileFormatError, match="one folder per identity"):
        ksf.data.from_folder(tmp_path)


def test_a_gallery_of_one():
    """The only person is always at rank 1; a stranger is turned away by the threshold alone."""
    gallery, probes = np.eye(3)[:1], np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0], [0.2, 0.0, 0.98]])
    result = evaluation.identification(
        gallery, ["ann"], probes, ["ann", "ann", "bob", "cy"], fpirs=(0.5,), progress=False
    )
    assert (result.num_identities, result.num_mated, result.num_nonmated) == (1, 2, 2)
    assert result.rank_rates[1] == 1.0
    assert result.rank_rates[10] == 1.0
    assert result.tpir[0.5][1] == 1.0


def test_a_recognizer_with_a_gallery_of_one_and_of_none():
    def colour(images):
        return images.astype(np.float32).mean(axis=(1, 2)) + 1e-3

    pictures = np.zeros((3, 112, 112, 3), np.uint8)
    pictures[0, ..., 0], pictures[1, ..., :2], pictures[2, ..., 2] = 200, (200, 40), 200
    ours = ksf.Recognizer(colour, detector=None, threshold=0.5)
    with pytest.raises(ValueError, match="is empty"):
        ours.identify(pictures[0])
    ours.enroll("ann", pictures[0])
    mated, stranger = ours.identify(pictures[1]), ours.identify(pictures[2])
    assert (mated.name, stranger.name) == ("ann", None)
    assert [len(found.candidates) for found in (mated, stranger)] == [1, 1]
    assert [found.num_people for found in (mated, stranger)] == [1, 1]


def test_a_hundred_thousand_people_are_searched():
    """One embedding a person: everybody is found as themselves, and as nobody else."""
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((MANY, 8)).astype(np.float32)
    labels = np.arange(MANY)
    some = rng.choice(MANY, 5, replace=False)
    result = evaluation.identification(embeddings, labels, embeddings[some], labels[some], progress=False)
    assert (result.num_identities, result.num_mated, result.num_nonmated) == (MANY, 5, 0)
    assert result.rank_rates[1] == 1.0
    assert set(result.tpir[1e-1].values()) == {None}, "without strangers there is no FPIR"
