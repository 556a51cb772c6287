"""Training images: decoded once to a memory-mapped array, augmented and mixed afresh at every draw."""

import json
import pathlib
from concurrent import futures

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
        device: PyTorch device that augments; an accelerator holds all images. Defaults to `"cpu"`.

    Attributes:
        images: uint8 tensor `(n, 112, 112, 3)`; memory-mapped on a CPU.
        labels: int64 tensor `(n,)`, `UNLABELLED` where the identity is not known.
        num_identities: Number of identities.
    """

    def __init__(self, labelled, unlabelled, cache, device="cpu"):
        listed = list_folder(labelled)
        paths, labels = [pathlib.Path(labelled) / name for name in listed.names], listed.labels.tolist()
        if unlabelled:
            extra = sorted(
                path for path in pathlib.Path(unlabelled).rglob("*") if path.suffix.lower() in (".jpg", ".png")
            )
            paths, labels = paths + extra, labels + [UNLABELLED] * len(extra)
        self.labels, self.num_identities = torch.tensor(labels, device=device), len(listed.class_names)
        self.images = torch.from_numpy(_decoded(paths, pathlib.Path(cache))).to(device)

    def draw(self, count, generator):
        """Draws augmented images.

        Args:
            count: How many.
            generator: `torch.Generator` of the device.

        Returns:
            `(images, labels)`: uint8 tensor `(count, 3, 112, 112)` and int64 `(count,)`; the label is `UNLABELLED` where an
            image shows two faces.
        """
        chosen = torch.randint(len(self.labels), (count,), generator=generator, device=generator.device).sort().values
        x = self.images[chosen].permute(0, 3, 1, 2).float()
        x = recolor(warp(x, generator), generator)
        x, single = mix(x, generator)
        x = degrade(x, generator)
        return x.clamp(0, 255).round().to(torch.uint8), torch.where(single, self.labels[chosen], UNLABELLED)


def _decoded(paths, cache):
    cache.mkdir(parents=True, exist_ok=True)
    names, array = cache / "faces.json", cache / "faces.npy"
    listing = [str(path) for path in paths]
    if not (names.exists() and json.loads(names.read_text()) == listing):
        part = cache / "faces.part.npy"  # another run may have the old file mapped
        images = np.lib.format.open_memmap(part, "w+", np.uint8, (len(paths), SIDE, SIDE, 3))
        with futures.ThreadPoolExecutor() as threads:
            decoded = tqdm(threads.map(ksf.data.read_image, paths), "decoding", len(paths), unit="image", disable=None)
            for index, image in enumerate(decoded):
                images[index] = image
        images.flush()
        part.replace(array)
        names.write_text(json.dumps(listing))
    return np.load(array, mmap_mode="c")  # PyTorch wants an array that could be written to


def _uniform(generator, shape, low, high):
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def _happens(generator, shape, share):
    """True in a random share of all places."""
    return _uniform(generator, shape, 0, 1) < share


def _chosen(generator, count, share):
    """Indices of a random share of `count` images."""
    return _happens(generator, count, share).nonzero()[:, 0]


def warp(x, generator):
    """Mirrors, turns, scales and shifts images `(n, 3, height, width)`; what comes from outside is black."""
    n = len(x)
    flip = 1 - 2 * _happens(generator, n, 0.5).float()
    moving = _happens(generator, n, STILL[0]).float()
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
    return gray + (x - gray) * saturation * (_uniform(generator, (n, 1, 1, 1), 0, 1) > GRAY)


def mix(x, generator):
    """Blends some images with another one, and puts others together of two halves.

    Returns:
        `(images, single)`: `single` is False where an image shows two faces.
    """
    n = len(x)
    partner = torch.randperm(n, generator=generator, device=x.device)
    chance = _uniform(generator, n, 0, 1)
    blended, swapped = chance < BLEND, (chance >= BLEND) & (chance < BLEND + SWAP)
    mixed = x.clone()
    some = blended.nonzero()[:, 0]
    share = _uniform(generator, (len(some), 1, 1, 1), 0.2, 0.8)
    mixed[some] = share * x[some] + (1 - share) * x[partner[some]]
    some = swapped.nonzero()[:, 0]
    cut = _uniform(generator, (len(some), 1), *CUT)
    after = torch.arange(SIDE, device=x.device) >= cut
    below = _happens(generator, (len(some), 1, 1, 1), 0.5)
    second = torch.where(below, after[:, None, :, None], after[:, None, None, :])
    mixed[some] = torch.where(second, x[partner[some]], x[some])
    return mixed, ~(blended | swapped)


def degrade(x, generator):
    """Takes resolution from some images, adds noise to some, hides a rectangle of some."""
    n = len(x)
    coarse = _chosen(generator, n, DEGRADED)
    for side in LOW_SIDES:
        some = coarse[_chosen(generator, len(coarse), LOW_SIDE_SHARE)]
        if len(some):
            x[some] = F.interpolate(F.interpolate(x[some], (side, side), mode="area"), x.shape[2:], mode="bilinear")
    noisy = _chosen(generator, n, DEGRADED)
    noise = torch.randn((len(noisy), *x.shape[1:]), generator=generator, device=x.device)
    x[noisy] += noise * _uniform(generator, (len(noisy), 1, 1, 1), *NOISE)
    hidden = _chosen(generator, n, DEGRADED)
    rows, columns = (_stretch(generator, len(hidden)) for _ in range(2))
    color = _uniform(generator, (len(hidden), 1, 1, 1), 0, 255)
    x[hidden] = torch.where(rows[:, None, :, None] & columns[:, None, None, :], color, x[hidden])
    return x


def _stretch(generator, count):
    """Which pixels of a side a hidden rectangle covers, `(count, SIDE)`."""
    length = _uniform(generator, (count, 1), *HIDDEN).floor()
    begin = (_uniform(generator, (count, 1), 0, 1) * (SIDE - length)).floor()
    pixels = torch.arange(SIDE, device=generator.device)
    return (pixels >= begin) & (pixels < begin + length)
