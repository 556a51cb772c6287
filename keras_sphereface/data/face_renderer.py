"""Draws procedural faces, many at once, by painting soft shapes over each other."""

import numpy as np

from keras_sphereface.data.face_parameters import draw, noise

# Colours are RGB, 0..255, between the two ends of a parameter in [0, 1].
_SKIN = ((92, 58, 42), (176, 124, 92), (238, 198, 170))
_SKIN_WARMTH = (10, -2, -14)
_HAIR = ((24, 18, 16), (86, 54, 34), (196, 156, 96))
_HAIR_WARMTH = (40, 4, -10)
_IRIS = ((58, 34, 20), (92, 104, 60), (92, 138, 178))
_LIPS = ((168, 104, 96), (176, 44, 58))
_EYE_WHITE = (236, 232, 228)
_TEETH = (240, 236, 226)
_DARK = (34, 18, 18)

_BLOCK = 4  # pictures painted at a time: they should fit the processor's cache
_GLASSES, _PATCH, _BLUR = 0.85, 0.92, 0.7  # a picture has each where its parameter is above


def render(seed, identities, indices, size=112):
    """Draws faces: a pure function of its arguments.

    Args:
        seed: A whole number, 0 or larger: a world of people.
        identities: Whole numbers, shape `(n,)`: who. Any number is somebody.
        indices: Whole numbers, shape `(n,)`: which picture of them.
        size: Side of the images in pixels. Defaults to 112.

    Returns:
        A uint8 array of shape `(n, size, size, 3)`, RGB.
    """
    identities, indices = np.asarray(identities), np.asarray(indices)
    images = np.empty((len(identities), size, size, 3), np.uint8)
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        images[block] = _render(seed, identities[block], indices[block], size)
    return images


def _render(seed, identities, indices, size):
    p = draw(seed, identities, indices)
    canvas = _Canvas(p, size)
    _paint_background(canvas, p)
    _paint_head(canvas, p)
    _paint_hair(canvas, p)
    _paint_nose(canvas, p)
    _paint_mouth(canvas, p)
    _paint_eyes(canvas, p)
    _paint_occlusions(canvas, p)
    image = _expose(canvas, p, size)
    image = _blur(image, p["blur"])
    image += (noise(seed, identities, indices, size) * p["noise"])[:, None]
    return np.rint(image).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


class _Canvas:
    """The picture (n, 3, size, size), and for each pixel its place (u, v) on the face: u from the middle, v from the top."""

    def __init__(self, p, size):
        self.size = size
        middle = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
        x, y = middle[None, None, :] - p["shift_x"], middle[None, :, None] - p["shift_y"]
        cosine, sine = np.cos(p["roll"]) / p["scale"], np.sin(p["roll"]) / p["scale"]
        self.u, self.v = cosine * x + sine * y, cosine * y - sine * x + 0.5
        # What is nearer to the camera moves further when the head turns.
        depth = np.maximum(0, 1 - (self.u / p["face_width"]) ** 2) * np.maximum(0, 1 - ((self.v - 0.55) / 0.6) ** 2)
        self.u_outline = self.u
        self.u = self.u - 0.075 * p["yaw"] * depth
        self.v = self.v - 0.05 * p["pitch"] * depth
        self.image = np.empty((len(self.u), 3, size, size), np.float32)

    def window(self, top, bottom, left=0.0, right=1.0):
        """The part of the picture where a feature can be, which saves painting the rest: `(part, u, v)`."""
        rows, columns = (
            slice(int(start * self.size), int(np.ceil(end * self.size)))
            for start, end in ((top, bottom), (left, right))
        )
        return (rows, columns), self.u[:, rows, columns], self.v[:, rows, columns]

    def soft(self, distance, width=1.0):
        """From 1 inside to 0 outside, over `width` pixels about a distance of 0."""
        return (0.5 - distance * (self.size / width)).clip(0, 1)

    def paint(self, colour, mask, window=(slice(None), slice(None))):
        """Lays a colour, `(3,)` or `(n, 3, 1, 1)`, over the picture."""
        colour = np.asarray(colour, np.float32)
        if colour.ndim == 1:
            colour = colour[:, None, None]
        part = self.image[:, :, window[0], window[1]]
        part += mask[:, None] * (colour - part)


def _mix(stops, amount):
    """Colours `(n, 3, 1, 1)` on the line through evenly spaced colours."""
    stops = np.asarray(stops, np.float32)
    place = amount[:, 0, 0] * (len(stops) - 1)
    lower = np.minimum(place.astype(int), len(stops) - 2)
    weight = (place - lower)[:, None]
    return (stops[lower] * (1 - weight) + stops[lower + 1] * weight)[..., None, None]


def _skin(p):
    warmth = np.asarray(_SKIN_WARMTH, np.float32)[:, None, None] * (p["skin_warmth"][:, None] - 0.5) * 2
    return _mix(_SKIN, p["skin_tone"]) + warmth


def _hair(p):
    warmth = np.asarray(_HAIR_WARMTH, np.float32)[:, None, None] * p["hair_warmth"][:, None]
    return _mix(_HAIR, p["hair_colour"]) + warmth


def _radius2(u, v, p):
    """Below 1 inside the outline of the head; an ellipse whose lower half tapers and squares off to a jaw."""
    below = np.maximum(0, v - 0.52) / p["chin"]
    above = np.maximum(0, 0.52 - v) / p["face_top"]
    across = u / (p["face_width"] * (1 - p["jaw_taper"] * below * below).clip(0.3, 1))
    below2 = below * below
    return across * across + above * above + below2 + p["jaw_square"] * below2 * (below2 - 1)


def _paint_background(canvas, p):
    colour = np.stack([p["back_red"], p["back_green"], p["back_blue"]], axis=1)
    canvas.image[:] = colour + (p["back_slope"] * canvas.u_outline * 2)[:, None]


def _paint_head(canvas, p):
    skin, u, v = _skin(p), canvas.u_outline, canvas.v
    # Long hair hangs behind the face; short hair shows nothing here.
    end = 0.45 + 0.75 * p["hair_length"]
    behind = np.maximum(np.abs(u) - p["face_width"] * p["hair_volume"], v - end)
    crown = (np.sqrt(_radius2(u, np.minimum(v, 0.52), p)) - p["hair_volume"]) * 0.4
    canvas.paint(_hair(p) * 0.75, canvas.soft(np.where(v < 0.5, crown, behind), 3.0))
    canvas.paint(skin * 0.72, canvas.soft(np.maximum(np.abs(u) - 0.6 * p["face_width"], 0.8 - v), 2.0))
    ear = np.sqrt((np.abs(u) - p["face_width"]) ** 2 * 1.8 + (v - 0.53) ** 2 * 0.5) - p["ear"]
    canvas.paint(skin * 0.85, canvas.soft(ear, 1.5))
    radius2 = _radius2(u, v, p)
    face = canvas.soft((np.sqrt(radius2) - 1) * 0.4, 1.5)
    canvas.face = face
    canvas.paint(skin, face)
    canvas.image *= (1 - 0.22 * face * np.minimum(radius2, 1) ** 2)[:, None]
    away = (np.abs(canvas.u) - 0.2) ** 2 + (canvas.v - 0.66) ** 2
    cheek = np.maximum(0, 1 - away * 40) ** 2 * p["blush"] * face
    canvas.paint((206, 92, 86), cheek)
    beard = np.maximum(0, p["beard"]) * face
    beard = beard * ((canvas.v - 0.68 - 0.25 * (0.3 - np.abs(canvas.u))) * 9).clip(0, 1)
    canvas.paint(_hair(p) * 0.8, beard)
    mole = np.sqrt((canvas.u - p["mole_x"]) ** 2 + (canvas.v - p["mole_y"]) ** 2) - np.maximum(p["mole"], 0)
    canvas.paint(skin * 0.4, canvas.soft(mole, 1.5) * (p["mole"] > 0.004))


def _paint_hair(canvas, p):
    u, v = canvas.u_outline, canvas.v
    line = p["hairline"] + p["hairline_curve"] * u * u + p["hair_part"] * u
    outline = (np.sqrt(_radius2(u, v, p)) - p["hair_volume"]) * 0.4
    top = canvas.soft(np.maximum(v - line, outline), 3.0)
    streaks = 1 + 0.1 * np.sin(u * 95 + 8 * np.sin(v * 9 + p["hair_part"] * 20))
    canvas.paint(_hair(p), top)
    canvas.image *= 1 + (top * (streaks - 1))[:, None]


def _paint_eyes(canvas, p):
    part, u, v = canvas.window(0.18, 0.7)
    side = np.abs(u) - p["eye_distance"]
    height = p["eye_width"] * p["eye_aspect"] * p["eye_open"]
    ex = side / p["eye_width"]
    lift = v - p["eye_height"] + p["eye_tilt"] * side
    lid = 1 - ex * ex
    canvas.paint(_skin(p) * 0.7, 0.5 * np.exp(-(ex * ex) * 0.9 - ((lift + 0.6 * height) / (1.5 * height)) ** 2), part)
    opening = canvas.soft(np.maximum(-lift - height * lid, lift - 0.75 * height * lid), 1.2)
    canvas.paint(_EYE_WHITE, opening, part)
    iris = np.sqrt((side - np.sign(u) * p["gaze"]) ** 2 + (lift + 0.1 * height) ** 2)
    canvas.paint(_mix(_IRIS, p["iris_colour"]), opening * canvas.soft(iris - p["iris"]), part)
    canvas.paint((12, 10, 10), opening * canvas.soft(iris - 0.42 * p["iris"]), part)
    glint = np.sqrt((u - np.sign(u) * p["eye_distance"] + 0.008) ** 2 + (lift + 0.3 * height) ** 2)
    canvas.paint((250, 250, 250), opening * canvas.soft(glint - 0.005), part)
    lash = np.maximum(np.abs(lift + height * lid) - 0.007, np.abs(side) - 1.1 * p["eye_width"])
    canvas.paint(_DARK, 0.85 * canvas.soft(lash), part)
    bx = side / p["brow_width"]
    brow_line = (
        p["eye_height"] - p["brow_height"] - p["brow_raise"] + p["brow_arch"] * (bx * bx - 0.5) - p["brow_angle"] * side
    )
    brow = np.maximum(np.abs(v - brow_line) - p["brow_thickness"] * (1 - 0.45 * bx), np.abs(side) - p["brow_width"])
    canvas.paint(_hair(p) * 0.62, 0.9 * canvas.soft(brow, 1.8), part)


def _paint_nose(canvas, p):
    part, u, v = canvas.window(0.35, 0.82, 0.25, 0.75)
    start = p["eye_height"] + 0.02
    along = ((v - start) / (p["nose_tip"] - start)).clip(0, 1)
    inside = ((v > start) & (v < p["nose_tip"] + 0.02)).astype(np.float32)
    half = p["nose_bridge"] + (p["nose_width"] - p["nose_bridge"]) * along**2
    skin, depth = _skin(p), p["nose_depth"]
    flank = np.exp(-(((np.abs(u) - half) / 0.014) ** 2)) * inside * along
    canvas.paint(skin * 0.62, 0.55 * depth * flank, part)
    canvas.paint(np.minimum(skin * 1.18, 250), 0.55 * depth * np.exp(-((u / 0.016) ** 2)) * inside, part)
    under = np.exp(-(((v - p["nose_tip"] - 0.012) / 0.014) ** 2) - (u / p["nose_width"]) ** 4)
    canvas.paint(skin * 0.55, 0.6 * depth * under, part)
    nostril = np.sqrt((np.abs(u) - 0.5 * p["nose_width"]) ** 2 + 3 * (v - p["nose_tip"] - 0.004) ** 2) - 0.009
    canvas.paint(skin * 0.25, 0.9 * canvas.soft(nostril, 1.5), part)


def _paint_mouth(canvas, p):
    part, u, v = canvas.window(0.6, 1.0, 0.15, 0.85)
    mx = u / (p["mouth_width"] * (1 + 4 * np.maximum(p["smile"], 0)))
    bow = np.maximum(0, 1 - mx * mx)
    line = p["mouth_height"] + p["smile"] * (0.4 - mx * mx)
    gap = np.maximum(0, p["mouth_open"]) * bow
    upper = p["upper_lip"] * bow * (1 - 0.3 * np.exp(-((mx * 5) ** 2)))
    lower = p["lower_lip"] * np.sqrt(bow)
    lips = np.maximum(line - 0.5 * gap - upper - v, v - line - 0.5 * gap - lower)
    lips = canvas.soft(np.maximum(lips, (np.abs(mx) - 1) * 0.1), 1.2)
    red = _mix(_LIPS, p["lip_red"])
    colour = 0.6 * red + 0.4 * _skin(p) * 0.8
    canvas.paint(colour, lips, part)
    canvas.paint(
        _DARK, 0.85 * canvas.soft(np.maximum(np.abs(v - line) - 0.5 * gap - 0.005, (np.abs(mx) - 1) * 0.1)), part
    )
    teeth = np.maximum(np.abs(v - line + 0.12 * gap) - 0.32 * gap, (np.abs(mx) - 0.8) * 0.1)
    canvas.paint(_TEETH, canvas.soft(teeth) * (p["mouth_open"] > 0.012), part)


def _paint_occlusions(canvas, p):
    part, u, v = canvas.window(0.3, 0.65)
    lens = np.sqrt((np.abs(u) - p["eye_distance"]) ** 2 + 1.5 * (v - p["eye_height"] - 0.01) ** 2) - 0.105
    bridge = np.maximum(np.abs(v - p["eye_height"]) - 0.002, np.abs(u) - p["eye_distance"] + 0.105)
    frame = np.minimum(np.abs(lens) - 0.004, bridge)
    canvas.paint((30, 28, 30), canvas.soft(frame, 1.5) * (p["glasses"] > _GLASSES), part)
    patch = np.maximum(np.abs(canvas.u_outline - p["patch_x"]), np.abs(canvas.v - p["patch_y"])) - p["patch_size"]
    canvas.paint(np.repeat(p["patch_grey"][:, None], 3, axis=1), canvas.soft(patch) * (p["patch"] > _PATCH))


def _expose(canvas, p, size):
    """Light from one side, exposure and white balance."""
    light = np.cos(p["light_angle"]) * canvas.u_outline / 0.4 + np.sin(p["light_angle"]) * (canvas.v - 0.5) / 0.5
    image = canvas.image * (p["exposure"] * (1 + p["light_strength"] * light.clip(-1.3, 1.3)))[:, None]
    image[:, 0] *= 1 + p["warm"]
    image[:, 2] *= 1 - p["warm"]
    return image


def _blur(image, amount):
    """A binomial filter over neighbours, of up to 2 pixels' reach, on the pictures that are out of focus."""
    chosen = np.flatnonzero(amount[:, 0, 0] > _BLUR)
    if chosen.size == 0:
        return image
    weight = (amount[chosen] - _BLUR)[:, None] / (1 - _BLUR) * 0.5
    part = image[chosen]
    for _ in range(2):
        for axis in (2, 3):
            inner = np.swapaxes(part, axis, 3)
            around = 0.5 * (inner[..., 2:] + inner[..., :-2])
            inner[..., 1:-1] += weight * (around - inner[..., 1:-1])
    image[chosen] = part
    return image
