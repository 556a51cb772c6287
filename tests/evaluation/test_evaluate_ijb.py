import json

import keras
import numpy as np
import pytest

from keras_sphereface.cli import main
from keras_sphereface.data.alignment import ARCFACE_112X112
from keras_sphereface.data.images import encode_png
from keras_sphereface.errors import FileFormatError
from keras_sphereface.export import export
from keras_sphereface.files import tree_sha256
from keras_sphereface.ijb_evaluator import evaluate_ijb, model_digest


@pytest.fixture
def folder(tmp_path, rng):
    """Two people with two templates each, one image per template, every image cropped where it is already aligned."""
    (tmp_path / "meta").mkdir()
    (tmp_path / "loose_crop").mkdir()
    people = rng.integers(0, 256, (2, 112, 112, 3))
    points = " ".join(f"{value:.4f}" for value in np.asarray(ARCFACE_112X112).ravel())
    media, landmarks = [], []
    for number, person in enumerate((0, 0, 1, 1)):
        image = np.clip(people[person] + rng.integers(-9, 10, people[person].shape), 0, 255).astype(np.uint8)
        (tmp_path / "loose_crop" / f"{number + 1}.png").write_bytes(encode_png(image))
        media.append(f"{number + 1}.png {number + 1} {number + 1}")
        landmarks.append(f"{number + 1}.png {points} 0.9")
    meta = {
        "ijbc_face_tid_mid.txt": media,
        "ijbc_name_5pts_score.txt": landmarks,
        "ijbc_template_pair_label.txt": ["1 2 1", "3 4 1", "1 3 0", "2 4 0"],
        "ijbc_1N_gallery_G1.csv": ["TEMPLATE_ID,SUBJECT_ID", "1,7"],
        "ijbc_1N_gallery_G2.csv": ["TEMPLATE_ID,SUBJECT_ID", "3,8"],
        "ijbc_1N_probe_mixed.csv": ["TEMPLATE_ID,SUBJECT_ID", "2,7", "4,8"],
    }
    for name, lines in meta.items():
        (tmp_path / "meta" / name).write_text("\n".join(lines) + "\n")
    return tmp_path


def _pixels(images):
    return images[:, ::14, ::14].reshape(len(images), -1).astype(np.float32) - 128


def test_whole_protocol_from_images(folder):
    calls = []
    embed = lambda images: calls.append(len(images)) or _pixels(images)  # noqa: E731
    report = evaluate_ijb(embed, folder, "ijbc", folder / "f.h5", batch_size=3, model_signature="pixels")
    assert report.verification.auc == 1.0
    assert report.rank_rates[1] == 1.0
    assert sum(calls) == 8  # four images and their mirror images
    again = evaluate_ijb(embed, folder, "ijbc", folder / "f.h5", batch_size=2, model_signature="pixels")
    assert sum(calls) == 8  # nothing was embedded again
    assert again.to_dict() == report.to_dict()
    with pytest.raises(FileFormatError):
        evaluate_ijb(embed, folder, "ijbc", folder / "f.h5", model_signature="another")
    with pytest.raises(ValueError, match="model_signature"):
        evaluate_ijb(embed, folder, "ijbc", folder / "g.h5")


@pytest.mark.parametrize(("value", "said"), [(np.nan, "holds NaN or infinity"), (0, "is all zeros")])
def test_an_unusable_embedding_is_named_by_its_image(folder, value, said):
    blocks = []

    def embed(images):
        blocks.append(_pixels(images))
        if len(blocks) == 3:  # the first block's images and mirror images came before
            blocks[-1][0] = value
        return blocks[-1]

    with pytest.raises(ValueError, match=rf"The embedding of row 3 \(4\.png\) {said}"):
        evaluate_ijb(embed, folder, "ijbc", folder / "f.h5", batch_size=3, model_signature="pixels")


def test_the_feature_file_is_checked_before_the_work(folder, capsys):
    (folder / "features").mkdir()
    assert main(["evaluate", "no model", "--ijb", str(folder), "--features", str(folder / "features")]) == 1
    assert "Expected a file. Received:" in capsys.readouterr().err


def test_command_line(folder, capsys):
    images = keras.Input((112, 112, 3))
    outputs = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(keras.layers.Rescaling(1 / 128, -1)(images)))
    keras.Model(images, outputs).save(folder / "m.keras")
    arguments = ["evaluate", str(folder / "m.keras"), "--ijb", str(folder), "--batch-size", "2"]
    assert main([*arguments, "--features", str(folder / "f.h5"), "--save", str(folder / "r.json")]) == 0
    assert "1:N rank 1" in capsys.readouterr().out
    assert json.loads((folder / "r.json").read_text())["verification"]["auc"] == 1.0
    assert main(arguments) == 2
    assert "--ijb needs --features" in capsys.readouterr().err
    assert main([*arguments, "--features", str(folder / "f.h5"), "--threshold", "0.3"]) == 2
    assert "--threshold is for --pairs" in capsys.readouterr().err


def test_command_line_with_an_exported_file(folder, tmp_path, capsys):
    """The features of an ONNX file are known again by the file's checksum."""
    pytest.importorskip("onnxruntime", reason="needs the extra [export]")
    images = keras.Input((112, 112, 3))
    outputs = keras.layers.Flatten()(keras.layers.AveragePooling2D(16)(keras.layers.Rescaling(1 / 128, -1)(images)))
    export(keras.Model(images, outputs), tmp_path / "m.onnx", format="onnx")
    model, features = str(tmp_path / "m.onnx"), str(tmp_path / "f.h5")
    arguments = ["evaluate", model, "--ijb", str(folder), "--features", features, "--json"]
    assert [main(arguments), main(arguments)] == [0, 0]
    assert capsys.readouterr().out.count('"auc": 1.0') == 2
    (tmp_path / "m.onnx").write_bytes((tmp_path / "m.onnx").read_bytes() + b"\x32\x00")  # an empty description
    assert main(arguments) == 1
    assert "another" in capsys.readouterr().err


def pixels_of(scale, activation=None):
    """A model whose weights say nothing of its layers."""
    images = keras.Input((112, 112, 3))
    outputs = keras.layers.Flatten()(keras.layers.AveragePooling2D(16)(keras.layers.Rescaling(scale)(images)))
    return keras.Model(images, keras.layers.Dense(4, activation, kernel_initializer="ones")(outputs))


def test_features_are_of_one_model_and_its_crops(folder):
    digests = [model_digest(model) for model in (pixels_of(1 / 255), pixels_of(1 / 255), pixels_of(1 / 3))]
    assert digests[0] == digests[1] != digests[2]  # the names that Keras gives do not count
    assert digests[0] != model_digest(pixels_of(1 / 255, "tanh"))
    evaluate_ijb(pixels_of(1 / 255), folder, "ijbc", folder / "f.h5")
    with pytest.raises(FileFormatError, match="made with model_signature="):
        evaluate_ijb(pixels_of(1 / 3), folder, "ijbc", folder / "f.h5")
    path = folder / "meta" / "ijbc_name_5pts_score.txt"
    path.write_text(path.read_text().replace("2.png 3", "2.png 4"))
    with pytest.raises(FileFormatError, match="made with crops=112x112 "):
        evaluate_ijb(pixels_of(1 / 255), folder, "ijbc", folder / "f.h5")


@pytest.mark.parametrize("batch_size", [0, -1, 2.5])
def test_batches_have_images(folder, batch_size):
    with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1"):
        evaluate_ijb(_pixels, folder, "ijbc", folder / "f.h5", batch_size=batch_size, model_signature="pixels")


def test_one_to_one_alone(folder, capsys):
    for path in (folder / "meta").glob("*1N*"):
        path.unlink()
    pixels_of(1 / 255).save(folder / "m.keras")
    arguments = ["evaluate", str(folder / "m.keras"), "--ijb", str(folder), "--features", str(folder / "f.h5")]
    assert main(arguments) == 1
    assert main([*arguments, "--no-identification"]) == 0
    assert "1:N" not in capsys.readouterr().out


def test_a_saved_model_is_known_by_its_files(folder, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("same")
    assert tree_sha256(tmp_path / "a") == tree_sha256(tmp_path / "b")
    (tmp_path / "b" / "weights").rename(tmp_path / "b" / "other")
    assert tree_sha256(tmp_path / "a") != tree_sha256(tmp_path / "b")
