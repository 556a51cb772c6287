import struct

import numpy as np
import pytest

from keras_sphereface import data as faces
from keras_sphereface.data import tfrecord, tfrecord_format
from keras_sphereface.errors import FileFormatError


def pictures(count):
    return [np.full((8, 8, 3), 10 * number, np.uint8) for number in range(count)]


def test_checksum_of_the_standard_example():
    # RFC 3720 and every CRC catalogue: CRC-32C("123456789") = 0xE3069283.
    crc = 0xE3069283
    assert tfrecord_format.masked_crc(b"123456789") == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    # RFC 3720, B.4: 32 bytes of zeros.
    crc = 0x8A9136AA
    assert tfrecord_format.masked_crc(bytes(32)) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_an_example_laid_out_by_hand():
    # Example{1: Features{1: entry{1: "k", 2: Feature{3: Int64List{1: 300 as a packed varint ac 02}}}}}
    assert tfrecord_format.encode_example({"k": 300}) == bytes.fromhex("0a0d0a0b0a016b12061a040a02ac02")
    assert tfrecord_format.decode_example(bytes.fromhex("0a0d0a0b0a016b12061a040a02ac02"), "") == {"k": [300]}
    unpacked = bytes.fromhex("0a0c0a0a0a016b12051a0308ac02")  # as old writers do: a plain varint
    assert tfrecord_format.decode_example(unpacked, "") == {"k": [300]}
    assert tfrecord_format.decode_example(tfrecord_format.encode_example({"k": -5}), "") == {"k": [-5]}


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_without_a_name_is_refused(label, tmp_path):
    with pytest.raises(ValueError, match=f"Received: 2 for label={label}"):
        faces.write_tfrecord(tmp_path / "x.tfrecord", pictures(1), [label], class_names=["ann", "bob"])
    assert not (tmp_path / "x.tfrecord").exists()


def test_round_trip_and_names(tmp_path):
    names = ["ann", "bob", "cleo"]
    path = faces.write_tfrecord(tmp_path / "a" / "x.tfrecord", pictures(5), [0, 0, 1, 2, 1], class_names=names)
    dataset = faces.from_tfrecord(path)
    assert (dataset.num_images, dataset.num_classes, dataset.class_names) == (5, 3, names)
    assert dataset.image_size == (8, 8)
    assert faces.from_tfrecord(path, num_classes=3).class_names is None  # which saves the reading of every record
    for number, label in enumerate([0, 0, 1, 2, 1]):
        image, found = dataset.read(number)
        assert found == label
        assert np.abs(image.astype(int) - 10 * number).max() <= 1
    images, labels = dataset.sequence(5, seed=1)[0]
    assert sorted(zip(images[:, 0, 0, 0] // 9, labels)) == [(0, 0), (1, 0), (2, 1), (3, 2), (4, 1)]


@pytest.mark.parametrize("label", [2**64, -(2**63) - 1, 0.5, float("nan"), -1, 2**31 - 1])
def test_a_label_that_no_reader_takes_is_refused(tmp_path, label):
    with pytest.raises(ValueError, match=r"whole number.* at image 0"):
        faces.write_tfrecord(tmp_path / "a.tfrecord", pictures(1), [label])


def test_several_files(tmp_path):
    for part in range(3):
        faces.write_tfrecord(tmp_path / f"x-{part}.tfrecord", pictures(2), [part, part])
    for path in (tmp_path / "x-*.tfrecord", [tmp_path / f"x-{part}.tfrecord" for part in range(3)]):
        dataset = faces.from_tfrecord(path)
        assert [dataset.read(number)[1] for number in range(6)] == [0, 0, 1, 1, 2, 2]
    with pytest.raises(FileNotFoundError, match="y-"):
        faces.from_tfrecord(tmp_path / "y-*")


def test_tensorflow_reads_ours_and_we_read_tensorflow(tmp_path):
    tf = pytest.importorskip("tensorflow")
    path = faces.write_tfrecord(tmp_path / "a.tfrecord", pictures(2), [3, 70000])
    examples = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    assert [example.features.feature["image/class/label"].int64_list.value[0] for example in examples] == [3, 70000]
    with tf.io.TFRecordWriter(str(tmp_path / "b.tfrecord")) as writer:
        for example in examples:
            example.features.feature["weights"].float_list.value.extend([1.0, 2.5])
            writer.write(example.SerializeToString())
    source = faces.from_tfrecord(tmp_path / "b.tfrecord").source
    assert source.read(1) == (faces.encode_jpeg(pictures(2)[1]), 70000)
    np.testing.assert_array_equal(source._features(0)["weights"], [1.0, 2.5])


def test_flipped_bits_are_noticed(tmp_path):
    path = faces.write_tfrecord(tmp_path / "a.tfrecord", pictures(2), [0, 1])
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    dataset = faces.from_tfrecord(path, num_classes=2)
    with pytest.raises(FileFormatError, match=r"record 0 at offset 0: the checksum"):
        dataset.read(0)
    assert set(dataset.sequence(4)[0][1]) == {1}
    assert list(dataset.bad.messages) == [0]


HOSTILE = {
    "empty": b"",
    "cut": b"\x01\x02",
    "no checksum": bytes(40),
    "gzip": b"\x1f\x8b" + bytes(40),
    "500 MB": struct.pack("<QI", 5 * 10**8, tfrecord_format.masked_crc(struct.pack("<Q", 5 * 10**8))) + bytes(90),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused_by_name(tmp_path, content):
    (tmp_path / "bad.tfrecord").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"bad\.tfrecord"):
        tfrecord.TFRecordReader(tmp_path / "bad.tfrecord")


@pytest.mark.parametrize(
    "message", ["ff", "0aff", "0a020a05", "0b", "0a030a0105", "ffffffffffffffffffffff", "0a070a050a01ff1200"]
)
def test_hostile_messages_are_refused(message):
    with pytest.raises(FileFormatError, match="somewhere: not a"):
        tfrecord_format.decode_example(bytes.fromhex(message), "somewhere")


def feature(kind, values):
    """A feature whose list holds one packed or framed value: 1 bytes, 2 floats, 3 whole numbers."""
    return tfrecord_format._field(kind, tfrecord_format._field(1, values))


@pytest.mark.parametrize(
    ("key", "odd"),
    [
        (tfrecord_format.LABEL, feature(1, b"3")),
        (tfrecord_format.LABEL, feature(2, struct.pack("<2f", 1, 2))),
        (tfrecord_format.TEXT, feature(3, b"\x05")),
        (tfrecord_format.TEXT, feature(2, struct.pack("<2f", 1, 2))),
    ],
)
def test_a_label_or_name_of_another_kind(tmp_path, key, odd):
    entry = tfrecord_format._field(1, tfrecord_format._field(1, key.encode()) + tfrecord_format._field(2, odd))
    with tfrecord.TFRecordWriter(tmp_path / "a.tfrecord") as writer:
        writer.add(faces.encode_jpeg(pictures(1)[0]), 0, "ann")
        sound = tfrecord_format.encode_example({"image/class/label": 0, "image/encoded": b"x"})
        writer._file.write(tfrecord_format.frame(sound + tfrecord_format._field(1, entry)))
    dataset = faces.from_tfrecord(tmp_path / "a.tfrecord")
    assert dataset.num_classes == 1
    if key == tfrecord_format.LABEL:
        with pytest.raises(FileFormatError, match=r"record 1 at offset .*expected one int under 'image/class/label'"):
            dataset.read(1)


def test_a_label_beyond_the_classes_is_told_what_to_correct(tmp_path):
    path = faces.write_tfrecord(tmp_path / "a.tfrecord", pictures(2), [0, 5])
    with pytest.raises(FileFormatError, match=r"label 5 is not one of the 2 classes.* \(num_classes\)"):
        faces.from_tfrecord(path, num_classes=2).read(1)


def test_missing_keys_are_named(tmp_path):
    with tfrecord.TFRecordWriter(tmp_path / "a.tfrecord") as writer:
        writer._file.write(
            tfrecord_format.frame(tfrecord_format.encode_example({"image": b"x", "image/class/label": 0}))
        )
    with pytest.raises(FileFormatError, match=r"image/encoded.*found the keys image, image/class/label"):
        faces.from_tfrecord(tmp_path / "a.tfrecord", image_size=(8, 8)).read(0)
