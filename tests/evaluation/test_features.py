"""The feature cache: what a kill leaves, what is refused."""

import errno

import h5py
import numpy as np
import pytest

from keras_sphereface.errors import FileFormatError
from keras_sphereface.evaluation import features
from keras_sphereface.evaluation.features import extract, open_features

NAMES = [f"{i}.jpg" for i in range(10)]
IMAGES = np.arange(10 * 2 * 2 * 3, dtype=np.uint8).reshape(10, 2, 2, 3)


def blocks(start, size=3):
    for first in range(start, len(IMAGES), size):
        yield IMAGES[first : first + size]


def embed(images):
    return images[:, 0, :, 0].astype("float32")


class KilledError(Exception):
    """Stands for a kill in the middle of a run."""


def killed_after(calls):
    """An embed that works so many times and then dies, and a list of how many images it saw."""
    seen = []

    def stub(images):
        if len(seen) == calls:
            raise KilledError
        seen.append(len(images))
        return embed(images)

    return stub, seen


def test_round_trip_with_flip(tmp_path):
    path = tmp_path / "f.h5"
    extract(embed, blocks, path, NAMES, "model-1")
    with open_features(path, NAMES, "model-1") as file:
        np.testing.assert_array_equal(file["features"][:], embed(IMAGES))
        np.testing.assert_array_equal(file["flipped_features"][:], embed(IMAGES)[:, ::-1])


def test_the_folder_is_made(tmp_path):
    assert extract(embed, blocks, tmp_path / "new" / "f.h5", NAMES, "m").is_file()


def test_goes_on_where_it_was(tmp_path):
    path = tmp_path / "f.h5"
    stub, _ = killed_after(2)
    with pytest.raises(KilledError):
        extract(stub, blocks, path, NAMES, "m", flip=False)
    with pytest.raises(FileFormatError, match="holds 6 of 10 rows"):
        open_features(path)
    stub, seen = killed_after(100)
    extract(stub, blocks, path, NAMES, "m", flip=False)
    assert seen == [3, 1]
    with open_features(path, NAMES, "m") as file:
        np.testing.assert_array_equal(file["features"][:], embed(IMAGES))
    # A complete file asks for no image at all.
    extract(None, None, path, NAMES, "m", flip=False)


def test_a_killed_process_leaves_a_readable_file(tmp_path):
    import subprocess
    import sys

    path = tmp_path / "f.h5"
    code = f"""
import os, signal, numpy as np
from keras_sphereface.evaluation.features import extract
def embed(images):
    embed.calls += 1
    if embed.calls == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return images[:, 0, :, 0].astype("float32")
embed.calls = 0
images = np.arange(120, dtype=np.uint8).reshape(10, 2, 2, 3)
extract(embed, lambda s: (images[i:i+3] for i in range(s, 10, 3)), {str(path)!r}, {NAMES!r}, "m", flip=False)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    stub, seen = killed_after(100)
    extract(stub, blocks, path, NAMES, "m", flip=False)
    assert seen == [3, 1]
    with open_features(path) as file:
        np.testing.assert_array_equal(file["features"][:], embed(IMAGES))


def test_another_model_list_or_flip_is_refused(tmp_path):
    path = tmp_path / "f.h5"
    extract(embed, blocks, path, NAMES, "m", flip=False)
    with pytest.raises(FileFormatError, match="model_signature=m, now model_signature=other"):
        extract(embed, blocks, path, NAMES, "other", flip=False)
    with pytest.raises(FileFormatError, match="images_sha256"):
        extract(embed, blocks, path, [*NAMES[:9], "x.jpg"], "m", flip=False)
    with pytest.raises(FileFormatError, match="crops=, now crops=112x96"):
        extract(embed, blocks, path, NAMES, "m", flip=False, crops="112x96")
    with pytest.raises(FileFormatError, match="flip=False, now flip=True"):
        extract(embed, blocks, path, NAMES, "m")
    with pytest.raises(FileFormatError, match="model_signature"):
        open_features(path, model_signature="other")
    with pytest.raises(FileFormatError, match="images_sha256"):
        open_features(path, names=NAMES[:3])


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "f.h5"
    extract(embed, blocks, path, NAMES, "m")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 50])
    with pytest.raises(FileFormatError, match="not a whole HDF5 file"):
        open_features(path)
    path.write_bytes(b"hello")
    with pytest.raises(FileFormatError, match="not a whole HDF5 file"):
        extract(embed, blocks, path, NAMES, "m")
    with h5py.File(path, "w") as file:
        file["x"] = [1]
    with pytest.raises(FileFormatError, match="not a feature file"):
        open_features(path)
    with pytest.raises(FileNotFoundError, match="No feature file"):
        open_features(tmp_path / "none.h5")


@pytest.mark.parametrize("part", ["features", "flipped_features", "valid_rows"])
@pytest.mark.parametrize("value", [None, 1.0, np.zeros(0), np.zeros((4, 8), "S3"), np.zeros((2, 2, 2))], ids=str)
def test_parts_of_a_wrong_kind_are_refused(part, value, tmp_path):
    extract(embed, blocks, tmp_path / "f.h5", NAMES, "m", flip=True)
    with h5py.File(tmp_path / "f.h5", "a") as file:
        del file[part]
        if value is None:
            file.create_group(part)
        else:
            file[part] = value
    with pytest.raises(FileFormatError, match="not a feature file"):
        open_features(tmp_path / "f.h5")


@pytest.mark.parametrize("claimed", [11, 99, -1, -2])
def test_a_number_of_rows_that_cannot_be_is_refused(tmp_path, claimed):
    extract(embed, blocks, tmp_path / "f.h5", NAMES, "m")
    with h5py.File(tmp_path / "f.h5", "a") as file:
        file["valid_rows"][0] = claimed
    for read in (open_features, lambda path: extract(embed, blocks, path, NAMES, "m")):
        with pytest.raises(FileFormatError, match=f"claims {claimed} of 10 rows: it is damaged. Delete the file"):
            read(tmp_path / "f.h5")


def test_a_file_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        extract(embed, blocks, tmp_path / "f.h5", NAMES, "m")
    assert caught.value.filename == str(tmp_path / "f.h5")
    assert not list(tmp_path.iterdir())


def test_a_file_is_made_under_a_name_of_its_own(tmp_path):
    other = tmp_path / "f.h5.tmp"  # such as another process may be writing
    other.write_text("another's")
    extract(embed, blocks, tmp_path / "f.h5", NAMES, "m")
    assert other.read_text() == "another's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.h5", "f.h5.tmp"]


def test_bad_features_are_refused_naming_the_image(tmp_path):
    def broken(images):
        return np.where(images[:, 0, :, 0] == IMAGES[4, 0, 0, 0], np.nan, 1.0)

    with pytest.raises(ValueError, match=r"row 4 \(4\.jpg\)"):
        extract(broken, blocks, tmp_path / "a.h5", NAMES, "m")
    with pytest.raises(ValueError, match="Received: 10 images, 11 names"):
        extract(embed, blocks, tmp_path / "b.h5", [*NAMES, "z"], "m")
    with pytest.raises(ValueError, match="More images than names"):
        extract(embed, blocks, tmp_path / "c.h5", NAMES[:5], "m")
    with pytest.raises(ValueError, match=r"features.shape=\(3,\)"):
        extract(lambda images: np.ones(len(images)), blocks, tmp_path / "d.h5", NAMES, "m")
    stub, _ = killed_after(1)
    with pytest.raises(KilledError):
        extract(stub, blocks, tmp_path / "e.h5", NAMES, "m", flip=False)
    with pytest.raises(ValueError, match="3 for 2 in"):
        extract(lambda images: np.ones((len(images), 3)), blocks, tmp_path / "e.h5", NAMES, "m", flip=False)


def test_two_programs_that_begin_one_file_leave_a_whole_one(tmp_path):
    path = tmp_path / "f.h5"

    def overtaken(start):
        first, *others = blocks(start)
        yield first
        extract(embed, blocks, path, NAMES, "m")  # the other program
        yield from others

    with pytest.raises(BlockingIOError, match="another program is writing"):
        extract(embed, overtaken, path, NAMES, "m")
    with open_features(path, NAMES, "m") as file:
        np.testing.assert_array_equal(file["features"][:], embed(IMAGES))


def test_rows_that_a_program_lost_to_another_are_not_counted(tmp_path):
    path = tmp_path / "f.h5"

    def replaced(start):
        first, second, *others = blocks(start)
        yield first
        yield second
        path.unlink()
        stub, _ = killed_after(2)  # the other program, which is one block behind
        with pytest.raises(KilledError):
            extract(stub, blocks, path, NAMES, "m")
        yield from others

    with pytest.raises(BlockingIOError, match="another program is writing"):
        extract(embed, replaced, path, NAMES, "m")
    with pytest.raises(FileFormatError, match="holds 3 of 10 rows"):
        open_features(path)


def test_a_file_that_another_program_holds_is_not_called_broken(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="HDF5 locks files by flock where the system has it")
    monkeypatch.setattr(features, "PATIENCE", 0.0)
    path = extract(embed, blocks, tmp_path / "f.h5", NAMES, "m")
    with open(path, "rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match=r"another program is writing.*f\.h5"):
            open_features(path)
    with open_features(path) as file:
        assert len(file["features"]) == len(NAMES)


def test_attributes_of_a_wrong_kind_are_refused(tmp_path):
    path = extract(embed, blocks, tmp_path / "f.h5", NAMES, "m")
    with h5py.File(path, "r+") as file:
        file.attrs["images_sha256"] = np.arange(5)
    with pytest.raises(FileFormatError, match=r"made with images_sha256=\[0 1 2 3 4\], now"):
        open_features(path, NAMES)
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = np.arange(5)
    with pytest.raises(FileFormatError, match="made with format="):
        open_features(path)


def test_features_that_are_not_stored_are_refused(tmp_path):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file.attrs["format"] = features.FORMAT
        file["valid_rows"] = np.array([5])
        file.create_dataset("features", (5, 200_000_000), "f4")
    with pytest.raises(FileFormatError, match="claims 4000000000 bytes, but 0 are stored"):
        open_features(path)
