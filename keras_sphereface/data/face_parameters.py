"""What a procedural face looks like: who it is, and how the picture was taken.

Every number is a hash of (seed, who, which picture).
"""

import numpy as np

# Lengths are fractions of the image's side; the eyes of an upright face lie where aligned face crops have them.
IDENTITY = {
    "face_width": (0.335, 0.43),
    "face_top": (0.50, 0.62),
    "chin": (0.44, 0.53),
    "jaw_taper": (0.05, 0.38),
    "jaw_square": (0.0, 0.6),
    "ear": (0.035, 0.07),
    "eye_distance": (0.135, 0.185),
    "eye_height": (0.43, 0.485),
    "eye_width": (0.052, 0.078),
    "eye_aspect": (0.36, 0.62),
    "eye_tilt": (-0.28, 0.22),
    "iris": (0.022, 0.032),
    "iris_colour": (0.0, 1.0),
    "brow_height": (0.065, 0.115),
    "brow_width": (0.07, 0.105),
    "brow_thickness": (0.007, 0.021),
    "brow_arch": (0.0, 0.04),
    "brow_angle": (-0.18, 0.22),
    "nose_tip": (0.61, 0.69),
    "nose_width": (0.045, 0.09),
    "nose_bridge": (0.015, 0.035),
    "nose_depth": (0.4, 1.0),
    "mouth_height": (0.775, 0.845),
    "mouth_width": (0.095, 0.16),
    "upper_lip": (0.010, 0.030),
    "lower_lip": (0.014, 0.040),
    "lip_red": (0.0, 1.0),
    "hairline": (0.06, 0.27),
    "hairline_curve": (-1.6, 1.8),
    "hair_part": (-0.28, 0.28),
    "hair_volume": (1.04, 1.24),
    "hair_length": (0.0, 1.0),
    "hair_colour": (0.0, 1.0),
    "hair_warmth": (0.0, 1.0),
    "skin_tone": (0.0, 1.0),
    "skin_warmth": (0.0, 1.0),
    "blush": (0.0, 0.35),
    "beard": (-1.0, 0.6),
    "mole_x": (-0.22, 0.22),
    "mole_y": (0.55, 0.92),
    "mole": (-0.012, 0.012),
}

NUISANCE = {
    "roll": (-0.13, 0.13),
    "scale": (0.94, 1.07),
    "shift_x": (-0.035, 0.035),
    "shift_y": (-0.035, 0.035),
    "yaw": (-0.5, 0.5),
    "pitch": (-0.35, 0.35),
    "light_angle": (0.0, 2.0 * np.pi),
    "light_strength": (0.0, 0.38),
    "exposure": (0.7, 1.2),
    "warm": (-0.12, 0.12),
    "smile": (-0.012, 0.045),
    "mouth_open": (-0.05, 0.05),
    "eye_open": (0.62, 1.1),
    "gaze": (-0.012, 0.012),
    "brow_raise": (-0.012, 0.016),
    "glasses": (0.0, 1.0),
    "patch": (0.0, 1.0),
    "patch_x": (-0.4, 0.4),
    "patch_y": (0.1, 0.95),
    "patch_size": (0.06, 0.16),
    "patch_grey": (0.0, 255.0),
    "blur": (0.0, 1.0),
    "noise": (0.0, 7.0),
    "back_red": (20.0, 235.0),
    "back_green": (20.0, 235.0),
    "back_blue": (20.0, 235.0),
    "back_slope": (-50.0, 50.0),
}

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_STREAMS = {"identity": 1, "nuisance": 2, "noise": 3}


def hashed(*words):
    """Hashes whole numbers to uint64 by splitmix64's finisher, one round a word; broadcasts.

    Reference: Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.
    """
    state = np.uint64(0)
    with np.errstate(over="ignore"):
        for word in words:
            state = (state ^ np.asarray(word, np.uint64)) + _GOLDEN
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def uniform(*words):
    """Hashes whole numbers to `[0, 1)`, float32."""
    return ((hashed(*words) >> np.uint64(40)) * 2.0**-24).astype(np.float32)


def draw(seed, identities, indices):
    """Draws the parameters of faces.

    Args:
        seed: A whole number, 0 or larger.
        identities: Whole numbers, shape `(n,)`: who.
        indices: Whole numbers, shape `(n,)`: which picture.

    Returns:
        A dict from the names in `IDENTITY` and `NUISANCE` to float32 arrays of shape `(n, 1, 1)`, ready to broadcast
        over pixels.
    """
    identities, indices = np.asarray(identities, np.uint64)[:, None], np.asarray(indices, np.uint64)[:, None]
    who = _scaled(IDENTITY, uniform(seed, _STREAMS["identity"], identities, np.arange(len(IDENTITY))))
    how = _scaled(NUISANCE, uniform(seed, _STREAMS["nuisance"], identities, indices, np.arange(len(NUISANCE))))
    return who | how


def _scaled(ranges, numbers):
    low, high = np.array(list(ranges.values()), np.float32).T
    return dict(zip(ranges, (low + (high - low) * numbers).T[:, :, None, None]))


def noise(seed, identities, indices, size):
    """Sensor noise of unit variance, about normal, float32 of shape `(n, size, size)`."""
    keys = hashed(seed, _STREAMS["noise"], np.asarray(identities, np.uint64), np.asarray(indices, np.uint64))
    words = hashed(keys[:, None], np.arange(size * size // 4 + 1))
    octets = words.view(np.uint8).reshape(len(keys), -1, 8)
    # The sum of two bytes is triangular; its standard deviation is sqrt(2 (256^2 - 1) / 12).
    pairs = octets[..., 0::2].astype(np.float32) + octets[..., 1::2] - 255.0
    return pairs.reshape(len(keys), -1)[:, : size * size].reshape(-1, size, size) / 104.5
