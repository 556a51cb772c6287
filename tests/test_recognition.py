"""The recognizer with a model whose embeddings are known: decisions, gallery, several threads, nonsense."""

import concurrent.futures
import json
import sqlite3
import threading
import types

import keras
import numpy as np
import pytest

import keras_sphereface as ksf
from keras_sphereface.errors import FileFormatError
from keras_sphereface.recognition import (
    Candidate,
    Enrollment,
    Gallery,
    Identification,
    Recognizer,
    Thresholds,
    search,
    write_embeddings,
)
from keras_sphereface.recognition.search import INDEXES

pytestmark = pytest.mark.core
THRESHOLDS = [{"far": 1e-2, "threshold": 0.3}, {"far": 1e-4, "threshold": 0.7}]


def colour_model(images):
    """Embeds an image as the direction of its mean colour."""
    return images.astype(np.float32).mean(axis=(1, 2)) + 1e-3


def plain(*colour):
    return np.full((112, 112, 3), colour, np.uint8)


RED, PINK, GREEN, BLUE = plain(200, 0, 0), plain(200, 100, 100), plain(0, 200, 0), plain(0, 0, 200)


def recognizer(**options):
    return Recognizer(colour_model, detector=None, **{"thresholds": THRESHOLDS, **options})


def test_verify_says_score_threshold_far_and_decision():
    result = recognizer(far=1e-4).verify(RED, PINK)
    assert result.score == pytest.approx(2 / np.sqrt(6), abs=1e-4)  # cosine of (1, 0, 0) and (2, 1, 1)
    assert (result.match, result.threshold, result.far) == (True, 0.7, 1e-4)
    assert result.rarity == "fewer than 1 in 10,000 pairs of strangers look this alike"
    assert "same person: score 0.816" in str(result)
    assert json.loads(json.dumps(result.to_dict()))["match"] is True
    other = recognizer(far=1e-4).verify(RED, GREEN)
    assert other.match is False
    assert "different people" in str(other)


def test_threshold_comes_from_the_user_the_far_or_the_nearest_usual_one():
    ours = recognizer()
    assert (ours.threshold, ours.far) in {(0.3, 1e-2), (0.7, 1e-4)}  # both a factor of ten from 1e-3
    assert ours.verify(RED, PINK, threshold=0.9).match is False
    assert ours.verify(RED, PINK, far=1e-2).threshold == 0.3
    assert ours.verify(RED, PINK, threshold=0.5).far == pytest.approx(1e-3)  # half-way, in the logarithm
    with pytest.raises(ValueError, match=r"FAR 1e-06. Known: 0.01, 0.0001"):
        ours.verify(RED, PINK, far=1e-6)


@pytest.mark.parametrize(
    ("threshold", "far", "words"),
    [
        (0.29, None, "threshold 0.2900, FAR above 1.0e-02, the highest measured"),
        (0.3, 1e-2, "threshold 0.3000, FAR 1.0e-02"),
        (0.4, 10**-2.5, "threshold 0.4000, FAR 3.2e-03"),  # a quarter of the way from 1e-2 to 1e-4
        (0.7, 1e-4, "threshold 0.7000, FAR 1.0e-04"),
        (0.71, None, "threshold 0.7100, FAR below 1.0e-04, the lowest measured"),
    ],
)
def test_no_far_is_made_up_outside_the_measured_ones(threshold, far, words):
    result = recognizer().verify(RED, PINK, threshold=threshold)
    assert result.far == (None if far is None else pytest.approx(far))
    assert words in str(result)
    assert result.score_far is None  # 0.816: beyond the measured ones as well
    assert Thresholds({1e-3: 0.5}).far_of(0.5) == pytest.approx(1e-3)
    assert Thresholds({1e-3: 0.5}).far_of(0.4) is Thresholds().far_of(0.4) is None


def test_without_a_threshold_there_is_no_decision():
    result = recognizer(thresholds=()).verify(RED, PINK)
    assert (result.match, result.threshold, result.far, result.rarity) == (None, None, None, "")
    assert "no threshold is known" in str(result)
    unmeasured = recognizer(thresholds=(), threshold=0.5).verify(RED, PINK)
    assert unmeasured.match is True
    assert "threshold 0.5000, FAR unknown" in str(unmeasured)


def test_thresholds_are_checked_and_read_from_a_report():
    labels = np.arange(2000) < 1000
    scores = np.where(labels, 0.9, np.linspace(-0.5, 0.5, 2000))
    report = ksf.evaluation.verification(scores, labels, bootstrap=0)
    assert Thresholds(types.MappingProxyType({1e-2: 0.3})).at(1e-2) == 0.3
    known = Thresholds(report)
    assert known.at(1e-2) == report.tar_at_far[1e-2].threshold
    for nonsense in ([{"far": 2, "threshold": 0}], {1e-2: 0.5, 1e-3: 0.4}, [{"far": 1e-2}], {1e-2: 1.5}):
        with pytest.raises(ValueError, match="Received"):
            Thresholds(nonsense)


def test_scores_in_words_at_and_beyond_both_ends():
    thresholds = Thresholds(THRESHOLDS)
    for score, words in (
        (0.29, "more than 1 in 100"),
        (0.3, "about 1 in 100"),
        (0.5, "about 1 in 1,000"),
        (0.7, "about 1 in 10,000"),
        (0.71, "fewer than 1 in 10,000"),
    ):
        assert thresholds.in_words(score) == f"{words} pairs of strangers look this alike"
    assert (bool(thresholds), bool(Thresholds())) == (True, False)


def test_a_threshold_that_only_equal_embeddings_reach_counts():
    points = {"1": {"threshold": -1.0}, "0.5": {"threshold": 1.0}, "0.25": {"threshold": np.nextafter(1.0, 2.0)}}
    known = Thresholds({"tar_at_far": points})
    assert (known.fars, known.cosines) == ((0.5,), (1.0,))


def test_thresholds_of_numpy_are_numbers():
    """Or JSON would not take the answer."""
    given = [{"far": np.float32(0.25), "threshold": np.float32(0.5)}]
    result = recognizer(thresholds=given).verify(RED, PINK)
    assert json.loads(json.dumps(result.to_dict()))["threshold"] == 0.5
    for end in (-1, 1):
        assert recognizer().verify(RED, PINK, threshold=end).threshold == end
    for choice in ({"threshold": np.float32(0.5)}, {"far": np.float32(0.25)}):
        result = recognizer(thresholds=given).verify(RED, PINK, **choice)
        assert [json.loads(json.dumps(result.to_dict()))[key] for key in ("threshold", "far")] == [0.5, 0.25]


def test_thresholds_of_a_saved_report(tmp_path):
    labels = np.arange(2000) < 1000
    report = ksf.evaluation.verification(np.where(labels, 0.9, np.linspace(-0.5, 0.5, 2000)), labels, bootstrap=0)
    path = tmp_path / "report.json"
    report.save(path)
    expected = Thresholds(report)
    for saved in (path, str(path), json.loads(path.read_text())):
        known = Thresholds(saved)
        assert (known.fars, known.cosines) == (expected.fars, expected.cosines)
    assert recognizer(thresholds=path, far=1e-2).threshold == expected.at(1e-2)
    for content in ("{", "[1]", '{"far": 1}', "[" * 100_000):
        path.write_text(content)
        with pytest.raises(
            ksf.errors.FileFormatError, match=r"report\.json: expected a report on pairs, as keras-sphereface"
        ):
            Thresholds(path)
    with pytest.raises(FileNotFoundError):
        Thresholds(tmp_path / "absent.json")
    with pytest.raises(ValueError, match="Expected thresholds as a list"):
        Thresholds({"tar_at_far": [1]})


def test_embed_keeps_order_over_blocks_and_reports_bad_photos(tmp_path):
    bad = tmp_path / "text.jpg"
    bad.write_text("no picture")
    ours, failed = recognizer(batch_size=2), []
    rows = ours.embed(
        [RED, str(bad), GREEN, PINK, BLUE], on_error=lambda photo, error: failed.append((photo, str(error)))
    )
    np.testing.assert_allclose(np.linalg.norm(rows[[0, 2, 3, 4]], axis=1), 1, atol=1e-6)
    assert np.isnan(rows[1]).all()
    assert [row.argmax() for row in rows[[0, 2, 3, 4]]] == [0, 1, 0, 2]
    assert failed[0][0] == str(bad)
    assert "text.jpg: cannot be decoded" in failed[0][1]
    with pytest.raises(FileFormatError, match=r"text\.jpg"):
        ours.embed([RED, bad])


def test_paths_in_an_array_are_several_photos(tmp_path):
    for name, image in (("a.png", RED), ("b.png", BLUE)):
        (tmp_path / name).write_bytes(ksf.data.encode_png(image))
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    expected = recognizer().embed(paths)
    for array in (np.array([str(path) for path in paths]), np.array(paths)):
        np.testing.assert_array_equal(recognizer().embed(array), expected)


def test_a_photo_without_a_usable_embedding_is_named(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, image in zip(paths, (RED, GREEN, BLUE, 0 * RED)):
        path.write_bytes(ksf.data.encode_png(image))
    zeros = Recognizer(lambda images: images.mean(axis=(1, 2)), detector=None, thresholds=THRESHOLDS, batch_size=2)
    with pytest.raises(ValueError, match=r"\(.*3\.png\) is all zeros"):
        zeros.embed(paths)
    with pytest.raises(ValueError, match=r"\(Ann's photo 2\) is all zeros"):
        zeros.enroll("Ann", [RED, 0 * RED])


def test_embed_has_rows_of_nan_where_all_photos_fail():
    failed = []
    rows = recognizer().embed([RED[:50], b"no picture"], on_error=lambda photo, error: failed.append(photo))
    assert (rows.shape, rows.dtype, len(failed)) == ((2, 3), np.float32, 2)
    assert np.isnan(rows).all()


def test_a_photo_may_be_bytes_of_any_kind():
    data = ksf.data.encode_png(RED)
    for photo in (data, bytearray(data), memoryview(data)):
        assert recognizer().enroll("Ann", photo).added == 1


@pytest.mark.parametrize("index", INDEXES)
def test_enroll_identify_remove(tmp_path, index):
    if index == "usearch":
        pytest.importorskip("usearch", reason="needs the extra [search]")
    path = tmp_path / "people.db"
    ours = recognizer(gallery=path, index=index, far=1e-4)
    assert ours.enroll("Rosa", [RED, plain(190, 5, 5)]).added == 2
    again = ours.enroll("Rosa", [RED, plain(180, 9, 9)])
    assert (again.added, again.duplicates, again.total) == (1, 1, 3)
    ours.enroll("Grün", GREEN)
    found = ours.identify(PINK)
    assert (found.name, found.num_people, len(found.candidates)) == ("Rosa", 2, 2)
    assert found.candidates[0].score == pytest.approx(ours.verify(PINK, plain(180, 9, 9)).score, abs=1e-6)
    unknown = ours.identify(BLUE)
    assert unknown.name is None
    assert "nobody of the gallery" in str(unknown)

    reopened = recognizer(gallery=path, index=index, far=1e-4)
    assert reopened.identify(GREEN).name == "Grün"
    assert reopened.remove("Rosa") == 3
    assert [one.name for one in ours.identify(PINK).candidates] == ["Grün"]  # the other object sees the removal
    with pytest.raises(ValueError, match="name='Rosa'"):
        ours.remove("Rosa")


def test_answers_are_printed_in_one_line():
    nearest = [Candidate("Ann", 0.8), Candidate("Bob", 0.1)]
    assert str(Identification("Ann", nearest, 0.5, 1e-3, 2)) == "Ann: score 0.8000 (threshold 0.5000, 2 people)"
    unknown = Identification(None, nearest[:1], 0.9, None, 1)
    assert str(unknown) == "nobody of the gallery: nearest is Ann, score 0.8000 (threshold 0.9000, 1 person)"
    undecided = Identification(None, nearest, None, None, 2)
    assert str(undecided).startswith("no decision: nearest is Ann, score 0.8000 (no threshold is known for this model")
    assert str(Enrollment("Ann", 2, 1, 5)) == "Ann: 2 added, 1 known already, 5 in the gallery"
    assert str(Enrollment("Ann", 2, 0, 2)) == "Ann: 2 added, 2 in the gallery"


def test_a_picture_belongs_to_one_person_and_nothing_is_half_added(tmp_path):
    ours = recognizer(gallery=tmp_path / "people.db")
    ours.enroll("Ann", RED)
    with pytest.raises(ValueError, match="Picture 2 of 2 is enrolled as 'Ann' already"):
        ours.enroll("Bob", [GREEN, RED])
    with pytest.raises(ValueError, match="This picture is enrolled as 'Ann' already"):
        ours.enroll("Bob", RED)
    assert ours.gallery.people() == {"Ann": 1}


def test_embeddings_of_another_length_are_not_added():
    with Gallery() as gallery:
        gallery.add("Ann", [b"1"], np.float32([[0.6, 0.8]]))
        with pytest.raises(ValueError, match=r"shape \(n, 2\)"):
            gallery.add("Bob", [b"2"], np.float32([[0.6, 0.8, 0.0]]))
        assert gallery.faces_after()[1] == ["Ann"]


def test_a_name_is_one_however_it_is_typed():
    with Gallery() as gallery:
        for number, name in enumerate(("Zo\u00e9", "Zoe\u0301", " Zo\u00e9 ")):  # typed; a folder of macOS; with blanks
            gallery.add(name, [bytes([number])], np.float32([[0.6, 0.8]]))
        assert gallery.people() == {"Zo\u00e9": 3}
        assert gallery.remove(" Zoe\u0301") == 3
        gallery.add("\u0639\u0644\u06cc\u200c\u0631\u0636\u0627", [b"3"], np.float32([[0.6, 0.8]]))  # Ali-Reza
        with pytest.raises(ValueError, match="printable"):
            gallery.add("\u200c", [b"4"], np.float32([[0.6, 0.8]]))


def test_another_model_is_refused(tmp_path):
    path = tmp_path / "people.db"
    recognizer(gallery=path).enroll("Ann", RED)
    for other in (lambda images: colour_model(images)[:, ::-1], lambda images: colour_model(images)[:, :2]):
        with pytest.raises(ValueError, match=r"people\.db: was made with another model"):
            Recognizer(other, detector=None, gallery=path)
    with pytest.raises(ValueError, match="another model"):
        recognizer(gallery=path, flip="concat")
    assert recognizer(gallery=path).identify(RED, top=1).candidates[0].name == "Ann"


def test_removed_people_leave_nothing_in_the_file(tmp_path):
    path = tmp_path / "people.db"
    ours = recognizer(gallery=path)
    ours.enroll("Somebody Unforgettable", RED)
    assert b"Somebody Unforgettable" in path.read_bytes()
    ours.remove("Somebody Unforgettable")
    assert b"Somebody Unforgettable" not in path.read_bytes()


def test_other_files_are_no_galleries(tmp_path):
    (tmp_path / "text.db").write_text("not a database, but long enough to look like one" * 40)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE things (x)")
    for name in ("text.db", "other.db"):
        with pytest.raises(FileFormatError, match=rf"{name}: not a gallery"):
            Gallery(tmp_path / name)
    with pytest.raises(OSError, match=r"no folder does not exist\. Make it, or choose another for people\.db"):
        Gallery(tmp_path / "no folder" / "people.db")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(OSError, match=r"folder\.db: cannot be opened as a gallery \(it is a folder\)"):
        Gallery(tmp_path / "folder.db")


DAMAGES = {
    "scaled": ("UPDATE faces SET embedding = ? WHERE name = 'Bob'", (np.full(3, 1e20, "<f4").tobytes(),)),
    "nan": ("UPDATE faces SET embedding = ? WHERE name = 'Bob'", (np.full(3, np.nan, "<f4").tobytes(),)),
    "cut": ("UPDATE faces SET embedding = ? WHERE name = 'Bob'", (b"abc",)),
    "longer": ("UPDATE faces SET embedding = ? WHERE name = 'Bob'", (np.eye(1, 4, dtype="<f4").tobytes(),)),
    "text": ("UPDATE faces SET embedding = 'abc' WHERE name = 'Bob'", ()),
    "blob name": ("UPDATE faces SET name = CAST('Bob' AS BLOB) WHERE name = 'Bob'", ()),
    "name in Latin-1": ("UPDATE faces SET name = CAST(x'426fff' AS TEXT) WHERE name = 'Bob'", ()),
    "column": ("ALTER TABLE faces RENAME COLUMN name TO person", ()),
    "state's column": ("ALTER TABLE state RENAME COLUMN value TO number", ()),
    "short fingerprint": ("UPDATE state SET value = x'616263' WHERE key = 'fingerprint'", ()),
    "fingerprint": ("UPDATE state SET value = 'abc' WHERE key = 'fingerprint'", ()),
    "revision": ("DELETE FROM state WHERE key = 'revision'", ()),
    "table": ("DROP TABLE faces", ()),
    "trigger": ("CREATE TRIGGER t AFTER INSERT ON faces BEGIN DELETE FROM faces WHERE name = 'Ann'; END", ()),
    "another table": ("CREATE TABLE more (x)", ()),
    "name of two lines": ("UPDATE faces SET name = ? WHERE name = 'Bob'", ("Bob\x1b[31m\nAnn",)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_gallery_is_no_match_for_anybody(tmp_path, damage):
    path = tmp_path / "people.db"
    ours = recognizer(gallery=path)
    ours.enroll("Ann", RED)
    ours.enroll("Bob", BLUE)
    with sqlite3.connect(path) as other:
        other.execute(*DAMAGES[damage])
    with pytest.raises(
        FileFormatError, match=r"people\.db: a (damaged gallery|face of 'Bob' \(number 2\) is damaged)\."
    ):
        recognizer(gallery=path).identify(RED)


@pytest.mark.parametrize("damage", ["blob name", "name in Latin-1"])
def test_people_of_a_damaged_gallery_are_not_listed(tmp_path, damage):
    path = tmp_path / "people.db"
    with Gallery(path) as gallery:
        gallery.add("Bob", [b"1"], np.float32([[0.6, 0.8]]))
        with sqlite3.connect(path) as other:
            other.execute(*DAMAGES[damage])
        with pytest.raises(FileFormatError, match=r"people\.db: a damaged gallery"):
            gallery.people()


@pytest.mark.parametrize(("table", "columns"), [("faces", "1 id, 'x' name, x'00' digest,"), ("state", "'f' key,")])
def test_a_view_in_the_place_of_a_table_is_not_asked(tmp_path, table, columns):
    path = tmp_path / "people.db"
    with Gallery(path) as gallery:
        gallery.add("Bob", [b"1"], np.float32([[0.6, 0.8]]))
    last = {"faces": "embedding", "state": "value"}[table]
    with sqlite3.connect(path) as other:
        other.execute(f"DROP TABLE {table}")
        other.execute(f"CREATE VIEW {table} AS SELECT {columns} zeroblob(400000000) {last}")
    with pytest.raises(FileFormatError, match=r"people\.db: a damaged gallery"):
        Gallery(path)


def test_any_byte_of_a_gallery_may_be_wrong(tmp_path, rng):
    path = tmp_path / "people.db"
    with Gallery(path) as gallery:
        gallery.add("Ann", [b"1"], np.float32([[0.6, 0.8]]))
    whole, refused = path.read_bytes(), 0
    used = np.flatnonzero(np.frombuffer(whole, np.uint8))
    for place in rng.choice(used, 300):
        changed = bytearray(whole)
        changed[place] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        try:
            with Gallery(path) as gallery:
                gallery.state(), gallery.people(), gallery.faces_after()
        except (FileFormatError, OSError):  # SQLite calls some damages a lack of access
            refused += 1
    assert refused > 100


def test_a_closed_gallery_says_so(tmp_path):
    for gallery in (Gallery(), Gallery(tmp_path / "people.db")):
        gallery.close()
        for call in (gallery.people, gallery.is_bound, lambda g=gallery: g.add("Ann", [b"1"], np.eye(1, 3))):
            with pytest.raises(ValueError, match="this gallery is closed") as caught:
                call()
            assert not isinstance(caught.value, FileFormatError)


def test_faces_are_counted_for_one_person():
    with Gallery() as gallery:
        gallery.add("Ann", [b"1", b"2"], np.eye(2, 3))
        gallery.add("Bob", [b"3"], np.eye(1, 3))
        assert [gallery.count(name) for name in ("Ann", " Bob", "Cid")] == [2, 1, 0]


def test_the_exact_index_finds_the_nearest_best_first():
    """Rows at known angles to the query; of two at the same place the one that was added first."""
    angles = np.radians([90, 40, 180, 10, 40, 70])
    index = search.ExactIndex()
    index.add(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    for count, expected in ((1, [3]), (3, [3, 1, 4]), (4, [3, 1, 4, 5]), (9, [3, 1, 4, 5, 0, 2])):
        rows, scores = index.search(np.array([1.0, 0.0]), count)
        assert rows.tolist() == expected
        np.testing.assert_allclose(scores, np.cos(angles[expected]), atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_people_are_found_behind_many_faces_of_one(count):
    """Fifty faces of Ann are nearer than Bob's, and Bob's nearer than Cid's: at angles of 1 degree a face."""
    angles = np.radians(np.arange(1, 53))
    faces = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    with Gallery() as gallery:
        gallery.add("Ann", [bytes([number]) for number in range(50)], faces[:50])
        gallery.add("Bob", [b"Bob"], faces[50:51])
        gallery.add("Cid", [b"Cid"], faces[51:])
        found, people = search.PeopleIndex(gallery).nearest(np.float32([1, 0]), count)
    assert people == 3
    assert [name for name, _ in found] == ["Ann", "Bob", "Cid"][:count]
    assert [score for _, score in found] == pytest.approx(np.cos(np.radians([1, 51, 52]))[:count], abs=1e-6)


def test_the_exact_index_finds_the_same_however_it_grew(rng):
    rows = rng.standard_normal((50, 8)).astype(np.float32)
    kept = rows[:1].copy()
    whole, grown = search.ExactIndex(), search.ExactIndex()
    whole.add(rows)
    grown.add(kept)
    kept.flags.writeable = False  # as the rows that a gallery reads
    for start, stop in ((1, 4), (4, 5), (5, 30), (30, 31), (31, 50)):
        grown.add(rows[start:stop])
        assert grown.search(rows[0], 99)[0].max() == stop - 1
    for one, other in zip(whole.search(rows[7], 20), grown.search(rows[7], 20)):
        np.testing.assert_array_equal(one, other)


def test_an_image_that_cancels_its_mirror_image_has_no_embedding(tmp_path):
    half = np.concatenate([plain(200, 0, 0)[:, :56], plain(0, 200, 0)[:, 56:]], axis=1)
    difference = lambda images: images.astype("float32")[:, 50, [10]].mean(axis=1) - images[:, 50, [100]].mean(axis=1)  # noqa: E731
    with pytest.raises(ValueError, match="all zeros"):
        Recognizer(difference, detector=None, thresholds=THRESHOLDS, flip="sum").embed([half])


def test_a_gallery_is_made_when_somebody_is_enrolled(tmp_path):
    path = tmp_path / "people.db"
    ours, other = recognizer(gallery=path), recognizer(gallery=path)
    with pytest.raises(FileFormatError):
        ours.enroll("Ann", b"no picture")
    with pytest.raises(ValueError, match="is empty"):
        ours.identify(RED)
    assert ours.gallery.people() == {}
    assert not path.exists()
    ours.enroll("Ann", RED)
    assert other.identify(RED, top=1).candidates[0].name == "Ann"  # the other sees the file that has come
    with pytest.raises(ValueError, match="enrolled as 'Ann' already"):
        other.enroll("Bob", RED)


def test_a_gallery_is_made_where_its_path_was_given(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    ours = recognizer(gallery="people.db")
    monkeypatch.chdir(tmp_path / "elsewhere")
    ours.enroll("Ann", RED)
    assert (tmp_path / "people.db").exists()
    assert not (tmp_path / "elsewhere" / "people.db").exists()


def test_a_report_with_a_threshold_that_nobody_reaches_gives_its_others():
    scores, mated = [0.9, 0.8, 0.7, 1.0, 0.1, 0.2], [1, 1, 1, 0, 0, 0]
    report = ksf.evaluation.verification(scores, mated, fars=[1.0, 0.5, 0.34])
    assert report.tar_at_far[0.34].threshold < 1
    report.tar_at_far[0.2] = report.tar_at_far[0.34]._replace(threshold=np.nextafter(1.0, 2.0))
    thresholds = recognizer(thresholds=report).thresholds
    assert thresholds.fars == (0.5, 0.34)


def test_several_threads_and_objects_share_one_gallery(tmp_path):
    path, errors = tmp_path / "people.db", []
    objects = [recognizer(gallery=path) for _ in range(2)]

    def work(number):
        try:
            for step in range(5):
                ours = objects[number % 2]
                ours.enroll(f"person {number}", plain(40 * number + 10, 255 - 40 * number, 50 * step))
                assert ours.identify(RED, top=1).num_people >= 1
                assert ours.verify(RED, RED).score == pytest.approx(1)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert objects[0].gallery.people() == {f"person {number}": 5 for number in range(6)}
    assert objects[0].identify(RED).num_people == objects[1].identify(RED).num_people == 6


def test_threads_get_what_one_thread_gets(tmp_path):
    """One recognizer with a Keras model; each thread embeds, verifies, identifies and enrolls at the same time."""
    embedder = ksf.embedder.build_embedder(ksf.backbones.SFNet4(embedding_dim=8, channels=(4, 4, 4, 4)))
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (4, 3, 112, 112, 3), np.uint8)

    def work(ours, number):
        own, other = photos[number], photos[(number + 1) % len(photos)]
        answers = []
        for photo in own:
            enrollment = ours.enroll(f"person {number}", photo)
            found = ours.identify(photo, top=1)
            verified = ours.verify(photo, other[0])
            answers.append((enrollment, found.name, found.candidates[0].name, ours.embed(own), verified.score))
        return answers

    alone = Recognizer(embedder, detector=None, thresholds=THRESHOLDS, gallery=tmp_path / "alone.db")
    shared = Recognizer(embedder, detector=None, thresholds=THRESHOLDS, gallery=tmp_path / "shared.db")
    expected = [work(alone, number) for number in range(len(photos))]
    with concurrent.futures.ThreadPoolExecutor(len(photos)) as pool:
        answers = list(pool.map(lambda number: work(shared, number), range(len(photos))))
    for one, other in zip(answers, expected, strict=True):
        for (*words, embeddings, score), (*expected_words, expected_embeddings, expected_score) in zip(one, other):
            assert words == expected_words
            np.testing.assert_allclose(embeddings, expected_embeddings, atol=1e-5)
            assert score == pytest.approx(expected_score, abs=1e-5)
    assert shared.gallery.people() == alone.gallery.people() == {f"person {number}": 3 for number in range(4)}


def test_a_keras_model_and_a_function_of_it_are_one_model(tmp_path):
    backbone = ksf.backbones.SFNet4(embedding_dim=8, channels=(4, 4, 4, 4))
    embedder = ksf.embedder.build_embedder(backbone)
    first = Recognizer(embedder, detector=None, gallery=tmp_path / "people.db", threshold=0.5)
    assert first.verify(RED, RED).score == pytest.approx(1, abs=1e-5)
    first.enroll("Ann", RED)
    second = Recognizer(
        lambda x: keras.ops.convert_to_numpy(embedder(x.astype("float32"))),
        detector=None,
        gallery=tmp_path / "people.db",
    )
    assert second.identify(RED).candidates[0].name == "Ann"
    keras.utils.set_random_seed(1)
    with pytest.raises(ValueError, match="another model"):
        Recognizer(
            ksf.backbones.SFNet4(embedding_dim=8, channels=(4, 4, 4, 4)), detector=None, gallery=tmp_path / "people.db"
        )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda r: r.verify(None, RED), "NoneType"),
        (lambda r: r.verify(RED, RED[:50]), "expected an aligned crop"),
        (lambda r: r.verify(RED, RED, threshold=2), "threshold=2"),
        (lambda r: r.verify(RED, RED, threshold="0.5"), "threshold='0.5'"),
        (lambda r: r.verify(RED, RED, far="1e-3"), "far='1e-3'"),
        (lambda r: recognizer(thresholds={1e-3: "high"}), "Expected thresholds"),
        (lambda r: recognizer(gallery=""), "path=''"),
        (lambda r: r.gallery.add("Ann", [b"1"], np.ones(3)), "shape"),
        (lambda r: r.gallery.add("Ann", [b"1"], np.ones((2, 3))), "as many digests"),
        (lambda r: r.gallery.add("Ann", [None], np.eye(1, 3)), "digests as bytes. Received: None"),
        (lambda r: r.gallery.add("Ann", ["1"], np.eye(1, 3)), "digests as bytes. Received: '1'"),
        (lambda r: r.read_gallery(), "is empty"),
        (lambda r: r.gallery.add("Ann", [b"1"], np.ones((1, 3))), "of unit length. Received: one of length 1.732"),
        (lambda r: r.gallery.add("Ann", [b"1"], np.full((1, 3), np.nan)), "NaN"),
        (lambda r: r.gallery.remove("Ann\udce9"), "printable"),
        (lambda r: r.verify(RED, RED, threshold=0.5, far=1e-2), "not both"),
        (lambda r: r.verify("no_such.jpg", RED), "no_such.jpg"),
        (lambda r: r.embed([]), "empty list"),
        (lambda r: r.enroll("", RED), "name=''"),
        (lambda r: r.enroll("a\nb", RED), "printable"),
        (lambda r: r.identify(RED), "is empty"),
        (lambda r: r.identify(RED, top=0), "top=0"),
        (lambda r: recognizer(which="all"), "which='all'"),
        (lambda r: recognizer(index="faiss"), "index='faiss'"),
        (lambda r: recognizer(batch_size=0), "batch_size=0"),
        (lambda r: recognizer(size=(32,)), r"size=\(32,\)"),
        (lambda r: recognizer(size=(0, 32)), r"size=\(0, 32\)"),
        (lambda r: Recognizer(ksf.backbones.SFNet4(8), detector=None, size=(96, 112)), r"size=\(96, 112\)"),
        (lambda r: Recognizer(3, detector=None), "Received: int"),
        (lambda r: Recognizer(lambda x: x, detector=None).verify(RED, RED), "embeddings for 4 images"),
        (lambda r: Recognizer(lambda x: np.full((len(x), 3), np.nan), detector=None).verify(RED, RED), "NaN"),
    ],
)
def test_nonsense_gives_one_line(call, words):
    with pytest.raises((ValueError, TypeError, OSError), match=words) as caught:
        call(recognizer())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".csv"])
def test_embedding_files_come_back_exactly(tmp_path, rng, suffix):
    path, names = tmp_path / f"faces{suffix}", ["ä/1.jpg", 'b "2", x.jpg']
    rows = rng.standard_normal((2, 5)).astype(np.float32)
    write_embeddings(path, names, rows)
    if suffix == ".csv":
        import csv

        with open(path, encoding="utf-8", newline="") as file:
            _, *lines = csv.reader(file)
        found = [line[0] for line in lines], np.float32([line[1:] for line in lines])
    elif suffix == ".npz":
        arrays = np.load(path, allow_pickle=False)
        found = arrays["names"].tolist(), arrays["embeddings"]
    else:
        import h5py

        with h5py.File(path) as file:
            found = [name.decode() for name in file["names"]], file["embeddings"][:]
    assert found[0] == names
    np.testing.assert_array_equal(found[1], rows)
    with pytest.raises(ValueError, match=r"faces\.txt"):
        write_embeddings(tmp_path / "faces.txt", names, rows)


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".csv"])
def test_names_of_files_that_are_no_text_are_written(tmp_path, suffix):
    path = tmp_path / f"faces{suffix}"
    write_embeddings(path, ["caf\udce9.jpg"], np.ones((1, 2)))  # the name in Latin-1
    if suffix == ".npz":
        assert np.load(path)["names"].tolist() == ["caf\udce9.jpg"]
    else:
        assert b"caf\\udce9.jpg" in path.read_bytes()
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(ValueError, match="a folder"):
        write_embeddings(tmp_path / f"folder{suffix}", [], np.ones((0, 2)))


def test_an_onnx_file_of_one_image_at_a_time_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs the extra [export]")
    pytest.importorskip("onnxruntime", reason="needs the extra [export]")
    ends = ([onnx.helper.make_tensor_value_info(name, 1, [1, 112, 112, 3])] for name in ("images", "embeddings"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["images"], ["embeddings"])], "one", *ends)
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"m\.onnx: expected one float input .* of any n.* Received: \(1, 112,"):
        Recognizer(tmp_path / "m.onnx", detector=None)
