r"""Puts a margin head on a KerasHub backbone, trains a few steps on synthetic faces, saves and loads the result.

The command: python -m pip install keras-hub, then python examples/keras_hub_backbone.py

The backbone is a small ResNet with random weights, so that nothing is downloaded; with
`keras_hub.models.Backbone.from_preset("resnet_18_imagenet")` in its place training starts from published weights.
"""

import pathlib

import keras
import keras_hub
import numpy as np
from absl import app, flags

import keras_sphereface as ksf

flags.DEFINE_string("output_dir", "runs/keras_hub", "Where the trained model goes.")
flags.DEFINE_integer("image_size", 64, "Side of the images.")
flags.DEFINE_integer("steps", 50, "Optimizer steps.")
FLAGS = flags.FLAGS
EMBEDDING_DIM, IDENTITIES, SCALE = 64, 20, 30.0


def make_backbone():
    """KerasHub's feature maps, pooled, and a `Dense` to the embedding; images are RGB, 0..255."""
    features = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(FLAGS.image_size, FLAGS.image_size, 3),
    )
    images = keras.Input((FLAGS.image_size, FLAGS.image_size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(images)
    x = keras.layers.GlobalAveragePooling2D()(features(x))
    return keras.Model(images, keras.layers.Dense(EMBEDDING_DIM)(x), name="keras_hub_embedding")


def main(argv):
    """Trains, saves, loads, compares."""
    keras.utils.set_random_seed(0)
    faces = ksf.data.synthetic(IDENTITIES, 8, image_size=FLAGS.image_size)
    trainer = ksf.FaceClassifier(make_backbone(), ksf.heads.SphereFaceR(faces.num_classes, scale=SCALE))
    trainer.compile(keras.optimizers.AdamW(1e-3))
    trainer.fit(faces.batches(16), steps_per_epoch=FLAGS.steps, epochs=1, shuffle=False)
    path = pathlib.Path(FLAGS.output_dir) / "trainer.keras"
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer.save(path)
    images, _ = next(iter(faces.sequence(8)))
    again = keras.saving.load_model(path)  # No custom_objects: both packages register what they make.
    difference = np.abs(again.embedder.predict(images) - trainer.embedder.predict(images)).max()
    print(f"Saved {path} and loaded it again: embeddings differ by at most {difference:.1e}.")


if __name__ == "__main__":
    app.run(main)
