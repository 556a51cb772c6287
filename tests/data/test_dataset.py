import logging
import os

import numpy as np
import pytest

from keras_sphereface import data as faces
from keras_sphereface.data.order import EpochOrder
from keras_sphereface.errors import FileFormatError

tf = pytest.importorskip("tensorflow")

SIDE = 16


def pictures(count):
    """JPEG bytes of smooth pictures, each its own."""
    ramp = np.linspace(0, 100, SIDE)
    plane = ramp[:, None, None] + ramp[None, :, None]
    return [faces.encode_jpeg((plane * [1, 0.5, 0.2] + number).astype(np.uint8)) for number in range(count)]


@pytest.fixture
def recordio(tmp_path):
    return faces.write_recordio(tmp_path / "set" / "train.rec", pictures(23), np.arange(23) // 3)


def arrays(batches):
    return [(np.asarray(images), np.asarray(labels)) for images, labels in batches]


def assert_same(batches, others):
    assert len(batches) == len(others)
    for (images, labels), (other_images, other_labels) in zip(batches, others):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def test_an_epoch_has_every_image_once_and_the_next_another_order():
    order = EpochOrder(100, seed=1)
    first, second = order.records(0, 100), order.records(100, 100)
    np.testing.assert_array_equal(np.sort(first), np.arange(100))
    np.testing.assert_array_equal(np.sort(second), np.arange(100))
    assert (first != second).sum() > 80
    assert (EpochOrder(100, seed=2).records(0, 100) != first).sum() > 80
    np.testing.assert_array_equal(order.records(95, 10), np.concatenate([first[95:], second[:5]]))
    np.testing.assert_array_equal(EpochOrder(3, 0).records(4, 7), EpochOrder(3, 0).records(0, 11)[4:])


@pytest.mark.parametrize("seed", [-1, 1.5, None, True])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match="Received: seed="):
        EpochOrder(3, seed)


@pytest.mark.parametrize("augment", [None, "strong"])
def test_a_batch_depends_on_seed_and_step_alone(recordio, augment):
    dataset = faces.from_recordio(recordio)
    one = arrays(dataset.batches(4, seed=7, augment=augment, workers=1).take(9))
    assert one[0][0].shape == (4, SIDE, SIDE, 3)
    assert (one[0][0].dtype, one[0][1].dtype) == (np.uint8, np.int32)
    assert_same(arrays(dataset.batches(4, seed=7, augment=augment, workers=5).take(9)), one)
    assert_same(
        arrays(faces.from_recordio(recordio).batches(4, seed=7, augment=augment, start_step=6).take(3)), one[6:]
    )
    other = arrays(dataset.batches(4, seed=8, augment=augment).take(9))
    assert any((labels != expected).any() for (_, labels), (_, expected) in zip(other, one))


@pytest.mark.parametrize("augment", [None, "flip", "strong"])
def test_the_sequence_equals_the_tensorflow_view(recordio, augment):
    dataset = faces.from_recordio(recordio)
    expected = arrays(dataset.batches(5, seed=3, augment=augment).take(8))
    sequence = dataset.sequence(5, seed=3, augment=augment)
    later = dataset.sequence(5, seed=3, augment=augment, start_step=6)
    for step in (0, 1, 7, 2):  # in any order
        images, labels = sequence[step]
        np.testing.assert_array_equal(labels, expected[step][1])
        assert np.abs(images.astype(int) - expected[step][0]).max() <= 1
    np.testing.assert_array_equal(later[1][0], sequence[7][0])
    assert sequence.num_batches is None
    assert len(sequence) == dataset.steps_per_epoch(5) == 4


def test_the_order_of_the_images_does_not_depend_on_the_batch_size(recordio):
    dataset = faces.from_recordio(recordio)
    small = np.concatenate([images for images, _ in arrays(dataset.batches(3, augment="strong").take(8))])
    large = np.concatenate([images for images, _ in arrays(dataset.batches(8, augment="strong").take(3))])
    np.testing.assert_array_equal(small, large)
    np.testing.assert_array_equal(
        np.concatenate([dataset.records_of_step(step, 3) for step in range(8)]),
        np.concatenate([dataset.records_of_step(step, 8) for step in range(3)]),
    )


def test_records_of_a_step_are_what_its_batch_holds(recordio):
    dataset = faces.from_recordio(recordio)
    images, labels = arrays(dataset.batches(6, seed=2, start_step=5).take(1))[0]
    for slot, record in enumerate(dataset.records_of_step(5, 6, seed=2)):
        image, label = dataset.read(record)
        np.testing.assert_array_equal(images[slot], image)
        assert labels[slot] == label


def test_finite_passes(recordio):
    dataset = faces.from_recordio(recordio)
    endless = arrays(dataset.batches(5, seed=4).take(8))
    finite = dataset.batches(5, seed=4, repeat=False)
    assert int(finite.cardinality()) == 4
    assert int(dataset.batches(5).cardinality()) == tf.data.INFINITE_CARDINALITY
    assert_same(arrays(finite), endless[:4])
    assert_same(arrays(finite), endless[4:])  # the second pass is the second epoch
    whole = arrays(dataset.batches(5, seed=4, repeat=False, drop_remainder=False))
    assert [len(labels) for _, labels in whole] == [5, 5, 5, 5, 3]
    assert sorted(np.concatenate([labels for _, labels in whole])) == sorted(np.arange(23) // 3)
    sequence = dataset.sequence(5, seed=4, repeat=False)
    assert sequence.num_batches == 4
    np.testing.assert_array_equal(sequence[3][1], endless[3][1])
    with pytest.raises(IndexError, match="0 to 3"):
        sequence[4]
    sequence.on_epoch_end()
    np.testing.assert_array_equal(sequence[0][1], endless[4][1])


def test_unshuffled_passes_come_in_order(recordio):
    batches = faces.from_recordio(recordio).batches(23, shuffle=False).take(1)
    np.testing.assert_array_equal(arrays(batches)[0][1], np.arange(23) // 3)


def test_a_batch_larger_than_the_set_goes_round(recordio):
    labels = arrays(faces.from_recordio(recordio).batches(46).take(1))[0][1]
    np.testing.assert_array_equal(np.sort(labels), np.repeat(np.arange(23) // 3, 2))


@pytest.mark.parametrize(
    "arguments", [{"batch_size": 0}, {"batch_size": 2.5}, {"start_step": -1}, {"seed": -1}, {"augment": "x"}]
)
def test_bad_arguments_are_refused(recordio, arguments):
    dataset = faces.from_recordio(recordio)
    for view in (dataset.batches, dataset.sequence):
        with pytest.raises(ValueError, match="Received: "):
            view(**{"batch_size": 2, **arguments})


@pytest.mark.parametrize(
    "wrong",
    [{"image_size": 112}, {"image_size": (0, 112)}, *({"num_classes": number} for number in (-1, 0, 4.5, "4", 2**31))],
)
def test_a_size_or_class_count_that_cannot_be_is_refused(recordio, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}`? must be .* Received: "):
        faces.from_recordio(recordio, **wrong)


def test_one_fit_with_each_view(recordio):
    import keras

    dataset = faces.from_recordio(recordio)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(dataset.num_classes)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for view in (dataset.batches(8), dataset.sequence(8)):
        history = model.fit(view, steps_per_epoch=2, epochs=3, verbose=0)
        assert np.isfinite(history.history["loss"]).all()
        assert len(history.history["loss"]) == 3
    assert len(model.fit(dataset.sequence(8, repeat=False), epochs=2, shuffle=False, verbose=0).history["loss"]) == 2


@pytest.mark.parametrize("wrong", [{"max_bad": "3"}, {"max_bad": -1}, {"max_bad": 1.5}, {"min_images": "2"}])
def test_a_count_that_is_no_whole_number_is_refused(tmp_path, wrong):
    write_folder(tmp_path)
    with pytest.raises(ValueError, match=r"must be an integer of at least 0\. Received: "):
        faces.from_folder(tmp_path, **wrong)


# Bad data.


def broken_set(tmp_path, positions=(3,), junk=b"\xff\xd8\xffjunk"):
    data = pictures(12)
    for position in positions:
        data[position] = junk
    return faces.write_recordio(tmp_path / "train.rec", data, np.arange(12), image_size=(SIDE, SIDE))


@pytest.mark.parametrize(
    "junk", [b"\xff\xd8\xffjunk", b"", b"GIF89a", pictures(1)[0][:200]], ids=["header", "empty", "gif", "cut"]
)
def test_a_broken_image_is_named_counted_and_replaced_by_a_sound_one(tmp_path, caplog, junk):
    path = broken_set(tmp_path, junk=junk)
    dataset = faces.from_recordio(path)
    with caplog.at_level(logging.WARNING):
        one = arrays(dataset.batches(4, seed=1).take(6))
    assert list(dataset.bad.messages) == [3]
    assert "record 4 at offset" in caplog.text  # the key of image 3; record 0 is the header
    again = faces.from_recordio(path)
    assert_same(arrays(again.batches(4, seed=1, start_step=2).take(4)), one[2:])
    by_pillow = again.sequence(4, seed=1)
    for step, (images, labels) in enumerate(one):
        np.testing.assert_array_equal(by_pillow[step][0], images)
        np.testing.assert_array_equal(by_pillow[step][1], labels)
    for images, labels in one:
        assert 3 not in labels
        for image, label in zip(images, labels):
            np.testing.assert_array_equal(image, dataset.read(int(label))[0])


def test_strict_stops_at_the_first_broken_image(tmp_path):
    dataset = faces.from_recordio(broken_set(tmp_path), strict=True)
    with pytest.raises(tf.errors.OpError, match=r"record 4 at offset.*strict"):
        list(dataset.batches(12).take(1))
    with pytest.raises(FileFormatError, match="record 4"):
        faces.from_recordio(tmp_path / "train.rec", strict=True).sequence(12)[0]


def test_too_many_broken_images_are_an_error(tmp_path):
    path = broken_set(tmp_path, positions=(1, 2, 3))
    faces.from_recordio(path, max_bad=3).sequence(12)[0]
    with pytest.raises(FileFormatError, match=r"3 broken images, more than max_bad=2"):
        faces.from_recordio(path, max_bad=2).sequence(12)[0]


def test_a_label_beyond_the_classes_never_reaches_a_batch(tmp_path):
    with faces.RecordIOWriter(tmp_path / "train.rec", insightface=False) as writer:
        for picture, label in zip(pictures(6), [0, 1, 2, 9, 1, -1]):
            writer.add(picture, label)
    dataset = faces.from_recordio(tmp_path / "train.rec", num_classes=3)
    labels = np.concatenate([labels for _, labels in arrays(dataset.batches(6).take(2))])
    assert set(labels) == {0, 1, 2}
    assert sorted(dataset.bad.messages) == [3, 5]
    assert "label 9 is not one of the 3 classes" in dataset.bad.messages[3]


def test_a_file_cut_short_and_an_index_that_points_outside(tmp_path):
    path = faces.write_recordio(tmp_path / "train.rec", pictures(8), [0, 1, 0, 1, 0, 1, 0, 1])
    offsets = [int(line.split("\t")[1]) for line in (tmp_path / "train.idx").read_text().splitlines()]
    os.truncate(path, offsets[6] + 50)
    dataset = faces.from_recordio(path)
    assert np.isin(arrays(dataset.batches(8).take(1))[0][1], [0, 1]).all()
    assert sorted(dataset.bad.messages) == [6, 7]
    assert "past the end" in dataset.bad.messages[6]
    assert "outside the file" in dataset.bad.messages[7]


def test_a_record_with_a_wrong_magic_number_is_skipped(tmp_path):
    path = faces.write_recordio(tmp_path / "train.rec", pictures(8), np.arange(8))
    offset = [int(line.split("\t")[1]) for line in (tmp_path / "train.idx").read_text().splitlines()][5]
    data = bytearray(path.read_bytes())
    data[offset : offset + 4] = b"\0\0\0\0"
    path.write_bytes(data)
    dataset = faces.from_recordio(path)
    images, labels = arrays(dataset.batches(8).take(1))[0]
    assert 4 not in labels
    assert list(dataset.bad.messages) == [4]
    for image, label in zip(images, labels):
        np.testing.assert_array_equal(image, dataset.read(int(label))[0])
    with pytest.raises(FileFormatError, match=r"record 5 at offset.*strict"):
        faces.from_recordio(path, strict=True).sequence(8)[0]
    (tmp_path / "train.idx").unlink()
    with pytest.raises(FileFormatError, match=rf"train\.rec, offset {offset}"):
        faces.from_recordio(path)  # without an index there is no way past it


def test_the_file_may_vanish_while_it_is_read(recordio):
    dataset = faces.from_recordio(recordio)
    expected = arrays(dataset.batches(4).take(3))
    recordio.unlink()
    assert_same(arrays(dataset.batches(4).take(3)), expected)


# Other kinds of images and sources.


def write_folder(root, formats=(".png",)):
    for number, name in enumerate(["b", "a", "c"]):
        (root / name).mkdir(parents=True)
        for count in range(2):
            array = np.full((SIDE, SIDE, 3), 40 * number + count, np.uint8)
            (root / name / f"{count}{formats[count % len(formats)]}").write_bytes(faces.encode_png(array))


def test_folder(tmp_path, caplog):
    write_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "readme.md").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        dataset = faces.from_folder(tmp_path)
    assert "1 folders without images left out: empty" in caplog.text
    assert list(dataset.bad.messages) == [str(tmp_path / "empty")]
    with pytest.raises(FileFormatError, match=r"empty: an identity without images\..*strict"):
        faces.from_folder(tmp_path, strict=True)
    with pytest.raises(FileFormatError, match="more than max_bad=0"):
        faces.from_folder(tmp_path, max_bad=0)
    assert dataset.class_names == ["a", "b", "c"]
    assert (dataset.num_images, dataset.num_classes, dataset.image_size) == (6, 3, (SIDE, SIDE))
    assert [(int(image[0, 0, 0]), label) for image, label in map(dataset.read, range(6))] == [
        (40, 0), (41, 0), (0, 1), (1, 1), (80, 2), (81, 2),
    ]  # fmt: skip
    images, labels = arrays(dataset.batches(6, seed=1).take(1))[0]
    np.testing.assert_array_equal(images[:, 5, 5, 0] // 40, np.array([1, 0, 2])[labels])
    np.testing.assert_array_equal(dataset.sequence(6, seed=1)[0][0], images)
    (tmp_path / "empty").rmdir()
    (tmp_path / "a" / "0.png").unlink()  # vanishes while training
    images, labels = arrays(dataset.batches(6, seed=1).take(1))[0]
    np.testing.assert_array_equal(images[:, 5, 5, 0] // 40, np.array([1, 0, 2])[labels])
    assert "0.png" in dataset.bad.messages[0]
    assert faces.from_folder(tmp_path, min_images=2).class_names == ["b", "c"]


def test_an_empty_picture_and_one_that_vanishes_while_training(tmp_path, caplog):
    """Between two batches of one pass: named, skipped, and no other picture gets its label; strict stops."""
    write_folder(tmp_path)
    (tmp_path / "c" / "0.png").write_bytes(b"")
    dataset, strict = faces.from_folder(tmp_path), faces.from_folder(tmp_path, strict=True, image_size=(SIDE, SIDE))
    sequence = dataset.sequence(6, shuffle=False)
    first, gone = sequence[0], tmp_path / "b" / "1.png"
    assert list(dataset.bad.messages) == [4]
    gone.unlink()
    second = sequence[100]  # beyond what is read ahead
    assert sorted(dataset.bad.messages) == [3, 4]
    assert str(gone) in caplog.text
    for images, labels in (first, second):
        np.testing.assert_array_equal(images[:, 5, 5, 0] // 40, np.array([1, 0, 2])[labels])
    with pytest.raises(FileFormatError, match=r"\.png.*strict"):
        strict.sequence(6, shuffle=False)[0]


def test_a_folder_without_identities_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(FileFormatError, match="one folder per identity"):
        faces.from_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        faces.from_folder(tmp_path / "none")


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    """Left out, it would shift the labels of the identities behind it."""
    write_folder(tmp_path)
    scandir = os.scandir

    def refusing(path):
        if os.path.basename(path) == "a":
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError, match=r"Permission denied: .*a"):
        faces.from_folder(tmp_path)


def test_images_of_other_sizes_and_formats_are_resized_the_same_in_both_views(tmp_path):
    (tmp_path / "a").mkdir()
    ramp = np.linspace(0, 255, 40).astype(np.uint8)[None, :, None].repeat(30, 0).repeat(3, 2)
    (tmp_path / "a" / "0.png").write_bytes(faces.encode_png(ramp))
    (tmp_path / "a" / "1.jpg").write_bytes(pictures(1)[0])
    dataset = faces.from_folder(tmp_path, image_size=(SIDE, SIDE))
    images, _ = arrays(dataset.batches(2, shuffle=False).take(1))[0]
    np.testing.assert_array_equal(images, dataset.sequence(2, shuffle=False)[0][0])
    assert len(dataset.bad) == 0


@pytest.mark.parametrize("name", ["0.jpg", "0.png"])
def test_a_turned_photo_is_upright_in_both_views(tmp_path, name):
    from PIL import Image

    (tmp_path / "a").mkdir()
    array = np.zeros((SIDE, SIDE, 3), np.uint8)
    array[: SIDE // 2] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # by half a turn
    Image.fromarray(array).save(tmp_path / "a" / name, exif=exif)
    dataset = faces.from_folder(tmp_path)
    for images in (arrays(dataset.batches(1).take(1))[0][0], dataset.sequence(1)[0][0]):
        assert images[0, 0].max() < 30
        assert images[0, -1].min() > 225


def test_a_jpeg_that_claims_to_be_huge_is_a_broken_image(tmp_path):
    data = pictures(4)
    start = data[1].index(b"\xff\xc0") + 5
    data[1] = data[1][:start] + (9000).to_bytes(2, "big") * 2 + data[1][start + 4 :]
    path = faces.write_recordio(tmp_path / "a.rec", data, [0, 1, 2, 3], image_size=(SIDE, SIDE))
    dataset = faces.from_recordio(path)
    assert 1 not in arrays(dataset.batches(4).take(1))[0][1]
    assert "9000 x 9000 pixels, more than the limit" in dataset.bad.messages[1]


def test_two_replicas_share_a_batch(recordio):
    dataset = faces.from_recordio(recordio)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    shared = strategy.experimental_distribute_dataset(dataset.batches(4, seed=5))
    expected = arrays(dataset.batches(4, seed=5).take(2))
    assert_same(arrays(batch for batch, _ in zip(shared, range(2))), expected)
