import numpy as np
import pytest

from keras_sphereface import data as faces
from keras_sphereface.data.recordio import RecordIOReader
from keras_sphereface.data.recordio_writer import RecordIOWriter
from keras_sphereface.errors import FileFormatError

pytestmark = pytest.mark.core

IMAGES = [bytes([number]) * (40 + number) for number in range(9)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "train.rec"
    with RecordIOWriter(path, insightface=False) as writer:
        for number, data in enumerate(IMAGES):
            writer.add(data, [number, 7.0] if number == 4 else number)  # one with an array of labels
    return path


def test_many_are_what_each_is(path):
    with RecordIOReader(path) as reader:
        positions = np.array([8, 4, 0, 4, 3])
        data, labels = reader.read_images(positions)
        assert data == [IMAGES[position] for position in positions]
        np.testing.assert_array_equal(labels, positions)
        assert [record.data for record in map(reader.read, positions)] == data


def change(path, offset, value):
    content = bytearray(path.read_bytes())
    content[offset : offset + len(value)] = value
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, b"\0"), (4, b"\xff\xff\xff\x1f"), (7, b"\x20"), (8, b"\xff\xff\xff\xff")],
    ids=["magic", "length", "part", "labels"],
)
def test_one_broken_record_leaves_all_to_be_read_one_by_one(path, place, value):
    with RecordIOReader(path) as reader:
        change(path, int(reader.offsets[5]) + place, value)
        assert reader.read_images(np.array([4, 5])) is None
        assert reader.read_images(np.array([4, 6]))[0] == [IMAGES[4], IMAGES[6]]


def test_an_index_in_another_order_and_a_shortened_file(path, tmp_path):
    with RecordIOReader(path) as reader:
        index = tmp_path / "other.idx"
        index.write_text("".join(f"{key}\t{offset}\n" for key, offset in zip(reader.keys[::-1], reader.offsets[::-1])))
        with RecordIOReader(path, index) as other:
            data, labels = other.read_images(np.array([0, 8, 5]))
            assert data == [IMAGES[8], IMAGES[0], IMAGES[3]]
            np.testing.assert_array_equal(labels, [8, 0, 3])
        with open(path, "r+b") as file:
            file.truncate(int(reader.offsets[8]) + 20)
        assert reader.read_images(np.array([8])) is None


def rewrite_index(path, change_lines):
    index = path.with_suffix(".idx")
    index.write_text("\n".join(change_lines(index.read_text().splitlines())) + "\n")


@pytest.mark.parametrize("wrong", ["8\t45", "8\t123456789"], ids=["within record 0", "outside"])
def test_one_wrong_offset_leaves_the_others_to_be_read_together(path, wrong):
    rewrite_index(path, lambda lines: [*lines[:-1], wrong])
    with RecordIOReader(path) as reader:
        assert reader.read_images(np.arange(8))[0] == IMAGES[:8]
        assert reader.read_images(np.array([8])) is None
        with pytest.raises(FileFormatError, match=r"record 8 at offset \d+"):
            reader.read(8)


def test_a_record_listed_in_place_of_the_last_leaves_one_unlisted(path):
    rewrite_index(path, lambda lines: [*lines[:-1], "8\t0"])
    with pytest.raises(FileFormatError, match="more records follow"):
        RecordIOReader(path)


def test_a_shuffled_index_with_lines_twice(path):
    order = np.random.default_rng(0).permutation(9).tolist()
    rewrite_index(path, lambda lines: [lines[number] for number in [*order, *order[:3]]])
    with RecordIOReader(path) as reader:
        assert reader.read_images(np.arange(12))[0] == [IMAGES[number] for number in [*order, *order[:3]]]


def test_no_offset_at_which_a_record_could_start(path):
    path.with_suffix(".idx").write_text("0\t45\n1\t33\n")
    with RecordIOReader(path) as reader:
        assert reader.read_images(np.array([0, 1])) is None


def test_a_wrong_offset_is_named_and_its_image_replaced(tmp_path):
    images = [faces.encode_jpeg(np.full((16, 16, 3), 20 * number, np.uint8)) for number in range(6)]
    path = faces.write_recordio(tmp_path / "train.rec", images, [0, 1, 0, 1, 0, 1])  # mixed: without record 0
    rewrite_index(path, lambda lines: [*lines[:-1], "5\t45"])
    dataset = faces.from_recordio(path)
    assert dataset.source.read_many(np.arange(5)) is not None
    pictures, labels = dataset.sequence(6, shuffle=False)[0]
    assert pictures[:, 0, 0, 0].tolist() == [0, 20, 40, 60, 80, 0]
    assert labels.tolist() == [0, 1, 0, 1, 0, 0]
    assert "record 5 at offset 45" in dataset.bad.messages[5]


def test_a_broken_image_among_good_ones_is_replaced_as_before(tmp_path):
    images = [faces.encode_jpeg(np.full((16, 16, 3), 20 * number, np.uint8)) for number in range(6)]
    images[2] = images[2][:100]
    dataset = faces.from_recordio(faces.write_recordio(tmp_path / "train.rec", images, np.arange(6) // 2))
    pictures, labels = dataset.sequence(6, shuffle=False)[0]
    assert pictures[:, 0, 0, 0].tolist() == [0, 20, 60, 60, 80, 100]
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert list(dataset.bad.messages) == [2]
