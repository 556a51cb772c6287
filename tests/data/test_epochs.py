"""`repeat=False`: each epoch of `fit` sees its own permutation, the first one first, on every backend."""

import importlib.util
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_sphereface as ksf
from keras_sphereface.data.order import EpochOrder

pytestmark = pytest.mark.core

SIZE, BATCH = 16, 4
has_tensorflow = importlib.util.find_spec("tensorflow") is not None
needs_tensorflow = pytest.mark.skipif(not has_tensorflow, reason="needs TensorFlow")
VIEWS = ["sequence", pytest.param("batches", marks=needs_tensorflow)]


class Recorder(ksf.FaceClassifier):
    """Keeps what reaches each training step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def train_step(self, *args):
        images, labels = (keras.ops.convert_to_numpy(array) for array in args[-1])
        self.seen.append((images, labels))
        return super().train_step(*args)


def recorder(num_classes):
    images = keras.Input((SIZE, SIZE, 3))
    embeddings = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images)))
    trainer = Recorder(keras.Model(images, embeddings), ksf.heads.SphereFaceR(num_classes))
    trainer.compile(keras.optimizers.SGD(1e-4), run_eagerly=True, jit_compile=False)
    return trainer


def assert_epochs(dataset, seen, epochs):
    """The images seen are those of whole epochs, in order."""
    records = np.concatenate([EpochOrder(len(dataset), 0).epoch(epoch) for epoch in epochs])
    labels = np.concatenate([labels for _, labels in seen])
    np.testing.assert_array_equal(labels, [dataset.read(record)[1] for record in records])
    images = np.concatenate([images for images, _ in seen])
    np.testing.assert_array_equal(images, [dataset.read(record)[0] for record in records])


@pytest.mark.parametrize("view", VIEWS)
def test_the_epochs_of_fit_begin_with_the_first(view):
    dataset = ksf.data.synthetic(4, 3, image_size=SIZE)
    trainer, data = recorder(4), getattr(dataset, view)(BATCH, repeat=False)
    trainer.fit(data, epochs=3, shuffle=False, verbose=0)
    assert_epochs(dataset, trainer.seen, [0, 1, 2])
    trainer.fit(data, epochs=1, shuffle=False, verbose=0)
    assert_epochs(dataset, trainer.seen[9:], [3])


@pytest.mark.parametrize("per_epoch", [1, 2])
def test_a_sequence_as_short_as_what_keras_reads_before_the_first_epoch(per_epoch):
    dataset = ksf.data.synthetic(4, per_epoch, image_size=SIZE)
    trainer, data = recorder(4), dataset.sequence(BATCH, repeat=False)
    trainer.fit(data, epochs=3, shuffle=False, verbose=0)
    trainer.fit(data, epochs=1, shuffle=False, verbose=0)
    assert_epochs(dataset, trainer.seen, range(4))


@pytest.mark.parametrize("view", VIEWS)
def test_epochs_of_keras_that_are_part_of_a_pass(view):
    dataset = ksf.data.synthetic(4, 4, image_size=SIZE)
    trainer, data = recorder(4), getattr(dataset, view)(BATCH, repeat=False)
    trainer.fit(data, epochs=4, steps_per_epoch=2, shuffle=False, verbose=0)
    assert_epochs(dataset, trainer.seen, [0, 1])


@pytest.mark.parametrize("view", VIEWS)
def test_validation_after_each_epoch_is_the_next_pass(view):
    dataset = ksf.data.synthetic(4, 3, image_size=SIZE)
    trainer, data = recorder(4), getattr(dataset, view)(BATCH, repeat=False)
    trainer.fit(dataset.sequence(BATCH), steps_per_epoch=1, epochs=2, validation_data=data, verbose=0)
    following = [np.asarray(labels) for _, labels in data]
    np.testing.assert_array_equal(np.concatenate(following), EpochOrder(12, 0).epoch(2) // 3)


@pytest.mark.parametrize("view", VIEWS)
def test_a_pass_that_was_broken_off_begins_anew(view):
    dataset = ksf.data.synthetic(4, 4, image_size=SIZE)
    trainer, data = recorder(4), getattr(dataset, view)(BATCH, repeat=False)
    stop = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: setattr(trainer, "stop_training", True))
    trainer.fit(data, epochs=3, shuffle=False, verbose=0, callbacks=[stop])
    assert len(trainer.seen) == 1
    trainer.fit(data, epochs=2, shuffle=False, verbose=0)
    assert_epochs(dataset, trainer.seen[1:], [0, 1])


@needs_tensorflow
def test_a_pass_of_tf_data_moves_on_with_the_last_batch_that_was_asked_for():
    data = ksf.data.synthetic(12, 1, image_size=SIZE).batches(BATCH, repeat=False)
    for _ in range(2):
        first = next(iter(data))[1]  # by now tf.data may have read all three
        np.testing.assert_array_equal(first, EpochOrder(12, 0).epoch(0)[:BATCH])
    for epoch in range(2):
        labels = np.concatenate([labels.numpy() for _, labels in data.take(3)])
        np.testing.assert_array_equal(labels, EpochOrder(12, 0).epoch(epoch))


@needs_tensorflow
@pytest.mark.parametrize("end", ["", "raise KeyError('end')"])
def test_a_program_ends_while_a_data_set_is_open(end):
    text = f"import keras_sphereface as ksf\ndata = iter(ksf.data.synthetic(20, 20).batches(8))\nnext(data)\n{end}"
    ended = subprocess.run([sys.executable, "-c", text], timeout=120, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == (1 if end else 0), ended.stderr


@needs_tensorflow
@pytest.mark.parametrize("repeat", [False, True])
def test_closing_a_pass_waits_for_no_tuner(repeat):
    data = ksf.data.synthetic(12, 1, image_size=SIZE).batches(BATCH, repeat=repeat)
    assert data.options().autotune.enabled is False
