r"""Trains SphereFace-R on faces and measures it on people it has never seen.

With no flags it needs no data: it draws synthetic faces, trains a small network for about a minute on two CPU cores and
verifies 100 identities that were not in training:

    python examples/train_ms1m.py

On MS1M in InsightFace's layout (train.rec, train.idx, property, and pairs as *.bin, which are measured while training),
with the authors' recipe (IResNet-100, SphereFace-R v2 HFN, batch 512, SGD with momentum 0.9, weight decay 5e-4, learning
rate 0.1 divided by 10 in steps; arXiv 2109.05565), on all GPUs:

    python examples/train_ms1m.py --data_dir=faces_emore --distribute=mirrored

The same command again goes on from the last checkpoint in --output_dir.

With millions of people, or on several hosts, on the JAX backend (pip install 'keras_sphereface[jax]'); on each host the same
command with its own --process_id, and an --output_dir that all of them see:

    KERAS_BACKEND=jax python examples/train_ms1m.py --data_dir=glint360k --distribute=class_parallel --sample_rate=0.1 \
        --job_address=10.0.0.1:1234 --num_processes=2 --process_id=0
"""

import importlib.util
import pathlib
import re
import sys

import keras
from absl import app, flags, logging

import keras_sphereface as ksf

flags.DEFINE_string("data_dir", None, "Folder with train.rec (InsightFace's layout); synthetic faces if not given.")
flags.DEFINE_multi_string("pairs", [], "Pairs to measure: FILE.bin, or FOLDER:PAIRS.txt for LFW's layout. "
                          "Defaults to every *.bin in --data_dir.")  # fmt: skip
flags.register_validator("pairs", lambda names: all(name.endswith(".bin") or ":" in name for name in names),
                         "must be FILE.bin or FOLDER:PAIRS.txt")  # fmt: skip
flags.DEFINE_string("output_dir", "runs/train_ms1m", "Where checkpoints, log.csv and the trained model go.")
flags.DEFINE_enum(
    "backbone", None, ksf.backbones.names(), "Network. Defaults to iresnet100, sfnet4 for synthetic faces."
)
flags.DEFINE_integer("embedding_dim", None, "Length of an embedding. Defaults to 512, 128 for synthetic faces.")
flags.DEFINE_enum("variant", "v2", ["v0", "v1", "v2"], "Variant of SphereFace-R's margin.")
flags.DEFINE_enum("feature_norm", "hard", ["none", "hard", "soft"], "Feature normalization.")
flags.DEFINE_float("margin", None, "Size of the margin, at least 1. Defaults to 1.4.", lower_bound=1.0)
flags.DEFINE_float("scale", None, "Radius of the sphere. Defaults to 60, 30 for synthetic faces.")
flags.DEFINE_boolean("detach", True, "Characteristic gradient detachment.")
flags.DEFINE_float("margin_increase", None, "Start at margin 1 and add this every --margin_interval steps; 0: the whole "
                   "margin from the start. Defaults to 0 for --feature_norm=hard, else to a tenth of the way.",
                   lower_bound=0.0)  # fmt: skip
flags.DEFINE_integer("margin_wait", None, "Steps before the first interval begins, in which the network has to leave "
                     "chance. Defaults to 1/4 of --steps.", lower_bound=0)  # fmt: skip
flags.DEFINE_integer("margin_interval", None, "Steps between two increases of the margin. Defaults to 1/20 of --steps.",
                     lower_bound=1)  # fmt: skip
flags.DEFINE_float("loss_weight", None, "Weight of the cross-entropy, divided by --scale for --feature_norm=hard and "
                   "soft. Defaults to 50, 1 for none.")  # fmt: skip
flags.DEFINE_integer("batch_size", None, "Global batch size. Defaults to 512, 64 for synthetic faces.", lower_bound=1)
flags.DEFINE_integer("steps", None, "Optimizer steps of the whole run. Defaults to 240,000, 700 for synthetic faces.",
                     lower_bound=1)  # fmt: skip
flags.DEFINE_integer("steps_per_epoch", None, "Steps between measurements. Defaults to 1/60 of --steps.", lower_bound=1)
flags.DEFINE_integer("checkpoint_steps", None, "Steps between checkpoints, a divisor of --steps_per_epoch, which is the "
                     "default.", lower_bound=1)  # fmt: skip
flags.DEFINE_integer("keep_checkpoints", 2, "How many of the last checkpoints are kept.", lower_bound=1)
flags.DEFINE_enum(
    "nonfinite", "stop", ["stop", "skip"], "What a gradient that is not finite does: stop, or skip the batch."
)
flags.DEFINE_integer("max_skipped", 100, "Batches that --nonfinite=skip puts up with.", lower_bound=0)
flags.DEFINE_boolean("strict", False, "Stop at the first broken image, instead of replacing it.")
flags.DEFINE_integer("max_bad", 100, "Broken images that are put up with.", lower_bound=0)
flags.DEFINE_enum(
    "schedule", None, ksf.schedules.NAMES, "Learning rate. Defaults to steps, cosine for synthetic faces and adamw."
)
flags.DEFINE_enum("optimizer", None, ["sgd", "adamw"], "Defaults to adamw for a ViT, sgd for the others.")
flags.DEFINE_float(
    "learning_rate", None, "Peak learning rate. Defaults to 0.1, 0.03 for synthetic faces, 0.001 for adamw."
)
flags.DEFINE_integer(
    "warmup_steps", None, "Steps of linear warm-up. Defaults to 1 % of --steps, 6 % for synthetic faces."
)
flags.DEFINE_float("momentum", 0.9, "Momentum of SGD.")
flags.DEFINE_float("weight_decay", None, "L2 weight decay as papers state it: sgd adds it to the gradient, before momentum, "
                   "and has 5e-4 by default; adamw takes it from the weights, 0.1.")  # fmt: skip
flags.DEFINE_float("clip_norm", None, "Clip the global norm of the gradient.")
flags.DEFINE_integer("accumulate", None, "Accumulate gradients over this many batches.", lower_bound=2)
flags.DEFINE_float(
    "ema", None, "Keep an exponential moving average of the weights with this momentum, and use it at the end."
)
for name in ("loss_weight", "clip_norm"):
    flags.register_validator(name, lambda value: value is None or 0 < value < float("inf"), "must be above 0")
for name in ("weight_decay", "margin_increase"):
    flags.register_validator(
        name, lambda value: value is None or 0 <= value < float("inf"), "must be finite and not negative"
    )
flags.register_validator("momentum", lambda momentum: 0 <= momentum <= 1, "must be of 0 to 1")
flags.register_validator("ema", lambda momentum: momentum is None or 0 < momentum < 1, "must be between 0 and 1")
flags.DEFINE_enum("dtype_policy", "auto", ["auto", "float32", "mixed_bfloat16", "mixed_float16"], "Precision of the "
                  "network; the head has float32, and so has the saved model. auto: mixed_bfloat16 where the hardware "
                  "is faster with it.")  # fmt: skip
flags.DEFINE_enum("xla", "auto", ["auto", "true", "false"], "Compile the step with XLA. auto: not on TensorFlow without an "
                  "accelerator, where it is slower. On PyTorch true is torch.compile, false layer after layer.")  # fmt: skip
flags.DEFINE_enum("augment", "flip", ["none", "flip", "strong"], "Augmentation of the training images.")
flags.DEFINE_float("sample_rate", None, "Partial FC, for very many people: the share of them that a step's loss is taken "
                   "over, the batch's own always among them; 0.1 is the papers'.")  # fmt: skip
flags.register_validator("sample_rate", lambda rate: rate is None or 0 < rate <= 1, "must be above 0 and at most 1")
flags.DEFINE_integer("num_classes", None, "Classes of the head: a few more than there are people, where the devices of "
                     "--distribute=class_parallel do not divide those. Defaults to the number of people.")  # fmt: skip
flags.DEFINE_enum(
    "distribute",
    "none",
    ["none", "mirrored", "data_parallel", "class_parallel"],
    "mirrored: tf.distribute.MirroredStrategy over the GPUs of this host. On JAX, over the devices of all hosts: "
    "data_parallel divides the batch; class_parallel the head's class weights as well, for millions of people.",
)
flags.DEFINE_string(
    "job_address", None, "With several processes: host:port of process 0, any free port, reached by all."
)
flags.DEFINE_integer("num_processes", None, "How many processes train together, usually one a host.", lower_bound=1)
flags.DEFINE_integer("process_id", None, "This process's number, from 0 to --num_processes minus 1.", lower_bound=0)
flags.DEFINE_integer("seed", 0, "Seed of weights, order and augmentation.", lower_bound=0, upper_bound=2**32 - 1)

# What makes a run the one that its log tells of. The same command goes on from the last checkpoint; with another value of
# one of these it would be another run. Those of the second line may change on the way, if --may_change says so.
FIXED = ["backbone", "embedding_dim", "variant", "feature_norm", "margin", "scale", "detach", "margin_increase",
         "margin_wait", "margin_interval", "loss_weight", "sample_rate", "num_classes", "batch_size", "checkpoint_steps",
         "optimizer", "accumulate", "ema", "dtype_policy", "seed"]  # fmt: skip
CHANGEABLE = ["steps", "schedule", "learning_rate", "warmup_steps", "momentum", "weight_decay", "clip_norm", "augment"]
flags.DEFINE_multi_enum("may_change", [], CHANGEABLE, "A flag whose value may be another than the run was begun with.")
FLAGS = flags.FLAGS

# What flags that were not given stand for. MS1M: the authors' recipe; synthetic: two minutes on two CPU cores.
MS1M = {
    "backbone": "iresnet100",
    "embedding_dim": 512,
    "margin": 1.4,
    "scale": 60.0,
    "batch_size": 512,
    "steps": 240_000,
    "schedule": "steps",
    "learning_rate": 0.1,
}
SYNTHETIC = {
    "backbone": "sfnet4",
    "embedding_dim": 128,
    "margin": 1.4,
    "scale": 30.0,
    "batch_size": 64,
    "steps": 700,
    "steps_per_epoch": 50,
    "schedule": "cosine",
    "learning_rate": 0.03,
}
# What an optimizer has of its own: convolutions are trained by the papers' SGD, a ViT as InsightFace's.
OPTIMIZERS = {
    "sgd": {"weight_decay": 5e-4},
    "adamw": {"weight_decay": 0.1, "learning_rate": 0.001, "schedule": "cosine"},
}
SYNTHETIC_IDENTITIES, SYNTHETIC_IMAGES = 300, 20
PARALLEL = {"data_parallel", "class_parallel"}  # Through keras.distribution, on JAX
SYNTHETIC_CHANNELS = (16, 32, 64, 128)


def fill_in_defaults(saved):
    """Gives every flag that was not set its value of the recipe, or of the run that goes on, as saved in its checkpoint.

    What follows from --steps stays as the run was begun with, so that a run can be made longer.
    """
    recipe = MS1M if FLAGS.data_dir else SYNTHETIC
    if FLAGS.optimizer is None:
        FLAGS.optimizer = "adamw" if (FLAGS.backbone or recipe["backbone"]).startswith("vit") else "sgd"
    for name, value in (recipe | OPTIMIZERS[FLAGS.optimizer]).items():
        if FLAGS[name].value is None:
            FLAGS[name].value = value
    between = FLAGS.checkpoint_steps or saved.get("--checkpoint_steps")
    if FLAGS.steps_per_epoch is None:
        FLAGS.steps_per_epoch = max(1, FLAGS.steps // 60)
        if between is not None:  # the nearest that it divides
            FLAGS.steps_per_epoch = between * max(1, round(FLAGS.steps_per_epoch / between))
    FLAGS.checkpoint_steps = between or FLAGS.steps_per_epoch
    if FLAGS.steps_per_epoch % FLAGS.checkpoint_steps:
        raise app.UsageError(f"--checkpoint_steps must divide --steps_per_epoch={FLAGS.steps_per_epoch}. "
                             f"Received: {FLAGS.checkpoint_steps}")  # fmt: skip
    if FLAGS.warmup_steps is None:
        share = FLAGS.steps * (1 if FLAGS.data_dir else 6) // 100
        FLAGS.warmup_steps = saved.get("--warmup_steps", share)
    if FLAGS.margin_wait is None:
        FLAGS.margin_wait = saved.get("--margin_wait", FLAGS.steps // 4)
    if FLAGS.margin_interval is None:
        FLAGS.margin_interval = saved.get("--margin_interval", max(1, FLAGS.steps // 20))
    if FLAGS.loss_weight is None:
        FLAGS.loss_weight = 1.0 if FLAGS.feature_norm == "none" else 50.0
    if FLAGS.margin_increase is None:
        grows = FLAGS.feature_norm != "hard"
        FLAGS.margin_increase = saved.get("--margin_increase", (FLAGS.margin - 1) / 10 if grows else 0.0)
    if FLAGS.dtype_policy == "auto":
        FLAGS.dtype_policy = ksf.devices.fastest_dtype_policy()


def training_data():
    """The training set."""
    if FLAGS.data_dir is None:
        return ksf.data.synthetic(SYNTHETIC_IDENTITIES, SYNTHETIC_IMAGES, seed=FLAGS.seed)
    path = pathlib.Path(FLAGS.data_dir) / "train.rec"
    return ksf.data.from_recordio(path, max_bad=FLAGS.max_bad, strict=FLAGS.strict)


def num_classes_of(dataset):
    """The head's classes: one for each of the people, or more."""
    if dataset.num_classes < 2:
        raise app.UsageError(f"--data_dir={FLAGS.data_dir} has the images of one person, expected at least 2.")
    if FLAGS.num_classes is None:
        return dataset.num_classes
    if FLAGS.num_classes < dataset.num_classes:
        raise app.UsageError(f"--num_classes must be at least the {dataset.num_classes} people of the training set. "
                             f"Received: {FLAGS.num_classes}")  # fmt: skip
    return FLAGS.num_classes


def validation_pairs():
    """The pairs to measure while training, and at the end."""
    if FLAGS.data_dir is None and not FLAGS.pairs:
        return [ksf.data.synthetic_pairs(num_identities=100, first_identity=SYNTHETIC_IDENTITIES, seed=FLAGS.seed)]
    names = FLAGS.pairs or sorted(str(path) for path in pathlib.Path(FLAGS.data_dir).glob("*.bin"))
    sets = [
        ksf.data.read_bin(name) if name.endswith(".bin") else ksf.data.read_lfw(*name.rsplit(":", 1)) for name in names
    ]
    return ksf.data.number_names(sets)


def make_trainer(num_classes, image_size):
    """The network, for images of that size, and the head, compiled."""
    small = {"channels": SYNTHETIC_CHANNELS} if FLAGS.data_dir is None and FLAGS.backbone == "sfnet4" else {}
    backbone = ksf.backbones.get(
        FLAGS.backbone, embedding_dim=FLAGS.embedding_dim, input_shape=(*image_size, 3), **small
    )
    head = ksf.heads.SphereFaceR(
        num_classes,
        variant=FLAGS.variant,
        feature_norm=FLAGS.feature_norm,
        margin=FLAGS.margin,
        scale=FLAGS.scale,
        loss_weight=FLAGS.loss_weight,
        detach=FLAGS.detach,
        sample_rate=FLAGS.sample_rate,
        seed=FLAGS.seed,
    )
    trainer = ksf.FaceClassifier(backbone, head)
    xla = {"true": True, "false": False}.get(FLAGS.xla, "auto")
    trainer.compile(ksf.GuardedOptimizer(make_optimizer()), jit_compile=xla)
    return trainer


def make_optimizer():
    """SGD with the papers' weight decay, or AdamW."""
    learning_rate = ksf.schedules.learning_rate(FLAGS.schedule, FLAGS.learning_rate, FLAGS.steps, FLAGS.warmup_steps)
    options = {
        "weight_decay": FLAGS.weight_decay,
        "global_clipnorm": FLAGS.clip_norm,
        "gradient_accumulation_steps": FLAGS.accumulate,
        "use_ema": FLAGS.ema is not None,
        "ema_momentum": 0.99 if FLAGS.ema is None else FLAGS.ema,
    }
    if FLAGS.optimizer == "adamw":
        return keras.optimizers.AdamW(learning_rate, **options)
    return ksf.optimizers.sgd(learning_rate, momentum=FLAGS.momentum, **options)


def make_distribution(num_classes):
    """What --distribute names, of `keras.distribution`."""
    # Each process reads its own rows of a batch, so that Keras must not share them out.
    if FLAGS.distribute == "data_parallel":
        distribution = ksf.distribution.data_parallel(auto_shard_dataset=False)
    else:
        try:
            distribution = ksf.distribution.class_parallel(num_classes, auto_shard_dataset=False)
        except ValueError as error:
            raise app.UsageError(f"--distribute=class_parallel: {error} (--num_classes)") from error
    parts, *ways = distribution.device_mesh.shape
    logging.info("Each batch is divided over %d devices, the head over %d.", parts, *(ways or [1]))
    if FLAGS.batch_size % parts:
        raise app.UsageError(f"--batch_size must be a multiple of the {parts} devices that share it out. "
                             f"Received: {FLAGS.batch_size}")  # fmt: skip
    return distribution


def make_trainer_distributed(num_classes, image_size):
    """The same under the strategy that --distribute names."""
    if FLAGS.distribute in PARALLEL:
        keras.distribution.set_distribution(make_distribution(num_classes))
    if FLAGS.distribute != "mirrored":
        return make_trainer(num_classes, image_size)
    import tensorflow as tf

    with tf.distribute.MirroredStrategy().scope():
        return make_trainer(num_classes, image_size)


def checkpoints_of(output_dir):
    """Where the checkpoints are."""
    return output_dir / "checkpoints"


def make_checkpoint(dataset, output_dir):
    """The checkpoints, with what must stay the same for a run to go on from one."""
    length = {"steps"} if FLAGS.schedule == "constant" else set()  # Then a run may grow longer.
    run = {f"--{name}": FLAGS[name].value for name in FIXED + CHANGEABLE if name not in length}
    run |= {"images": dataset.num_images, "people": dataset.num_classes}
    may_change = [name for name in run if name.removeprefix("--") in FLAGS.may_change]
    return ksf.callbacks.Checkpoint(checkpoints_of(output_dir), FLAGS.keep_checkpoints, run, may_change)


def make_callbacks(dataset, pairs, output_dir, checkpoint):
    """What runs beside the training. An epoch of Keras's lies between two checkpoints."""
    every = FLAGS.steps_per_epoch // FLAGS.checkpoint_steps
    # Under keras.distribution every batch is divided over the devices, which the last one of the pairs may not allow.
    measured = pairs if FLAGS.data_dir and FLAGS.distribute not in PARALLEL else []
    schedules = []
    if FLAGS.margin_increase:
        growth = FLAGS.margin_increase, FLAGS.margin_interval
        schedules.append(ksf.callbacks.MarginSchedule(*growth, wait=FLAGS.margin_wait))
    guard = ksf.callbacks.NonFiniteGuard(
        FLAGS.nonfinite,
        FLAGS.max_skipped,
        records=lambda step: dataset.records_of_step(step, FLAGS.batch_size, FLAGS.seed),
    )
    measurements = [ksf.callbacks.PairVerification(one, every=every) for one in measured]
    # The checkpoint before what takes long or may fail, the log after all that it tells of.
    return [guard, *schedules, checkpoint, *measurements, ksf.callbacks.EpochLog(output_dir / "log.csv")]


def batches(dataset, start_step):
    """The training batches from a step on: tf.data, or without TensorFlow a `keras.utils.PyDataset`."""
    view = dataset.batches if uses_tf_data() else dataset.sequence
    rows = ksf.distribution.local_rows if FLAGS.num_processes is not None else None
    return view(FLAGS.batch_size, seed=FLAGS.seed, augment=FLAGS.augment, start_step=start_step, rows=rows)


def uses_tf_data():
    """Whether the batches come from tf.data: with TensorFlow, and with JAX where TensorFlow is installed."""
    backend = keras.backend.backend()
    return backend == "tensorflow" or (backend == "jax" and importlib.util.find_spec("tensorflow") is not None)


def join_processes():
    """With JAX: joins the other processes, and keeps TensorFlow, which only reads data then, off the GPUs."""
    job = FLAGS.job_address, FLAGS.num_processes, FLAGS.process_id
    if job != (None, None, None):
        if FLAGS.distribute not in PARALLEL or None in job:
            raise app.UsageError("--num_processes needs --job_address, --process_id and --distribute=data_parallel or "
                                 "class_parallel, and they need it.")  # fmt: skip
        try:
            ksf.distribution.initialize(*job)
        except ValueError as error:
            raise app.UsageError(str(error)) from error
    if keras.backend.backend() == "jax" and uses_tf_data():
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")


def save_model(trainer, path):
    """Saves the model to keep, in float32, and returns it, outside of any distribution."""
    model = trainer.embedder
    if FLAGS.distribute in PARALLEL:  # By way of the file, as its variables lie on the devices.
        ksf.embedder.save(model, path)
        keras.distribution.set_distribution(None)
        model = keras.saving.load_model(path)
    if FLAGS.dtype_policy != "float32":
        model = ksf.precision.with_dtype(model, "float32")
    ksf.embedder.save(model, path)
    return model


def main(argv):
    """Trains, measures and saves."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    if FLAGS.clip_norm and FLAGS.distribute == "mirrored":
        raise app.UsageError("--clip_norm: Keras clips each replica's gradient before they are summed, which is not the "
                             "same as one replica. Use it with --distribute=none.")  # fmt: skip
    if FLAGS.accumulate and FLAGS.distribute == "mirrored":
        raise app.UsageError("--accumulate: Keras can't accumulate gradients under MirroredStrategy. Use it with "
                             "--distribute=none, or a larger --batch_size.")  # fmt: skip
    if FLAGS.distribute == "mirrored" and keras.backend.backend() != "tensorflow":
        raise app.UsageError("--distribute=mirrored is TensorFlow's. On JAX take data_parallel or class_parallel; Keras on "
                             "PyTorch trains on one device.")  # fmt: skip
    if FLAGS.distribute in PARALLEL and keras.backend.backend() != "jax":
        raise app.UsageError(f"--distribute={FLAGS.distribute} needs the JAX backend: set KERAS_BACKEND=jax.")
    if keras.backend.backend() == "openvino":
        raise app.UsageError(
            "Keras trains on TensorFlow, JAX and PyTorch. Unset KERAS_BACKEND, or set it to one of them."
        )
    join_processes()
    output_dir = pathlib.Path(FLAGS.output_dir)
    fill_in_defaults(ksf.callbacks.Checkpoint(checkpoints_of(output_dir)).saved_run())
    keras.utils.set_random_seed(FLAGS.seed)
    keras.config.set_dtype_policy(FLAGS.dtype_policy)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        dataset, pairs = training_data(), validation_pairs()
        logging.info(
            "Training on %d images of %d people in %s.", dataset.num_images, dataset.num_classes, FLAGS.dtype_policy
        )
        trainer = make_trainer_distributed(num_classes_of(dataset), dataset.image_size)
        checkpoint = make_checkpoint(dataset, output_dir)
        epoch = checkpoint.resume(trainer)
        stream = batches(dataset, start_step=checkpoint.step)
    except (ValueError, OSError) as error:  # Files that are not there, values out of range, another run's flags.
        raise app.UsageError(ksf.errors.message(error)) from error
    remaining = FLAGS.steps - checkpoint.step
    if remaining > 0:
        try:
            trainer.fit(
                stream,
                initial_epoch=epoch,
                epochs=epoch - (-remaining // FLAGS.checkpoint_steps),
                steps_per_epoch=FLAGS.checkpoint_steps,
                shuffle=False,  # The data set has its own order.
                callbacks=[*make_callbacks(dataset, pairs, output_dir, checkpoint), ksf.callbacks.StopAfter(remaining)],
            )
        except Exception as error:  # A full disk, a loss that is not finite, too many broken images.
            error = ksf.errors.unwrapped(error)
            if not isinstance(error, (ValueError, OSError, ksf.errors.DivergenceError)):
                raise
            sys.exit(f"{pathlib.Path(argv[0]).name}: {ksf.errors.message(error)}")
    elif FLAGS.ema is not None:  # What `fit` does at its end; the checkpoint is from before that.
        trainer.optimizer.finalize_variable_values(trainer.trainable_variables)
        trainer.project()

    if len(dataset.bad):
        logging.warning("%d broken images were replaced; see the log above, or use --strict.", len(dataset.bad))

    if not ksf.distribution.is_chief():
        return
    saved = output_dir / "model.keras"
    model = save_model(trainer, saved)
    for one in pairs:
        report = ksf.evaluate(model, one)
        report.save(output_dir / f"{re.sub(r'[^A-Za-z0-9]+', '-', report.name)}.json")
        print(report)
    then = "train on MS1M: --data_dir=faces_emore"
    if FLAGS.data_dir:
        then = f"measure it on more pairs: keras-sphereface evaluate {saved} --pairs lfw.bin"
    print(f"Saved {saved}. Next, {then}, or see all flags: --helpfull")


if __name__ == "__main__":
    app.run(main)
