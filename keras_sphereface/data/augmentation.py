"""Augmentation of face crops: what may happen, drawn from (seed, position in the stream), applied by NumPy or TensorFlow."""

import dataclasses

import numpy as np

from keras_sphereface.arguments import is_number

# Random numbers of one image. Philox makes four 64-bit words a block; whole blocks keep images addressable.
DRAWS = 16
_FLIP, _SIDE, _LEFT, _TOP, _LOW, _LOW_SIDE, _GAIN, _CONTRAST, _SATURATION, _GREY = range(10)
_BLOCKS = DRAWS // 4

# Of each side, as a fraction of the image's: the sizes that distant faces have, of 112 pixels 14 to 78.
LOW_RESOLUTIONS = np.array([0.125, 0.16, 0.2, 0.25, 0.3, 0.37, 0.45, 0.57, 0.7])

# ITU-R BT.601, as JPEG.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image.

    Args:
        flip: Whether half of the images are mirrored. Defaults to `True`.
        crop: Largest part of each side that is cut away, in `[0, 0.5]`: a square window of side `1 - crop * u`, anywhere
            in the image, is resized back, bilinear. Defaults to 0.
        low_resolution: Probability that an image is reduced to 1/8 to 7/10 of its side and enlarged again. Defaults to 0.
        photometric: Strength in `[0, 1]`: gain, contrast and saturation are each multiplied by a factor from
            `1 - photometric` to `1 + photometric`. Defaults to 0.
        grayscale: Probability that an image loses its colours. Defaults to 0.

    Raises:
        ValueError: If a number is outside its range.

    Example:
    >>> batches = dataset.batches(128, augment=Augmentation(crop=0.1, photometric=0.2))
    """

    flip: bool = True
    crop: float = 0.0
    low_resolution: float = 0.0
    photometric: float = 0.0
    grayscale: float = 0.0

    def __post_init__(self):
        limits = {"crop": 0.5, "low_resolution": 1.0, "photometric": 1.0, "grayscale": 1.0}
        for name, limit in limits.items():
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value <= limit:
                raise ValueError(f"{name} must be a number between 0 and {limit}. Received: {name}={value!r}")
            object.__setattr__(self, name, float(value))  # frozen; whoever gave a float32 would draw in float32
        if not isinstance(self.flip, bool):
            raise ValueError(f"flip must be True or False. Received: flip={self.flip!r}")

    @property
    def resamples(self) -> bool:
        """Whether pixels get new values, beyond being mirrored."""
        return bool(self.crop or self.low_resolution or self.photometric or self.grayscale)


PRESETS = {
    "none": Augmentation(flip=False),
    "flip": Augmentation(),
    "strong": Augmentation(crop=0.2, low_resolution=0.2, photometric=0.2, grayscale=0.02),
}


def get(augment):
    """Returns the `Augmentation` that a user's argument means.

    Args:
        augment: `None` for none, the name of a preset (`"none"`, `"flip"`, `"strong"`), or an `Augmentation`.

    Raises:
        ValueError: If it is something else.
    """
    if augment is None:
        return PRESETS["none"]
    if isinstance(augment, Augmentation):
        return augment
    if isinstance(augment, str) and augment in PRESETS:
        return PRESETS[augment]
    raise ValueError(
        f"augment must be None, an Augmentation or one of {sorted(PRESETS)}. Received: augment={augment!r}"
    )


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What happens to each image of a batch; every array is float32 or bool of shape `(n,)`, `boxes` `(n, 4)`.

    `boxes` are (top, left, bottom, right) as fractions of the last row and column, mirrored images having left > right;
    `low_sides` index `LOW_RESOLUTIONS`, -1 for images that keep their resolution.
    """

    boxes: np.ndarray
    low_sides: np.ndarray
    gains: np.ndarray
    contrasts: np.ndarray
    saturations: np.ndarray

    @property
    def mirrored(self):
        """Which images are mirrored, bool of shape `(n,)`."""
        return self.boxes[:, 1] > self.boxes[:, 3]


def draw(augmentation, seed, first_position, count):
    """Draws what happens to images by their position in the stream of training images.

    The numbers come from a counter-based generator, so an image's depend on nothing but the seed and its position: not
    on the batch size, the step that the training began with, or the number of threads.

    Args:
        augmentation: An `Augmentation`.
        seed: A whole number, 0 or larger.
        first_position: Position of the first image in the stream.
        count: Number of images.

    Returns:
        `Parameters`.
    """
    uniform = _uniform(seed, first_position, count)
    side = 1.0 - augmentation.crop * uniform[_SIDE]
    left, top = uniform[_LEFT] * (1.0 - side), uniform[_TOP] * (1.0 - side)
    flip = augmentation.flip & (uniform[_FLIP] < 0.5)
    boxes = np.stack([top, np.where(flip, left + side, left), top + side, np.where(flip, left, left + side)], axis=1)
    low = uniform[_LOW] < augmentation.low_resolution
    low_sides = np.where(low, (uniform[_LOW_SIDE] * len(LOW_RESOLUTIONS)).astype(np.int32), -1)
    gains, contrasts, saturations = (
        1.0 + augmentation.photometric * (2.0 * uniform[row] - 1.0) for row in (_GAIN, _CONTRAST, _SATURATION)
    )
    saturations = np.where(uniform[_GREY] < augmentation.grayscale, 0.0, saturations)
    as_float = (np.asarray(values, np.float32) for values in (gains, contrasts, saturations))
    return Parameters(boxes.astype(np.float32), low_sides.astype(np.int32), *as_float)


def _uniform(seed, first_position, count):
    """Numbers in [0, 1), shape `(DRAWS, count)`."""
    key = np.random.SeedSequence([seed, 1]).generate_state(2, np.uint64)
    generator = np.random.Philox(key=key, counter=first_position * _BLOCKS)
    words = generator.random_raw(count * DRAWS).reshape(count, DRAWS).T
    return (words >> np.uint64(11)) * 2.0**-53


def resampling_matrix(side, low_side):
    """The linear map that reduces a row of `side` pixels to `low_side` by area means and enlarges it by interpolation.

    Args:
        side: Number of pixels.
        low_side: Number of pixels between, from 1 to `side`.

    Returns:
        A float32 array of shape `(side, side)` whose rows sum to 1.
    """
    edges = np.linspace(0, side, low_side + 1)
    pixel = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    down = np.maximum(overlap, 0) * (low_side / side)
    place = ((pixel + 0.5) * low_side / side - 0.5).clip(0, low_side - 1)
    lower = np.minimum(place.astype(int), max(low_side - 2, 0))
    weight = place - lower
    up = np.zeros((side, low_side))
    up[pixel, lower] += 1 - weight
    up[pixel, np.minimum(lower + 1, low_side - 1)] += weight
    return (up @ down).astype(np.float32)


def resampling_table(side):
    """`resampling_matrix` for every entry of `LOW_RESOLUTIONS`, shape `(k, side, side)`."""
    return np.stack([resampling_matrix(side, max(1, round(side * part))) for part in LOW_RESOLUTIONS])


def apply(augmentation, parameters, images):
    """Augments a batch by NumPy.

    Args:
        augmentation: The `Augmentation` that the parameters were drawn for; what it leaves out costs nothing.
        parameters: `Parameters` of the batch.
        images: uint8 array of shape `(n, h, w, 3)`.

    Returns:
        A uint8 array of the same shape.
    """
    if not augmentation.resamples:
        return _mirror(images, np.flatnonzero(parameters.mirrored))
    values = _crop(images, parameters.boxes)
    chosen = np.flatnonzero(parameters.low_sides >= 0)
    if chosen.size:
        rows = resampling_table(images.shape[1])[parameters.low_sides[chosen]]
        columns = resampling_table(images.shape[2])[parameters.low_sides[chosen]]
        values[chosen] = np.einsum("nij,njkc,nlk->nilc", rows, values[chosen], columns, optimize=True)
    if augmentation.photometric or augmentation.grayscale:
        values = _photometric(values, parameters)
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _mirror(images, chosen):
    if not chosen.size:
        return images
    images, some = images.copy(), images[chosen]
    for channel in range(images.shape[-1]):  # six times as quick as three bytes at a time
        images[chosen, ..., channel] = some[:, :, ::-1, channel]
    return images


def _crop(images, boxes):
    """Bilinear, on the grid that includes both ends of the box, as `tf.image.crop_and_resize`."""
    count, height, width, _ = images.shape
    top, left, bottom, right = boxes.T[:, :, None]
    picture = np.arange(count)[:, None]
    lower, weight = _grid(top, bottom, height)
    values = images[picture, lower] * (1 - weight)[..., None, None]
    values += images[picture, np.minimum(lower + 1, height - 1)] * weight[..., None, None]
    lower, weight = _grid(left, right, width)
    values = values.transpose(0, 2, 1, 3)
    result = values[picture, lower] * (1 - weight)[..., None, None]
    result += values[picture, np.minimum(lower + 1, width - 1)] * weight[..., None, None]
    return np.ascontiguousarray(result.transpose(0, 2, 1, 3))


def _grid(start, end, size):
    place = (
        start * (size - 1) + np.arange(size, dtype=np.float32) * ((end - start) * (size - 1) / max(size - 1, 1))
    ).clip(0, size - 1)
    lower = np.floor(place).astype(np.int64)
    return lower, (place - lower).astype(np.float32)


def _photometric(values, parameters):
    gain, contrast, saturation = (
        array[:, None, None, None] for array in (parameters.gains, parameters.contrasts, parameters.saturations)
    )
    values = values * gain
    mean = (values @ LUMA).mean(axis=(1, 2), dtype=np.float64).astype(np.float32)[:, None, None, None]
    values = mean + contrast * (values - mean)
    grey = (values @ LUMA)[..., None]
    return grey + saturation * (values - grey)
