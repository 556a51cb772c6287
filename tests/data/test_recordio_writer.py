"""`RecordIOWriter` by itself: what its reader needs beside the records."""

import numpy as np
import pytest

from keras_sphereface import data as faces
from keras_sphereface.errors import FileFormatError

pytestmark = pytest.mark.core

IMAGE = faces.encode_png(np.zeros((4, 4, 3), np.uint8))


def write(path, labels, **options):
    with faces.RecordIOWriter(path, **options) as writer:
        for label in labels:
            writer.add(IMAGE, label)


def test_labels_with_gaps_are_read_back(tmp_path):
    labels = [0, 0, 0, 5, 5, 5, 9, 9, 9]
    write(tmp_path / "a.rec", labels)
    dataset = faces.from_recordio(tmp_path / "a.rec", strict=True)
    assert (dataset.num_classes, dataset.image_size) == (10, (4, 4))
    assert [dataset.read(number)[1] for number in range(9)] == labels
    write(tmp_path / "a.rec", [0, 20])  # its own property, which may grow
    assert (tmp_path / "property").read_text() == "21,0,0"
    write(tmp_path / "b.rec", [0, 7])  # says enough for this one
    assert (tmp_path / "property").read_text() == "21,0,0"
    with pytest.raises(ValueError, match=r"c\.rec: would change the folder's `property`, by which a\.rec"):
        write(tmp_path / "c.rec", [0, 30])
    assert not (tmp_path / "c.rec").exists()


def test_labels_without_gaps_need_no_property(tmp_path):
    write(tmp_path / "a.rec", [0, 1, 2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.idx", "a.rec"]


@pytest.mark.parametrize("insightface", [True, False])
def test_a_file_without_images_is_not_written(tmp_path, insightface):
    with pytest.raises(ValueError, match=r"a\.rec: no image was added"):
        write(tmp_path / "a.rec", [], insightface=insightface)
    assert not list(tmp_path.iterdir())


def test_several_labels_an_image_need_the_plain_layout(tmp_path):
    with pytest.raises(ValueError, match=r"label=\[1.0, 2.0\] at image 0; pass insightface=False"):
        write(tmp_path / "a.rec", [[1, 2]])
    write(tmp_path / "a.rec", [[1, 2]], insightface=False)
    write(tmp_path / "b.rec", [np.array(0), np.int64(1)])
    assert faces.from_recordio(tmp_path / "b.rec").num_classes == 2


@pytest.mark.parametrize("end", [np.inf, 1e30, np.nan])
def test_a_record_0_that_announces_no_number_is_named(tmp_path, end):
    write(tmp_path / "a.rec", [0, 1])
    data = bytearray((tmp_path / "a.rec").read_bytes())
    data[8 + 24 + 4 : 8 + 24 + 8] = np.float32(end).tobytes()
    (tmp_path / "a.rec").write_bytes(data)
    with pytest.raises(FileFormatError, match=r"a\.rec, record 0: expected"):
        faces.from_recordio(tmp_path / "a.rec")


def test_an_index_of_an_empty_line_is_empty(tmp_path):
    write(tmp_path / "a.rec", [0, 1])
    (tmp_path / "a.idx").write_text("\n")
    with pytest.raises(FileFormatError, match=r"a\.idx: the index is empty"):
        faces.from_recordio(tmp_path / "a.rec")


def test_a_property_of_too_many_classes_is_named(tmp_path):
    write(tmp_path / "a.rec", [0, 1])
    (tmp_path / "property").write_text(f"{2**31},4,4")
    with pytest.raises(FileFormatError, match="property: 2147483648 classes, expected at most"):
        faces.from_recordio(tmp_path / "a.rec")
