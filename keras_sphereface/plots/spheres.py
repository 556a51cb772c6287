"""Embeddings of few dimensions as points: in the plane or in space, as they are, and with the sphere they are meant for."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_sphereface.arguments import positive_number
from keras_sphereface.errors import require
from keras_sphereface.hints import Path
from keras_sphereface.plots.digits import NUM_CLASSES, DigitsRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d import Axes3D

COLUMNS = 4
ANGLE_BINS = 72  # Of 5 degrees each.
RIM = 1.08  # Where the histogram of directions begins outside of the unit circle.
REACH = 1.55  # Half the width of the picture.
FRAMES_PER_SECOND = 10


def embedding_figure(runs: Sequence[DigitsRun], frame: int = -1) -> "Figure":
    """Draws the embeddings of trainings side by side: the field's well-known picture of what a margin does.

    Points are the held-out digits, coloured by class; lines are the class weights' directions. In two dimensions lengths
    are divided by the longest, which puts all points inside the unit circle, and a histogram of the directions stands
    around it: the more compact a class, the sharper its peak. In three dimensions points are directions on the sphere.

    Args:
        runs: `DigitsRun`s, all in two or all in three dimensions.
        frame: Which epoch to draw, 0 for the state before training. Defaults to `-1`, the last.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        MissingDependencyError: If matplotlib is not installed.

    Example:
    >>> runs = [keras_sphereface.plots.train_on_digits(head, epochs=20) for head in ("softmax", "sphereface_r_v2")]
    >>> keras_sphereface.plots.embedding_figure(runs).savefig("digits.png")

    Reference: the pictures of embeddings on the sphere in arXiv 1704.08063 and arXiv 2109.05565.
    """
    rows = -(-len(runs) // COLUMNS)
    columns = min(COLUMNS, len(runs))
    figure = require("matplotlib.figure", "plots").Figure(figsize=(2.8 * columns, 3.2 * rows), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)
    for position, run in enumerate(runs):
        solid = run.embeddings.shape[-1] == 3
        axes = figure.add_subplot(rows, columns, position + 1, projection="3d" if solid else None)
        (draw_space if solid else draw_plane)(axes, run, frame)
        axes.set_axis_off()
        axes.set_title(
            f"{run.label}\n{100 * run.accuracy[frame]:.1f} % right, {run.angle_to_class_mean(frame):.1f}° spread",
            fontsize=9,
            parse_math=False,
        )
    return figure


def draw_plane(axes: "Axes", run: DigitsRun, frame: int) -> None:
    """Draws a two-dimensional embedding with the unit circle and a histogram of directions around it."""
    points, centers = _scaled(run, frame)
    circle = np.linspace(0, 2 * math.pi, 181)
    axes.plot(np.cos(circle), np.sin(circle), color="gray", linewidth=0.6)
    bins = np.linspace(-math.pi, math.pi, ANGLE_BINS + 1)
    for digit in range(NUM_CLASSES):
        own = points[run.labels == digit]
        color = f"C{digit}"
        axes.plot([0, centers[0, digit]], [0, centers[1, digit]], color=color, linewidth=0.8)
        axes.scatter(*own.T, s=4, color=color, linewidths=0)
        heights, _ = np.histogram(np.arctan2(own[:, 1], own[:, 0]), bins)
        _draw_rim(axes, (bins[:-1] + bins[1:]) / 2, heights / len(own), color)
    axes.set_aspect("equal")
    axes.set_xlim(-REACH, REACH)
    axes.set_ylim(-REACH, REACH)


def draw_space(axes: "Axes3D", run: DigitsRun, frame: int) -> None:
    """Draws a three-dimensional embedding's directions on the unit sphere, with the class weights."""
    points, centers = _scaled(run, frame)
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    along, around = np.mgrid[0 : math.pi : 13j, 0 : 2 * math.pi : 25j]
    sphere = np.sin(along) * np.cos(around), np.sin(along) * np.sin(around), np.cos(along)
    axes.plot_wireframe(*sphere, color="gray", linewidth=0.3, alpha=0.4)
    for digit in range(NUM_CLASSES):
        color = f"C{digit}"
        axes.plot(*np.stack([np.zeros(3), centers[:, digit]], axis=1), color=color, linewidth=0.8)
        axes.scatter(*points[run.labels == digit].T, s=4, color=color, linewidths=0)
    axes.set_box_aspect((1, 1, 1), zoom=1.5)


def save_animation(
    runs: Sequence[DigitsRun], path: Path, frames_per_second: float = FRAMES_PER_SECOND, dpi: int = 80
) -> None:
    """Writes the training as a GIF, a frame per epoch.

    Args:
        runs: `DigitsRun`s with the same number of epochs.
        path: File to write, `*.gif`.
        frames_per_second: Speed. Defaults to `10`.
        dpi: Resolution. Defaults to `80`.

    Raises:
        ValueError: If the path does not end in `.gif`, there is no run, or the speed is not above 0.
        MissingDependencyError: If matplotlib or Pillow is not installed.

    Example:
    >>> runs = [keras_sphereface.plots.train_on_digits(head, dimensions=3, epochs=20) for head in ("softmax", "cosface")]
    >>> keras_sphereface.plots.save_animation(runs, "digits.gif")
    """
    if not runs:
        raise ValueError("Expected at least one run to draw. Received: runs=[]")
    if not str(path).lower().endswith(".gif"):
        raise ValueError(f"An animation is written as a GIF. Received: path={str(path)!r}")
    positive_number("frames_per_second", frames_per_second)
    image = require("PIL.Image", "plots")
    pictures = []
    for frame in range(min(len(run.embeddings) for run in runs)):
        canvas = require("matplotlib.backends.backend_agg", "plots").FigureCanvasAgg(embedding_figure(runs, frame))
        canvas.figure.set_dpi(dpi)
        canvas.draw()
        pictures.append(image.fromarray(np.asarray(canvas.buffer_rgba())).convert("P", palette=image.Palette.ADAPTIVE))
    durations = [round(1000 / frames_per_second)] * len(pictures)
    durations[-1] = 2000  # The result stays for two seconds.
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def _scaled(run, frame):
    """The embeddings over the longest of them, and the class weights' directions."""
    points, centers = run.embeddings[frame], run.centers[frame]
    return points / np.linalg.norm(points, axis=1).max(), centers / np.linalg.norm(centers, axis=0)


def _draw_rim(axes, angles, heights, color):
    """Short rays outside of the unit circle, as long as the share of points in their direction."""
    for angle, height in zip(angles, heights):
        if height:
            direction = np.array([math.cos(angle), math.sin(angle)])
            inner, outer = RIM * direction, (RIM + 0.5 * height) * direction
            axes.plot(*np.stack([inner, outer], axis=1), color=color, linewidth=3, solid_capstyle="butt")
