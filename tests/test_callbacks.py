"""Callbacks: the margin's schedule, verification while training, statistics, checkpoints."""

import csv
import types

import keras
import numpy as np
import pytest
from test_classifier import coloured_squares, make_trainer

from keras_sphereface import GuardedOptimizer, callbacks, data, heads
from keras_sphereface.errors import FileFormatError


class Recorder(keras.callbacks.Callback):
    """Writes down the margin that each step trains with."""

    def __init__(self):
        super().__init__()
        self.margins = []

    def on_train_batch_end(self, batch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.margins.append(round(float(self.model.head.current_margin), 4))


def test_the_margin_grows_in_steps_and_stops_at_its_final_value(rng):
    images, labels = coloured_squares(rng, 48)
    trainer, recorder = make_trainer(feature_norm="none", loss_weight=1.0), Recorder()
    schedule = callbacks.MarginSchedule(increase=0.1, interval=4)
    history = trainer.fit(images, labels, batch_size=8, epochs=2, verbose=0, callbacks=[schedule, recorder]).history
    assert recorder.margins == [1.0] * 4 + [1.1] * 4 + [1.2] * 4, "the head's margin is 1.2"
    assert history["margin"] == pytest.approx([1.1, 1.2])


def test_the_margin_waits_until_the_network_tells_people_apart(rng):
    trainer, recorder = make_trainer(), Recorder()
    schedule = callbacks.MarginSchedule(increase=0.1, interval=2, wait=3)
    trainer.fit(*coloured_squares(rng, 64), batch_size=8, verbose=0, callbacks=[schedule, recorder])
    assert recorder.margins == [1.0] * 5 + [1.1] * 2 + [1.2]


def test_the_margin_grows_at_the_steps_of_a_list(rng):
    trainer, recorder = make_trainer(), Recorder()
    schedule = callbacks.MarginSchedule(increase=0.1, interval=[1, 4], wait=1)
    trainer.fit(*coloured_squares(rng, 64), batch_size=8, verbose=0, callbacks=[schedule, recorder])
    assert recorder.margins == [1.0] * 2 + [1.1] * 3 + [1.2] * 3


def test_the_margin_of_a_functional_model_grows():
    features, label = keras.Input((4,)), keras.Input((), dtype="int32")
    head = heads.CosFace(num_classes=3, margin=0.3)
    model = keras.Model([features, label], head(features, label))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = [np.ones((8, 4), "float32"), np.zeros(8, "int32")], np.zeros(8, "int32")
    schedule = callbacks.MarginSchedule(0.1, interval=2, head=head)
    history = model.fit(*data, batch_size=2, epochs=2, verbose=0, callbacks=[schedule]).history
    assert history["margin"] == pytest.approx([0.1, 0.3])
    with pytest.raises(
        ValueError, match=r"train a FaceClassifier, or pass the layer as `head`. Received: model='functional"
    ):
        model.fit(*data, verbose=0, callbacks=[callbacks.MarginSchedule(0.1, interval=2)])


@pytest.mark.parametrize("guarded", [False, True])
def test_accumulated_batches_are_one_step_of_the_margin(guarded, rng):
    """Epochs of 5 batches, so that they end within a step."""
    images, labels = coloured_squares(rng, 40)
    optimizer = keras.optimizers.SGD(0.003, gradient_accumulation_steps=2)
    trainer = make_trainer(GuardedOptimizer(optimizer) if guarded else optimizer)
    recorder, schedule = Recorder(), callbacks.MarginSchedule(increase=0.05, interval=2)
    trainer.fit(images, labels, batch_size=8, epochs=2, verbose=0, callbacks=[schedule, recorder])
    assert recorder.margins == [1.0] * 4 + [1.05] * 4 + [1.1] * 2


def test_a_restarted_run_goes_on_with_its_margin(rng, tmp_path):
    images, labels = coloured_squares(rng, 48)

    def run(trainer, first, last, folder):
        checkpoint, recorder = callbacks.Checkpoint(folder), Recorder()
        assert checkpoint.resume(trainer) == first
        schedule = callbacks.MarginSchedule(increase=0.05, interval=4)
        trainer.fit(
            images, labels, batch_size=8, shuffle=False, initial_epoch=first, epochs=last, verbose=0,
            callbacks=[schedule, recorder, checkpoint],
        )  # fmt: skip
        return recorder.margins, [keras.ops.convert_to_numpy(weight).copy() for weight in trainer.weights]

    start = make_trainer()
    start.save_weights(tmp_path / "start.weights.h5")
    whole, whole_weights = run(start, 0, 2, tmp_path / "whole")
    first_half = make_trainer()
    first_half.load_weights(tmp_path / "start.weights.h5")
    first, _ = run(first_half, 0, 1, tmp_path / "halves")
    second, weights = run(make_trainer(), 1, 2, tmp_path / "halves")
    assert first + second == whole
    for resumed, uninterrupted in zip(weights, whole_weights):
        np.testing.assert_allclose(resumed, uninterrupted, atol=1e-6)


def test_checkpoints_keep_the_last_and_ignore_unfinished_ones(rng, tmp_path):
    images, labels = coloured_squares(rng, 8)
    trainer = make_trainer()
    checkpoint = callbacks.Checkpoint(tmp_path, keep=2)
    trainer.fit(images, labels, epochs=3, verbose=0, callbacks=[checkpoint])
    assert [path.name for path in checkpoint.paths()] == ["epoch-000002.npz", "epoch-000003.npz"]
    (tmp_path / "unfinished.npz").write_bytes(b"half a file")
    assert callbacks.Checkpoint(tmp_path).resume(make_trainer()) == 3


def test_training_stops_after_a_number_of_batches(rng, tmp_path):
    """7 batches in epochs of 3: the last has one, and is an epoch like others for a checkpoint that 4 more go on from."""
    images, labels = coloured_squares(rng, 24)
    trainer, checkpoint = make_trainer(), callbacks.Checkpoint(tmp_path)
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0}
    trainer.fit(images, labels, epochs=3, **arguments, callbacks=[checkpoint, callbacks.StopAfter(7)])
    assert (checkpoint.step, len(checkpoint.paths())) == (7, 2)
    again, checkpoint = make_trainer(), callbacks.Checkpoint(tmp_path)
    assert checkpoint.resume(again) == 3
    again.fit(images, labels, initial_epoch=3, epochs=5, **arguments, callbacks=[checkpoint, callbacks.StopAfter(4)])
    assert checkpoint.step == 11
    assert int(again.optimizer.iterations) == 11


def test_verification_on_pairs_is_logged_like_a_metric(rng):
    images, labels = coloured_squares(rng, 40)
    left, right = np.arange(20), np.arange(20, 40)
    pairs = data.PairSet.from_arrays(
        images, left, right, labels[left] == labels[right], folds=np.arange(20) % 10, name="squares"
    )
    trainer = make_trainer()
    callback = callbacks.PairVerification(pairs, every=2)
    history = trainer.fit(images, labels, batch_size=8, epochs=3, verbose=0, callbacks=[callback]).history
    # Epoch 2 because of `every`, epoch 3 because it is the last.
    assert len(history["val_squares_accuracy"]) == 2
    assert history["val_squares_accuracy"][-1] == pytest.approx(callback.report.accuracy)
    assert 0.0 <= callback.report.accuracy <= 1.0


def test_pairs_without_folds_log_their_best_threshold(rng):
    images, labels = coloured_squares(rng, 16)
    left, right = np.arange(8), np.arange(8, 16)
    pairs = data.PairSet.from_arrays(images, left, right, labels[left] == labels[right], name="view1")
    history = make_trainer().fit(
        images, labels, batch_size=8, verbose=0, callbacks=[callbacks.PairVerification(pairs)]
    ).history  # fmt: skip
    assert 0.5 <= history["val_view1_best_threshold_accuracy"][0] <= 1.0


def test_statistics_of_known_embeddings():
    """Norms and angles of two embeddings placed by hand."""
    embeddings = np.array([[2.0, 0.0], [3.0, 3.0]])
    head = types.SimpleNamespace(kernel=np.array([[1.0, 0.0], [0.0, 5.0]]))
    callback = callbacks.EmbeddingStatistics(np.zeros((2, 1)), np.array([0, 1]))
    callback.set_model(types.SimpleNamespace(backbone=lambda images, training: embeddings, head=head))
    logs = {}
    callback.on_epoch_end(0, logs)
    norm = 3.0 * np.sqrt(2.0)
    assert logs["stats_embedding_norm_mean"] == pytest.approx((2.0 + norm) / 2)
    assert logs["stats_embedding_norm_std"] == pytest.approx((norm - 2.0) / 2)
    assert logs["stats_target_angle_mean"] == pytest.approx((0.0 + 45.0) / 2)
    assert logs["stats_nearest_other_angle_mean"] == pytest.approx((90.0 + 45.0) / 2)


@pytest.mark.parametrize("labels", [[[0], [-1], [1]], [0.0, -1.0, 1.0], np.array([0, -1, 1], "int8")])
def test_statistics_leave_unknown_people_out(labels):
    """Class numbers of any type and shape; the image in the middle is of nobody in the classes."""
    embeddings = np.array([[2.0, 0.0], [100.0, -7.0], [3.0, 3.0]])
    callback = callbacks.EmbeddingStatistics(np.zeros((3, 1)), labels, batch_size=2)
    head = types.SimpleNamespace(kernel=np.eye(2), num_classes=2)
    parts = iter([embeddings[:2], embeddings[2:]])
    callback.set_model(types.SimpleNamespace(backbone=lambda images, training: next(parts), head=head))
    logs = {}
    callback.on_train_begin()
    callback.on_epoch_end(0, logs)
    assert logs["stats_embedding_norm_mean"] == pytest.approx((2.0 + 3.0 * np.sqrt(2.0)) / 2)
    assert logs["stats_target_angle_mean"] == pytest.approx((0.0 + 45.0) / 2)
    assert logs["stats_nearest_other_angle_mean"] == pytest.approx((90.0 + 45.0) / 2)


def test_statistics_of_labels_that_are_no_classes_are_refused(rng):
    images, labels = coloured_squares(rng, 8)
    for bad in ([0.5] * 8, [-2] * 8, [np.nan] * 8):
        with pytest.raises(ValueError, match="class numbers, or -1"):
            callbacks.EmbeddingStatistics(images, bad)
    with pytest.raises(ValueError, match=r"Received: shape \(8, 4\)"):
        callbacks.EmbeddingStatistics(images, np.eye(4)[labels])
    statistics = callbacks.EmbeddingStatistics(images, labels + 4)
    with pytest.raises(ValueError, match="below the head's 4 classes, or -1"):
        make_trainer().fit(images, labels, verbose=0, callbacks=[statistics])
    callbacks.EmbeddingStatistics(images, [-1] * 8)


def test_statistics_of_what_the_model_does_not_take_are_refused_before_an_epoch(rng):
    images, labels = coloured_squares(rng, 8)
    with pytest.raises(ValueError, match="Expected images of the model's input size"):
        make_trainer().fit(
            images, labels, verbose=0, callbacks=[callbacks.EmbeddingStatistics(images[:, :-1].tolist(), labels)]
        )
    plain = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4)])
    plain.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"of a FaceClassifier\. Received: a Sequential"):
        plain.fit(images, labels, verbose=0, callbacks=[callbacks.EmbeddingStatistics(images, labels)])


def few_pairs(folds=None):
    return data.PairSet.from_arrays(np.zeros((2, 8, 8, 3), np.uint8), [0, 0], [1, 0], [False, True], folds=folds)


def test_what_pair_verification_measures_by_itself():
    assert callbacks.PairVerification(few_pairs()).metric_names == ("best_threshold_accuracy",)
    assert callbacks.PairVerification(few_pairs([3, 3])).metric_names == ("best_threshold_accuracy",)
    assert callbacks.PairVerification(few_pairs([0, 1])).metric_names == ("accuracy",)
    assert callbacks.PairVerification(few_pairs(), metrics="auc").metric_names == ("auc",)


def test_pair_verification_needs_an_embedder():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"of a FaceClassifier. Received: a Sequential"):
        model.fit(np.zeros((1, 8, 8, 3)), np.zeros(1), verbose=0, callbacks=[callbacks.PairVerification(few_pairs())])


def test_bad_arguments_are_refused(rng, tmp_path):
    for increase in (0.0, float("inf"), float("nan"), True, "0.1"):
        with pytest.raises(ValueError, match="`increase` must be a finite number above 0"):
            callbacks.MarginSchedule(increase=increase, interval=5)
    for name in ("start", "final"):
        with pytest.raises(ValueError, match=f"`{name}` must be a finite number. Received: {name}='1.5'"):
            callbacks.MarginSchedule(increase=0.1, interval=5, **{name: "1.5"})
    with pytest.raises(ValueError, match="`interval` must be an integer"):
        callbacks.MarginSchedule(increase=0.1, interval=0)
    for interval in ([4, -1], [4, 1.5], "45"):
        with pytest.raises(ValueError, match="`interval` must be an integer"):
            callbacks.MarginSchedule(increase=0.1, interval=interval)
    with pytest.raises(ValueError, match="`wait` must be an integer of at least 0"):
        callbacks.MarginSchedule(increase=0.1, interval=1, wait=-1)
    with pytest.raises(ValueError, match="`keep` must be"):
        callbacks.Checkpoint(tmp_path, keep=0)
    with pytest.raises(ValueError, match="`every` must be"):
        callbacks.PairVerification(few_pairs(), name="x", every=0)
    for wrong in ("acuracy", ("tar_at_far",), ("accuracy", "name"), 3):
        with pytest.raises(ValueError, match=r"Expected metrics of .*'auc'"):
            callbacks.PairVerification(few_pairs(), metrics=wrong)
    with pytest.raises(ValueError, match=r"Expected a PairSet.* Received: pairs='lfw.bin'"):
        callbacks.PairVerification("lfw.bin")
    with pytest.raises(ValueError, match="as many labels as images"):
        callbacks.EmbeddingStatistics(np.zeros((3, 1)), np.zeros(2))
    for wrong in (0, -1, "64"):  # -1 would measure nothing, without a word
        with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1"):
            callbacks.EmbeddingStatistics(np.zeros((3, 1)), np.zeros(3), batch_size=wrong)
    images, labels = coloured_squares(rng, 8)
    with pytest.raises(ValueError, match=r"at least 1.0. Received: margin=0.5"):
        make_trainer().fit(images, labels, verbose=0, callbacks=[callbacks.MarginSchedule(0.1, 4, start=0.5)])


def test_the_log_takes_columns_that_come_later_and_goes_on(rng, tmp_path):
    images, labels = coloured_squares(rng, 16)
    left, right = np.arange(8), np.arange(8, 16)
    pairs = data.PairSet.from_arrays(images, left, right, labels[left] == labels[right], name="toy")
    path = tmp_path / "run" / "log.csv"

    def fit(first, last, *others):
        make_trainer().fit(
            images, labels, verbose=0, initial_epoch=first, epochs=last, callbacks=[*others, callbacks.EpochLog(path)]
        )
        with open(path, newline="") as file:
            return list(csv.DictReader(file))

    rows = fit(0, 3, callbacks.PairVerification(pairs, every=2))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    measured = [row["val_toy_best_threshold_accuracy"] for row in rows]
    assert measured[0] == ""
    assert all(0.5 <= float(value) <= 1.0 for value in measured[1:])
    again = fit(2, 4)  # epoch 2 is done again, without pairs
    assert again[:2] == rows[:2]
    assert [row["epoch"] for row in again[2:]] == ["2", "3"]
    assert [row["val_toy_best_threshold_accuracy"] for row in again[2:]] == ["", ""]
    assert float(again[3]["loss"]) > 0


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"epoch\nfirst\n", b"\xff\xfe\n", b"epoch,loss\n,1\n"])
def test_a_file_that_is_no_log_stays_as_it_is(tmp_path, content):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"log\.csv: expected the log of a run"):
        callbacks.EpochLog(path).on_train_begin()
    assert path.read_bytes() == content


def test_pairs_of_another_size_are_refused_before_an_epoch(rng, tmp_path):
    images, labels = coloured_squares(rng, 8)
    narrow = images[:, :, 2:]
    pairs = data.PairSet.from_arrays(narrow, [0, 2], [1, 3], [True, False], name="narrow")
    callback = callbacks.PairVerification(pairs)
    with pytest.raises(ValueError, match="Expected images of the model's input size"):
        make_trainer().fit(images, labels, verbose=0, callbacks=[Unreached(), callback])


class Unreached(keras.callbacks.Callback):
    """Fails with the first epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        raise AssertionError("an epoch began")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data")
@pytest.mark.parametrize("make", [callbacks.Checkpoint, lambda folder: callbacks.StopAfter(3)])
def test_batches_are_not_counted_where_their_number_is_not_known(rng, tmp_path, make):
    import tensorflow as tf

    images, labels = coloured_squares(rng, 8)
    batches = tf.data.Dataset.from_tensors((images, labels)).filter(lambda *_: True)
    with pytest.raises(ValueError, match="do not say how many an epoch has"):
        make_trainer().fit(batches, verbose=0, callbacks=[make(tmp_path)])
    make_trainer().fit(batches, steps_per_epoch=1, verbose=0, callbacks=[make(tmp_path)])
