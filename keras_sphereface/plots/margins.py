r"""The angular functions of margins as a picture: psi, eta and Delta = eta - psi over the angle."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from keras_sphereface import angular, margins
from keras_sphereface.errors import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Sizes at which the margins are shown side by side: the heads' defaults.
MARGIN_VALUES = {
    "arcface": 0.5,
    "cosface": 0.35,
    "normface": 0.0,
    "sphereface": 1.5,
    "sphereface_r_v1": 1.4,
    "sphereface_r_v2": 1.4,
}
ANGLES = 361  # One every half degree.
PANELS = (
    ("psi", r"$\psi(\theta)$, the target's logit"),
    ("eta", r"$\eta(\theta)$, the other classes'"),
    ("delta", r"$\Delta(\theta) = \eta(\theta) - \psi(\theta)$"),
)


def parse_margin(text: str) -> tuple[margins.Margin, float]:
    """Reads `"name=value"`, or `"name"` with the value of `MARGIN_VALUES`.

    Returns:
        `(margin, value)`: the `Margin` and a float.

    Raises:
        ValueError: If no margin has the name, the value is not one of its, or it has none here and none is given.

    Example:
    >>> margin, value = parse_margin("cosface=0.2")
    >>> margin.name, value
    ('cosface', 0.2)
    """
    name, given, value = text.partition("=")
    margin = margins.get(name)
    if not given and name not in MARGIN_VALUES:
        raise ValueError(f"The margin {name!r} has no usual value: expected {name}=VALUE. Received: {text!r}")
    try:
        number = float(value) if given else MARGIN_VALUES[name]
    except ValueError:
        raise ValueError(f"Expected NAME=VALUE with a number as the value. Received: {text!r}") from None
    return margin, margin.validate(number)


def angular_functions(margin: str | margins.Margin, value: float, num_angles: int = ANGLES) -> dict[str, np.ndarray]:
    r"""Evaluates a margin's functions at evenly spaced angles.

    Args:
        margin: A `Margin`, or the name of a registered one.
        value: The margin's size.
        num_angles: Number of angles from 0 to pi. Defaults to one every half degree.

    Returns:
        A dict of `"theta"` (radians), `"psi"`, `"eta"` and `"delta"`, each `(num_angles,)`.

    Reference: arXiv 2109.05565, section 3.2, where Delta is the characteristic function of a margin.
    """
    margin = margins.get(margin)
    theta = np.linspace(0.0, math.pi, num_angles)
    psi, eta = (
        ops.convert_to_numpy((function or angular.cosine)(ops.convert_to_tensor(theta, "float32"), value))
        for function in (margin.psi, margin.eta)
    )
    return {"theta": theta, "psi": psi, "eta": eta, "delta": eta - psi}


def margin_figure(chosen: Sequence[str] | None = None) -> "Figure":
    """Draws psi, eta and Delta of margins side by side, over the angle in degrees.

    Args:
        chosen: Margins as texts, `"arcface"` or `"arcface=0.3"`; names of margins that you registered are among them.
            Defaults to `None`: every margin of the package.

    Returns:
        A `matplotlib.figure.Figure` with three axes.

    Raises:
        ValueError: As `parse_margin`.
        MissingDependencyError: If matplotlib is not installed.

    Example:
    >>> ksf.margins.register("shift", psi=lambda theta, m: keras.ops.cos(theta) - m, neutral=0.0)  # doctest: +SKIP
    >>> ksf.plots.margin_figure(["sphereface_r_v2", "shift=0.2"]).savefig("margins.png")  # doctest: +SKIP
    """
    figure = require("matplotlib.figure", "plots").Figure(figsize=(12, 4), layout="constrained")
    axes = dict(zip((name for name, _ in PANELS), figure.subplots(1, len(PANELS))))
    for text in MARGIN_VALUES if chosen is None else chosen:
        margin, value = parse_margin(text)
        functions = angular_functions(margin, value)
        label = margin.name if value == margin.neutral else f"{margin.name}, m = {value:g}"
        # A plain cosine is hidden under others: dashed and on top it is seen.
        style = {"linestyle": "--", "color": "black", "zorder": 3} if value == margin.neutral else {}
        for name, panel in axes.items():
            panel.plot(np.degrees(functions["theta"]), functions[name], label=label, **style)
    for name, title in PANELS:
        axes[name].set_title(title)
        axes[name].set_xlabel(r"$\theta$ in degrees")
        axes[name].set_xticks(range(0, 181, 45))
        axes[name].grid(alpha=0.3)
    axes["psi"].legend(fontsize=8)
    return figure
