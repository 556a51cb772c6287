import json

import keras
import numpy as np
import pytest

import keras_sphereface as ksf
from keras_sphereface.cli import main
from keras_sphereface.data.bin_pairs import write_bin
from keras_sphereface.data.images import encode_png
from keras_sphereface.data.pair_lists import read_lfw
from keras_sphereface.data.pairs import PairSet, contiguous_folds
from keras_sphereface.evaluator import center_crop, embed_images, evaluate

SIZE = 8


@pytest.fixture
def pairs(rng):
    people = np.repeat(np.arange(10), 3)
    base = rng.integers(60, 190, (10, SIZE, SIZE, 3))
    images = np.clip(base[people] + rng.integers(-60, 60, (30, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    left = np.concatenate([np.arange(30), np.arange(30)])
    right = np.concatenate([np.arange(30) // 3 * 3 + (np.arange(30) + 1) % 3, (np.arange(30) + 3) % 30])
    order = rng.permutation(60)
    left, right = left[order], right[order]
    return PairSet.from_arrays(
        images, left, right, people[left] == people[right], contiguous_folds(60), identities=people, name="toy"
    )


@pytest.fixture
def model(rng):
    images = keras.Input((SIZE, SIZE, 3))
    embeddings = keras.layers.Dense(16)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 128, -1)(images)))
    return keras.Model(images, embeddings)


def _pixels(images):
    assert images.dtype == np.uint8
    return images.reshape(len(images), -1)[:, :40].astype(np.float32) - 128


def test_numbers_come_from_cosines_of_summed_raw_embeddings(pairs):
    report = evaluate(_pixels, pairs, bootstrap=0)
    images = np.stack([pairs.image(index) for index in range(pairs.num_images)])
    fused = (_pixels(images) + _pixels(images[:, :, ::-1])).astype(np.float64)
    fused /= np.linalg.norm(fused, axis=1, keepdims=True)
    np.testing.assert_allclose(report.scores, np.sum(fused[pairs.left] * fused[pairs.right], axis=1), atol=1e-12)
    expected = ksf.evaluation.verification(report.scores, pairs.mated, pairs.folds, bootstrap=0)
    assert (report.accuracy, report.eer) == (expected.accuracy, expected.eer)
    assert report.signature == f"toy|folds:10|flip:sum|distance:cosine|threshold:other-folds|v:{ksf.__version__}"
    assert report.hardest[0]["left"] == str(pairs.left[report.hardest[0]["pair"]])


@pytest.mark.parametrize("flip", ["none", "sum", "concat"])
def test_batch_size_does_not_change_the_result(pairs, model, flip):
    results = [evaluate(model, pairs, flip=flip, batch_size=size, bootstrap=0) for size in (1, 7, 64)]
    for result in results[1:]:
        np.testing.assert_allclose(result.scores, results[0].scores, atol=1e-6)
        assert result.accuracy == results[0].accuracy
    exact = [evaluate(_pixels, pairs, flip=flip, batch_size=size, bootstrap=0).to_dict() for size in (1, 7, 64)]
    assert exact[0] == exact[1] == exact[2]


def test_a_keras_model_and_a_callable_agree(pairs, model):
    one = evaluate(model, pairs, bootstrap=0)
    other = evaluate(lambda images: keras.ops.convert_to_numpy(model(images.astype(np.float32))), pairs, bootstrap=0)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)


def test_a_pytorch_module_is_measured_as_it_is(pairs):
    torch = pytest.importorskip("torch")
    scale = torch.nn.Parameter(torch.ones(()))
    own = evaluate(lambda images: scale * torch.from_numpy(_pixels(images)), pairs, bootstrap=0)
    np.testing.assert_allclose(own.scores, evaluate(_pixels, pairs, bootstrap=0).scores, atol=1e-6)


@pytest.mark.parametrize("flip", ["sum", "concat"])
def test_mirror_images_of_another_width_are_refused(pairs, flip):
    calls = []

    def changing(images):
        calls.append(len(images))
        return _pixels(images)[:, : 3 + len(calls) % 2]

    with pytest.raises(ValueError, match=r"Received: \(\d+, 4\) and \(\d+, 3\)\. Use one model"):
        evaluate(changing, pairs, flip=flip, bootstrap=0)
    with pytest.raises(ValueError, match=r"Received: \(3, 2\) and \(1, 2\)"):
        ksf.evaluation.fuse(np.ones((3, 2)), np.ones((1, 2)), flip)
    assert ksf.evaluation.fuse([[1.0, 0.0]], [[0.0, 1.0]], "sum").tolist() == [[1.0, 1.0]]


def test_public_name_is_the_function(pairs):
    assert ksf.evaluate is evaluate
    assert "identities-20-0" in ksf.evaluate(_pixels, pairs, bootstrap=20).signature


def test_every_image_is_embedded_once(pairs):
    seen = []
    embed_images(lambda images: seen.append(len(images)) or _pixels(images), pairs, flip="none", batch_size=8)
    assert seen == [8, 8, 8, 6]


def test_center_crop_takes_the_sphereface_columns():
    columns = np.arange(112)[None, None, :, None] * np.ones((1, 112, 1, 3))
    assert center_crop(columns, (112, 96))[0, 0, [0, -1], 0].tolist() == [8, 103]
    with pytest.raises(ValueError, match="at least"):
        center_crop(columns, (113, 96))


def test_crop_only_where_it_is_asked_for(pairs):
    images = keras.Input((SIZE, SIZE - 2, 3))
    narrow = keras.Model(images, keras.layers.Flatten()(images))
    with pytest.raises(ValueError, match="crop='center'"):
        evaluate(narrow, pairs)
    for crop in ((None, 96), ("a", 1), (112.7, 112), (0, 5)):
        with pytest.raises(ValueError, match=r"`crop\[0\]` must be an integer of at least 1"):
            evaluate(narrow, pairs, crop=crop)
    report = evaluate(narrow, pairs, crop="center", bootstrap=0)
    assert "crop:8x6" in report.signature
    same = evaluate(lambda block: block.reshape(len(block), -1), pairs, crop=(SIZE, SIZE - 2), bootstrap=0)
    np.testing.assert_allclose(report.scores, same.scores, atol=1e-12)
    with pytest.raises(ValueError, match="fixed input size"):
        evaluate(_pixels, pairs, crop="center")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda images: np.full((len(images), 4), np.nan), r"row 0 \(0\) holds NaN"),
        (lambda images: np.zeros((len(images), 4)), "all zeros"),
        (lambda images: np.ones((len(images) - 1, 4)), r"\(7, d\) embeddings for 7 images from '0' on"),
        (lambda images: np.ones((len(images), len(images))), r"\(n, 7\).*from row 28 on"),
    ],
)
def test_unusable_embeddings_are_refused(pairs, model, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model, pairs, batch_size=7)


def test_a_path_in_place_of_pairs_is_refused(model):
    with pytest.raises(ValueError, match=r"Expected a PairSet.*Received: pairs='lfw.bin'"):
        evaluate(model, "lfw.bin")


@pytest.mark.parametrize(
    "wrong", [{"bootstrap": -1}, {"seed": 0.5}, {"hardest": -1}, {"fars": (0.0,)}, {"threshold": float("nan")}]
)
def test_arguments_are_checked_before_any_image_is_embedded(pairs, wrong):
    embedded = []
    with pytest.raises(ValueError, match=next(iter(wrong))):
        evaluate(lambda images: embedded.append(len(images)), pairs, **wrong)
    assert not embedded


def test_command_line(pairs, model, tmp_path, capsys):
    model.save(tmp_path / "model.keras")
    write_bin(tmp_path / "toy.bin", pairs)
    common = ["evaluate", str(tmp_path / "model.keras"), "--pairs", str(tmp_path / "toy.bin"), "--bootstrap", "0"]
    assert main([*common, "--plot", str(tmp_path / "plots"), "--save", str(tmp_path / "r.json")]) == 0
    printed = capsys.readouterr().out
    assert "accuracy (10 folds)" in printed
    assert (tmp_path / "plots" / "hardest.png").exists()
    assert main([*common, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "r.json").read_text())
    assert json.loads((tmp_path / "r.json").read_text())["accuracy"] == evaluate(model, pairs, bootstrap=0).accuracy


def test_a_path_is_no_model_and_one_rate_no_list(pairs):
    with pytest.raises(ValueError, match=r"Expected a model, e\.g\. .* Received: model='model\.keras'"):
        evaluate("model.keras", pairs)
    for fars in (1e-3, "0.1", [2], [True], None):
        with pytest.raises(ValueError, match="`fars` must be false accept rates above 0 and at most 1"):
            evaluate(_pixels, pairs, fars=fars)


def test_the_report_takes_no_inputs_place(pairs, model, tmp_path, capsys):
    model.save(tmp_path / "model.keras")
    write_bin(tmp_path / "toy.bin", pairs)
    files = {path: path.read_bytes() for path in (tmp_path / "model.keras", tmp_path / "toy.bin")}
    for path in files:
        words = ["evaluate", str(tmp_path / "model.keras"), "--pairs", str(tmp_path / "toy.bin"), "--save", str(path)]
        assert main(words) == 2
        assert "--save needs a file of its own" in capsys.readouterr().err
    words = ["evaluate", "m.keras", "--ijb", ".", "--features", str(tmp_path / "new"), "--save", str(tmp_path / "new")]
    assert main(words) == 2
    assert all(path.read_bytes() == content for path, content in files.items())


@pytest.mark.parametrize("words", [["--lfw", "faces", "--protocol", "p.txt"], ["--list", "p.txt", "--images", "faces"]])
def test_nor_that_of_a_list_among_the_images(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "p.txt").write_text("a list")
    assert main(["evaluate", "m.keras", *words, "--save", "faces/p.txt"]) == 2
    assert "--save needs a file of its own" in capsys.readouterr().err
    assert (tmp_path / "faces" / "p.txt").read_text() == "a list"


def test_identities_are_compared_before_any_image_is_embedded(pairs):
    embedded = []
    pairs.mated = ~pairs.mated
    with pytest.raises(ValueError, match="Expected mated pairs, and only those, to have equal identities"):
        evaluate(embedded.append, pairs)
    assert not embedded


def test_command_line_errors_are_one_line(tmp_path, capsys):
    (tmp_path / "cut.bin").write_bytes(b"\x80\x02]")
    keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()]).save(tmp_path / "m.keras")
    assert main(["evaluate", str(tmp_path / "m.keras"), "--pairs", str(tmp_path / "cut.bin")]) == 1
    assert "cut.bin" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "m.keras"), "--lfw", str(tmp_path)]) == 2
    assert "--lfw needs --protocol" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", "m.keras", "--pairs", "cut.bin", "--batch-size", "0"])
    assert "--batch-size: expected a whole number of at least 1. Received: 0" in capsys.readouterr().err


def test_command_line_reads_lfw(tmp_path, capsys, rng):
    for person in ("Ann", "Bob"):
        (tmp_path / person).mkdir()
        for picture in (1, 2):
            image = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            (tmp_path / person / f"{person}_{picture:04d}.jpg").write_bytes(encode_png(image))
    (tmp_path / "pairs.txt").write_text("1\nAnn\t1\t2\nAnn\t1\tBob\t2\n")
    keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()]).save(tmp_path / "m.keras")
    arguments = ["--lfw", str(tmp_path), "--protocol", "pairs.txt", "--threshold", "0.9"]
    assert main(["evaluate", str(tmp_path / "m.keras"), *arguments]) == 0
    assert "threshold:given" in capsys.readouterr().out


def _batched(path):
    """Opens a network exported for one image, with its batch dimension set free in memory."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    graph = onnx.load(path)
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    shapes = {node.input[1] for node in graph.graph.node if node.op_type == "Reshape"}
    for node in graph.graph.node:
        if node.op_type == "Constant" and node.output[0] in shapes:
            node.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(np.array([0, -1], np.int64)))  # 0 keeps n
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # waiting threads leave the cores to others
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_known_network_gives_its_known_numbers_on_lfw(shared):
    session = _batched(shared / "weights/mobilefacenet_foamliu.onnx")
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])

    def network(images):
        scaled = (images / np.float32(255) - mean) / deviation
        return session.run(None, {"input0": np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))})[0]

    pairs = read_lfw(shared / "data/lfw_112x112", shared / "data/lfw_protocol/pairs.txt")
    report = evaluate(network, pairs, flip="sum", batch_size=32, bootstrap=200)
    assert report.accuracy == pytest.approx(0.9912, abs=0.0005)
    assert report.tar_at_far[1e-3].tar == pytest.approx(0.9850, abs=0.001)
    assert report.tar_at_far[1e-4] is None  # 3,000 nonmated pairs
    low, high = report.intervals["accuracy"]
    assert low < report.accuracy < high < low + 0.01
