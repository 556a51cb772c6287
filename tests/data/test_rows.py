"""A part of each batch is read by itself, and is what it is in the whole batch."""

import importlib.util

import numpy as np
import pytest

from keras_sphereface import data as faces

pytestmark = pytest.mark.core

SIDE, BATCH = 16, 8
has_tensorflow = importlib.util.find_spec("tensorflow") is not None
VIEWS = ["sequence", pytest.param("batches", marks=pytest.mark.skipif(not has_tensorflow, reason="needs TensorFlow"))]


def halves(size):
    """The rows of two processes, as functions of the number of images of a batch."""
    return slice(0, size // 2), slice(size // 2, size)


def from_files(folder, broken=()):
    ramp = np.linspace(0, 100, SIDE)[:, None, None] + np.linspace(0, 100, SIDE)[None, :, None]
    images = [faces.encode_jpeg((ramp * [1, 0.5, 0.2] + number).astype(np.uint8)) for number in range(22)]
    for number in broken:
        images[number] = images[number][:300]
    return faces.from_recordio(faces.write_recordio(folder / "a.rec", images, np.arange(22)))


def first_batches(data, count):
    """The first batches of either view, as arrays."""
    if hasattr(data, "take"):
        return [(images.numpy(), labels.numpy()) for images, labels in data.take(count)]
    return [data[step] for step in range(count)]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("augment", [None, "flip", "strong"])
@pytest.mark.parametrize("broken", [(), (3, 11)], ids=["sound", "broken"])
def test_the_parts_make_up_the_whole_batch(tmp_path, view, augment, broken):
    dataset = from_files(tmp_path, broken)
    arguments = {"augment": augment, "seed": 5, "drop_remainder": False}  # 8, 8 and 6 images, then the next epoch
    whole = first_batches(getattr(dataset, view)(BATCH, **arguments), 5)
    parts = [
        first_batches(getattr(dataset, view)(BATCH, **arguments, rows=lambda size, part=part: halves(size)[part]), 5)
        for part in range(2)
    ]
    assert [len(labels) for _, labels in parts[1]] == [4, 4, 3, 4, 4]
    for expected, *both in zip(whole, *parts):
        for array, pair in zip(expected, zip(*both)):
            np.testing.assert_array_equal(np.concatenate(pair), array)


@pytest.mark.parametrize("view", VIEWS)
def test_only_the_rows_are_read(tmp_path, view, monkeypatch):
    dataset = from_files(tmp_path)
    read, read_many = [], dataset.source.read_many
    monkeypatch.setattr(dataset.source, "read_many", lambda records: read.append(records) or read_many(records))
    monkeypatch.setattr(dataset.source, "read", None)
    data = getattr(dataset, view)(BATCH, rows=lambda size: slice(2, 5), repeat=False)
    if view == "batches":
        assert data.element_spec[0].shape == (3, SIDE, SIDE, 3)
    assert [len(labels) for _, labels in first_batches(data, 2)] == [3, 3]
    expected = [dataset.records_of_step(step, BATCH)[2:5].tolist() for step in range(2)]
    assert sorted(records.tolist() for records in read) == sorted(expected)


@pytest.mark.parametrize("rows", [slice(0, 0), slice(0, 8, 2), slice(8, 12), slice(None, None, -1)])
def test_rows_that_are_none_or_not_consecutive_are_refused(rows):
    with pytest.raises(ValueError, match=r"at least one\. Received: rows\(8\)=slice"):
        faces.synthetic(4, 3, image_size=SIDE).sequence(BATCH, rows=lambda size: rows)
