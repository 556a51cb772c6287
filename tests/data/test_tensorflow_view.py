"""What a `tf.data` view leaves behind, and what it says where data are broken."""

import gc
import os
import weakref

import numpy as np
import pytest

from keras_sphereface import data as faces

tf = pytest.importorskip("tensorflow")

SIDE = 16


@pytest.fixture
def recordio(tmp_path):
    return faces.write_recordio(tmp_path / "train.rec", np.zeros((9, SIDE, SIDE, 3), np.uint8), np.arange(9) // 3)


@pytest.mark.parametrize("repeat", [True, False])
def test_a_view_that_is_gone_holds_no_file(recordio, repeat):
    open_files = []
    for _ in range(3):
        dataset = faces.from_recordio(recordio)
        batches = iter(dataset.batches(4, repeat=repeat))
        next(batches)
        source = weakref.ref(dataset.source)
        del dataset, batches
        gc.collect()
        assert source() is None
        open_files.append(len(os.listdir("/proc/self/fd")))
    assert open_files[-1] <= open_files[0]


def of_map(batches):
    return iter(batches.map(lambda images, labels: (images, labels)).prefetch(1))


def of_replicas(batches):
    return iter(tf.distribute.MirroredStrategy(["CPU:0"]).experimental_distribute_dataset(batches))


@pytest.mark.parametrize("derive", [iter, of_map, of_replicas])
def test_what_is_made_of_a_view_keeps_it(recordio, derive):
    iterator = derive(faces.from_recordio(recordio).batches(4))
    gc.collect()
    for _ in range(20):
        assert next(iterator)[0].shape == (4, SIDE, SIDE, 3)


def test_a_view_inside_a_graph(recordio):
    batches = tf.data.Dataset.range(2).interleave(lambda _: faces.from_recordio(recordio).batches(4).take(3))
    gc.collect()
    assert len(list(batches)) == 6


def test_exif_behind_the_frame_turns_a_photo_in_every_view(tmp_path):
    array = np.zeros((SIDE, SIDE, 3), np.uint8)
    array[: SIDE // 2] = 255
    plain = faces.encode_jpeg(array)
    tiff = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\3\0\0\0\0\0\0"  # orientation 3: by half a turn
    scan = plain.index(b"\xff\xda")
    turned = plain[:scan] + b"\xff\xe1" + (len(tiff) + 8).to_bytes(2, "big") + b"Exif\0\0" + tiff + plain[scan:]
    dataset = faces.from_recordio(faces.write_recordio(tmp_path / "a.rec", [plain, turned], [0, 1]))
    expected = [dataset.read(0)[0], dataset.read(1)[0]]
    assert expected[0][0].min() > 225
    assert expected[1][-1].min() > 225
    one = [np.asarray(images)[0] for images, _ in dataset.batches(1, shuffle=False).take(2)]
    two = next(iter(dataset.batches(2, shuffle=False)))[0]
    for images in (one, two, dataset.sequence(2, shuffle=False)[0][0]):
        np.testing.assert_array_equal(images, expected)


def test_the_error_of_broken_data_has_no_traceback_of_the_decoder(tmp_path):
    path = faces.write_recordio(tmp_path / "a.rec", [b"\xff\xd8\xffjunk"] * 3, [0, 1, 2], image_size=(SIDE, SIDE))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"FileFormatError: .*a\.rec: [23] broken") as raised:
        list(faces.from_recordio(path, max_bad=1).batches(3).take(1))
    text = str(raised.value)
    assert "images.py" not in text
    assert "direct cause" not in text
    assert text.count("Traceback") == 1, "TensorFlow's own"
