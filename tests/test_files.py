"""Files written whole or not at all."""

import errno
import hashlib
import os

import pytest

from keras_sphereface.files import atomic_writer, check_output, draft, sha256


def test_draft_replaces_a_file_when_the_block_ends_well(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("old")
    with draft(path) as unfinished:
        assert unfinished.name == path.name
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["model.keras"]


def test_draft_replaces_a_folder(tmp_path):
    path = tmp_path / "saved_model"
    path.mkdir()
    (path / "old").touch()
    with draft(path) as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["saved_model"]


@pytest.mark.parametrize("name", ["model.keras", "folder/deep/model.pb"])
def test_what_is_new_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch, name):
    path, flushed, fsync = tmp_path / name.partition("/")[0], [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append(os.fstat(number).st_ino) or fsync(number))
    with draft(path) as unfinished:
        file = unfinished.parent / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("new")
        monkeypatch.setattr(os, "replace", lambda *paths: flushed.append("replaced") or os.rename(*paths))
    assert flushed.index((tmp_path / name).stat().st_ino) < flushed.index("replaced")

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught, draft(tmp_path / "other") as unfinished:
        unfinished.write_text("new")
    assert caught.value.filename == str(tmp_path / "other")
    assert os.listdir(tmp_path) == [path.name]


def test_what_raises_leaves_the_older_file(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("old")

    def write_half():
        with draft(path) as unfinished:
            unfinished.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["model.keras"]


def test_output_that_cannot_be_written_is_known_before_the_work(tmp_path, monkeypatch):
    assert check_output(tmp_path / "new.npz") == tmp_path / "new.npz"
    with pytest.raises(ValueError, match="Expected a file"):
        check_output(tmp_path)
    with pytest.raises(FileNotFoundError, match="no does not exist"):
        check_output(tmp_path / "no" / "new.npz")
    assert check_output(tmp_path / "new" / "deep" / "new.npz", make_folder=True).parent.is_dir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root, who may write anywhere
    with pytest.raises(PermissionError, match="Nothing can be written"):
        check_output(tmp_path / "new.npz")


@pytest.mark.parametrize("writer", [atomic_writer, draft])
def test_errors_name_the_file_that_was_asked_for(tmp_path, writer, monkeypatch):
    def write(path):
        with writer(path) as unfinished:
            if writer is draft:
                unfinished.touch()

    missing, full = tmp_path / "no folder" / "model.keras", tmp_path / "model.keras"
    with pytest.raises(FileNotFoundError) as caught:
        write(missing)
    assert caught.value.filename == str(missing)
    monkeypatch.setattr(os, "replace", lambda *paths: os.stat(tmp_path / "no folder" / ".temporary"))
    with pytest.raises(FileNotFoundError) as caught:
        write(full)
    assert caught.value.filename == str(full)
    assert os.listdir(tmp_path) == []


def test_checksum(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 1_000_000)
    assert sha256(path) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_a_folder_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    path = tmp_path / "saved_model"
    path.mkdir()
    (path / "old").touch()

    def interrupt(*_):
        raise KeyboardInterrupt

    def write():
        with draft(path) as unfinished:
            unfinished.mkdir()
            monkeypatch.setattr(os, "replace", interrupt)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["saved_model"]
