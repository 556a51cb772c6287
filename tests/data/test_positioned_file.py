import gc
import pickle
import warnings

import numpy as np
import pytest

from keras_sphereface import data as faces
from keras_sphereface.data.positioned_file import PositionedFile
from keras_sphereface.data.recordio_format import frame, pack_image
from keras_sphereface.data.tfrecord import TFRecordReader, TFRecordSource
from keras_sphereface.errors import FileFormatError

pytestmark = pytest.mark.core

BROKEN = {
    "no records": (faces.RecordIOReader, b"no record"),
    "no bytes": (faces.RecordIOReader, b""),
    "no lengths": (TFRecordReader, bytes(40)),
    "record 0 of too many": (faces.from_recordio, frame(pack_image([4e9, 5e9], b""))),
    "no image": (faces.from_recordio, frame(pack_image(0, b"x"))),
    "no pickle": (faces.read_bin, b"."),
    "no pair": (faces.read_bin, pickle.dumps([b"x"], 2)),
}


@pytest.mark.parametrize(("opened", "content"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_refused_does_not_stay_open(tmp_path, opened, content):
    (tmp_path / "broken").write_bytes(content)
    assert_refused_and_closed(lambda: opened(tmp_path / "broken"))


def test_the_first_file_does_not_stay_open_where_the_second_is_refused(tmp_path):
    faces.write_tfrecord(tmp_path / "a-0.tfrecord", [np.zeros((8, 8, 3), np.uint8)], [0])
    (tmp_path / "a-1.tfrecord").write_bytes(bytes(40))
    assert_refused_and_closed(lambda: TFRecordSource(tmp_path / "a-*.tfrecord"))


def assert_refused_and_closed(open_it):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        try:
            open_it()
        except FileFormatError:
            pass
        else:
            pytest.fail("not refused")
        gc.collect()
    assert [str(one.message) for one in caught if one.category is ResourceWarning] == []


def test_bytes_that_are_there_no_more_are_named(tmp_path):
    path = tmp_path / "a.file"
    path.write_bytes(b"0123456789")
    with PositionedFile(path) as file:
        assert (file.size, file.read_at(3, 4), file.read_up_to(8, 5)) == (10, b"3456", b"89")
        file.check_end(10, 6, "record 1")
        with pytest.raises(FileFormatError, match=r"record 1: a record of 7 bytes runs past the end .*\(10 bytes\)"):
            file.check_end(11, 7, "record 1")
        path.write_bytes(b"01234")
        with pytest.raises(FileFormatError, match=r"record 1: became shorter .* expected 4 bytes at 3, found 2"):
            file.read_at(3, 4, "record 1")
        with pickle.loads(pickle.dumps(file)) as other:
            assert (type(other), other.size, other.read_at(0, 1)) == (PositionedFile, 5, b"0")
