r"""Makes the weights of `patch_sfnet_celeba`: PatchSFNet taught by a MobileFaceNet, then also by SphereFace-R.

    KERAS_BACKEND=torch python zoo/patch_sfnet_celeba/recipe.py \
        --labelled=celeba_112x112 --unlabelled=utkface_112x112 --teacher=mobilefacenet_foamliu.onnx \
        --lfw=lfw_112x112 --lfw_protocol=lfw_protocol

These defaults are for a few CPU cores; the flags of the run on a GPU that made the shipped weights are in `card.md`.

Without --teacher it is SphereFace-R alone, for comparison (with --echo=1 --pool=4096 --learning_rate=0.002, as fresh images
cost little then). The method is in `distill.py`, the data and its augmentation in `faces.py`; `measure.py` measures what was
made. The same command again goes on from the last checkpoint. It needs Keras's PyTorch backend and the package onnx; the
weights it writes are one file for all backends.

Paper: SphereFace Revived (arXiv 2109.05565); hints of FitNets (arXiv 1412.6550).
Cost: --minutes on the clock; the schedules follow it.
"""

import csv
import json
import pathlib

import keras
import torch
from absl import app, flags, logging
from distill import REFRESH_STEPS, Distiller, Pool, run
from faces import Faces
from measure import Lfw
from student import make_student
from teacher import Teacher
from tqdm import tqdm

import keras_sphereface as ksf
from keras_sphereface import devices, weights_file

flags.DEFINE_string("labelled", None, "Folder of aligned 112x112 faces, one folder per identity.", required=True)
flags.DEFINE_string("unlabelled", None, "Folder of further aligned faces, without identities.")
flags.DEFINE_string("teacher", None, "The teacher's ONNX file; SphereFace-R alone if not given.")
flags.DEFINE_string("lfw", None, "Folder of LFW, aligned the same way: View 1 is watched, View 2 never read.")
flags.DEFINE_string("lfw_protocol", None, "Folder of LFW's pairs*.txt, with --lfw.")
flags.DEFINE_string("output_dir", "runs/patch_sfnet_celeba", "Checkpoint, log.csv, weights, decoded images.")
flags.DEFINE_float("minutes", 372.0, "Time to train, interruptions not counted.", lower_bound=0.0)
flags.DEFINE_integer("batch_size", 128, "Images of a step.")
flags.DEFINE_float("learning_rate", 0.004, "Highest learning rate.")
flags.DEFINE_integer("pool", 8192, "Images held with the teacher's maps (200 KB each).")
flags.DEFINE_integer("first", 1024, "Images in the pool when training begins; it grows while training.")
flags.DEFINE_float("echo", 3.0, "How often an augmented image is used on the average, before it is replaced.")
flags.DEFINE_boolean("compile", True, "Compile the student: twice as fast on a CPU, and needs a C++ compiler.")
flags.DEFINE_integer("threads", None, "CPU threads. One is best where other programs use the cores. Defaults to all.")
flags.DEFINE_enum(
    "dtype",
    None,
    ["bfloat16", "float32"],
    "What is computed in. Defaults to bfloat16 where the hardware multiplies it.",
)
flags.DEFINE_integer("seed", 1, "Seed of the initial weights.")
FLAGS = flags.FLAGS

FIRST_DRAW = 1_000_000  # so that the first images of a run have other seeds than the later ones
LOG_STEPS, CHECK_SHARE = 100, 0.05  # steps between two lines of the log; share of the run between two checkpoints
LOG_COLUMNS = ("step", "seconds", "stage0", "stage1", "stage2", "one_minus_cosine", "sphereface_r")
WEIGHTS = "patch_sfnet_celeba.weights.h5"


class Watcher:
    """Writes the log, the checkpoint and View 1's accuracy while training."""

    def __init__(self, distiller, lfw, folder):
        self.distiller, self.lfw, self.folder = distiller, lfw, folder
        self.bar = tqdm(total=FLAGS.minutes, desc="training", unit="min", disable=None)
        if not (folder / "log.csv").exists():
            self._row(LOG_COLUMNS)

    def _row(self, values):
        with open(self.folder / "log.csv", "a", newline="") as file:
            csv.writer(file).writerow(values)

    def on_steps(self, results):
        """One line of the log."""
        self._row([self.distiller.step, round(self.distiller.seconds, 1), *(f"{value:.4f}" for value in results)])
        self.bar.update(self.distiller.seconds / 60 - self.bar.n)

    def on_minutes(self):
        """Checkpoint, then View 1 if LFW is given."""
        self.distiller.save(self.folder / "checkpoint.pt")
        if self.lfw is None:
            return
        entry = {"step": self.distiller.step, "minutes": round(self.distiller.seconds / 60, 1)}
        entry |= self.lfw.watch(ksf.embedder.build_embedder(self.distiller.averaged_backbone()))
        logging.info("View 1: %s", entry)
        with open(self.folder / "view1.jsonl", "a") as file:
            file.write(json.dumps(entry) + "\n")


def fastest_dtype(device):
    """bfloat16 where the hardware multiplies it: a CPU that does not takes ten times as long as in float32."""
    return "bfloat16" if device == "cuda" or devices.cpu_has_bfloat16() else "float32"


def make_distiller(folder, device):
    """The student with its pool, from the checkpoint if there is one."""
    faces = Faces(FLAGS.labelled, FLAGS.unlabelled, folder / "cache", device)
    renewal = max(1, round(FLAGS.batch_size * REFRESH_STEPS / FLAGS.echo))
    dtype = FLAGS.dtype or fastest_dtype(device)
    teacher = Teacher(FLAGS.teacher, device, dtype) if FLAGS.teacher else None
    pool = Pool(faces, teacher, FLAGS.pool, renewal, device)
    keras.utils.set_random_seed(FLAGS.seed)
    backbone = make_student(f"mixed_{dtype}" if dtype == "bfloat16" else dtype)
    distiller = Distiller(backbone, pool, FLAGS.learning_rate, FLAGS.batch_size, FLAGS.compile)
    if (folder / "checkpoint.pt").exists():
        distiller.load(folder / "checkpoint.pt")
        logging.info("Going on from step %d, minute %.1f", distiller.step, distiller.seconds / 60)
    pool.add(min(FLAGS.first, FLAGS.pool), FIRST_DRAW + distiller.step)
    return distiller


def main(argv):
    """Trains and writes the weights."""
    del argv
    if keras.backend.backend() != "torch":
        raise app.UsageError(
            f"This recipe trains on Keras's PyTorch backend. Received: {keras.backend.backend()!r}. "
            "Set KERAS_BACKEND=torch"
        )
    torch.set_flush_denormal(True)  # features without normalization fade to denormal numbers, slow on CPUs
    torch.backends.cudnn.benchmark = True  # all steps have the same shapes
    if FLAGS.threads:
        torch.set_num_threads(FLAGS.threads)
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    lfw = Lfw(FLAGS.lfw, FLAGS.lfw_protocol) if FLAGS.lfw else None
    distiller = make_distiller(folder, "cuda" if torch.cuda.is_available() else "cpu")
    watcher = Watcher(distiller, lfw, folder)
    run(distiller, FLAGS.minutes, (LOG_STEPS, CHECK_SHARE * FLAGS.minutes), watcher.on_steps, watcher.on_minutes)
    weights_file.write(distiller.averaged_backbone(), folder / WEIGHTS, "float16")
    logging.info("%d steps of %d images, written to %s", distiller.step, FLAGS.batch_size, folder / WEIGHTS)


if __name__ == "__main__":
    app.run(main)
