r"""Puts a margin head on a network of keras.applications and trains it on synthetic faces, in about a minute.

The command: python examples/keras_applications.py --network=MobileNetV3Small --head=arcface

Any network of keras.applications whose preprocessing is inside it takes the images as they are (RGB, 0..255); others need
their own preprocessing in front. With --weights=imagenet training starts from Keras's published weights (a download).
"""

import keras
from absl import app, flags

import keras_sphereface as ksf

NETWORKS = ("MobileNetV3Small", "MobileNetV3Large", "EfficientNetV2B0", "ConvNeXtTiny")  # Preprocessing inside.
HEADS = {
    "sphereface_r": ksf.heads.SphereFaceR,
    "arcface": ksf.heads.ArcFace,
    "cosface": ksf.heads.CosFace,
    "normface": ksf.heads.NormFace,
}
flags.DEFINE_enum("network", "MobileNetV3Small", NETWORKS, "Network of keras.applications.")
flags.DEFINE_enum("head", "sphereface_r", list(HEADS), "Margin head.")
flags.DEFINE_string("weights", None, "imagenet, or nothing for random weights.")
flags.DEFINE_integer("embedding_dim", 128, "Length of an embedding.")
flags.DEFINE_integer("identities", 100, "Synthetic people to train on; as many others are measured.")
flags.DEFINE_integer("image_size", 64, "Side of the images.")
flags.DEFINE_integer("steps", 200, "Optimizer steps.")
flags.DEFINE_string(
    "tensorboard_dir", None, "Folder for TensorBoard, which is a package of its own: pip install tensorboard."
)
FLAGS = flags.FLAGS
SCALE = 30.0  # For hundreds of classes; 60 and more for tens of thousands.


def make_backbone():
    """The network without its classifier, pooled, and a `Dense` to the embedding."""
    shape = (FLAGS.image_size, FLAGS.image_size, 3)
    network = getattr(keras.applications, FLAGS.network)
    base = network(input_shape=shape, include_top=False, weights=FLAGS.weights, pooling="avg")
    embedding = keras.layers.Dense(FLAGS.embedding_dim, name="embedding")(base.output)
    return keras.Model(base.input, embedding, name=f"{FLAGS.network.lower()}_embedding")


def main(argv):
    """Trains and measures."""
    keras.utils.set_random_seed(0)
    faces = ksf.data.synthetic(FLAGS.identities, 10, image_size=FLAGS.image_size)
    trainer = ksf.FaceClassifier(make_backbone(), HEADS[FLAGS.head](faces.num_classes, scale=SCALE))
    trainer.compile(keras.optimizers.AdamW(1e-3))
    callbacks = [keras.callbacks.TensorBoard(FLAGS.tensorboard_dir)] if FLAGS.tensorboard_dir else []
    epochs = max(1, FLAGS.steps // 50)
    trainer.fit(
        faces.batches(32, augment="flip"),
        steps_per_epoch=FLAGS.steps // epochs,
        epochs=epochs,
        shuffle=False,  # The data set has its own order.
        callbacks=callbacks,
    )
    pairs = ksf.data.synthetic_pairs(
        max(20, FLAGS.identities), first_identity=FLAGS.identities, image_size=FLAGS.image_size, num_pairs=1000
    )
    print(ksf.evaluate(trainer.embedder, pairs))


if __name__ == "__main__":
    app.run(main)
