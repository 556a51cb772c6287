"""FaceClassifier: fit, metrics without the margin, saving, Keras's own means, and replicas."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_sphereface as ksf
from keras_sphereface.embedder import build_embedder

pytestmark = pytest.mark.core

CLASSES, SIZE = 4, 16


def tiny_backbone(**kwargs):
    images = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(images)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", **kwargs)(x)
    return keras.Model(images, keras.layers.Dense(6, dtype="float32")(keras.layers.Flatten()(x)), name="tiny")


def coloured_squares(rng, number=64):
    """Images whose class is the colour that is bright."""
    labels = rng.integers(0, CLASSES, number).astype("int32")
    images = rng.uniform(0, 120, (number, SIZE, SIZE, 3))
    for image, label in zip(images, labels):
        image[..., label % 3] += 120 if label < 3 else 0
    return images.astype("uint8"), labels


def make_trainer(optimizer=None, **head):
    trainer = ksf.FaceClassifier(tiny_backbone(), ksf.heads.SphereFaceR(CLASSES, margin=1.2, scale=10.0, **head))
    trainer.compile(optimizer or keras.optimizers.SGD(0.003, momentum=0.9))
    return trainer


def test_fit_learns_and_logs_metrics_without_the_margin(rng):
    images, labels = coloured_squares(rng)
    trainer = make_trainer()
    history = trainer.fit(images, labels, batch_size=16, epochs=8, verbose=0).history
    assert set(history) == {"loss", "accuracy", "embedding_norm", "target_angle"}
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["target_angle"][-1] < history["target_angle"][0]
    results = trainer.evaluate(images, labels, verbose=0, return_dict=True)
    logits = keras.ops.convert_to_numpy(trainer.head(trainer.predict(images, verbose=0)))
    assert results["accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean())
    assert results["loss"] == pytest.approx(
        float(keras.ops.mean(trainer.head.loss(trainer.predict(images, verbose=0), labels))), rel=1e-4
    )


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the assertion of TensorFlow's graphs")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_graph_names_the_label_that_is_no_class(rng, jit_compile):
    import tensorflow as tf

    images, labels = coloured_squares(rng)
    labels[20] = CLASSES
    trainer = make_trainer()
    trainer.compile("sgd", jit_compile=jit_compile)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(64)
    if jit_compile:  # XLA has no assertions
        assert np.isnan(trainer.fit(data, verbose=0, shuffle=False).history["loss"][0])
        return
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"\[0, {CLASSES}\)\.\] \[Received:\] \[{CLASSES}\]"):
        trainer.fit(data, verbose=0, shuffle=False)


@pytest.mark.parametrize("guarded", [True, False])
def test_averaged_class_weights_are_on_the_sphere(rng, guarded):
    images, labels = coloured_squares(rng)
    sgd = keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True, ema_momentum=0.9)
    trainer = make_trainer(ksf.GuardedOptimizer(sgd) if guarded else sgd)
    trainer.fit(images, labels, batch_size=16, epochs=2, verbose=0)
    kernel = keras.ops.convert_to_numpy(trainer.head.kernel)
    average = keras.ops.convert_to_numpy(
        sgd._model_variables_moving_average[sgd._get_variable_index(trainer.head.kernel)]
    )
    lengths = np.linalg.norm(average, axis=0)
    assert lengths.min() < 0.999, "a mean lies inside"
    np.testing.assert_allclose(kernel, average / lengths, atol=1e-6)


@pytest.mark.parametrize("head", [{}, {"sample_rate": 0.5, "seed": 1}], ids=["dense", "sampled"])
def test_averaged_class_weights_are_measured_and_saved_on_the_sphere(rng, tmp_path, head):
    """What `keras.callbacks.SwapEMAWeights` puts in the place of the class weights lies inside of it."""
    images, labels = coloured_squares(rng, 16)
    trainer = make_trainer(**head)
    unit = keras.ops.convert_to_numpy(trainer.head.kernel).copy()
    expected = trainer.evaluate(images, labels, verbose=0)
    trainer.head.kernel.assign(unit * np.array([0.2, 0.5, 0.9, 1.0], "float32"))
    assert trainer.evaluate(images, labels, verbose=0) == pytest.approx(expected, rel=1e-5)
    trainer.save(tmp_path / "trainer.keras")
    saved = keras.ops.convert_to_numpy(keras.saving.load_model(tmp_path / "trainer.keras").head.kernel)
    np.testing.assert_allclose(saved, unit, atol=1e-6)
    np.testing.assert_array_equal(saved[:, 3], unit[:, 3], "what is on the sphere stays as it is")


def test_a_head_of_ones_own_need_not_know_of_training(rng):
    class Own(ksf.heads.MarginHead):
        def loss_and_statistics(self, embeddings, labels):
            losses, statistics = super().loss_and_statistics(embeddings, labels)
            return 2.0 * losses, statistics

    images, labels = coloured_squares(rng, 8)
    backbone = tiny_backbone()
    trainers = [ksf.FaceClassifier(backbone, cls(CLASSES, seed=1)) for cls in (ksf.heads.MarginHead, Own)]
    for trainer in trainers:
        trainer.compile(keras.optimizers.SGD(0.0))
    trainers[1].head.set_weights(trainers[0].head.get_weights())
    once, twice = (trainer.fit(images, labels, verbose=0).history["loss"][0] for trainer in trainers)
    assert twice == pytest.approx(2 * once, rel=1e-5)


def test_averages_are_swapped_in_for_validation(rng):
    images, labels = coloured_squares(rng, 32)
    sgd = keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True, ema_momentum=0.9)
    trainer = make_trainer(sgd)
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    validation = {"validation_data": (images, labels), "validation_batch_size": 32}
    history = trainer.fit(images, labels, batch_size=8, epochs=2, verbose=0, callbacks=[swap], **validation).history
    embeddings = trainer.predict(images, verbose=0)  # at the end the averages are in the model, on the sphere
    loss = float(keras.ops.mean(trainer.head.loss(embeddings, labels)))
    assert history["val_loss"][-1] == pytest.approx(loss, rel=1e-4)


def test_class_weights_stay_on_the_sphere(rng):
    images, labels = coloured_squares(rng)
    trainer = make_trainer()
    before = keras.ops.convert_to_numpy(trainer.head.kernel).copy()
    trainer.fit(images, labels, batch_size=16, verbose=0)
    kernel = keras.ops.convert_to_numpy(trainer.head.kernel)
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1.0, rtol=1e-5)
    assert np.abs(kernel - before).max() > 1e-3


def test_the_embedder_gives_unit_embeddings_and_shares_weights(rng):
    images, labels = coloured_squares(rng, 8)
    trainer = make_trainer()
    before = trainer.embedder.predict(images, verbose=0)
    np.testing.assert_allclose(np.linalg.norm(before, axis=1), 1.0, rtol=1e-5)
    raw = trainer.predict(images, verbose=0)
    np.testing.assert_allclose(before, raw / np.linalg.norm(raw, axis=1, keepdims=True), rtol=1e-4, atol=1e-6)
    trainer.fit(images, labels, batch_size=8, epochs=2, verbose=0)
    assert trainer.embedder is trainer.embedder
    assert np.abs(trainer.embedder.predict(images, verbose=0) - before).max() > 1e-4
    assert len(trainer.weights) == len(trainer.backbone.weights) + len(trainer.head.weights)


def test_save_and_load(rng, tmp_path):
    images, labels = coloured_squares(rng, 16)
    trainer = make_trainer(feature_norm="soft")
    trainer.fit(images, labels, batch_size=8, verbose=0)
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), trainer.predict(images, verbose=0))
    expected = trainer.fit(images, labels, batch_size=8, shuffle=False, verbose=0).history
    actual = loaded.fit(images, labels, batch_size=8, shuffle=False, verbose=0).history
    assert actual["loss"] == pytest.approx(expected["loss"], rel=1e-5), "the optimizer's state was loaded too"
    ksf.embedder.save(trainer.embedder, tmp_path / "embedder.keras")
    with pytest.raises(ValueError, match=r"a file name ending in \.keras\. Received: .*m\.h5"):
        ksf.embedder.save(trainer.embedder, tmp_path / "m.h5")
    embedder = keras.saving.load_model(tmp_path / "embedder.keras")
    np.testing.assert_array_equal(embedder.predict(images, verbose=0), trainer.embedder.predict(images, verbose=0))


@pytest.mark.parametrize(("name", "guarded"), [("SGD", False), ("AdamW", True)])
def test_a_trainer_saved_with_pytorch_goes_on_with_any_backend(name, guarded, rng):
    """Keras saves the optimizer by the module of its stand-in for PyTorch, which is not there or fails elsewhere."""
    images, labels = coloured_squares(rng, 8)
    optimizer = getattr(keras.optimizers, name)(0.003)
    trainer = make_trainer(ksf.GuardedOptimizer(optimizer) if guarded else optimizer)
    saved = trainer.get_compile_config()
    inner = saved["optimizer"]["config"]["inner_optimizer"] if guarded else saved["optimizer"]
    inner["module"] = f"keras.src.backend.torch.optimizers.torch_{name.lower()}"
    again = make_trainer()
    again.compile_from_config(saved)
    assert type(getattr(again.optimizer, "inner_optimizer", again.optimizer)) is type(optimizer)
    assert np.isfinite(again.fit(images, labels, verbose=0).history["loss"][0])


@keras.saving.register_keras_serializable(package="test_classifier")
class OwnClass(keras.Model):
    """A backbone whose shapes are known only when it is called."""

    def __init__(self, outputs=1):
        super().__init__()
        self.outputs = outputs
        self.convolution = keras.layers.Conv2D(4, 3, strides=2, activation="relu")
        self.normalization = keras.layers.BatchNormalization()
        self.embedding = keras.layers.Dense(6)

    def call(self, images, training=None):
        x = self.normalization(self.convolution(keras.ops.cast(images, "float32") / 255), training=training)
        embeddings = self.embedding(keras.ops.reshape(x, (-1, 7 * 7 * 4)))
        return embeddings if self.outputs == 1 else [embeddings] * self.outputs

    def get_config(self):
        return {"outputs": self.outputs}


@pytest.mark.parametrize("seen", [True, False])
def test_a_backbone_may_be_a_class_of_ones_own(seen, rng, tmp_path):
    images, labels = coloured_squares(rng)
    backbone = OwnClass()
    if seen:
        backbone(images[:2])
    trainer = ksf.FaceClassifier(backbone, ksf.heads.SphereFaceR(CLASSES, margin=1.2, scale=10.0))
    assert trainer.built == seen
    if not seen:
        with pytest.raises(ValueError, match="call it on a batch of them, first"):
            _ = trainer.embedder
    trainer.compile(keras.optimizers.SGD(0.003, momentum=0.9))
    history = trainer.fit(images, labels, batch_size=16, epochs=4, verbose=0).history
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert trainer.head.kernel.shape == (6, CLASSES)
    embeddings = trainer.embedder.predict(images, verbose=0)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, rtol=1e-5)
    trainer.save(tmp_path / "trainer.keras")
    loaded = keras.saving.load_model(tmp_path / "trainer.keras")
    np.testing.assert_array_equal(loaded.embedder.predict(images, verbose=0), embeddings)


@pytest.mark.parametrize("make", [tiny_backbone, OwnClass])
def test_the_shape_of_embeddings_is_known_without_images(make):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        trainer = ksf.FaceClassifier(make(), ksf.heads.ArcFace(CLASSES))
        images = keras.Input((SIZE, SIZE, 3))
        assert trainer.compute_output_shape((None, SIZE, SIZE, 3)) == (None, 6)
        assert trainer.compute_output_shape((5, SIZE, SIZE, 3)) == (5, 6)
        embeddings = trainer(images)
        assert embeddings.dtype == trainer.backbone(images).dtype
        assert keras.Model(images, embeddings).output_shape == (None, 6)
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_backbone_has_one_output(rng):
    images, labels = coloured_squares(rng, 8)
    inputs = keras.Input((SIZE, SIZE, 3))
    flat = keras.layers.Flatten()(inputs)
    head = ksf.heads.ArcFace(CLASSES)
    with pytest.raises(ValueError, match=r"one tensor.* Received: 2 outputs, of shapes \[\(None, 3\), \(None, 5\)\]"):
        ksf.FaceClassifier(keras.Model(inputs, [keras.layers.Dense(units)(flat) for units in (3, 5)]), head)
    trainer = ksf.FaceClassifier(OwnClass(outputs=2), head)
    trainer.compile("sgd")
    with pytest.raises(ValueError, match=r"one tensor.* Received: 2 outputs"):
        trainer.fit(images, labels, verbose=0)
    trainer = ksf.FaceClassifier(keras.Model([inputs], [keras.layers.Dense(3)(flat)]), head)
    assert trainer.predict(images, verbose=0).shape == (8, 3), "a list of one is as good as its tensor"


def test_a_backbone_has_one_input():
    inputs = [keras.Input((SIZE, SIZE, 3), name=name) for name in ("face", "mask")]
    both = keras.layers.Flatten()(keras.layers.Add()(inputs))
    backbone = keras.Model(inputs, keras.layers.Dense(3)(both), name="two")
    with pytest.raises(ValueError, match=r"one tensor, the images.* Received: 'two', of 2 inputs: face, mask"):
        ksf.FaceClassifier(backbone, ksf.heads.ArcFace(CLASSES))


def test_a_trainer_in_a_remat_scope_trains(rng):
    if keras.backend.backend() != "jax":
        pytest.skip("TensorFlow fails there with layers of Keras's own")
    images, labels = coloured_squares(rng, 8)
    with keras.RematScope(mode="full"):
        trainer = make_trainer()
    assert np.isfinite(trainer.fit(images, labels, verbose=0).history["loss"][0])


def test_sample_weights_scale_the_loss(rng):
    images, labels = coloured_squares(rng, 8)
    trainer = make_trainer()
    losses = keras.ops.convert_to_numpy(trainer.head.loss(trainer.predict(images, verbose=0), labels))
    weights = np.arange(8.0, dtype="float32")
    result = trainer.evaluate(images, labels, sample_weight=weights, batch_size=8, verbose=0, return_dict=True)
    assert result["loss"] == pytest.approx((losses * weights).mean(), rel=1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, rng):
    images, labels = coloured_squares(rng)
    keras.config.set_dtype_policy(policy)
    try:
        trainer = make_trainer()
        history = trainer.fit(images, labels, batch_size=16, epochs=4, verbose=0).history
        embeddings = trainer.embedder.predict(images, verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]
    assert embeddings.dtype == np.float32
    assert keras.backend.standardize_dtype(trainer.head.kernel.dtype) == "float32"


def test_clipping_accumulation_and_averaging_are_keras_own(rng):
    images, labels = coloured_squares(rng)
    optimizer = keras.optimizers.SGD(
        0.003, momentum=0.9, global_clipnorm=1.0, gradient_accumulation_steps=2, use_ema=True, ema_momentum=0.9
    )
    trainer = make_trainer(optimizer)
    history = trainer.fit(
        images, labels, batch_size=8, epochs=4, verbose=0, callbacks=[keras.callbacks.SwapEMAWeights()]
    ).history
    assert history["loss"][-1] < history["loss"][0]


def test_misuse_is_refused(rng):
    images, _ = coloured_squares(rng, 8)
    trainer = make_trainer()
    with pytest.raises(ValueError, match="takes its loss and metrics from the head: remove `loss`"):
        trainer.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="remove `metrics`"):
        trainer.compile("sgd", metrics=["accuracy"])
    with pytest.raises(TypeError, match=r"must be a head of keras_sphereface\.heads"):
        ksf.FaceClassifier(tiny_backbone(), keras.layers.Dense(3))
    with pytest.raises(ValueError, match="without labels"):
        trainer.fit(images, verbose=0)


def test_a_label_outside_the_classes_stops_a_step_or_shows_in_its_loss(rng):
    images, labels = coloured_squares(rng, 8)
    labels[3] = CLASSES
    trainer = make_trainer()
    if keras.backend.backend() == "jax":
        assert np.isnan(trainer.train_on_batch(images, labels, return_dict=True)["loss"])
    else:
        with pytest.raises(Exception, match=rf"Labels must be integers in \[0, {CLASSES}\)"):
            trainer.train_on_batch(images, labels)


@pytest.mark.parametrize("head", ["SphereFaceR", "SphereFace2"])
@pytest.mark.parametrize("detach", [True, False])
def test_a_refused_label_leaves_the_weights_as_they_were(head, detach, rng):
    images, labels = coloured_squares(rng, 8)
    labels[3] = -1
    trainer = ksf.FaceClassifier(tiny_backbone(), getattr(ksf.heads, head)(CLASSES, detach=detach))
    trainer.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in trainer.weights]
    with pytest.raises(Exception, match="Labels must be integers"):
        trainer.fit(images, labels, verbose=0)
    for weight, expected in zip(trainer.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), expected)


REPLICAS = """
import sys
import numpy as np, keras, tensorflow as tf
import keras_sphereface as ksf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, sys.argv[1])
from test_classifier import tiny_backbone, coloured_squares, CLASSES

def train(strategy, first=0, last=3, folder=None, **head):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        trainer = ksf.FaceClassifier(tiny_backbone(), ksf.heads.SphereFaceR(CLASSES, margin=1.3, scale=6.0, **head))
        trainer.compile(keras.optimizers.SGD(0.003, momentum=0.9, weight_decay=5e-3))
    images, labels = coloured_squares(np.random.default_rng(0), 64)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16, drop_remainder=True)
    callbacks = [ksf.callbacks.Checkpoint(folder)] if folder else []
    assert first == (callbacks[0].resume(trainer) if folder else 0)
    history = trainer.fit(data, initial_epoch=first, epochs=last, verbose=0, callbacks=callbacks).history
    return history, [np.array(w) for w in trainer.weights]

assert tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).num_replicas_in_sync == 2
HEADS = (
    {"feature_norm": "hard"},
    {"feature_norm": "soft", "norm_penalty": 0.1},
    {"feature_norm": "none", "variant": "v1", "loss_weight": 1.0},
)
for head in HEADS:
    one, one_weights = train(tf.distribute.get_strategy(), **head)
    two, two_weights = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), **head)
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5, atol=1e-5, err_msg=f"{head} {name}")
    for a, b in zip(one_weights, two_weights):
        np.testing.assert_allclose(b, a, atol=1e-5, err_msg=str(head))
two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
train(two, 0, 1, sys.argv[2], **HEADS[2])
_, resumed = train(two, 1, 3, sys.argv[2], **HEADS[2])
for a, b in zip(two_weights, resumed):
    np.testing.assert_allclose(b, a, atol=1e-5, err_msg="resumed")
print("replicas agree")
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_two_replicas_train_as_one(tmp_path):
    """Loss, metrics and weights after 12 steps, with weight decay and the soft-norm penalty; a resumed run as well."""
    import pathlib

    here = str(pathlib.Path(__file__).parent)
    # In a process of its own: logical devices can be configured only before TensorFlow starts.
    result = subprocess.run(
        [sys.executable, "-c", REPLICAS, here, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "replicas agree" in result.stdout, result.stderr[-2000:]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_images_keep_their_digits_under_a_policy_of_16_bits(rng, policy):
    """bfloat16 has 0.5 as its smallest step at 100: the backbone's first layer computes in float32, and must be given it."""
    images = rng.uniform(100, 101, (4, SIZE, SIZE, 3)).astype("float32")
    keras.config.set_dtype_policy(policy)
    try:
        backbone = ksf.backbones.SFNet(
            (0, 0, 0, 0), (4, 4, 4, 4), embedding_dim=6, input_shape=(SIZE, SIZE, 3), image_mean=100.0, image_std=0.5
        )
        trainer = ksf.FaceClassifier(backbone, ksf.heads.ArcFace(CLASSES))
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(trainer.predict(images, verbose=0), backbone.predict(images, verbose=0))
    config = trainer.get_config()
    assert "autocast" not in config
    assert ksf.FaceClassifier.from_config(config).autocast is False


@pytest.mark.parametrize("backbone", [None, keras.layers.Dense(3), lambda images: images])
def test_a_backbone_that_is_no_model_is_refused(backbone):
    for call in (lambda: ksf.FaceClassifier(backbone, ksf.heads.ArcFace(CLASSES)), lambda: build_embedder(backbone)):
        with pytest.raises(TypeError, match=r"`backbone` must be a keras\.Model.* Received: backbone="):
            call()
