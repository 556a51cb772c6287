"""Going on from a trained model: its backbone, and class weights that begin where it has the classes."""

import keras
import numpy as np
import pytest

import keras_sphereface as ksf
from keras_sphereface.embedder import as_backbone, as_embedder, build_embedder

pytestmark = pytest.mark.core

# The "network" gives an image's mean colour: embeddings by hand.
RED, GREEN, BLUE = (
    np.full((2, 2, 3), 0, "uint8") + np.uint8([[np.eye(3)[one] * 255]]).astype("uint8") for one in range(3)
)


def mean_colour():
    images = keras.Input((2, 2, 3))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(images), name="mean_colour")


def make_trainer(backbone, num_classes, **head):
    return ksf.FaceClassifier(backbone, ksf.heads.SphereFaceR(num_classes, scale=10.0, **head))


def kernel_of(trainer):
    return keras.ops.convert_to_numpy(trainer.head.kernel)


def test_class_weights_are_the_classes_mean_directions():
    trainer = make_trainer(mean_colour(), 4)
    before = kernel_of(trainer)
    images = np.stack([RED, GREEN // 5, BLUE, BLUE])  # a dark green is as much of its class as a bright red
    assert ksf.imprint(trainer, images, np.int32([0, 0, 2, 2]), batch_size=3) == 2
    after = kernel_of(trainer)
    np.testing.assert_allclose(after[:, 0], np.sqrt([0.5, 0.5, 0.0]), atol=1e-6)
    np.testing.assert_allclose(after[:, 2], [0, 0, 1], atol=1e-6)
    np.testing.assert_array_equal(after[:, [1, 3]], before[:, [1, 3]])  # without an image


def test_a_data_set_is_read_once_whatever_the_batch(tmp_path, rng):
    faces = ksf.data.synthetic(5, 3, image_size=16)
    backbone = ksf.backbones.SFNet4(embedding_dim=8, channels=(4, 4, 4, 4), input_shape=(16, 16, 3))
    kernels = []
    for batch_size in (4, 64):
        trainer = make_trainer(backbone, faces.num_classes)
        assert ksf.imprint(trainer, faces, batch_size=batch_size, progress=False) == 5
        kernels.append(kernel_of(trainer))
    np.testing.assert_allclose(*kernels, atol=1e-5)
    images, labels = zip(*(faces.read(record) for record in range(len(faces))))
    embeddings = keras.ops.convert_to_numpy(trainer.embedder.predict_on_batch(np.stack(images)))
    means = np.stack([embeddings[np.array(labels) == one].sum(axis=0) for one in range(5)])
    np.testing.assert_allclose(kernels[0].T, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("head", [ksf.heads.SphereFace2, ksf.heads.Softmax])
def test_other_heads_begin_there_too(head):
    trainer = ksf.FaceClassifier(mean_colour(), head(3))
    assert ksf.imprint(trainer, np.stack([RED, GREEN, BLUE]), np.arange(3)) == 3
    np.testing.assert_allclose(kernel_of(trainer), np.eye(3), atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "Expected a FaceDataset .* or images and labels"),
        ([0], "Received: 3 images, 1 labels"),
        ([0, 1, 3], r"integers in \[0, 3\).*, 0 to 3"),
        ([0, 1, -1], r"integers in \[0, 3\).*, -1 to 1"),
        ([0.0, 1.0, 2.0], r"integers in \[0, 3\).*float"),
        ([[0], [1], [2]], r"integers in \[0, 3\).*\(3, 1\)"),
    ],
)
def test_bad_labels_change_nothing(labels, message):
    trainer = make_trainer(mean_colour(), 3)
    before = kernel_of(trainer)
    with pytest.raises(ValueError, match=message):
        ksf.imprint(trainer, np.stack([RED, GREEN, BLUE]), labels)
    np.testing.assert_array_equal(kernel_of(trainer), before)


def test_a_broken_backbone_is_refused():
    trainer = make_trainer(mean_colour(), 3)
    with pytest.raises(ValueError, match="not finite"):
        ksf.imprint(trainer, np.full((3, 2, 2, 3), np.nan, "float32"), np.arange(3))


def test_a_data_set_has_its_own_labels():
    trainer = make_trainer(mean_colour(), 3)
    with pytest.raises(ValueError, match="has its own labels"):
        ksf.imprint(trainer, ksf.data.synthetic(3, 2, image_size=16), np.arange(3))


def nested():
    backbone = mean_colour()
    return build_embedder(backbone), backbone


def flat():
    backbone = mean_colour()
    unit = keras.layers.UnitNormalization(dtype="float32")(backbone.output)
    return keras.Model(backbone.input, unit), backbone


def sequential():
    layers = [keras.Input((2, 2, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.UnitNormalization()]
    return keras.Sequential(layers), mean_colour()


@pytest.mark.parametrize("make", [nested, flat, sequential])
def test_an_embedder_trains_without_its_normalization(make):
    embedder, backbone = make()
    images = np.stack([RED // 2, GREEN])
    expected = backbone.predict(images, verbose=0)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), [127, 255])  # norms that the loss has to see
    np.testing.assert_allclose(as_backbone(embedder).predict(images, verbose=0), expected)
    trainer = make_trainer(embedder, 3)
    np.testing.assert_allclose(trainer.predict(images, verbose=0), expected)
    np.testing.assert_allclose(trainer.embedder.predict(images, verbose=0), np.eye(3)[:2], atol=1e-6)
    assert as_backbone(trainer) is trainer.backbone


def test_what_is_no_embedder_comes_back_as_it_is():
    backbone = mean_colour()
    assert as_backbone(backbone) is backbone
    assert as_backbone(as_embedder(backbone)) is backbone


def test_the_default_model_goes_on_and_is_saved(tmp_path, rng):
    model = ksf.load_pretrained()
    images, labels = rng.integers(0, 256, (6, 112, 112, 3), "uint8"), np.int32([0, 0, 1, 1, 2, 2])
    before = model.predict(images, verbose=0)
    trainer = make_trainer(model, 3)
    ksf.imprint(trainer, images, labels)
    trainer.compile(keras.optimizers.AdamW(1e-4))
    accuracy = trainer.evaluate(images, labels, verbose=0, return_dict=True)["accuracy"]
    assert accuracy == 1.0  # as the class weights are in the midst of their pictures
    trainer.fit(images, labels, batch_size=6, epochs=1, verbose=0)
    trainer.embedder.save(tmp_path / "model.keras")
    after = ksf.load_pretrained(tmp_path / "model.keras").predict(images, verbose=0)
    assert 1e-4 < np.abs(after - before).max() < 0.2
    trainer.save(tmp_path / "trainer.keras")
    again = keras.saving.load_model(tmp_path / "trainer.keras")
    np.testing.assert_allclose(again.embedder.predict(images, verbose=0), after, atol=1e-5)
    np.testing.assert_array_equal(kernel_of(again), kernel_of(trainer))
