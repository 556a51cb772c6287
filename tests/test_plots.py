"""Pictures: known values of the angular functions, the digits' training, curves of saved reports, and the command."""

import json
import pathlib

import keras
import numpy as np
import pytest
from PIL import Image

import keras_sphereface as ksf
from keras_sphereface.cli import main
from keras_sphereface.errors import FileFormatError
from keras_sphereface.evaluation import verification
from keras_sphereface.evaluation.curves import Curve, report_curve
from keras_sphereface.plots.margins import angular_functions

pytest.importorskip("matplotlib", reason="needs the extra [plots]")


@pytest.fixture
def mine():
    """A margin of the user's own, taken out of the table again."""
    yield ksf.margins.register("mine", psi=lambda theta, m: keras.ops.cos(theta) - m, neutral=0.0)
    del ksf.margins._TABLE["mine"]


def test_delta_at_known_angles():
    """Delta at 0, 90 and 180 degrees by hand."""
    expected = {
        "cosface": [0.35, 0.35, 0.35],
        "arcface": [1 - np.cos(0.5), np.sin(0.5), 0.0],
        "sphereface": [0.0, 2**-0.5, 1.0],  # psi: 1, cos 135 degrees, -cos 270 degrees - 2
        "sphereface_r_v1": [0.0, -np.cos(0.7 * np.pi), 0.0],
        "sphereface_r_v2": [0.0, np.cos(np.pi / 2.8), np.cos(np.pi / 1.4) + 1],
        "normface": [0.0, 0.0, 0.0],
    }
    assert set(expected) == set(ksf.plots.MARGIN_VALUES)
    for name, delta in expected.items():
        functions = angular_functions(name, ksf.plots.MARGIN_VALUES[name], num_angles=3)
        np.testing.assert_allclose(functions["delta"], delta, atol=1e-6, err_msg=name)


def test_margin_figure_draws_what_it_computes(mine):
    figure = ksf.plots.margin_figure(["sphereface_r_v2", "mine=0.25"])
    psi, eta, delta = figure.axes
    assert [line.get_label() for line in psi.lines] == ["sphereface_r_v2, m = 1.4", "mine, m = 0.25"]
    np.testing.assert_allclose(delta.lines[1].get_ydata(), 0.25, atol=1e-6)
    np.testing.assert_allclose(eta.lines[0].get_ydata()[-1], np.cos(np.pi / 1.4), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arcfase", "Unknown margin.*Received: margin='arcfase'"),
        ("mine", "expected mine=VALUE"),
        ("mine=much", "NAME=VALUE with a number"),
        ("mine=-1", "at least 0.0"),
    ],
)
def test_wrong_margins_are_refused(mine, text, message):
    with pytest.raises(ValueError, match=message):
        ksf.plots.parse_margin(text)


def test_softmax_takes_no_margin():
    with pytest.raises(ValueError, match=r"has no margin.*Received: 'softmax=0.3'"):
        ksf.plots.train_on_digits("softmax=0.3")


def test_every_margin_of_the_package_has_a_usual_value():
    assert set(ksf.margins.names()) >= set(ksf.plots.MARGIN_VALUES)
    for name, value in ksf.plots.MARGIN_VALUES.items():
        assert ksf.margins.get(name).validate(value) == value


def test_digits_are_learned_and_drawn(tmp_path):
    pytest.importorskip("sklearn", reason="needs the extra [plots]")
    run = ksf.plots.train_on_digits("sphereface_r_v2", dimensions=3, epochs=4)
    assert run.embeddings.shape == (5, 449, 3)
    assert run.centers.shape == (5, 3, 10)
    assert run.accuracy[-1] > 0.6 > run.accuracy[0]
    assert run.angle_to_class_mean(-1) < run.angle_to_class_mean(1)
    again = ksf.plots.train_on_digits("sphereface_r_v2", dimensions=3, epochs=1)
    np.testing.assert_allclose(
        again.embeddings[0], run.embeddings[0], atol=1e-6, err_msg="the same seed, the same start"
    )
    for dimensions, drawn in ((3, run), (2, _flattened(run))):
        ksf.plots.embedding_figure([drawn, drawn]).savefig(tmp_path / f"{dimensions}.png", dpi=40)
        assert np.asarray(Image.open(tmp_path / f"{dimensions}.png").convert("L")).std() > 5
    ksf.plots.save_animation([_flattened(run)], tmp_path / "run.gif", dpi=30)
    with Image.open(tmp_path / "run.gif") as animation:
        assert animation.n_frames == 5


def _flattened(run):
    values = {**vars(run), "embeddings": run.embeddings[..., :2], "centers": run.centers[:, :2]}
    return ksf.plots.DigitsRun(**values)


def test_angle_to_class_mean_by_hand():
    """Each digit has two embeddings 40 degrees apart, of whatever length: each is 20 degrees from their mean."""
    middles = np.radians(np.arange(10) * 36.0)
    angles = np.concatenate([middles - np.radians(20), middles + np.radians(20)])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.linspace(1, 5, 20)[:, None]
    run = ksf.plots.DigitsRun("x", points[None], np.zeros((1, 2, 10)), np.tile(np.arange(10), 2), np.ones(1))
    assert run.angle_to_class_mean() == pytest.approx(20.0, abs=1e-4)


@pytest.fixture
def reports(tmp_path):
    """Two saved reports on the same pairs."""
    paths = []
    for name, scores in {"good": [0.9, 0.8, 0.7, 0.3, 0.2, 0.1], "poor": [0.9, 0.5, 0.1, 0.8, 0.4, 0.0]}.items():
        paths.append(str(tmp_path / f"{name}.json"))
        verification(scores, [1, 1, 1, 0, 0, 0], bootstrap=0, name="toy").save(paths[-1])
    return paths


def test_a_saved_report_keeps_its_curve(reports):
    """By hand: 'good' separates the pairs; 'poor' accepts 1, then 2, then 3 mated pairs with 0, 1 and 2 false accepts."""
    name, curve = ksf.plots.read_curve(reports[0])
    assert name == "toy"
    np.testing.assert_array_equal([curve.accepted_nonmated, curve.accepted_mated], [[0, 1, 2, 3], [3, 3, 3, 3]])
    poor = ksf.plots.read_curve(reports[1])[1]
    np.testing.assert_array_equal([poor.accepted_nonmated, poor.accepted_mated], [[0, 1, 2, 3], [1, 2, 3, 3]])
    np.testing.assert_allclose(poor.far, [0, 1 / 3, 2 / 3, 1])
    axes = ksf.plots.det_overlay({"good": curve, "poor": poor}).axes[0]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [2 / 3, 1 / 3, 0, 0])


def test_thinned_corners_lie_on_the_curve(rng):
    mated = rng.random(20_000) < 0.3
    scores = rng.normal(mated * 1.5)
    report = verification(scores, mated, bootstrap=0)
    corners = report.to_dict()["roc"]
    far, tar = np.array(corners["accepted_nonmated"]), np.array(corners["accepted_mated"])
    assert 150 < len(far) <= 200
    assert (far[0], far[-1], tar[-1]) == (0, (~mated).sum(), mated.sum())
    cut = np.sort(scores[~mated])[::-1]
    for false, true in zip(far[:-1], tar[:-1]):
        assert true == (scores[mated] > cut[false]).sum(), "the most true accepts with this many false ones"


def test_command_draws(reports, tmp_path, capsys):
    assert main(["plot", "curves", str(tmp_path / "new" / "roc.png"), *reports]) == 0
    own = tmp_path / "own.py"
    own.write_text(
        "import keras, keras_sphereface as ksf\n"
        "ksf.margins.register('own', eta=lambda theta, m: keras.ops.cos(theta / m))\n"
    )
    try:
        assert main(["plot", "margins", str(tmp_path / "m.png"), "--import", str(own), "--margins", "own=1.2"]) == 0
    finally:
        ksf.margins._TABLE.pop("own", None)
    said = capsys.readouterr().out
    for name in ("new/roc.png", "m.png"):
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 5
        assert f"drawn: {tmp_path / name}\n" in said


def test_files_names_are_shown_as_they_are(reports, tmp_path):
    files = []
    for name in ("_a", "c$x^$"):
        files.append(str(tmp_path / f"{name}.json"))
        pathlib.Path(files[-1]).write_text(pathlib.Path(reports[0]).read_text())
    assert main(["plot", "curves", str(tmp_path / "roc.png"), *files]) == 0
    curves = {name: ksf.plots.read_curve(file)[1] for name, file in zip(("_a", "c$x^$"), files)}
    (legend,) = (axes.get_legend() for axes in ksf.plots.roc_overlay(curves).axes)
    assert [text.get_text().strip() for text in legend.get_texts()] == ["_a", "c$x^$"]


def test_command_says_what_is_wrong_in_a_line(reports, tmp_path, capsys):
    (tmp_path / "other.json").write_text(json.dumps({"accuracy": 1.0}))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "fails.py").write_text("raise KeyError('x')")
    output = str(tmp_path / "x.png")
    wrong = {
        ("curves", output, str(tmp_path / "other.json")): "evaluate MODEL --save",
        ("curves", output, str(tmp_path / "broken.json")): "Give a report that",
        ("margins", str(tmp_path / "x.gif")): "ending in .png",
        ("margins", output, "--import", "no_such_module"): "--import: expected a module",
        ("margins", output, "--margins", "arcfase"): "Unknown margin",
        ("margins", output, "--import", str(tmp_path / "fails.py")): "fails.py (KeyError: 'x')",
    }
    for arguments, message in wrong.items():
        assert main(["plot", *arguments]) == (2 if "ending" in message else 1)
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("words", [["--debug", "plot", "margins"], ["plot", "--debug", "margins"], ["plot", "margins"]])
def test_debug_stands_before_and_after_the_picture(tmp_path, words):
    after = [] if "--debug" in words else ["--debug"]
    with pytest.raises(ValueError, match="Unknown margin"):
        main([*words, str(tmp_path / "x.png"), "--margins", "arcfase", *after])


def saved(path, **changes):
    values = {"name": "toy", "num_mated": 4, "num_nonmated": 10}
    curve = {"accepted_nonmated": [0, 3, 10], "accepted_mated": [2, 3, 4]}
    path.write_text(json.dumps({**values, "roc": {**curve, **changes.pop("roc", {})}, **changes}))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"num_nonmated": 0},
        {"num_mated": -4},
        {"num_mated": 3},
        {"num_mated": float("inf")},
        {"num_mated": 10**30},
        {"roc": {"accepted_mated": [2, 3]}},
        {"roc": {"accepted_mated": [0.9, 3, 4]}},
        {"roc": {"accepted_mated": [2, 10**30, 4]}},
        {"roc": {"accepted_mated": [3, 2, 4]}},
        {"roc": {"accepted_mated": 4}},
        {"roc": {"accepted_mated": [], "accepted_nonmated": []}},
        {"roc": {"accepted_nonmated": [-1, 3, 10]}},
        {"roc": {"accepted_nonmated": [0, 3, 11]}},
        {"verification": 5},
    ],
)
def test_a_curve_that_is_none_is_refused(tmp_path, changes):
    assert ksf.plots.read_curve(saved(tmp_path / "good.json"))[1].far.tolist() == [0, 0.3, 1]
    with pytest.raises(FileFormatError, match=r"bad\.json: expected a report with mated and nonmated pairs"):
        ksf.plots.read_curve(saved(tmp_path / "bad.json", **changes))


def test_a_report_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(FileFormatError, match=r"deep\.json: not JSON .* Give a report"):
        ksf.plots.read_curve(tmp_path / "deep.json")


@pytest.mark.parametrize("draw", [ksf.plots.roc_overlay, ksf.plots.det_overlay])
def test_a_curve_begins_where_its_own_comparisons_do(draw):
    curves = {str(count): Curve(np.array([0, 1, count]), np.array([1, 2, 4]), count, 4) for count in (10, 1000)}
    axes = draw(curves).axes[0]
    first = {line.get_label(): line.get_xdata()[0] for line in axes.lines}
    assert (first["10"], first["1000"]) == (0.05, 0.0005)
    assert axes.get_xlim() == (0.0005, 1)
    with pytest.raises(ValueError, match="Expected at least one curve"):
        draw({})


def test_pictures_of_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Expected at least one run"):
        ksf.plots.save_animation([], tmp_path / "a.gif")
    with pytest.raises(ValueError, match="`frames_per_second` must be a finite number above 0"):
        ksf.plots.save_animation([None], tmp_path / "a.gif", frames_per_second=0)
    one_kind = verification([0.1, 0.2], [1, 1])
    with pytest.raises(ValueError, match="Received: 2 mated, 0 nonmated"):
        report_curve(one_kind)


def test_a_report_given_twice_is_said(tmp_path, capsys):
    report = str(saved(tmp_path / "a.json"))
    assert main(["plot", "curves", str(tmp_path / "roc.png"), report, report]) == 2
    assert "Expected each report once" in capsys.readouterr().err
