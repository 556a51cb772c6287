import os
import pickle
import struct

import numpy as np
import pytest

from keras_sphereface.data import bin_reader
from keras_sphereface.data.bin_pairs import read_bin, write_bin
from keras_sphereface.data.images import encode_jpeg, encode_png
from keras_sphereface.data.pairs import PairSet
from keras_sphereface.errors import FileFormatError


@pytest.fixture
def pairs(rng):
    images = rng.integers(0, 256, (4, 8, 6, 3), dtype=np.uint8)
    return PairSet.from_arrays(images, [0, 2, 0], [1, 3, 3], [1, 0, 0])


def _dump(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("encoding", ["png", "array"])
def test_round_trip_without_loss(tmp_path, pairs, encoding):
    write_bin(tmp_path / "mine.bin", pairs, encoding=encoding)
    read = read_bin(tmp_path / "mine.bin")
    assert (read.name, read.num_images, len(read)) == ("mine", 4, 3)
    np.testing.assert_array_equal(read.mated, pairs.mated)
    for side in ("left", "right"):
        for mine, theirs in zip(getattr(read, side), getattr(pairs, side)):
            np.testing.assert_array_equal(read.image(mine), pairs.image(theirs))


def test_a_file_that_is_cut_short_or_deleted_while_it_is_in_use(tmp_path, pairs):
    path = tmp_path / "mine.bin"
    write_bin(path, pairs)
    read = read_bin(path)
    path.rename(tmp_path / "other.bin")
    np.testing.assert_array_equal(read.image(0), pairs.image(0))
    os.truncate(tmp_path / "other.bin", 100)
    with pytest.raises(FileFormatError, match=r"mine\.bin: became shorter while it was in use"):
        read.image(3)


@pytest.mark.parametrize("num_folds", [0, -3, 2.5])
def test_a_number_of_folds_that_cannot_be(tmp_path, pairs, num_folds):
    write_bin(tmp_path / "mine.bin", pairs)
    with pytest.raises(ValueError, match=r"`num_folds` must be .* Received: num_folds="):
        read_bin(tmp_path / "mine.bin", num_folds=num_folds)


def test_jpeg_round_trip_is_close(tmp_path):
    smooth = np.broadcast_to(np.arange(0, 160, 10, dtype=np.uint8)[:, None, None], (16, 16, 3))
    write_bin(tmp_path / "mine.bin", PairSet.from_arrays(smooth[None], [0], [0], [1]), encoding="jpeg")
    assert np.abs(read_bin(tmp_path / "mine.bin").image(0).astype(int) - smooth).max() <= 3


def test_written_file_is_a_plain_pickle_for_other_readers(tmp_path, pairs):
    write_bin(tmp_path / "mine.bin", pairs)
    images, mated = pickle.loads((tmp_path / "mine.bin").read_bytes())
    assert mated == [True, False, False]
    assert images[0] == images[4] == encode_png(pairs.image(0))
    assert os.listdir(tmp_path) == ["mine.bin"]


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["bytes", "encoded array", "column", "pixels", "channels first", "fortran"])
def test_every_kind_and_protocol(tmp_path, pairs, protocol, kind):
    image = pairs.image(0)
    encoded = encode_png(image)
    item = {
        "bytes": encoded,
        "encoded array": np.frombuffer(encoded, np.uint8),
        "column": np.frombuffer(encoded, np.uint8)[:, None].copy(),
        "pixels": image,
        "channels first": image.transpose(2, 0, 1).copy(),
        "fortran": np.asfortranarray(image),
    }[kind]
    read = read_bin(_dump(tmp_path / "a.bin", ([item, item], [True]), protocol))
    assert read.num_images == 1
    np.testing.assert_array_equal(read.image(0), image)


@pytest.mark.parametrize(
    "flags", [[True, False], [1, 0], [np.True_, np.False_], np.array([True, False]), (True, False)]
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_every_kind_of_flags(tmp_path, pairs, flags, protocol):
    item = encode_png(pairs.image(0))
    assert read_bin(_dump(tmp_path / "a.bin", ([item] * 4, flags), protocol)).mated.tolist() == [True, False]


def test_pickle_of_python_2(tmp_path, pairs):
    # What Python 2 wrote: byte strings as BINSTRING, and an array whose state holds one.
    data = encode_png(pairs.image(1))
    string = b"T" + struct.pack("<i", len(data)) + data
    content = b"\x80\x02]q\x00(" + string + b"q\x01h\x01e]q\x02\x88a\x86q\x03."
    (tmp_path / "two.bin").write_bytes(content)
    np.testing.assert_array_equal(read_bin(tmp_path / "two.bin").image(0), pairs.image(1))


def test_folds_are_runs_of_pairs(tmp_path, pairs):
    path = _dump(tmp_path / "a.bin", ([encode_png(pairs.image(0))] * 24, [True] * 12))
    assert read_bin(path).folds.tolist() == [0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert read_bin(path, num_folds=3).folds.tolist() == [0] * 4 + [1] * 4 + [2] * 4


class _Attack:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [1, 2, 4])
@pytest.mark.parametrize("name", ["eval", "exec"])
def test_hostile_call_is_refused_by_name_and_never_runs(tmp_path, protocol, name):
    marker = tmp_path / "it_ran"
    attack = _Attack(getattr(__import__("builtins"), name), f"open({str(marker)!r}, 'w').close()")
    for content in ([attack, attack], [True]), attack:
        with pytest.raises(FileFormatError, match=rf"(builtins|__builtin__)\.{name}' is refused"):
            read_bin(_dump(tmp_path / "evil.bin", content, protocol))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"(S'true'\nios\nsystem\n.", None),
        (b"(ios\nsystem\n.", "os.system"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.", "posix.system"),
        (b"cnumpy.core.multiarray\nfromfile\n.", "numpy.core.multiarray.fromfile"),
        (b"c_codecs\ndecode\n.", "_codecs.decode"),
        (b"cnumpy\ndtype\n}(U\x01aK\x01ub.", "EMPTY_DICT"),
        (b"cnumpy\nndarray\n)\x81.", "NEWOBJ"),
        (b"\x82\x01.", "EXT1"),
        (b"2\t6\nAnn\t1\t2\n", "Check that it is a .bin pair file"),  # a text list
        (b"Pabc\n.", "PERSID"),
    ],
)
def test_hostile_instructions_are_refused(tmp_path, content, named):
    path = tmp_path / "evil.bin"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=named or "refused") as caught:
        read_bin(path)
    assert "evil.bin: byte" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.",  # another codec than latin1
        b"c_codecs\nencode\n(K\x01K\x02b.",  # a state for a name
        b"cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R.",  # object dtype
        b"cnumpy\nndarray\n)R.",  # an array made directly
        b"K\x01)R.",  # a call of a number
        b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab.",  # 2^63 bytes announced
        b"\x80\x02B\xff\xff\xff\x7fab.",  # 2^31 bytes announced
        b"]r\xff\xff\xff\x7f0.",  # a memo of 2^31 entries, then POP
        b"a.",
        b"\x85.",
        b"((.",
        b"e.",
        b"h\x05.",
        b".",
        b"",
        b"\xff\xd8\xff\xe0 a jpeg",
    ],
)
def test_broken_and_greedy_files_end_in_one_error(tmp_path, content):
    path = tmp_path / "broken.bin"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"broken\.bin"):
        read_bin(path)


def test_every_truncation_is_an_error(tmp_path, pairs):
    path = tmp_path / "cut.bin"
    write_bin(path, pairs, encoding="array")
    content = path.read_bytes()
    for length in range(0, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(FileFormatError, match=r"cut\.bin"):
            read_bin(path)


def test_random_damage_never_ends_in_another_error(tmp_path, pairs, rng):
    path = tmp_path / "damaged.bin"
    write_bin(path, pairs, encoding="array")
    content = path.read_bytes()
    refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 3):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read = read_bin(path)
            for index in range(read.num_images):
                read.image(index)
        except FileFormatError:
            refused += 1
    assert 0 < refused < 400


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([b"x"], "expected \\(images, is_same\\)"),
        (([b"x"] * 3, [True]), "two images per pair, 2 for 1 pairs, found 3"),
        (([b"x"] * 2, [2]), "list of booleans"),
        (([1, 2], [True]), "image 0: expected bytes"),
        ((np.zeros((2, 4, 4, 3), np.uint8), [True]), "found one array for the list of images"),
    ],
)
def test_wrong_contents_are_named(tmp_path, content, message):
    with pytest.raises(FileFormatError, match=message):
        read_bin(_dump(tmp_path / "a.bin", content))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_of_either_kind_in_every_protocol(tmp_path, pairs, kind, protocol):
    images = [kind(encode_png(pairs.image(index))) for index in range(4)]
    read = read_bin(_dump(tmp_path / "x.bin", (images, [True, False]), protocol))
    for index in range(4):
        np.testing.assert_array_equal(read.image(index), pairs.image(index))


def test_a_file_of_nothing_but_instructions_is_left_early(tmp_path, monkeypatch):
    monkeypatch.setattr(bin_reader, "MOST_INSTRUCTIONS", 1000)
    (tmp_path / "x.bin").write_bytes(b"\x80\x02" + b"]" * 5000 + b".")
    with pytest.raises(FileFormatError, match="byte 1001: more than 1000 instructions"):
        read_bin(tmp_path / "x.bin")


def test_object_arrays_are_refused(tmp_path):
    array = np.empty(2, object)
    array[:] = [b"x", b"y"]
    with pytest.raises(FileFormatError, match="dtype 'O8'"):
        read_bin(_dump(tmp_path / "a.bin", (array, [True])))


def test_broken_image_is_named_when_it_is_decoded(tmp_path, pairs):
    good = encode_jpeg(pairs.image(0))
    read = read_bin(_dump(tmp_path / "a.bin", ([good, good[:40]], [True])))
    with pytest.raises(FileFormatError, match=r"a\.bin: image 1"):
        read.image(read.right[0])
    floats = np.zeros((2, 2, 3), np.int32)
    with pytest.raises(FileFormatError, match=r"image 0: expected uint8 pixels"):
        read_bin(_dump(tmp_path / "b.bin", ([floats] * 2, [True]))).image(0)


def test_unknown_encoding(tmp_path, pairs):
    with pytest.raises(ValueError, match="encoding='gif'"):
        write_bin(tmp_path / "a.bin", pairs, encoding="gif")


def test_real_files_of_both_kinds(shared):
    encoded = read_bin(shared / "data/recordio_sample/validation.bin")
    assert (len(encoded), int(encoded.mated.sum())) == (749, 749)
    arrays = read_bin(shared / "data/recordio_sample/small_lfw.bin")
    assert len(arrays) == 10
    for read in (encoded, arrays):
        assert next(read.images(4)).shape == (4, 112, 112, 3)
