import numpy as np
import pytest

from keras_sphereface import data as faces
from keras_sphereface.data.recordio import RecordIOReader
from keras_sphereface.data.recordio_writer import RecordIOWriter

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
            assert other.read_images(np.array([0])) is None
        with open(path, "r+b") as file:
            file.truncate(int(reader.offsets[8]) + 20)
        assert reader.read_images(np.array([8])) is None


def test_a_broken_image_among_good_ones_is_replaced_as_before(tmp_path):
    images = [faces.encode_jpeg(np.full((16, 16, 3), 20 * number, np.uint8)) for number in range(6)]
    images[2] = images[2][:100]
    dataset = faces.from_recordio(faces.write_recordio(tmp_path / "train.rec", images, np.arange(6) // 2))
    pictures, labels = dataset.sequence(6, shuffle=False)[0]
    assert pictures[:, 0, 0, 0].tolist() == [0, 20, 60, 60, 80, 100]
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert list(dataset.bad.messages) == [2]
