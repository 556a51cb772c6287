import numpy as np
import pytest

from keras_sphereface.data.images import encode_png
from keras_sphereface.data.pair_lists import class_folds, lfw_identity, read_cfp, read_lfw, read_pair_list
from keras_sphereface.errors import FileFormatError


def _image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(np.full((4, 4, 3), value, np.uint8)))


@pytest.fixture
def lfw(tmp_path):
    for value, (person, count) in enumerate({"Ann_Lee": 3, "Bob": 2, "Cy": 1}.items()):
        for picture in range(1, count + 1):
            _image(tmp_path / person / f"{person}_{picture:04d}.png", 10 * value + picture)
    return tmp_path


VIEW_2 = "2\t1\nAnn_Lee\t1\t3\nAnn_Lee\t2\tBob\t1\nBob\t1\t2\nBob\t2\tCy\t1\n"
VIEW_1 = "2\nAnn_Lee\t1\t2\nBob\t1\t2\nAnn_Lee\t1\tBob\t1\nBob\t1\tCy\t1\n"


def test_lfw_view_2(lfw):
    (lfw / "pairs.txt").write_text(VIEW_2)
    pairs = read_lfw(lfw, "pairs.txt", extension=".png")
    assert pairs.mated.tolist() == [True, False, True, False]
    assert pairs.folds.tolist() == [0, 0, 1, 1]
    assert (pairs.name, pairs.protocol, pairs.num_images) == ("lfw", "view2", 6)
    left, right = pairs.pair_identities()
    assert list(zip(left, right)) == [("Ann_Lee", "Ann_Lee"), ("Ann_Lee", "Bob"), ("Bob", "Bob"), ("Bob", "Cy")]
    assert [pairs.image(index)[0, 0, 0] for index in pairs.right] == [3, 11, 12, 21]


def test_lfw_view_1_has_no_folds(lfw):
    (lfw / "pairsDevTest.txt").write_text(VIEW_1)
    pairs = read_lfw(lfw, lfw / "pairsDevTest.txt", extension=".png")
    assert pairs.mated.tolist() == [True, True, False, False]
    assert pairs.folds is None
    assert pairs.protocol == "view1-pairsDevTest"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (VIEW_2.replace("Cy\t1", "Cy\t2"), r"pairs\.txt: line 5: names the image 'Cy/Cy_0002\.png'.*restore the image"),
        (VIEW_2.replace("2\t1\n", "", 1), "line 1: found 'Ann_Lee 1 3', expected LFW's header"),
        (VIEW_2.replace("Bob\t1\t2\n", ""), "line 1: the header asks for 4 pairs, found 3"),
        (VIEW_2.replace("Bob\t1\t2", "Bob\t1"), "line 4: found 'Bob 1', expected a mated pair"),
        (VIEW_2.replace("Bob\t2\tCy\t1", "Bob\t2\tCy\tx"), "line 5: found 'Bob 2 Cy x', expected a nonmated pair"),
        (VIEW_2.replace("Cy\t1", "Bob\t1"), "line 5: found 'Bob 2 Bob 1', expected .* of two people"),
        (VIEW_2.replace("Cy\t1", "../Cy\t1"), r"line 5: names '\.\./Cy.*may lie outside the folder"),
        (VIEW_2.replace("Bob\t1\t2", "Bob\t1\t1"), "line 4: found 'Bob 1 1', expected .* of two pictures"),
        ("", "empty file"),
    ],
)
def test_lfw_errors_name_file_and_line(lfw, text, message):
    (lfw / "pairs.txt").write_text(text)
    with pytest.raises(FileFormatError, match=message):
        read_lfw(lfw, "pairs.txt", extension=".png")


def test_plain_list_with_and_without_folds(lfw):
    lines = ["Ann_Lee/Ann_Lee_0001.png Bob/Bob_0001.png 0", "Bob/Bob_0001.png Bob/Bob_0002.png 1"]
    (lfw / "list.txt").write_text("\n".join(lines) + "\n\n")
    pairs = read_pair_list(lfw, "list.txt")
    assert pairs.mated.tolist() == [False, True]
    assert pairs.identities is None
    assert pairs.num_images == 3
    assert (pairs.name, pairs.protocol) == ("list", "list")
    (lfw / "agedb.txt").write_text("0 Ann_Lee/Ann_Lee_0001.png Bob/Bob_0001.png\n1 Bob/Bob_0001.png Bob/Bob_0002.png\n")
    first = read_pair_list(lfw, "agedb.txt", layout="label_first")
    assert (first.left.tolist(), first.right.tolist()) == (pairs.left.tolist(), pairs.right.tolist())
    assert (first.mated.tolist(), first.names) == ([False, True], pairs.names)
    (lfw / "folds.csv").write_text("\n".join(f"{line} {fold}".replace(" ", ", ") for line, fold in zip(lines, (4, 7))))
    pairs = read_pair_list(lfw, "folds.csv", separator=",", identity=lfw_identity)
    assert pairs.folds.tolist() == [4, 7]
    assert pairs.identities.tolist() == ["Ann_Lee", "Bob", "Bob"]


def test_names_with_spaces_need_tabs_and_tables_have_commas_and_a_first_line(lfw):
    (lfw / "Ann Lee").mkdir()
    for name in ("a 1.png", "a 2.png"):
        (lfw / "Ann Lee" / name).write_bytes((lfw / "Bob" / "Bob_0001.png").read_bytes())
    (lfw / "tabs.txt").write_text("Ann Lee/a 1.png\tAnn Lee/a 2.png\t1\nAnn Lee/a 1.png\tBob/Bob_0001.png\t0\n")
    (lfw / "own.csv").write_text(
        "left,right,label\r\nAnn Lee/a 1.png,Ann Lee/a 2.png,1\r\nBob/Bob_0001.png,Ann Lee/a 1.png,0"
    )
    (lfw / "quoted.csv").write_text(
        '"left","right","label"\n"Ann Lee/a 1.png","Ann Lee/a 2.png",1\nBob/Bob_0001.png,"Ann Lee/a 1.png", "0"'
    )
    (lfw / "two.txt").write_text("Ann Lee/a 1.png\t1\nAnn Lee/a 2.png\t1\n")
    for file, layout, flags in (
        ("tabs.txt", "pair", [1, 0]),
        ("own.csv", "pair", [1, 0]),
        ("quoted.csv", "pair", [1, 0]),
        ("two.txt", "image", [1]),
    ):
        pairs = read_pair_list(lfw, file, layout=layout)
        assert pairs.mated.tolist() == flags
        assert pairs.names[:2] == ["Ann Lee/a 1.png", "Ann Lee/a 2.png"]
    (lfw / "spaces.txt").write_text("Ann Lee/a 1.png Ann Lee/a 2.png 1\n")
    with pytest.raises(FileFormatError, match="where names have spaces, with tabs between"):
        read_pair_list(lfw, "spaces.txt")


def test_two_lines_per_pair_as_calfw_has_them(lfw):
    names = ["Ann_Lee/Ann_Lee_0001.png 3", "Ann_Lee/Ann_Lee_0002.png 3", "Bob/Bob_0001.png 0", "Cy/Cy_0001.png 0"]
    (lfw / "pairs_CALFW.txt").write_text("\n".join(names))
    pairs = read_pair_list(lfw, "pairs_CALFW.txt", layout="image", identity=lfw_identity)
    assert pairs.mated.tolist() == [True, False]
    assert pairs.identities.tolist() == ["Ann_Lee", "Ann_Lee", "Bob", "Cy"]


@pytest.mark.parametrize(
    ("layout", "text", "message"),
    [
        ("pair", "Bob/Bob_0001.png Bob/Bob_0002.png", "line 1.*expected 'left right label"),
        ("pair", "Bob/Bob_0001.png Bob/Bob_0002.png 2", "line 1.*label 0 or 1"),
        ("pair", "Bob/Bob_0001.png Bob/Bob_0002.png 1\nBob/Bob_0001.png Cy/Cy_0001.png 0 3", "line 2"),
        ("pair", "Bob/Bob_0001.png gone.png 1", "line 1: names the image 'gone.png'"),
        ("pair", "Bob/Bob_0001.png Bob/Bob_0001.png 0", "line 1: a nonmated pair of 'Bob/Bob_0001.png' with itself"),
        ("label_first", "Bob/Bob_0001.png Bob/Bob_0002.png 1", "line 1.*expected 'label left right"),
        ("image", "Bob/Bob_0001.png 1", "line 1: expected two lines per pair"),
        ("image", "Bob/Bob_0001.png 1\nBob/Bob_0002.png 0", "line 2.*label 1"),
        ("image", "Bob/Bob_0001.png x\nBob/Bob_0002.png x", "line 1.*number as label"),
    ],
)
def test_list_errors_name_file_and_line(lfw, layout, text, message):
    (lfw / "list.txt").write_text(text)
    with pytest.raises(FileFormatError, match=rf"list\.txt: {message}"):
        read_pair_list(lfw, lfw / "list.txt", layout=layout)


def test_a_list_that_contradicts_the_identities(lfw):
    (lfw / "list.txt").write_text("Bob/Bob_0001.png Bob/Bob_0002.png 1\nBob/Bob_0001.png Bob/Bob_0002.png 0\n")
    with pytest.raises(FileFormatError, match=r"list\.txt: line 2: a nonmated pair of one person, 'Bob' and 'Bob'"):
        read_pair_list(lfw, "list.txt", identity=lfw_identity)
    (lfw / "list.txt").write_text("Bob/Bob_0001.png Cy/Cy_0001.png 1\n")
    with pytest.raises(FileFormatError, match="line 1: a mated pair of two people, 'Bob' and 'Cy'"):
        read_pair_list(lfw, "list.txt", identity=lfw_identity)
    with pytest.raises(FileFormatError, match=r"line 1: Expected an image name like 'Ann_Lee_0003.jpg'"):
        read_pair_list(lfw, "list.txt", identity=lambda name: lfw_identity("x"))


def test_a_list_that_is_no_text(lfw):
    with pytest.raises(FileFormatError, match="text list in UTF-8"):
        read_pair_list(lfw, lfw / "Bob" / "Bob_0001.png")


def test_cfp(tmp_path):
    protocol = tmp_path / "Protocol"
    for side, kind, pictures in (("F", "frontal", 2), ("P", "profile", 1)):
        lines = []
        for person in (1, 2):
            for picture in range(1, pictures + 1):
                path = f"Data/Images/{person:03d}/{kind}/{picture:02d}.jpg"
                _image(tmp_path / path)
                lines.append(f"{len(lines) + 1} ../{path}")
        protocol.mkdir(exist_ok=True)
        (protocol / f"Pair_list_{side}.txt").write_text("\n".join(lines))
    for view, same, diff in (("FP", "1,1", "3,1"), ("FF", "1,2", "1,4")):
        for fold in range(1, 11):
            folder = protocol / "Split" / view / f"{fold:02d}"
            folder.mkdir(parents=True)
            (folder / "same.txt").write_text(same + "\n")
            (folder / "diff.txt").write_text(diff + "\n")
    pairs = read_cfp(tmp_path)
    assert (pairs.name, len(pairs)) == ("cfp_fp", 20)
    assert pairs.folds.tolist() == [fold for fold in range(10) for _ in range(2)]
    assert [(pairs.names[a], pairs.names[b]) for a, b in zip(pairs.left[:2], pairs.right[:2])] == [
        ("001/frontal/01.jpg", "001/profile/01.jpg"),
        ("002/frontal/01.jpg", "001/profile/01.jpg"),
    ]
    left, right = read_cfp(tmp_path, view="FF").pair_identities()
    assert ((left == right) == read_cfp(tmp_path, view="FF").mated).all()
    (protocol / "Split" / "FP" / "04" / "same.txt").write_text("3,1\n")
    with pytest.raises(FileFormatError, match=r"04/same\.txt: line 1: a mated pair of two people, '002' and '001'"):
        read_cfp(tmp_path)
    (protocol / "Split" / "FP" / "03" / "diff.txt").write_text("3,9\n")
    with pytest.raises(FileFormatError, match=r"03/diff\.txt: line 1: found '3,9'"):
        read_cfp(tmp_path)
    with open(protocol / "Pair_list_F.txt", "a") as file:
        file.write("\n1 ../Data/Images/002/frontal/01.jpg")
    with pytest.raises(FileFormatError, match=r"Pair_list_F\.txt: line 5: .*each number once"):
        read_cfp(tmp_path)


def test_class_folds_give_every_fold_both_kinds():
    mated = np.array([1] * 20 + [0] * 20)
    folds = class_folds(mated)
    assert [int(mated[folds == fold].sum()) for fold in range(10)] == [2] * 10


def test_wrong_words_are_refused(tmp_path):
    with pytest.raises(ValueError, match="layout='x'"):
        read_pair_list(tmp_path, "a", layout="x")
    with pytest.raises(ValueError, match="view='PP'"):
        read_cfp(tmp_path, view="PP")
    with pytest.raises(ValueError, match=r"image='nobody\.jpg'"):
        lfw_identity("nobody.jpg")


@pytest.mark.parametrize(
    ("file_name", "count", "images", "folds"),
    [("pairs.txt", 6000, 7701, 10), ("pairsDevTrain.txt", 2200, 3443, 0), ("pairsDevTest.txt", 1000, 1549, 0)],
)
def test_real_lfw(shared, file_name, count, images, folds):
    pairs = read_lfw(shared / "data/lfw_112x112", shared / "data/lfw_protocol" / file_name)
    assert (len(pairs), int(pairs.mated.sum()), pairs.num_images) == (count, count // 2, images)
    left, right = pairs.pair_identities()
    np.testing.assert_array_equal(left == right, pairs.mated)
    if not folds:
        assert pairs.folds is None
    else:
        assert np.bincount(pairs.folds).tolist() == [600] * folds
        people = [set(left[pairs.folds == fold]) | set(right[pairs.folds == fold]) for fold in range(folds)]
        assert all(not people[a] & people[b] for a in range(folds) for b in range(a))


@pytest.mark.parametrize("digits", [23, 5000])
def test_numbers_of_too_many_digits_are_refused_by_line(lfw, digits):
    number, pair = "1" * digits, "Ann_Lee/Ann_Lee_0001.png Bob/Bob_0001.png"
    texts = {"pair": f"{pair} 0 {number}", "image": f"Bob/Bob_0001.png {number}\nBob/Bob_0002.png {number}"}
    for layout, text in texts.items():
        (lfw / "list.txt").write_text(text)
        with pytest.raises(FileFormatError, match=r"list\.txt: line 1: found"):
            read_pair_list(lfw, "list.txt", layout=layout)
    (lfw / "list.txt").write_text(f"{number}\n")
    with pytest.raises(FileFormatError, match=r"list\.txt: line 1: found"):
        read_lfw(lfw, "list.txt")
