import numpy as np
import pytest

from keras_sphereface import data as faces
from keras_sphereface.cli import main


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "people"
    for number, name in enumerate(["ann", "bob"]):
        (root / name).mkdir(parents=True)
        for count in range(2 + number):
            array = np.full((32, 32, 3), 50 * number + 10 * count, np.uint8)
            (root / name / f"{count}.jpg").write_bytes(faces.encode_jpeg(array))
    (root / "carl").mkdir()
    (root / "carl" / "large.png").write_bytes(faces.encode_png(np.full((64, 48, 3), 200, np.uint8)))
    return root


def test_pack_writes_what_training_reads(folder, tmp_path, capsys):
    assert main(["pack", str(folder), str(tmp_path / "out" / "train.rec"), "--image-size", "32"]) == 0
    printed = capsys.readouterr().out
    assert "Packed 6 images of 3 people" in printed
    assert all(str(tmp_path / "out" / name) in printed for name in ("train.rec", "train.idx", "property"))
    assert "5 as they were, 1 encoded" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["property", "train.idx", "train.rec"]
    assert (tmp_path / "out" / "property").read_text() == "3,32,32"
    dataset = faces.from_recordio(tmp_path / "out" / "train.rec")
    assert [dataset.read(number)[1] for number in range(6)] == [0, 0, 1, 1, 1, 2]
    assert dataset.source.read(3)[0] == (folder / "bob" / "1.jpg").read_bytes()
    image, _ = dataset.read(5)
    assert image.shape == (32, 32, 3)
    assert abs(int(image.mean()) - 200) <= 2


def test_narrow_crops_are_packed_as_they_are_and_stretched_ones_are_counted(tmp_path, capsys):
    (tmp_path / "people" / "ann").mkdir(parents=True)
    for number, size in enumerate([(56, 48), (112, 96), (113, 96), (56, 56)]):
        data = faces.encode_jpeg(np.full((*size, 3), 99, np.uint8))
        (tmp_path / "people" / "ann" / f"{number}.jpg").write_bytes(data)
    words = ["pack", str(tmp_path / "people"), str(tmp_path / "a.rec")]
    assert main([*words, "--image-size", "56x48"]) == 0
    printed = capsys.readouterr()
    assert "1 as they were, 3 encoded" in printed.out
    assert "keras-sphereface pack: stretched to 56x48: 1 of 4 images. Give --image-size HEIGHTxWIDTH" in printed.err
    assert (tmp_path / "property").read_text() == "1,56,48"
    dataset = faces.from_recordio(tmp_path / "a.rec")
    assert [dataset.read(number)[0].shape for number in range(4)] == [(56, 48, 3)] * 4
    assert main(["pack", "--image-size", "56", *words[1:]]) == 0  # before the folder as well
    assert "stretched to 56x56: 3 of 4 images" in capsys.readouterr().err


def test_pack_to_a_folder_and_to_tfrecord(folder, tmp_path):
    (tmp_path / "out").mkdir()
    arguments = ["--image-size", "32", "--min-images", "2"]
    assert main(["pack", str(folder), str(tmp_path / "out"), *arguments]) == 0
    assert faces.from_recordio(tmp_path / "out" / "train.rec").num_classes == 2
    assert main(["pack", str(folder), str(tmp_path / "faces.tfrecord"), *arguments]) == 0
    dataset = faces.from_tfrecord(tmp_path / "faces.tfrecord")
    assert (dataset.num_images, dataset.class_names) == (5, ["ann", "bob"])
    assert main(["pack", str(folder), str(tmp_path / "faces_v1.0"), *arguments]) == 0
    assert faces.from_recordio(tmp_path / "faces_v1.0" / "train.rec").num_images == 5


def test_broken_images_are_left_out_and_counted_or_stop_a_strict_run(folder, tmp_path, capsys):
    (folder / "ann" / "1.jpg").write_bytes(b"\xff\xd8\xffjunk")
    (folder / "bob" / "2.jpg").write_bytes(b"")
    out = str(tmp_path / "out" / "train.rec")
    assert main(["pack", str(folder), out, "--image-size", "32", "--strict"]) == 1
    assert "1.jpg" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
    assert main(["pack", str(folder), out, "--image-size", "32", "--max-bad", "1"]) == 1
    assert "2 broken images, more than max_bad=1" in capsys.readouterr().err
    assert main(["pack", str(folder), out, "--image-size", "32"]) == 0
    assert "2 broken and left out" in capsys.readouterr().out
    assert faces.from_recordio(out).num_images == 4


def test_people_without_a_sound_image_have_no_label(folder, tmp_path, capsys):
    for image in (folder / "ann").iterdir():
        image.write_bytes(b"")
    assert main(["pack", str(folder), str(tmp_path / "a.rec"), "--image-size", "32"]) == 0
    assert "Packed 4 images of 2 people" in capsys.readouterr().out
    (tmp_path / "property").unlink()
    dataset = faces.from_recordio(tmp_path / "a.rec")
    assert (dataset.num_classes, [dataset.read(number)[1] for number in range(4)]) == (2, [0, 0, 0, 1])
    assert main(["pack", str(folder), str(tmp_path / "a.tfrecord"), "--image-size", "32"]) == 0
    assert faces.from_tfrecord(tmp_path / "a.tfrecord").class_names == ["bob", "carl"]


def test_nothing_is_written_where_no_image_can_be_read(folder, tmp_path, capsys):
    for image in folder.glob("*/*"):
        image.write_bytes(b"")
    assert main(["pack", str(folder), str(tmp_path / "out")]) == 1
    assert "none of its images can be read" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_a_turned_jpeg_is_packed_upright(tmp_path):
    from PIL import Image

    array = np.zeros((32, 32, 3), np.uint8)
    array[:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    (tmp_path / "people" / "ann").mkdir(parents=True)
    Image.fromarray(array).save(tmp_path / "people" / "ann" / "0.jpg", exif=exif)
    assert main(["pack", str(tmp_path / "people"), str(tmp_path / "a.rec"), "--image-size", "32"]) == 0
    data, _ = faces.from_recordio(tmp_path / "a.rec").source.read(0)
    assert b"Exif" not in data
    assert faces.decode_image(data)[:16].max() < 30


def test_a_second_file_does_not_change_the_property_of_the_first(folder, tmp_path, capsys):
    out, size = tmp_path / "out", ["--image-size", "32"]
    assert main(["pack", str(folder), str(out / "a.rec"), *size]) == 0
    assert main(["pack", str(folder), str(out / "b.rec"), *size, "--min-images", "2"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "b.rec: would change the folder's `property`, by which a.rec is read as well, to 2,32,32" in error
    with pytest.raises(ValueError, match=r"c\.rec: would change"):
        faces.write_recordio(out / "c.rec", [np.zeros((32, 32, 3), np.uint8)], [0])
    assert sorted(path.name for path in out.iterdir()) == ["a.idx", "a.rec", "property"]
    assert faces.from_recordio(out / "a.rec").num_classes == 3
    assert main(["pack", str(folder), str(out / "b.rec"), *size]) == 0  # the same people: one property for both
    assert main(["pack", str(folder), str(out / "a.rec"), *size]) == 0
    for image in (folder / "carl").iterdir():
        image.write_bytes(b"")
    assert main(["pack", str(folder), str(out / "b.rec"), *size]) == 1  # known only at the end; b.rec stays as it was
    assert faces.from_recordio(out / "b.rec").num_images == 6


def test_wrong_arguments(folder, tmp_path, capsys):
    assert main(["pack", str(folder), str(tmp_path / "a.rec"), "--jpeg-quality", "0"]) == 2
    assert "jpeg-quality" in capsys.readouterr().err
    assert main(["pack", str(tmp_path / "nowhere"), str(tmp_path / "a.rec")]) == 1
    assert "nowhere" in capsys.readouterr().err
    for size in ("0", "112x0", "5000"):
        assert main(["pack", str(folder), str(tmp_path / "a.rec"), "--image-size", size]) == 2
        assert f"--image-size of 1 to 4096 and --jpeg-quality of 1 to 100. Received: {size}" in capsys.readouterr().err
    for wrong in (["--image-size", "112x"], ["--image-size", "112,96"]):
        with pytest.raises(SystemExit, match="2"):
            main(["pack", str(folder), str(tmp_path / "a.rec"), *wrong])
        assert f"height and width, 112x96. Received: {wrong[1]}" in capsys.readouterr().err
    for wrong in (["--max-bad", "-3"], ["--min-images", "0"], ["--min-images", "two"]):
        with pytest.raises(SystemExit, match="2"):
            main(["pack", str(folder), str(tmp_path / "a.rec"), *wrong])
        assert wrong[0] in capsys.readouterr().err


def test_a_file_is_of_the_format_that_its_name_says(folder, tmp_path, capsys):
    for name, form in (("a.tfrecord", "recordio"), ("a.rec", "tfrecord")):
        assert main(["pack", str(folder), str(tmp_path / name), "--format", form]) == 2
        assert f"Received: --format {form}. Leave --format out" in capsys.readouterr().err
        assert not (tmp_path / name).exists()
    (tmp_path / "folder.rec").mkdir()
    words = ["pack", str(folder), str(tmp_path / "folder.rec"), "--format", "tfrecord", "--image-size", "32"]
    assert main(words) == 0
    assert faces.from_tfrecord(tmp_path / "folder.rec" / "train.tfrecord").num_images == 6


def half_turned(tmp_path, data):
    (tmp_path / "people" / "ann").mkdir(parents=True)
    (tmp_path / "people" / "ann" / "0.jpg").write_bytes(data)
    assert main(["pack", str(tmp_path / "people"), str(tmp_path / "a.rec"), "--image-size", "32"]) == 0
    return faces.from_recordio(tmp_path / "a.rec").source.read(0)[0]


def test_a_jpeg_that_exif_behind_its_frame_or_xmp_turns_is_packed_upright(tmp_path):
    array = np.zeros((32, 32, 3), np.uint8)
    array[:16] = 255
    plain = faces.encode_jpeg(array)
    tiff = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\3\0\0\0\0\0\0"  # orientation 3
    xmp = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="3"/>'
    scan = plain.index(b"\xff\xda")
    for number, (place, text) in enumerate([(scan, b"Exif\0\0" + tiff), (2, b"http://ns.adobe.com/xap/1.0/\0" + xmp)]):
        turned = plain[:place] + b"\xff\xe1" + (len(text) + 2).to_bytes(2, "big") + text + plain[place:]
        packed = half_turned(tmp_path / str(number), turned)
        assert b"\xff\xe1" not in packed[:200]
        assert faces.decode_image(packed)[:16].max() < 30


def test_a_folder_whose_name_is_no_text_is_named(folder, tmp_path, capsys):
    (folder / "bob").rename(folder / "b\udcffb")
    assert main(["pack", str(folder), str(tmp_path / "a.tfrecord"), "--image-size", "32"]) == 1
    assert r"class_name='b\udcffb' at image 2" in capsys.readouterr().err
    assert not (tmp_path / "a.tfrecord").exists()
