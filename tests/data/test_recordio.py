import struct

import numpy as np
import pytest

from keras_sphereface import data as faces
from keras_sphereface.data import recordio_format as form
from keras_sphereface.data import recordio_index, recordio_writer, sources
from keras_sphereface.data.int_tables import read_int_table
from keras_sphereface.errors import FileFormatError

MAGIC = "0a23d7ce"


def picture(value=0, side=8):
    return np.full((side, side, 3), value, np.uint8)


def test_a_record_laid_out_by_hand():
    # magic, length 29 (24 header + 5), flag 0, label 7.0, id 3, id2 0, "hello", three zeros.
    expected = bytes.fromhex(
        MAGIC + "1d000000" + "00000000" + "0000e040" + "0300000000000000" + "00" * 8 + "68656c6c6f" + "000000"
    )
    assert form.frame(form.pack_image(7, b"hello", id=3)) == expected


def test_an_array_label_laid_out_by_hand():
    payload = bytes.fromhex("02000000" + "00000000" + "00" * 16 + "0000803f" + "00000040" + "ff")
    assert form.pack_image([1, 2], b"\xff") == payload
    record = form.unpack_image(payload, "here")
    np.testing.assert_array_equal(record.label, [1, 2])
    assert (record.first_label, record.data) == (1.0, b"\xff")


def test_a_payload_with_the_magic_is_split_where_it_is_aligned():
    payload = b"abcd" + form.MAGIC_BYTES + b"x" + form.MAGIC_BYTES + b"yz"  # aligned at 4, not at 9
    parts = bytes.fromhex(
        MAGIC + "04000020" + "61626364"  # first part (flag 1), 4 bytes
        + MAGIC + "07000060" + "78" + MAGIC + "797a" + "00"  # last part (flag 3), 7 bytes and one zero
    )  # fmt: skip
    assert form.frame(payload) == parts


def test_what_no_part_of_a_record_begins_with_is_named():
    assert form.part_header(struct.pack("<II", form.MAGIC, 3 << 29 | 7), "here") == (3, 7)
    for header, message in (
        (struct.pack("<II", form.MAGIC, 7)[:7], "here: the file ends inside a record's header"),
        (struct.pack("<II", 1, 7), "here: expected a RecordIO record, which begins with 0xced7230a, found 0x1"),
        (struct.pack("<II", form.MAGIC, 4 << 29 | 7), "here: unknown continuation flag 4"),
    ):
        with pytest.raises(FileFormatError, match=message):
            form.part_header(header, "here")


def test_what_no_record_can_hold_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="at least one number"):
        form.pack_image([], b"image")
    monkeypatch.setattr(form, "MAX_LENGTH", 10)
    assert len(form.frame(b"x" * 10)) == 8 + 12
    with pytest.raises(ValueError, match=r"at most 10 bytes\. Received: 11 bytes"):
        form.frame(b"x" * 11)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        form.MAGIC_BYTES,
        form.MAGIC_BYTES * 3,
        b"ab" + form.MAGIC_BYTES * 2,
        b"abcd" + form.MAGIC_BYTES + b"efg" + form.MAGIC_BYTES,
        bytes(range(256)) * 400,  # longer than what is read at once
    ],
)
def test_parts_are_joined_again(tmp_path, payload):
    path = tmp_path / "a.rec"
    path.write_bytes(form.frame(form.pack_image(1, payload)) + form.frame(form.pack_image(2, b"next")))
    with faces.RecordIOReader(path) as reader:
        assert [record.data for record in reader] == [payload, b"next"]


def test_insightface_layout_written_and_read(tmp_path):
    images = [picture(value) for value in range(5)]
    path = faces.write_recordio(tmp_path / "train.rec", images, [0, 0, 1, 2, 2])
    assert (tmp_path / "property").read_text() == "3,8,8"
    with faces.RecordIOReader(path) as reader:
        np.testing.assert_array_equal(reader.keys, np.arange(9))
        np.testing.assert_array_equal(reader.read(0).label, [6, 9])  # identity records are 6, 7 and 8
        assert [tuple(reader.read(key).label) for key in (6, 7, 8)] == [(1, 3), (3, 4), (4, 6)]
        assert [reader.read(key).label for key in range(1, 6)] == [0, 0, 1, 2, 2]
        assert [reader.read(key).id for key in range(9)] == list(range(9))
    dataset = faces.from_recordio(path)
    assert (dataset.num_images, dataset.num_classes, dataset.image_size) == (5, 3, (8, 8))
    for number in range(5):
        image, label = dataset.read(number)
        assert abs(int(image[4, 4, 0]) - number) <= 1
        assert label == [0, 0, 1, 2, 2][number]
    (tmp_path / "property").unlink()
    assert faces.from_recordio(path).num_classes == 3


def test_labels_that_are_mixed_fractional_or_several_are_written_without_record_0(tmp_path):
    blobs = [faces.encode_png(picture(value)) for value in range(3)]
    path = faces.write_recordio(tmp_path / "mixed" / "a.rec", blobs, [1, 0, 1])
    assert [label for _, label in map(faces.from_recordio(path).read, range(3))] == [1, 0, 1]
    with faces.RecordIOReader(path) as reader:
        assert [record.data for record in reader] == blobs  # byte for byte
    path = faces.write_recordio(tmp_path / "several" / "a.rec", blobs, [[1, 0.5], [0, 2], [1, 7]])
    with faces.RecordIOReader(path) as reader:
        np.testing.assert_array_equal([record.label for record in reader], [[1, 0.5], [0, 2], [1, 7]])
    assert faces.from_recordio(path, num_classes=2).read(1)[1] == 0
    path = faces.write_recordio(tmp_path / "objects" / "a.rec", blobs, np.array([1, 0, np.int64(1)], object))
    assert faces.from_recordio(path).num_classes == 2
    path = faces.write_recordio(tmp_path / "fraction" / "a.rec", blobs, [0.0, 1.5, 2.0], num_classes=3)
    with pytest.raises(FileFormatError, match=r"record 1.*label 1\.5"):
        faces.from_recordio(path).read(1)


def test_real_set(shared):
    path = shared / "data" / "recordio_sample" / "validation.rec"
    listed = [line.split("\t") for line in (path.with_suffix(".lst")).read_text().splitlines()]
    dataset = faces.from_recordio(path)
    assert (dataset.num_classes, dataset.image_size) == (25, (112, 112))
    with faces.RecordIOReader(path) as reader:
        assert len(reader) == dataset.num_images > 0
        labels = {int(key): float(label) for key, label, _ in listed}
        assert all(labels[record.id] == record.label for record in reader)
        keys, offsets = recordio_index.scan(path)
        np.testing.assert_array_equal(keys, reader.keys)
        np.testing.assert_array_equal(offsets, reader.offsets)
    image, label = dataset.read(0)
    assert (image.shape, label) == ((112, 112, 3), 7)
    assert 20 < image.std() < 120


def test_a_missing_index_is_rebuilt_and_written(tmp_path):
    path = faces.write_recordio(tmp_path / "a.rec", [picture(value) for value in range(4)], [0, 0, 1, 1])
    index = tmp_path / "a.idx"
    written = index.read_text()
    index.unlink()
    assert faces.from_recordio(path).num_images == 4
    assert index.read_text() == written


def test_records_without_numbers_of_their_own_are_counted(tmp_path):
    path = tmp_path / "a.rec"
    path.write_bytes(form.frame(form.pack_image(1, b"a")) + form.frame(form.pack_image(2, b"b")))
    np.testing.assert_array_equal(recordio_index.scan(path)[0], [0, 1])


@pytest.mark.parametrize(
    ("numbers", "keys"),
    [
        ([7, 3, 5], [7, 3, 5]),
        ([7, 3, 7], [0, 1, 2]),  # not all different
        ([2, 2**63, 1], [0, 1, 2]),  # beyond an int64
        ([2**63 - 1, 0, 1], [2**63 - 1, 0, 1]),
    ],
)
def test_keys_are_the_numbers_in_the_headers_where_these_tell_records_apart(tmp_path, numbers, keys):
    path = tmp_path / "a.rec"
    images = (b"", b"face", b"")
    path.write_bytes(b"".join(form.frame(form.pack_image(1, image, id=n)) for n, image in zip(numbers, images)))
    found, offsets = recordio_index.scan(path)
    assert (found.tolist(), offsets.tolist()) == (keys, [0, 32, 68])  # 8 bytes of a part, 24 of a header
    path.write_bytes(path.read_bytes() + form.frame(b"no image"))
    assert recordio_index.scan(path)[0].tolist() == [0, 1, 2, 3]


def test_records_start_where_an_index_of_any_order_says_but_at_multiples_of_4():
    rising = np.array([0, 33, 64])
    assert recordio_index.ascending_starts(rising) is rising
    assert recordio_index.ascending_starts(np.array([96, 0, 33, 64])).tolist() == [0, 64, 96]


def test_index_of_many_blocks(tmp_path):
    rng = np.random.default_rng(0)
    keys, offsets = rng.permutation(300), rng.integers(0, 10**17, 300)
    recordio_index.write_index(tmp_path / "a.idx", keys, offsets)
    read = recordio_index.read_index(tmp_path / "a.idx")
    np.testing.assert_array_equal(read[0], keys)
    np.testing.assert_array_equal(read[1], offsets)
    np.testing.assert_array_equal(read_int_table(tmp_path / "a.idx", 2, chunk_bytes=50, dtype=np.int64), read)
    (tmp_path / "b.idx").write_bytes(b"0\t8\r\n\n1\t16")
    np.testing.assert_array_equal(recordio_index.read_index(tmp_path / "b.idx"), [[0, 1], [8, 16]])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"0\t-8\n",
        b"0 1 2\n",
        b"0\n1\t2\n3\n",
        b"a\t1\n",
        b"0\t1.5\n",
        b"0\t" + b"9" * 30,
        b"\xff\x00\n",
        b"1" * 200,
    ],
)
def test_a_broken_index_is_refused_by_name(tmp_path, text):
    (tmp_path / "a.idx").write_bytes(text)
    with pytest.raises(FileFormatError, match=r"a\.idx.*[Dd]elete"):
        recordio_index.read_index(tmp_path / "a.idx")


def test_a_broken_index_is_told_its_line(tmp_path):
    (tmp_path / "a.idx").write_text("0\t0\n1\t48\n2\tx\n3\t96\n")
    message = r"a\.idx, line 3: expected 2 integers of up to 18 digits, found '2\\tx'\. Delete the index"
    with pytest.raises(FileFormatError, match=message):
        recordio_index.read_index(tmp_path / "a.idx")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_classes": -3}, "num_classes=-3"),
        ({"num_classes": 5}, "num_classes of at least 6, for label 5. Received: num_classes=5"),
        ({"num_classes": 2.5}, "num_classes=2.5"),
        ({"num_classes": 2**31}, "at most 2147483647. Received: num_classes=2147483648"),
        ({"image_size": 112}, "image_size=112"),
        ({"image_size": (8, 5000)}, r"at most 4096 pixels .*image_size=\(8, 5000\)"),
        ({"labels": [0, -1]}, "label=-1 at image 1"),
        ({"labels": [[0, 5], [-2, 5]]}, "label=-2 at image 1"),
        ({"images": [picture(), "a.jpg"]}, "must be a uint8 array"),
    ],
)
def test_a_set_that_no_reader_would_take_is_not_written(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        faces.write_recordio(tmp_path / "a.rec", **{"images": [picture()] * 2, "labels": [0, 5]} | given)
    assert list(tmp_path.iterdir()) == []


def test_an_image_larger_than_a_property_may_say_needs_its_size_stated(tmp_path):
    images = [np.zeros((1, 5000, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"at most 4096 pixels .*image_size=\(1, 5000\)"):
        faces.write_recordio(tmp_path / "a.rec", images, [0])
    assert list(tmp_path.iterdir()) == []
    path = faces.write_recordio(tmp_path / "a.rec", images, [0], image_size=(2, 9))
    assert faces.from_recordio(path).read(0)[0].shape == (2, 9, 3)


def test_the_first_of_several_labels_is_the_class(tmp_path):
    faces.write_recordio(tmp_path / "a.rec", [picture()] * 2, [[1, 7], [0, -2]])
    assert (tmp_path / "property").read_text() == "2,8,8"


def write_indexed(folder, payloads, lines):
    """A file without record 0, and an index of some of its records; returns the path and the whole index."""
    path = folder / "a.rec"
    blocks = [form.frame(form.pack_image(number % 2, data, id=number)) for number, data in enumerate(payloads)]
    path.write_bytes(b"".join(blocks))
    offsets = np.cumsum([0, *map(len, blocks)])
    whole = "".join(f"{number}\t{offset}\n" for number, offset in enumerate(offsets[:-1]))
    (folder / "a.idx").write_text(lines(whole))
    return path, whole


CUTS = {
    "behind a line": lambda text: "".join(text.splitlines(keepends=True)[:20]),
    "by one line": lambda text: "".join(text.splitlines(keepends=True)[:39]),
    "within a line": lambda text: text[: text.index("\n25\t") + 5],
    "in another order": lambda text: "".join(text.splitlines(keepends=True)[20::-1]),
    "to its first line": lambda text: text[:4],
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_an_index_that_was_cut_short_is_refused(tmp_path, cut):
    picture_bytes = [faces.encode_png(picture(value)) for value in range(40)]
    path, whole = write_indexed(tmp_path, picture_bytes, cut)
    with pytest.raises(FileFormatError, match=r"a\.idx: .*more records follow .*Delete the index.*copy it") as error:
        faces.from_recordio(path)
    assert "\n" not in str(error.value)
    (tmp_path / "a.idx").unlink()  # what the message advises
    assert faces.from_recordio(path).num_images == 40
    assert (tmp_path / "a.idx").read_text() == whole


def test_an_index_that_was_cut_behind_a_record_of_several_parts(tmp_path):
    several = b"abcd" + form.MAGIC_BYTES + b"e" + form.MAGIC_BYTES * 2
    path, _ = write_indexed(tmp_path, [b"abc", several], lambda text: text)
    assert len(faces.RecordIOReader(path)) == 2  # a later part is no record behind the last
    with open(path, "ab") as file:
        file.write(form.frame(form.pack_image(0, b"next")))
    with pytest.raises(FileFormatError, match="the last of the 2 records listed"):
        faces.RecordIOReader(path)


def test_what_is_no_record_behind_the_last_does_not_matter(tmp_path):
    path, _ = write_indexed(tmp_path, [b"abc", b"de"], lambda text: text)
    with open(path, "ab") as file:
        file.write(bytes(512))
    assert len(faces.RecordIOReader(path)) == 2


def test_a_sound_index_costs_one_read(tmp_path, monkeypatch):
    reads, pread = [], recordio_index.os.pread
    path, _ = write_indexed(tmp_path, [b"abc"] * 40, lambda text: text)
    monkeypatch.setattr(recordio_index.os, "pread", lambda *arguments: reads.append(arguments) or pread(*arguments))
    faces.RecordIOReader(path).close()
    assert [size for _, size, _ in reads] == [form.PART_HEADER.size]


HOSTILE = {
    "500 MB announced": struct.pack("<II", form.MAGIC, 500_000_000) + b"x" * 100,
    "wrong magic": b"\0" * 64,
    "cut in the header": struct.pack("<I", form.MAGIC),
    "flag 7": struct.pack("<II", form.MAGIC, 7 << 29 | 24) + b"\0" * 24,
    "starts with a last part": struct.pack("<II", form.MAGIC, 3 << 29 | 24) + b"\0" * 24,
    "never ends": struct.pack("<II", form.MAGIC, 1 << 29 | 24) + b"\0" * 24,
    "first part twice": (struct.pack("<II", form.MAGIC, 1 << 29 | 24) + b"\0" * 24) * 2,
    "shorter than an image header": form.frame(b"12345678"),
    "a billion labels": form.frame(struct.pack("<IfQQ", 10**9, 0, 0, 0)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("indexed", [True, False])
def test_hostile_files_are_refused_by_name_without_taking_memory(tmp_path, content, indexed):
    import tracemalloc

    path = tmp_path / "bad.rec"
    path.write_bytes(content)
    if indexed:
        (tmp_path / "bad.idx").write_text("0\t0\n")
    tracemalloc.start()
    with pytest.raises(FileFormatError, match=r"bad\.rec"):
        faces.RecordIOReader(path).read(0)  # either of the two may notice
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()


def test_an_index_that_points_outside_the_file(tmp_path):
    path = faces.write_recordio(tmp_path / "a.rec", [picture()], [0])
    (tmp_path / "a.idx").write_text("0\t0\n1\t999999\n2\t40\n")
    with (
        faces.RecordIOReader(path) as reader,
        pytest.raises(FileFormatError, match=r"record 1 at offset 999999.*outside"),
    ):
        reader.read(1)


def test_record_0_that_announces_more_than_there_is(tmp_path):
    path = tmp_path / "a.rec"
    path.write_bytes(form.frame(form.pack_image([4e9, 5e9], b"")))
    with pytest.raises(FileFormatError, match="record 0"):
        faces.from_recordio(path)


@pytest.mark.parametrize("text", ["", "1,2", "a,112,112", "10,-1,5", "10,99999,99999", "1,2,3,4"])
def test_a_broken_property_file_is_named(tmp_path, text):
    (tmp_path / "property").write_text(text)
    with pytest.raises(FileFormatError, match="property"):
        sources.read_property(tmp_path / "property")


def test_nothing_is_left_of_a_set_that_could_not_be_finished(tmp_path):
    def images():
        yield picture()
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="disk"):
        faces.write_recordio(tmp_path / "a.rec", images(), [0, 0])
    with pytest.raises(ValueError, match="1 images and 2 labels"):
        faces.write_recordio(tmp_path / "a.rec", [picture()], [0, 0])
    with pytest.raises(ValueError, match="1 labels"):
        faces.write_recordio(tmp_path / "a.rec", [picture()] * 2, [0])
    assert list(tmp_path.iterdir()) == []


def test_labels_that_float32_cannot_hold_are_refused(tmp_path):
    with pytest.raises(ValueError, match="16777217"):
        faces.write_recordio(tmp_path / "a.rec", [picture()], [16777217])
    with faces.RecordIOWriter(tmp_path / "b.rec") as writer:
        writer.add(b"a", 0)
        writer.add(b"b", 1)
        with pytest.raises(ValueError, match="together"):
            writer.add(b"c", 0)


def test_a_kill_before_the_index_is_written_leaves_no_older_one(tmp_path, monkeypatch):
    faces.write_recordio(tmp_path / "a.rec", [picture(value) for value in range(3)], [0, 1, 2])

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(recordio_writer, "write_index", killed)
    with pytest.raises(KeyboardInterrupt):
        faces.write_recordio(tmp_path / "a.rec", [picture(value) for value in range(2)], [0, 0])
    dataset = faces.from_recordio(tmp_path / "a.rec")  # rebuilds the index
    assert [dataset.read(number)[1] for number in range(2)] == [0, 0]


def test_keys_in_any_order(tmp_path):
    path = faces.write_recordio(tmp_path / "a.rec", [picture(value) for value in range(3)], [0, 1, 2])
    lines = (tmp_path / "a.idx").read_text().splitlines()
    (tmp_path / "a.idx").write_text("\n".join(reversed(lines)))
    dataset = faces.from_recordio(path)
    assert [dataset.read(number)[1] for number in range(3)] == [0, 1, 2]
    with faces.RecordIOReader(path) as reader, pytest.raises(KeyError, match="77"):
        reader.position_of(77)
