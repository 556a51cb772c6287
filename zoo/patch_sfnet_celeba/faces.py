"""Training images: decoded once to a memory-mapped array, augmented and mixed afresh at every draw."""

import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

import keras_sphereface as ksf
from keras_sphereface.data.folders import list_folder

SIDE = 112
UNLABELLED = -1
# Augmentation is mild on the whole: the embedder's inputs are aligned faces.
ANGLE, LOG_SCALE, SHIFT = 0.14, 0.10, 0.07  # radians; natural logarithm; of half the image's side
STILL = 0.5, 0.3  # share of images that are only shifted, and how far of SHIFT
CONTRAST, BRIGHTNESS, TINT = 0.35, 0.30, 0.08  # natural logarithms
GRAY, SATURATION = 0.08, (0.4, 1.4)
BLEND, SWAP = 0.18, 0.14  # share of images that are two faces blended, and two halves put together
CUT = (36, 76)  # pixel where the second half begins
DEGRADED = 0.15  # share of images for each of: less resolution, noise, a hidden rectangle
LOW_SIDES = (36, 56, 76)
LOW_SIDE_SHARE = 0.4
NOISE = (2, 14)  # standard deviation, of 0..255
HIDDEN = (12, 48)


class Faces:
    """Images of labelled and of unlabelled faces.

    Args:
        labelled: Folder with one folder per identity.
        unlabelled: Folder of images, or `None`.
        cache: Folder for the decoded images (37 KB each).

    Attributes:
        images: uint8 `(n, 112, 112, 3)`, memory-mapped.
        labels: int64 `(n,)`, `UNLABELLED` where the identity is not known.
        num_identities: Number of identities.
    """

    def __init__(self, labelled, unlabelled, cache):
        listed = list_folder(labelled)
        paths, labels = [pathlib.Path(labelled) / name for name in listed.names], listed.labels.tolist()
        if unlabelled:
            extra = sorted(
                path for path in pathlib.Path(unlabelled).rglob("*") if path.suffix.lower() in (".jpg", ".png")
            )
            paths, labels = paths + extra, labels + [UNLABELLED] * len(extra)
        self.labels, self.num_identities = np.array(labels), len(listed.class_names)
        self.images = _decoded(paths, pathlib.Path(cache))

    def draw(self, count, generator):
        """Draws augmented images.

        Args:
            count: How many.
            generator: `numpy.random.Generator`.

        Returns:
            `(images, labels)`: uint8 tensor `(count, 3, 112, 112)` and int64 `(count,)`; the label is `UNLABELLED` where an
            image shows two faces.
        """
        chosen = np.sort(generator.integers(0, len(self.labels), count))
        x = torch.from_numpy(self.images[chosen]).permute(0, 3, 1, 2).float()
        x = recolor(warp(x, generator), generator)
        x, single = mix(x, generator)
        x = degrade(x, generator)
        labels = np.where(single, self.labels[chosen], UNLABELLED)
        return x.clamp(0, 255).round().to(torch.uint8), torch.from_numpy(labels)


def _decoded(paths, cache):
    cache.mkdir(parents=True, exist_ok=True)
    names, array = cache / "faces.json", cache / "faces.npy"
    listing = [str(path) for path in paths]
    if not (names.exists() and json.loads(names.read_text()) == listing):
        part = cache / "faces.part.npy"  # another run may have the old file mapped
        images = np.lib.format.open_memmap(part, "w+", np.uint8, (len(paths), SIDE, SIDE, 3))
        for index, path in enumerate(tqdm(paths, desc="decoding", unit="image", disable=None)):
            images[index] = ksf.data.read_image(path)
        images.flush()
        part.replace(array)
        names.write_text(json.dumps(listing))
    return np.load(array, mmap_mode="r")


def _uniform(generator, shape, low, high):
    return torch.from_numpy(generator.uniform(low, high, shape).astype(np.float32))


def warp(x, generator):
    """Mirrors, turns, scales and shifts images `(n, 3, height, width)`; what comes from outside is black."""
    n = len(x)
    flip = torch.from_numpy(np.where(generator.random(n) < 0.5, -1.0, 1.0).astype(np.float32))
    moving = torch.from_numpy((generator.random(n) < STILL[0]).astype(np.float32))
    angle = _uniform(generator, n, -ANGLE, ANGLE) * moving
    scale = torch.exp(_uniform(generator, n, -LOG_SCALE, LOG_SCALE) * moving)
    reach = STILL[1] + (1 - STILL[1]) * moving
    shifts = [_uniform(generator, n, -SHIFT, SHIFT) * reach for _ in range(2)]
    rows = [
        torch.stack([flip * angle.cos() / scale, -angle.sin() / scale, shifts[0]], 1),
        torch.stack([flip * angle.sin() / scale, angle.cos() / scale, shifts[1]], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), x.shape, align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def recolor(x, generator):
    """Changes contrast, brightness, tint and saturation."""
    n = len(x)
    mean = x.mean((1, 2, 3), keepdim=True)
    contrast = torch.exp(_uniform(generator, (n, 1, 1, 1), -CONTRAST, CONTRAST))
    brightness = torch.exp(_uniform(generator, (n, 1, 1, 1), -BRIGHTNESS, BRIGHTNESS))
    x = (x - mean) * contrast + mean * brightness
    x = x * torch.exp(_uniform(generator, (n, 3, 1, 1), -TINT, TINT))
    gray = x.mean(1, keepdim=True)
    saturation = _uniform(generator, (n, 1, 1, 1), *SATURATION)
    saturation = saturation * torch.from_numpy((generator.random((n, 1, 1, 1)) > GRAY).astype(np.float32))
    return gray + (x - gray) * saturation


def mix(x, generator):
    """Blends some images with another one, and puts others together of two halves.

    Returns:
        `(images, single)`: `single` is False where an image shows two faces.
    """
    n = len(x)
    partner, chance = generator.permutation(n), generator.random(n)
    mixed, single = x.clone(), np.ones(n, bool)
    blended = np.flatnonzero(chance < BLEND)
    share = _uniform(generator, (len(blended), 1, 1, 1), 0.2, 0.8)
    mixed[blended] = share * x[blended] + (1 - share) * x[partner[blended]]
    swapped = np.flatnonzero((chance >= BLEND) & (chance < BLEND + SWAP))
    for index in swapped:
        cut, other = int(generator.integers(*CUT)), partner[index]
        if generator.random() < 0.5:
            mixed[index, :, cut:] = x[other, :, cut:]
        else:
            mixed[index, :, :, cut:] = x[other, :, :, cut:]
    single[blended] = single[swapped] = False
    return mixed, single


def degrade(x, generator):
    """Takes resolution from some images, adds noise to some, hides a rectangle of some."""
    n = len(x)
    coarse = np.flatnonzero(generator.random(n) < DEGRADED)
    for side in LOW_SIDES:
        some = coarse[generator.random(len(coarse)) < LOW_SIDE_SHARE]
        if len(some):
            x[some] = F.interpolate(F.interpolate(x[some], (side, side), mode="area"), x.shape[2:], mode="bilinear")
    noisy = np.flatnonzero(generator.random(n) < DEGRADED)
    noise = generator.standard_normal((len(noisy), *x.shape[1:]), dtype=np.float32)
    x[noisy] += torch.from_numpy(noise * generator.uniform(*NOISE, (len(noisy), 1, 1, 1)).astype(np.float32))
    for index in np.flatnonzero(generator.random(n) < DEGRADED):
        height, width = generator.integers(*HIDDEN, 2)
        top, left = generator.integers(0, SIDE - height), generator.integers(0, SIDE - width)
        x[index, :, top : top + height, left : left + width] = float(generator.uniform(0, 255))
    return x
