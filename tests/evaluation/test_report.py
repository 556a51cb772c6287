import json

import numpy as np
import pytest
from PIL import Image

from keras_sphereface.data.pairs import PairSet
from keras_sphereface.evaluation import verification
from keras_sphereface.evaluation.drawing import hardest_figure, norm_figure
from keras_sphereface.evaluation.report import signature
from keras_sphereface.evaluation.results import Result, save_json


@pytest.fixture
def report(rng):
    mated = np.arange(200) % 2 == 0
    scores = np.clip(rng.normal(0.5 * mated, 0.2), -1, 1)
    return verification(scores, mated, np.arange(200) // 20, bootstrap=50, name="toy")


def test_table_shows_every_number_and_the_signature(report):
    text = str(report)
    for expected in (
        "toy: 200 pairs, 100 mated, 100 nonmated",
        "accuracy (10 folds)",
        "best-threshold accuracy",
        "EER",
        "AUC",
    ):
        assert expected in text
    assert f"{100 * report.accuracy:.2f} %" in text
    assert f"TAR at FAR 1e-02            {100 * report.tar_at_far[1e-2].tar:.2f} %" in text
    assert text.count("too few nonmated scores") == 4
    assert text.splitlines()[-1] == report.signature


def test_numbers_stand_in_columns():
    scores = np.concatenate([np.linspace(0.3, 1, 1000), np.linspace(-0.6, 0.4, 1000)])
    report = verification(scores, np.arange(2000) < 1000, bootstrap=20, fars=[1e-2])
    rates = [line for line in str(report).splitlines() if " %" in line]
    assert len({line.index(" %") for line in rates}) == 1, rates
    assert {len(line[: line.index(" %")].split()[-1]) for line in rates} == {4, 5}, "rates of one digit and of two"
    assert len({line.index("  at threshold") for line in rates if "at threshold" in line}) == 1, rates


def test_json_round_trip(report, tmp_path):
    report.save(tmp_path / "new" / "report.json")
    read = json.loads((tmp_path / "new" / "report.json").read_text())
    assert read["accuracy"] == report.accuracy
    assert read["signature"] == report.signature
    assert read["tar_at_far"]["0.01"]["tar"] == report.tar_at_far[1e-2].tar
    assert read["tar_at_far"]["1e-06"] is None
    assert read["intervals"]["eer"] == list(report.intervals["eer"])
    assert read["hardest"] == report.hardest
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.json"]


def test_a_report_is_a_result_like_others(report):
    assert isinstance(report, Result)
    assert report["auc"] == report.auc
    assert report["notes"] is report.notes


def test_a_saved_report_to_the_letter(tmp_path):
    """FAR 1/2 of one nonmated score allows none: it is not supported. FAR 1 accepts both from 0.25 on."""
    rates = np.float32(0.5), np.float32(1)
    report = verification([0.75, 0.25], [1, 0], threshold=0.5, bootstrap=0, fars=rates, hardest=1)
    report.save(tmp_path / "a.json")
    values = {
        "name": "pairs",
        "signature": signature("pairs", threshold="given-0.5"),
        **{"num_pairs": 2, "num_mated": 1, "num_nonmated": 1},
        **{"accuracy": 1.0, "threshold": 0.5, "accuracy_std": None, "accuracy_folds": [], "fold_thresholds": []},
        **{"best_threshold_accuracy": 1.0, "best_threshold": 0.5, "eer": 0.0, "auc": 1.0, "intervals": {}},
        "notes": ["TAR at FAR 5e-01 and below is left out: it needs at least 2 nonmated scores, there are 1"],
        "hardest": [
            {"pair": 0, "mated": True, "score": 0.75, "wrong": False},
            {"pair": 1, "mated": False, "score": 0.25, "wrong": False},
        ],
        "tar_at_far": {
            "0.5": None,
            "1": {"threshold": 0.25, "accepted_mated": 1, "accepted_nonmated": 1, "tar": 1.0, "far": 1.0},
        },
        "roc": {"accepted_nonmated": [0, 1], "accepted_mated": [1, 1]},
    }
    assert (tmp_path / "a.json").read_text() == json.dumps(values, indent=2) + "\n"


def test_json_refuses_what_json_cannot_say(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save_json({"value": float("nan")}, tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_nothing_behind(report, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        report.save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_signature_leaves_out_what_does_not_apply():
    assert signature("lfw", folds=10, crop=None, flip="sum").startswith("lfw|folds:10|flip:sum|v:")


def test_pictures_of_scores_alone(report, tmp_path):
    paths = report.plot(tmp_path)
    assert sorted(path.rsplit("/", 1)[1] for path in paths) == ["angles.png", "det.png", "roc.png", "scores.png"]
    for path in paths:
        assert np.asarray(Image.open(path).convert("L")).std() > 5  # not an empty page


def test_pictures_with_images(report, tmp_path, rng):
    images = rng.integers(0, 256, (4, 16, 12, 3), dtype=np.uint8)
    report.pairs = PairSet.from_arrays(images, np.arange(200) % 4, (np.arange(200) + 1) % 4, report.mated, name="toy")
    report.norms = np.ones(4)
    for entry in report.hardest:
        entry["left"], entry["right"] = "a_$_file.jpg", "b.jpg"
    paths = report.plot(tmp_path)
    assert {"norms.png", "hardest.png"} <= {path.rsplit("/", 1)[1] for path in paths}


@pytest.mark.parametrize(
    ("part", "words"), [("flip:sum", "image and mirror image added"), ("flip:none", "Norm of the embedding")]
)
def test_norms_are_those_of_what_is_compared(report, part, words):
    """Embeddings of unit length, added to their mirror images', have norms up to 2."""
    report.norms, report.signature = np.full(4, 1.9), f"toy|{part}|v:1"
    label = norm_figure(report).axes[0].get_xlabel()
    assert label.endswith(words)


def test_a_report_of_scores_alone_has_no_norms_and_no_images_to_draw(report):
    for draw, what in ((norm_figure, "norms"), (hardest_figure, "images")):
        with pytest.raises(ValueError, match=rf"the report has no {what}\. Take one of keras_sphereface\.evaluate"):
            draw(report)


def test_one_class_only_can_be_printed_saved_and_drawn(tmp_path):
    report = verification([0.2, 0.4], [1, 1], [0, 1])
    assert "no nonmated pairs" in str(report)
    report.save(tmp_path / "a.json")
    assert [path.rsplit("/", 1)[1] for path in report.plot(tmp_path)] == ["scores.png", "angles.png"]
