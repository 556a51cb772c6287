"""Photos to aligned crops: forms of pictures, choice among faces, alignment by known points, and MTCNN on real faces."""

import io

import keras
import numpy as np
import pytest
from PIL import Image

import keras_sphereface as ksf
from keras_sphereface.data.alignment import ARCFACE_112X112, SPHEREFACE_112X96
from keras_sphereface.errors import FileFormatError, NoFaceError
from keras_sphereface.faces import Face, FaceAligner, choose, get


class Known:
    """Finds the faces that it was told of."""

    def __init__(self, *faces):
        self.known = list(faces)

    def detect(self, image):
        return self.known


def face_at(points, side=100.0):
    middle = np.mean(points, axis=0)
    return Face(np.concatenate([middle - side / 2, middle + side / 2]), np.asarray(points), 0.99)


def smooth_picture(height, width):
    rows, columns = np.indices((height, width))
    waves = [np.sin(rows / 17 + k) + np.cos(columns / 23 - k) for k in range(3)]
    return np.rint(127.5 + 60 * np.stack(waves, axis=-1)).astype(np.uint8)


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.core
def test_a_crop_laid_on_a_photo_comes_back_with_its_points_in_place():
    crop, photo = smooth_picture(112, 112), np.full((200, 300, 3), 90, np.uint8)
    photo[40:152, 130:242] = crop
    detector = Known(face_at(np.add(ARCFACE_112X112, (130, 40))))
    (found,) = FaceAligner(detector)(photo)
    np.testing.assert_array_equal(found, crop)
    (narrow,) = FaceAligner(detector, size=(112, 96))(photo)
    np.testing.assert_array_equal(narrow, crop[:, 8:104])  # the templates are 8 pixels apart in x


@pytest.mark.core
@pytest.mark.parametrize("points", [ARCFACE_112X112[:4], np.full((5, 2), np.nan)])
def test_a_detector_that_gives_no_places_is_told_so_with_the_photos_name(points):
    aligner = FaceAligner(Known(Face(np.zeros(4), points, 0.5)))
    with pytest.raises(
        ValueError, match=r"ann\.jpg: expected of the detector faces with a box \(4,\) and points \(5, 2\)"
    ):
        aligner(smooth_picture(200, 200), "ann.jpg")


@pytest.mark.core
def test_a_turned_and_enlarged_face_is_turned_back():
    crop = smooth_picture(112, 112)
    turned = np.rot90(crop.repeat(2, axis=0).repeat(2, axis=1))  # counter-clockwise: (x, y) goes to (y, side - x)
    enlarged = ARCFACE_112X112 * 2 + 0.5
    points = np.stack([enlarged[:, 1], 223 - enlarged[:, 0]], axis=1)
    (found,) = FaceAligner(Known(face_at(points)))(turned)
    assert np.abs(found.astype(int) - crop)[2:-2, 2:-2].max() <= 4


def kinds_of_files(picture):
    """The same picture as files of every kind, by name: bytes, and how far a pixel may be off."""
    image = Image.fromarray(picture)
    exif = Image.Exif()
    exif[0x0112] = 8  # stored turned by 90 degrees clockwise; to be shown turned back
    stored = image.transpose(Image.Transpose.ROTATE_270)
    grey = Image.fromarray(picture[..., 0])
    yield "alpha.png", encoded(Image.fromarray(np.dstack([picture, picture[..., 0]])), "PNG"), 0
    yield "turned.png", encoded(stored, "PNG", exif=exif), 0
    yield "grey.png", encoded(grey, "PNG"), 0
    yield "deep.png", encoded(Image.fromarray(picture[..., 0].astype(np.uint16) * 256), "PNG"), 0
    yield "print.jpg", encoded(image.convert("CMYK"), "JPEG", quality=100), 6


@pytest.mark.core
def test_a_photo_of_every_kind_gives_the_same_crop(tmp_path):
    crop, photo = smooth_picture(112, 112), np.full((150, 200, 3), 90, np.uint8)
    crop[..., 1:] = crop[..., :1]  # grey, so that grey files hold the same
    photo[20:132, 60:172] = crop
    aligner = FaceAligner(Known(face_at(np.add(ARCFACE_112X112, (60, 20)))))
    for name, data, error in kinds_of_files(photo):
        (tmp_path / name).write_bytes(data)
        (found,) = aligner(tmp_path / name)
        assert np.abs(found.astype(int) - crop).max() <= error, name


@pytest.mark.core
def test_an_aligned_crop_is_not_aligned_twice():
    crop = smooth_picture(112, 112)
    aligner = FaceAligner(Known(face_at(np.add(ARCFACE_112X112, (3, -2)))))
    np.testing.assert_array_equal(aligner(crop)[0], crop)
    np.testing.assert_array_equal(aligner.cut(crop, aligner.faces(crop)[0]), crop)
    far_away = FaceAligner(Known(face_at(ARCFACE_112X112 * 0.5 + 30)))
    assert not np.array_equal(far_away(crop)[0], crop)  # the size alone does not make a crop
    assert not np.array_equal(FaceAligner(aligner.detector, (112, 96))(crop)[0].shape, crop.shape)
    behind = FaceAligner(Known(aligner.detector.detect(crop)[0], face_at(ARCFACE_112X112 * 0.2)), which="all")
    assert [np.array_equal(found, crop) for found in behind(crop)] == [True, False]


@pytest.mark.core
def test_choice_among_several_faces():
    small, large = face_at(np.add(ARCFACE_112X112, (100, 100)), 40), face_at(ARCFACE_112X112, 90)
    faces, size = [small, large], (300, 310)
    assert choose(faces, size) == [large]
    assert choose(faces, size, "central") == [small]
    assert choose(faces, size, "all") == [large, small]
    assert choose([], size, "all") == []
    assert len(FaceAligner(Known(*faces), which="all")(smooth_picture(300, 310))) == 2
    with pytest.raises(ValueError, match=r"which='biggest'"):
        choose(faces, size, "biggest")


@pytest.mark.core
def test_errors_name_the_picture(tmp_path):
    path = tmp_path / "wall.png"
    path.write_bytes(ksf.data.encode_png(smooth_picture(90, 80)))
    with pytest.raises(NoFaceError, match=r"wall\.png: no face found in 80 x 90 pixels"):
        FaceAligner(Known())(path)
    with pytest.raises(ValueError, match=r"wall\.png: expected an aligned crop of 112 x 112.*Received: 90 x 80"):
        FaceAligner(None)(path)
    with pytest.raises(ValueError, match=r"detector='mtccn'"):
        get("mtccn")
    with pytest.raises(ValueError, match=r"size=\(100, 100\)"):
        FaceAligner(Known(), size=(100, 100))


@pytest.mark.core
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 112}, "size=112"),
        ({"size": (0, 0)}, r"size=\(0, 0\)"),
        ({"size": (112.9, 112)}, r"size must be \(height, width\) in whole pixels. Received: size=\(112.9, 112\)"),
        ({"template": np.ones((4, 2))}, r"template as \(5, 2\) places. Received: template.shape=\(4, 2\)"),
    ],
)
def test_sizes_and_templates_that_are_none_are_refused(options, message):
    for detector in (None, Known()):
        with pytest.raises(ValueError, match=message):
            FaceAligner(detector, **options)


@pytest.mark.core
@pytest.mark.parametrize(
    ("mode", "form"), [("L", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("I;16", "PNG"), ("1", "PNG")]
)
def test_pictures_of_every_kind_become_rgb(mode, form):
    deep = Image.fromarray(np.full((6, 8), 200 * 256, np.uint16))
    image = deep if mode == "I;16" else Image.new("RGB", (8, 6), "white").convert(mode)
    array = ksf.data.as_image(encoded(image, form))
    assert array.shape == (6, 8, 3)
    assert array.dtype == np.uint8
    assert array.min() >= 199


@pytest.mark.core
def test_a_photo_is_turned_as_its_exif_block_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    data = encoded(Image.new("RGB", (8, 6)), "JPEG", exif=exif)
    assert ksf.data.as_image(data).shape == (8, 6, 3)


def test_heic_is_read_or_refused_clearly(monkeypatch):
    heif = pytest.importorskip("pillow_heif", reason="needs the extra [faces]")
    picture = smooth_picture(64, 48)
    buffer = io.BytesIO()
    heif.from_pillow(Image.fromarray(picture)).save(buffer, quality=95)
    assert np.abs(ksf.data.as_image(buffer.getvalue()).astype(int) - picture).mean() < 4
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(FileFormatError, match=r"holiday.*HEIC.*keras_sphereface\[faces\]"):
        ksf.data.decode_image(buffer.getvalue(), "holiday.heic")


@pytest.mark.core
def test_arrays_of_every_kind_become_rgb():
    rgb = smooth_picture(5, 7)
    np.testing.assert_array_equal(ksf.data.as_image(rgb.astype("float32")), rgb)
    np.testing.assert_array_equal(ksf.data.as_image(rgb.astype("uint16") * 257), rgb)
    np.testing.assert_array_equal(ksf.data.as_image(np.dstack([rgb, rgb[..., 0]])), rgb)
    assert ksf.data.as_image(rgb[..., 0]).shape == (5, 7, 3)
    for nonsense in (rgb / 255.0, rgb[None], rgb.astype(int) - 300, rgb[..., :2], np.zeros((0, 4, 3), "uint8")):
        with pytest.raises(ValueError, match="Received"):
            ksf.data.as_image(nonsense)
    with pytest.raises(TypeError, match="NoneType"):
        ksf.data.as_image(None)


@pytest.mark.core
def test_an_open_file_is_read_from_where_it_stands(tmp_path):
    rgb = smooth_picture(112, 112)
    data = ksf.data.encode_png(rgb)
    np.testing.assert_array_equal(ksf.data.as_image(io.BytesIO(data)), rgb)
    (tmp_path / "a.png").write_bytes(b"head" + data)
    with open(tmp_path / "a.png", "rb") as file:
        file.seek(4)
        np.testing.assert_array_equal(ksf.data.as_image(file), rgb)
        with pytest.raises(FileFormatError, match="upload: "):
            ksf.data.as_image(file, "upload")
    with (
        open(tmp_path / "a.png", encoding="latin-1") as text,
        pytest.raises(TypeError, match="TextIOWrapper for upload"),
    ):
        ksf.data.as_image(text, "upload")

    class Upload:
        async def read(self):
            raise AssertionError

    with pytest.raises(TypeError, match=r"a file open in binary.* Received: Upload"):
        ksf.data.as_image(Upload())


@pytest.mark.core
def test_a_recognizer_takes_one_open_file_or_several():
    recognizer = ksf.Recognizer(lambda crops: crops.mean((1, 2)) + 1, detector=None, size=(8, 8))
    picture = lambda: io.BytesIO(ksf.data.encode_png(smooth_picture(8, 8)))  # noqa: E731
    assert recognizer.embed(picture()).shape == (1, 3)
    assert recognizer.embed([picture(), picture()]).shape == (2, 3)


@pytest.fixture(scope="module")
def mtcnn():
    pytest.importorskip("mtcnn", reason="needs the extra [faces]")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("MTCNN runs on TensorFlow")
    return ksf.faces.MTCNN()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"min_face": 0}, "`min_face` must be an integer of at least 1"),
        ({"max_side": 0}, "`max_side` must be an integer of at least 12"),
        ({"min_confidence": "0.9"}, "`min_confidence` must be a finite number"),
        ({"min_confidence": 90}, "`min_confidence` must be from 0 to 1. Received: min_confidence=90"),
    ],
)
def test_mtcnn_checks_its_arguments_before_a_photo_is_looked_at(wrong, message):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("MTCNN runs on TensorFlow")
    with pytest.raises(ValueError, match=message):
        ksf.faces.MTCNN(**wrong)


def test_mtcnn_finds_nothing_in_pictures_without_faces(mtcnn):
    for picture in (np.zeros((1, 1, 3), np.uint8), np.zeros((40, 500, 3), np.uint8), smooth_picture(150, 200)):
        assert mtcnn.detect(picture) == []


def test_mtcnn_aligns_real_photos(mtcnn, shared):
    """Faces of LFW enlarged and laid on a photo come back to their place, and a second alignment changes nothing more."""
    people = sorted((shared / "data/lfw_112x112").iterdir())[:1200:100]
    moved, again = [], []
    for person in people:
        crop = Image.fromarray(ksf.data.read_image(next(person.glob("*_0001.jpg"))))
        photo = Image.new("RGB", (400, 330), (110, 110, 110))
        photo.paste(crop.resize((168, 168), Image.Resampling.BICUBIC), (120, 80))
        try:
            (face,) = FaceAligner(mtcnn, which="central").faces(np.asarray(photo))
        except NoFaceError:
            continue
        points = (face.points - [120, 80] + 0.5) / 1.5 - 0.5  # back in the crop
        matrix = ksf.data.similarity_transform(points, ARCFACE_112X112)
        moved.append(ARCFACE_112X112.mean(axis=0) @ matrix[:, :2].T + matrix[:, 2] - ARCFACE_112X112.mean(axis=0))
        aligned = ksf.data.align(np.asarray(photo), face.points)
        (second,) = choose(mtcnn.detect(aligned), aligned.shape[:2])
        again.append(second.points.mean(axis=0) - ARCFACE_112X112.mean(axis=0))
    assert len(moved) >= len(people) - 1
    assert np.abs(np.median(moved, axis=0)).max() < 1.0
    assert np.median(np.linalg.norm(moved, axis=1)) < 2.0
    assert np.median(np.linalg.norm(again, axis=1)) < 1.2


def test_large_photos_are_looked_at_smaller(mtcnn, shared):
    crop = Image.fromarray(ksf.data.read_image(shared / "data/lfw_112x112/George_W_Bush/George_W_Bush_0253.jpg"))
    photo = np.full((1800, 2400, 3), 110, np.uint8)
    photo[500:1060, 900:1460] = np.asarray(crop.resize((560, 560), Image.Resampling.BICUBIC))
    (face,) = choose(mtcnn.detect(photo), photo.shape[:2])
    matrix = ksf.data.similarity_transform(
        (face.points - [900, 500] + 0.5) / 5 - 0.5, np.add(SPHEREFACE_112X96, (8, 0))
    )
    assert abs(np.hypot(*matrix[:, 0]) - 1) < 0.15
