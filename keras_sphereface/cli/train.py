"""Train a model on a folder of people, RecordIO or TFRecord.

  keras-sphereface train my_photos/ --output model.keras              # one folder of aligned crops per person
  keras-sphereface train faces/train.rec --pairs lfw.bin --backbone iresnet50 --batch-size 256 --steps 100000
  keras-sphereface train synthetic --output toy.keras --backbone sfnet4 --steps 300 --learning-rate 0.03
  keras-sphereface train my_photos/ --head ArcFace --margin 0.5 --output model.keras
  keras-sphereface train my_photos/ --pretrained patch_sfnet_celeba   # goes on from a trained model, here the package's own

Photos become aligned crops with `keras-sphereface detect photos/ --output crops/ --which largest`. The same command
again goes on from the last checkpoint in --checkpoints; one that would make it another run is refused. All of the
authors' choices are flags of examples/train_ms1m.py.
"""

import argparse
import pathlib
import sys

from keras_sphereface.cli import UsageError, options
from keras_sphereface.files import check_output

HEADS = ("SphereFaceR", "SphereFace", "SphereFacePlus", "SphereFace2", "CosFace", "ArcFace", "NormFace", "Softmax")
# What options that were not given stand for, of a new network and of one that goes on.
NEW = {"backbone": "mobilefacenet", "embedding_dim": 512, "steps": 20_000, "learning_rate": 0.1, "weight_decay": 5e-4}
PRETRAINED = {"backbone": None, "embedding_dim": None, "steps": 1000, "learning_rate": 1e-4, "weight_decay": 0.05}
WITHOUT = {"margin": ("NormFace", "Softmax"), "scale": ("Softmax",)}
SYNTHETIC = "synthetic"
SYNTHETIC_IDENTITIES, SYNTHETIC_IMAGES = 200, 10
EPOCHS = 10  # checkpoints, at most, of a run whose epochs --steps-per-epoch does not set

# What makes a run the one that its checkpoints tell of. The second may change on the way, if --may-change says so.
FIXED = ("pretrained", "backbone", "embedding_dim", "head", "margin", "scale", "batch_size", "dtype", "seed")
CHANGEABLE = ("steps", "learning_rate", "weight_decay", "augment")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "data", help="folder with one folder per person, train.rec, *.tfrecord, or synthetic: drawn faces"
    )
    parser.add_argument("--output", "-o", default="model.keras", help="model to write (default: %(default)s)")
    parser.add_argument("--checkpoints", help="folder of checkpoints (default: beside the model, <model>_checkpoints)")
    parser.add_argument(
        "--pairs", action="append", default=[], metavar="FILE", help=".bin pairs to measure; repeatable"
    )
    parser.add_argument(
        "--pretrained",
        metavar="MODEL",
        help="go on from this model, whose class weights begin at the people's mean embeddings: a .keras file or model "
        "folder, a preset's name or hf://organization/repository (default: random weights)",
    )
    parser.add_argument("--backbone", help=f"network (default: {NEW['backbone']})")
    parser.add_argument("--embedding-dim", type=options.positive, help=f"default: {NEW['embedding_dim']}")
    parser.add_argument("--head", choices=HEADS, default=HEADS[0], help="loss (default: %(default)s, variant v2)")
    parser.add_argument("--margin", type=options.not_negative, help="default: the head's own")
    parser.add_argument("--scale", type=options.above_zero, help="default: the head's own")
    parser.add_argument(
        "--steps",
        type=options.positive,
        help=f"of the whole run (default: {NEW['steps']}, {PRETRAINED['steps']} with --pretrained)",
    )
    parser.add_argument(
        "--steps-per-epoch", type=options.positive, help="between checkpoints (default: a tenth of --steps)"
    )
    parser.add_argument("--batch-size", type=options.positive, default=128, help="default: %(default)s")
    parser.add_argument(
        "--learning-rate",
        type=options.above_zero,
        help=f"peak, cosine decay (default: {NEW['learning_rate']}, {PRETRAINED['learning_rate']} with --pretrained)",
    )
    parser.add_argument(
        "--weight-decay",
        type=options.not_negative,
        help=f"as papers state it (default: {NEW['weight_decay']}, {PRETRAINED['weight_decay']} of AdamW with --pretrained)",
    )
    parser.add_argument("--augment", choices=("none", "flip", "strong"), default="flip", help="default: %(default)s")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "mixed_bfloat16"),
        default="auto",
        help="precision of the network; the head has float32, and so has the model that is written; auto: mixed_bfloat16 "
        "where the hardware is faster with it (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=options.seed, default=0, help="of weights, order and augmentation (default: %(default)s)"
    )
    parser.add_argument(
        "--may-change",
        action="append",
        default=[],
        choices=[_option(name).removeprefix("--") for name in CHANGEABLE],
        help="an option whose value may be another than the run was begun with; repeatable",
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Trains, measures, saves."""
    import keras

    from keras_sphereface import backbones
    from keras_sphereface.callbacks import PairVerification, StopAfter
    from keras_sphereface.data.bin_pairs import read_bin
    from keras_sphereface.data.pairs import number_names
    from keras_sphereface.devices import fastest_dtype_policy
    from keras_sphereface.embedder import save
    from keras_sphereface.evaluator import evaluate
    from keras_sphereface.imprinting import imprint
    from keras_sphereface.precision import with_dtype

    output = pathlib.Path(args.output)
    if output.suffix != ".keras":
        raise UsageError(f"--output must be a file name ending in .keras. Received: {output}")
    _fill_in(args)
    if args.pretrained is None and args.backbone not in (known := backbones.names()):
        raise UsageError(f"--backbone must be one of {', '.join(known)}. Received: {args.backbone}")
    of_head = _head_arguments(args)
    check_output(output, make_folder=True)
    keras.utils.set_random_seed(args.seed)
    args.dtype = fastest_dtype_policy() if args.dtype == "auto" else args.dtype
    dataset, pairs = _open(args), number_names([read_bin(path) for path in args.pairs])
    _check_people(args, dataset)
    trainer = _make_trainer(args, dataset, of_head)
    checkpoint = _make_checkpoint(args, dataset)
    length = checkpoint.run["--steps-per-epoch"]
    start = checkpoint.resume(trainer)
    remaining = args.steps - checkpoint.step
    if args.pretrained and not checkpoint.step:
        imprint(trainer, dataset, batch_size=args.batch_size, progress=not args.json)
    if remaining > 0:
        view = dataset.batches if keras.backend.backend() == "tensorflow" else dataset.sequence
        trainer.fit(
            view(args.batch_size, seed=args.seed, augment=args.augment, start_step=checkpoint.step),
            initial_epoch=start,
            epochs=start - (-remaining // length),
            steps_per_epoch=length,
            shuffle=False,  # the data set has its own order
            callbacks=[checkpoint, *map(PairVerification, pairs), StopAfter(remaining)],
            verbose=1 if sys.stdout.isatty() and not args.json else 0 if args.json else 2,
        )
    model = trainer.embedder if args.dtype == "float32" else with_dtype(trainer.embedder, "float32")
    save(model, output)
    reports = [evaluate(model, one) for one in pairs]
    result = {
        "output": str(output),
        "identities": dataset.num_classes,
        "images": dataset.num_images,
        "reports": [report.to_dict() for report in reports],
    }
    options.show(args, result, "\n".join([*map(str, reports), f"wrote {output}"]))


def _fill_in(args):
    """Gives every option that was not given its value."""
    for name, value in (PRETRAINED if args.pretrained else NEW).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
        elif value is None:
            raise UsageError(f"{_option(name)}: --pretrained has its own network. Received: both; leave one out")


def _make_checkpoint(args, dataset):
    """The checkpoints, with what must stay the same for a run to go on from one."""
    from keras_sphereface.callbacks import Checkpoint

    output = pathlib.Path(args.output)
    folder = args.checkpoints or output.with_name(f"{output.stem}_checkpoints")
    # Not the tenth of what --steps is by now: a run that is made longer keeps its epochs.
    saved = Checkpoint(folder).saved_run().get("--steps-per-epoch")
    length = args.steps_per_epoch or saved or max(1, args.steps // EPOCHS)
    run = {_option(name): getattr(args, name) for name in FIXED + CHANGEABLE}
    run |= {"--steps-per-epoch": length, "images": dataset.num_images, "people": dataset.num_classes}
    return Checkpoint(folder, run=run, may_change=[f"--{name}" for name in args.may_change])


def _option(name):
    """The option as it is typed, of its name in Python."""
    return f"--{name.replace('_', '-')}"


def _open(args):
    """Opens the data that the argument names."""
    from keras_sphereface import data

    if args.data == SYNTHETIC:
        return data.synthetic(SYNTHETIC_IDENTITIES, SYNTHETIC_IMAGES, seed=args.seed)
    path = pathlib.Path(args.data)
    if path.is_dir():
        return data.from_recordio(path / "train.rec") if (path / "train.rec").is_file() else data.from_folder(path)
    return data.from_tfrecord(path) if path.suffix.startswith(".tfrec") else data.from_recordio(path)


def _check_people(args, dataset):
    """Refuses what teaches nothing; says what may have been meant otherwise."""
    from keras_sphereface.data.alignment import TEMPLATES

    if dataset.num_classes < 2:
        raise ValueError(
            f"{args.data}: has the images of one person, expected at least 2: one folder per person, with images in it. "
            "Give the folder that holds those"
        )
    height, width = dataset.image_size
    if args.data != SYNTHETIC and (height, width) not in TEMPLATES:
        print(
            f"keras-sphereface train: the images are {height}x{width} (height x width), and so is what the model takes. "
            "Aligned crops of photos are 112x112: keras-sphereface detect PHOTOS --output CROPS --which largest",
            file=sys.stderr,
        )


def _head_arguments(args):
    """What was given of the head's arguments, those that it has."""
    given = {name: value for name in ("margin", "scale") if (value := getattr(args, name)) is not None}
    for name, value in given.items():
        if args.head in WITHOUT[name]:
            raise UsageError(f"--{name}: {args.head} has none. Received: --{name} {value}; leave it out")
    return given


def _make_trainer(args, dataset, of_head):
    """The network, for images of the data's size, and the head, compiled."""
    import keras

    from keras_sphereface import backbones, heads, optimizers, schedules
    from keras_sphereface.classifier import FaceClassifier

    head = getattr(heads, args.head)(dataset.num_classes, **of_head)
    if args.pretrained:
        backbone = _pretrained(args, dataset)
    else:
        arguments = {"embedding_dim": args.embedding_dim, "input_shape": (*dataset.image_size, 3), "dtype": args.dtype}
        backbone = backbones.get(args.backbone, **arguments)
    trainer = FaceClassifier(backbone, head)
    rate = schedules.learning_rate("cosine", args.learning_rate, args.steps, args.steps // 20)
    if args.pretrained:  # of embeddings whose norms nobody knows, on which SGD's steps would depend
        trainer.compile(keras.optimizers.AdamW(rate, weight_decay=args.weight_decay))
    else:
        trainer.compile(optimizers.sgd(rate, weight_decay=args.weight_decay))
    return trainer


def _pretrained(args, dataset):
    """The model that goes on, in the precision of the run."""
    from keras_sphereface.hub import load_pretrained

    model = load_pretrained(args.pretrained, dtype=None if args.dtype == "float32" else args.dtype)
    size, found = model.input_shape[1:3], dataset.image_size
    if any(side not in (None, given) for side, given in zip(size, found)):
        expected, found = ("x".join(map(str, sides)) for sides in (size, found))
        raise ValueError(
            f"{args.data}: expected images of {expected} (height x width), as {args.pretrained} takes. Received: {found}. "
            f"keras-sphereface pack FOLDER train.rec --image-size {expected} makes such"
        )
    return model
