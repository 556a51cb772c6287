"""Distillation: the student learns the teacher's stages and embeddings, and later SphereFace-R on the labelled images.

The student's three stages end where the teacher's do, in maps of the same shape, so each stage can be taught by itself: at
first it mostly sees the teacher's maps (a share of the images that falls from 1 to 0, as in scheduled sampling) and learns
to make the teacher's next ones; then the student's own. The loss of a batch is

    hint_weight * sum over stages of |student - teacher|^2 / |teacher - mean|^2
      + EMBEDDING_WEIGHT * (1 - cosine(student, teacher)) + HEAD_WEIGHT * SphereFace-R

Without a teacher it is SphereFace-R alone, from the first step on: what the paper's loss does on these images by itself.

References: FitNets (arXiv 1412.6550) for the hints, arXiv 2109.05565 for SphereFace-R.
"""

import math
import os
import time
from concurrent import futures

import torch
import torch.nn.functional as F
from faces import UNLABELLED
from optimizer import ConvMuon, is_hidden_convolution
from student import stages

import keras_sphereface as ksf

EMBEDDING_WEIGHT = 4.0  # about the sum of the hints at first
HINT_FLOOR, HINT_END = 0.05, 0.8  # last weight of the hints, and the progress where it is reached
FORCING_END = 0.25  # progress where the stages stop seeing the teacher's maps
HEAD_START, HEAD_WEIGHT = 0.6, 0.03  # SphereFace-R begins when the embeddings are good, and only refines them
HEAD_SCALE = 30.0
WARMUP_STEPS = 100
DECAY = 0.5  # the learning rate falls to zero over this last share of the run
HEAD_RATE, HEAD_RATE_ALONE = 0.1, 25.0  # of the learning rate: of Adam, and of SGD with momentum without a teacher
ADAM_RATIO, ADAM_BETAS, ADAM_EPSILON = 0.3, (0.9, 0.999), 1e-7  # for what Muon does not train; of the learning rate
WEIGHT_DECAY = 0.01
EMA = 0.999
REFRESH_STEPS = 32  # steps between two renewals of a part of the pool
GROWTH_STEPS = 8  # the same while the pool is not yet full
DRAW_SEED = 7


def learning_rate(peak, progress, step):
    """Linear warm-up, constant, linear to zero."""
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * min(1.0, max(0.0, (1.0 - progress) / DECAY))


def hint_weight(progress):
    """Falls from 1 to `HINT_FLOOR` along a cosine."""
    return HINT_FLOOR + (1 - HINT_FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress / HINT_END)))


def forcing(progress):
    """Share of images whose stages see the teacher's maps."""
    return max(0.0, 1.0 - progress / FORCING_END)


def _like_this_thread(threads):
    """PyTorch keeps these settings for each thread."""

    def initializer():
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)

    return initializer


class Pool:
    """Augmented images with what the teacher says of them, renewed part by part by a thread beside the training.

    Args:
        faces: `Faces`.
        teacher: `Teacher`, or `None`.
        size: Images that it holds.
        renewal: Images that one renewal replaces.
        device: PyTorch device.
    """

    def __init__(self, faces, teacher, size, renewal, device):
        self.faces, self.teacher, self.size, self.renewal, self.device = faces, teacher, size, renewal, device
        self.columns, self.filled, self.place, self.scales = None, 0, 0, None
        self.prototypes = torch.zeros((faces.num_identities, 128), device=device)
        self.thread = futures.ThreadPoolExecutor(1, initializer=_like_this_thread(torch.get_num_threads()))
        self.drawn = None

    def renew(self, number):
        """Puts in the images of the last call, and has the generator of this number draw the next ones."""
        if self.drawn:
            self._put(*self.drawn.result())
        self.drawn = self.thread.submit(self._draw, self.renewal, number)

    def add(self, count, number):
        """Draws `count` images by the generator of this number, in place of the oldest."""
        self._put(*self._draw(count, number))

    def _draw(self, count, number):
        """Images and their mirror images, the teacher's maps and unit embeddings (nothing without a teacher), labels.

        An image and its mirror image have one embedding, the sum of the teacher's two: what they are compared by at last.
        """
        generator = torch.Generator(self.device).manual_seed(DRAW_SEED * 10**9 + number)
        images, labels = self.faces.draw((count + 1) // 2, generator)
        images, labels = torch.cat([images, images.flip(3)]), torch.cat([labels, labels])
        if self.teacher is None:
            return images, [], labels
        maps, embeddings = self.teacher(images)
        both = F.normalize(sum(F.normalize(embeddings).chunk(2)))
        return images, [*maps, torch.cat([both, both])], labels

    def _put(self, images, taught, labels):
        """In place of the oldest; each of the teacher's maps is divided by its first spread."""
        if taught:
            *maps, embeddings = taught
            if self.scales is None:
                self.scales = [float(values.float().std()) for values in maps]
            taught = [*((values / scale).bfloat16() for values, scale in zip(maps, self.scales)), embeddings]
            known = labels != UNLABELLED
            self.prototypes.index_add_(0, labels[known], embeddings[known])
        new = [images, *taught, labels]
        if self.columns is None:
            self.columns = [torch.empty((self.size, *x.shape[1:]), dtype=x.dtype, device=self.device) for x in new]
        places = (self.place + torch.arange(len(images), device=self.device)) % self.size
        for column, values in zip(self.columns, new):
            column[places] = values
        self.filled = min(self.size, max(self.filled, self.place + len(images)))
        self.place = (self.place + len(images)) % self.size

    def batch(self, size, generator):
        """Returns images, what the teacher says of them (maps, then embeddings) and labels of random members."""
        index = torch.randint(0, self.filled, (size,), generator=generator, device=self.device)
        images, *taught, labels = [column[index] for column in self.columns]
        return images.permute(0, 2, 3, 1).float(), taught, labels


class Distiller:
    """The student, its optimizers and its averaged weights.

    Args:
        backbone: `PatchSFNet`; its dtype policy is what the stages compute in.
        pool: `Pool`.
        peak_rate: Highest learning rate.
        batch_size: Images of a step.
        compiled: Whether `torch.compile` makes one program of the student's stages. Defaults to `False`.
    """

    def __init__(self, backbone, pool, peak_rate, batch_size, compiled=False):
        self.backbone, self.pool, self.peak_rate, self.batch_size = backbone, pool, peak_rate, batch_size
        self.stages = stages(backbone)
        if compiled:
            self._forward = torch.compile(self._forward, dynamic=False)
        self.weights = [variable.value for variable in backbone.trainable_variables]
        hidden = [is_hidden_convolution(variable) for variable in backbone.trainable_variables]
        kernels = [weight for weight, muon in zip(self.weights, hidden) if muon]
        others = [weight for weight, muon in zip(self.weights, hidden) if not muon]
        dtype = getattr(torch, backbone.compute_dtype)
        self.optimizers = [
            (ConvMuon(kernels, peak_rate, WEIGHT_DECAY, dtype), 1.0),
            (torch.optim.AdamW(others, peak_rate, ADAM_BETAS, ADAM_EPSILON, WEIGHT_DECAY, fused=True), ADAM_RATIO),
        ]
        self.average = [weight.detach().clone() for weight in self.weights]
        self.head = None
        self.step, self.seconds = 0, 0.0

    def train_step(self, progress, generator):
        """One step; returns the relative errors of the three stages, 1 - cosine, and SphereFace-R's loss, as a tensor."""
        images, taught, labels = self.pool.batch(self.batch_size, generator)
        *maps, embeddings = taught or [None]
        forced = torch.rand((3, len(images), 1, 1, 1), generator=generator, device=images.device) < forcing(progress)
        mine, hints = self._forward(images, maps, forced)
        if taught:
            distance = 1 - F.cosine_similarity(mine, embeddings).mean()
            loss = hint_weight(progress) * sum(hints) + EMBEDDING_WEIGHT * distance
            head_weight = HEAD_WEIGHT if progress >= HEAD_START else 0.0
        else:
            distance, loss, head_weight = mine.new_zeros(()), mine.new_zeros(()), 1.0
        classification = self._classification(mine, labels) if head_weight else mine.new_zeros(())
        (loss + head_weight * classification).backward()
        rate = learning_rate(self.peak_rate, progress, self.step)
        for optimizer, ratio in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * ratio
            optimizer.step()
            optimizer.zero_grad()
        self._update_average()
        self.step += 1
        return torch.stack([*hints, distance, classification]).detach()

    def _classification(self, embeddings, labels):
        """SphereFace-R's mean loss of the images that show one known person."""
        if self.head is None:
            self.make_head()
        known = labels != UNLABELLED
        losses = self.head.loss(embeddings, labels.clamp(0).int())
        return (losses * known).sum() / known.sum().clamp(1)

    def _forward(self, images, maps, forced):
        """Embeddings and the stages' relative errors; where `forced`, the next stage sees the teacher's map."""
        x, hints = images, torch.zeros(3, device=images.device).unbind()
        for index, stage in enumerate(self.stages[:-1]):
            x = stage(x)
            if maps:
                mine, target = x.float(), maps[index].float()
                error = (mine - target).square().mean() / (target - target.mean((0, 1, 2))).square().mean()
                hints = (*hints[:index], error, *hints[index + 1 :])
                x = torch.where(forced[index], target, mine)
        return self.stages[-1](x), hints

    def _update_average(self):
        decay = min(EMA, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, [weight.detach() for weight in self.weights], 1 - decay)

    def make_head(self):
        """Makes SphereFace-R's head; its class weights begin as the teacher's mean embeddings, or at random."""
        self.head = ksf.heads.SphereFaceR(
            self.pool.faces.num_identities, margin=1.4, scale=HEAD_SCALE, loss_weight=HEAD_SCALE, dtype="float32"
        )
        self.head.build((None, self.backbone.embedding_dim))
        sums = self.pool.prototypes
        sums = torch.where(sums.norm(dim=1, keepdim=True) > 0, sums, torch.randn_like(sums))
        self.head.kernel.assign(F.normalize(sums, dim=1).T)
        # With a teacher the class weights start right and follow; alone, Adam's even steps would blur the rare classes.
        classes = [self.head.kernel.value]
        if self.pool.teacher:
            self.optimizers.append((torch.optim.Adam(classes), HEAD_RATE))
        else:
            self.optimizers.append((torch.optim.SGD(classes, momentum=0.9), HEAD_RATE_ALONE))

    def averaged_backbone(self):
        """A float32 copy of the student with the averaged weights."""
        copy = type(self.backbone).from_config({**self.backbone.get_config(), "dtype": "float32"})
        for variable, value in zip(copy.trainable_variables, self.average):
            variable.assign(value)
        return copy

    def save(self, path):
        """Writes all that training goes on from; an interrupted write leaves the old file."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "scales": self.pool.scales,
            "prototypes": self.pool.prototypes,
            "average": self.average,
            "weights": [weight.detach() for weight in self.weights],
            "head": self.head and self.head.kernel.value.detach(),
            "optimizers": [optimizer.state_dict() for optimizer, _ in self.optimizers],
        }
        torch.save(state, f"{path}.tmp")
        os.replace(f"{path}.tmp", path)

    def load(self, path):
        """Reads a file of `save`."""
        state = torch.load(path, weights_only=True, map_location=self.pool.device)
        self.step, self.seconds, self.average = state["step"], state["seconds"], state["average"]
        self.pool.scales, self.pool.prototypes = state["scales"], state["prototypes"]
        for weight, value in zip(self.weights, state["weights"], strict=True):
            weight.data.copy_(value)
        if state["head"] is not None:
            self.make_head()
            self.head.kernel.assign(state["head"])
        for (optimizer, _), values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)


def run(distiller, minutes, every, on_steps, on_minutes):
    """Trains until the budget is spent.

    Args:
        distiller: `Distiller`, new or loaded.
        minutes: Budget; schedules follow the share of it that is spent. Interruptions do not count.
        every: `(steps, minutes)` between two calls of the following.
        on_steps: Called with the mean of what `train_step` returned.
        on_minutes: Called without arguments, and once more at the end.
    """
    pool, spent_before, start = distiller.pool, distiller.seconds, time.time()
    generator = torch.Generator(pool.device).manual_seed(distiller.step)
    results, last = [], start
    while (progress := distiller.seconds / 60 / minutes) < 1:
        if distiller.step % (REFRESH_STEPS if pool.filled == pool.size else GROWTH_STEPS) == 0:
            pool.renew(distiller.step)
        results.append(distiller.train_step(progress, generator))
        distiller.seconds = spent_before + time.time() - start
        if distiller.step % every[0] == 0:
            on_steps(torch.stack(results).mean(0).tolist())
            results = []
        if time.time() - last > 60 * every[1]:
            last = time.time()
            on_minutes()
    on_minutes()
