"""Readers of the official IJB meta files, on small files in their formats."""

import numpy as np
import pytest

from keras_sphereface.data.alignment import ARCFACE_112X112
from keras_sphereface.data.ijb import read_ijb
from keras_sphereface.data.ijb_images import IJBImages
from keras_sphereface.data.images import encode_png
from keras_sphereface.data.int_tables import read_int_table
from keras_sphereface.errors import FileFormatError

POINTS = " ".join(f"{value:.4f}" for value in ARCFACE_112X112.ravel())


@pytest.fixture
def folder(tmp_path):
    """Templates 1 and 5 of person 11, 2 of person 22, 9 of person 99 who is in no gallery."""
    meta = tmp_path / "meta"
    meta.mkdir()
    (meta / "ijbc_face_tid_mid.txt").write_text("1.jpg 1 100\n2.jpg 1 100\n3.jpg 2 200\n4.jpg 5 300\n5.jpg 9 400\n")
    scores = [0.9, 0.8, 1.0, 0.5, 0.25]
    lines = [f"{i}.jpg {POINTS} {score}\n" for i, score in enumerate(scores, 1)]
    (meta / "ijbc_name_5pts_score.txt").write_text("".join(lines))
    (meta / "ijbc_template_pair_label.txt").write_text("1 5 1\n1 2 0\n2 9 0\n")
    title = "TEMPLATE_ID,SUBJECT_ID,FILENAME,FACE_X\n"
    (meta / "ijbc_1N_gallery_G1.csv").write_text(f"{title}1,11,img/1.jpg,3\n1,11,frames/2.png,4\n")
    (meta / "ijbc_1N_gallery_G2.csv").write_text(f"{title}2,22,img/3.jpg,3\n")
    (meta / "ijbc_1N_probe_mixed.csv").write_text(f"{title}9,99,img/5.jpg,3\n5,11,img/4.jpg,3\n")
    return tmp_path


def change(folder, name, text):
    (folder / "meta" / name).write_text(text)


@pytest.mark.parametrize(("inner", "mark"), [("", ""), ("meta", ""), ("", "\ufeff")])  # the last: a byte order mark
def test_reads_the_official_files(folder, inner, mark):
    for path in (folder / "meta").iterdir():
        path.write_text(mark + path.read_text(), encoding="utf-8")
    meta = read_ijb(folder / inner, "IJB-C")
    assert meta.name == "ijbc"
    assert meta.image_names == ["1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert meta.template_ids.tolist() == [1, 1, 2, 5, 9]
    assert meta.media_ids.tolist() == [100, 100, 200, 300, 400]
    np.testing.assert_allclose(meta.detector_scores, [0.9, 0.8, 1.0, 0.5, 0.25], rtol=1e-6)
    np.testing.assert_allclose(meta.landmarks[3], ARCFACE_112X112, rtol=1e-6)
    assert (meta.pair_left.tolist(), meta.pair_right.tolist()) == ([1, 1, 2], [5, 2, 9])
    assert meta.pair_mated.tolist() == [True, False, False]
    assert [(g.name, g.template_ids.tolist(), g.subject_ids.tolist()) for g in meta.galleries] == [
        ("G1", [1], [11]),
        ("G2", [2], [22]),
    ]
    assert (meta.probes.template_ids.tolist(), meta.probes.subject_ids.tolist()) == ([5, 9], [11, 99])


def test_ijbb_has_its_own_names(folder):
    for path in (folder / "meta").iterdir():
        path.rename(path.with_name(path.name.replace("ijbc", "ijbb").replace("_G1", "_S1").replace("_G2", "_S2")))
    assert [gallery.name for gallery in read_ijb(folder, "ijbb").galleries] == ["S1", "S2"]


def test_parts_can_be_left_out(folder):
    (folder / "meta" / "ijbc_1N_gallery_G2.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"ijbc_1N_gallery_G2.csv.*identification=False"):
        read_ijb(folder, "ijbc")
    meta = read_ijb(folder, "ijbc", verification=False, identification=False)
    assert (meta.galleries, meta.probes, len(meta.pair_mated)) == ((), None, 0)
    with pytest.raises(ValueError, match="name='ijba'"):
        read_ijb(folder, "ijba")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ijbc_face_tid_mid.txt", "1.jpg 1 100\n", r"has 1 images, .*name_5pts_score.txt has 5"),
        ("ijbc_face_tid_mid.txt", "1.jpg 1 100\n2.jpg x 100\n", r"face_tid_mid.txt, line 2: .*'2.jpg x 100'"),
        ("ijbc_face_tid_mid.txt", "1.jpg 1 100\n2.jpg 1\n", r"face_tid_mid.txt, line 2"),
        ("ijbc_face_tid_mid.txt", "", "holds no lines"),
        ("ijbc_name_5pts_score.txt", f"1.jpg {POINTS} 0.5\n2.jpg {POINTS} nan\n", r"5pts_score.txt, line 2"),
        ("ijbc_name_5pts_score.txt", f"1.jpg {POINTS}\n", r"5pts_score.txt, line 1: expected an image name, ten"),
        ("ijbc_name_5pts_score.txt", f"\n1.jpg {POINTS} 1.5\n", r"line 2: expected a detector score of 0..1 for 1.jpg"),
        ("ijbc_name_5pts_score.txt", f"1.jpg {POINTS} -1\n", r"line 1: expected a detector score of 0..1 for 1.jpg"),
        (
            "ijbc_name_5pts_score.txt",
            f"1.jpg {'5 7 ' * 5} 1\n",
            r"line 1: expected points .* coincide for 1.jpg, found 5 7",
        ),
        ("ijbc_name_5pts_score.txt", f"1.jpg {POINTS} 1\n" * 5, r"line 2: expected image '2.jpg'"),
        (
            "ijbc_template_pair_label.txt",
            "1 5 1\n\n1 77 0\n",
            r"label.txt, line 3: template 77 has no image in .*tid_mid",
        ),
        ("ijbc_template_pair_label.txt", "1 5 1\n1 five 0\n", r"label.txt, line 2: .*'1 five 0'"),
        ("ijbc_template_pair_label.txt", "1 5 1\n1 2\n", r"label.txt, line 2"),
        ("ijbc_template_pair_label.txt", "1 5 2\n", r"label.txt, line 1: expected the label 0 or 1, found 2"),
        ("ijbc_template_pair_label.txt", "", r"label.txt: holds no pairs"),
        ("ijbc_template_pair_label.txt", "1 -5 1\n", r"label.txt, line 1"),
        ("ijbc_1N_probe_mixed.csv", "TEMPLATE_ID,SUBJECT_ID\n5,x\n", r"mixed.csv, line 2"),
        (
            "ijbc_1N_probe_mixed.csv",
            "TEMPLATE_ID,SUBJECT_ID\n5,11\n5,12\n",
            r"line 3: template 5 belongs to subject 12",
        ),
        ("ijbc_1N_probe_mixed.csv", "A,B\n5,11\n", r"line 1: expected columns TEMPLATE_ID .*'B'\]\. Take the file"),
        ("ijbc_1N_probe_mixed.csv", "TEMPLATE_ID,SUBJECT_ID\n5,9\n\n6,11\n6,11\n", r"line 4: template 6 has no image"),
        ("ijbc_1N_probe_mixed.csv", "TEMPLATE_ID,SUBJECT_ID\n", r"holds no templates"),
    ],
)
def test_broken_files_are_refused_with_file_line_and_remedy(folder, name, text, message):
    change(folder, name, text)
    with pytest.raises(FileFormatError, match=message):
        read_ijb(folder, "ijbc")


@pytest.mark.parametrize("chunk_bytes", [1, 7, 50, 1 << 20])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_int_table_round_trip_at_any_chunk_size(tmp_path, rng, chunk_bytes, newline, last):
    table = rng.integers(0, 10 ** rng.integers(1, 10, (60, 3)))
    lines = [" ".join(map(str, row)) for row in table]
    lines.insert(7, "")
    text = newline.join(lines) + (newline if last else "")
    (tmp_path / "t.txt").write_bytes(text.encode())
    read = read_int_table(tmp_path / "t.txt", 3, chunk_bytes)
    np.testing.assert_array_equal(read, table.T)
    assert read.dtype == np.int32


def test_int_table_names_the_line_in_a_later_chunk(tmp_path):
    (tmp_path / "t.txt").write_text("1 2 3\n" * 40 + "1 2 1234567890\n")
    with pytest.raises(FileFormatError, match="line 41"):
        read_int_table(tmp_path / "t.txt", 3, chunk_bytes=32)
    (tmp_path / "t.txt").write_bytes(b"1" * 200_000)
    with pytest.raises(FileFormatError, match="line 1: expected 3 integers of up to 9 digits"):
        read_int_table(tmp_path / "t.txt", 3, chunk_bytes=1000)
    (tmp_path / "t.txt").write_bytes(b"")
    assert read_int_table(tmp_path / "t.txt", 3).shape == (3, 0)
    (tmp_path / "t.txt").write_bytes(b"1 2 3\n1 2\n3\n")
    with pytest.raises(FileFormatError, match="line 2"):
        read_int_table(tmp_path / "t.txt", 3)


def test_images_come_aligned_in_order_and_from_any_start(folder, rng):
    crops = folder / "loose_crop"
    crops.mkdir()
    images = rng.integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
    for number, image in enumerate(images, 1):
        (crops / f"{number}.jpg").write_bytes(encode_png(image))
    meta = read_ijb(folder, "ijbc")
    source = IJBImages(meta, folder)
    # The landmarks are the template's own: alignment moves nothing.
    np.testing.assert_array_equal(np.concatenate(list(source.batches(2))), images)
    np.testing.assert_array_equal(np.concatenate(list(source.batches(2, start=3))), images[3:])
    narrow = next(IJBImages(meta, crops, (112, 96)).batches(5))
    np.testing.assert_array_equal(narrow, images[:, :, 8:104])
    meta.landmarks[1] = 7
    with pytest.raises(ValueError, match=r"2\.jpg: cannot be aligned .*coincide.*Correct its landmarks"):
        next(IJBImages(meta, folder).batches(5))
    (crops / "4.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 5 images of ijbc are not in .*'4.jpg'"):
        IJBImages(meta, folder)


@pytest.mark.parametrize("size", [(160, 160), (96, 112), 112, (112.0, 112.0)])
def test_a_size_to_which_no_face_is_aligned_is_refused_at_once(folder, size):
    with pytest.raises(ValueError, match=r"image_size.*Received: image_size="):
        IJBImages(read_ijb(folder, "ijbc"), folder, size)


def test_batches_of_no_images_are_refused(folder):
    (folder / "loose_crop").mkdir()
    for number in range(1, 6):
        (folder / "loose_crop" / f"{number}.jpg").touch()
    with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1"):
        next(IJBImages(read_ijb(folder, "ijbc"), folder).batches(0))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ijbc_face_tid_mid.txt", "1.jpg 1 100\n2.jpg -1 100\n3.jpg 2 200\n4.jpg 5 300\n5.jpg 9 400\n"),
        ("ijbc_1N_gallery_G1.csv", "TEMPLATE_ID,SUBJECT_ID\n-1,11\n"),
    ],
)
def test_negative_template_ids_are_refused_by_line(folder, name, text):
    change(folder, name, text)
    with pytest.raises(FileFormatError, match=rf"{name}, line 2: expected .*-1"):
        read_ijb(folder, "ijbc")
