"""Templates: one embedding for several images and videos of a person, as IJB-A, B and C ask for."""

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from keras_sphereface.arguments import whole_number
from keras_sphereface.evaluation.blocks import as_embeddings, check_finite, grouped, read_rows
from keras_sphereface.evaluation.counts import run_starts

# Image rows in memory at a time: 8192 of 512 float32 are 16 MB.
BLOCK_IMAGES = 8192


def image_weights(template_ids, media_ids, detector_scores=None):
    """Returns the factor of each image in the sum that makes its template.

    The mean within a medium and the sum over media is one weighted sum: each image counts 1 / (images of its template
    from the same medium), times its detector score where scores are given.

    Args:
        template_ids: `(n,)` integers, the template of each image.
        media_ids: `(n,)` integers, the medium (photo or video) of each image; counted within a template.
        detector_scores: `(n,)` scores of the face detector, 0..1. Defaults to `None`: all 1.

    Returns:
        `(n,)` float64.
    """
    template, medium = (np.unique(ids, return_inverse=True)[1] for ids in (template_ids, media_ids))
    # One number for each medium of each template.
    _, place, sizes = np.unique(template * len(medium) + medium, return_inverse=True, return_counts=True)
    weights = 1.0 / sizes[place]
    return weights if detector_scores is None else weights * _checked_scores(detector_scores)


def _checked_scores(scores):
    scores = np.asarray(scores, np.float64)
    bad = np.flatnonzero(~((scores >= 0) & (scores <= 1)))  # NaN too
    if len(bad):
        raise ValueError(f"Expected detector scores of 0..1. Received: detector_scores[{bad[0]}]={scores[bad[0]]:g}")
    return scores


def template_embeddings(
    features: ArrayLike,
    template_ids: ArrayLike,
    media_ids: ArrayLike,
    detector_scores: ArrayLike | None = None,
    norm_weighting: bool = True,
    flipped_features: ArrayLike | None = None,
    block_size: int = BLOCK_IMAGES,
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Pools image features to unit-length templates.

        x_i = f_i + f'_i                        (f' of the mirror image, if given)
        x_i = x_i / ||x_i||                     unless norm_weighting
        t   = sum over media of mean over images of the medium of (score_i * x_i)
        template = t / ||t||

    This is the order of the evaluation that published IJB-B and IJB-C numbers come from. With `norm_weighting` a blurred
    face, whose feature is short, counts less.

    Args:
        features: `(n, d)` features as the network gives them (not of unit length, or norms mean nothing): an array, a
            memory map or an h5py dataset, streamed by blocks.
        template_ids: `(n,)` integers, the template of each image; fastest where a template's images lie together.
        media_ids: `(n,)` integers, the medium of each image.
        detector_scores: `(n,)` weights of the images, 0..1. Defaults to `None`: all 1.
        norm_weighting: Whether the norm of a feature counts. Defaults to `True`.
        flipped_features: `(n, d)` features of the mirror images. Defaults to `None`.
        block_size: Images in memory at a time (a template is never split). Results do not depend on it. Defaults to
            `8192`.
        progress: Whether to show a progress bar, on a terminal only. Defaults to `True`.

    Returns:
        `(templates, ids)`: `(t, d)` float32 of unit length, and their `(t,)` ids in ascending order.

    Raises:
        ValueError: If lengths differ, a feature is NaN or infinite, a detector score is not of 0..1, a template adds up to
            zero, or `block_size` is not an integer of at least 1.

    Example:
    >>> template_embeddings(np.array([[3.0, 0.0], [0.0, 4.0]]), [7, 7], [1, 2])[0]
    array([[0.6, 0.8]], dtype=float32)

    Reference: Maze et al., IARPA Janus Benchmark - C, ICB 2018; Whitelam et al., IJB-B, CVPRW 2017.
    """
    (features,) = as_embeddings(features=features)
    if flipped_features is not None:
        (flipped_features,) = as_embeddings(flipped_features=flipped_features)
    _check_lengths(features, flipped_features, template_ids, media_ids, detector_scores)
    block_size = whole_number("block_size", block_size)
    weights = image_weights(template_ids, media_ids, detector_scores)
    order, ids, index = grouped(template_ids)
    starts = run_starts(index)
    templates = np.empty((len(ids), features.shape[1]), np.float32)
    bar = tqdm(total=len(index), desc="templates", unit="image", disable=None if progress else True)
    with bar:
        for first, stop in _whole_templates(starts, len(index), block_size):
            numbers = slice(first, stop) if order is None else order[first:stop]
            rows = _image_rows(features, flipped_features, numbers, norm_weighting)
            rows *= weights[numbers][:, None]
            inside = starts[np.searchsorted(starts, first) : np.searchsorted(starts, stop)]
            sums = np.add.reduceat(rows, inside - first, axis=0)
            templates[index[inside]] = _unit(sums, ids[index[inside]])
            bar.update(stop - first)
    return templates, ids


def _check_lengths(features, flipped_features, template_ids, media_ids, detector_scores):
    if flipped_features is not None and flipped_features.shape != features.shape:
        raise ValueError(
            f"Expected the mirror images' features to match. Received: features.shape={features.shape}, "
            f"flipped_features.shape={flipped_features.shape}"
        )
    lengths = {"template_ids": template_ids, "media_ids": media_ids, "detector_scores": detector_scores}
    for name, values in lengths.items():
        if values is not None and np.shape(values) != (features.shape[0],):
            raise ValueError(
                f"Expected one entry per image: {features.shape[0]} features. Received: {name}.shape={np.shape(values)}. "
                f"Extract the features again from the same meta files"
            )


def _whole_templates(starts, count, block_size):
    """Yields `(first, stop)` of blocks of about `block_size` rows that begin and end with a template."""
    ends = np.append(starts[1:], count)
    first = 0
    while first < count:
        stop = int(ends[np.searchsorted(ends, min(first + block_size, count))])
        yield first, stop
        first = stop


def _image_rows(features, flipped_features, numbers, norm_weighting):
    shown = np.arange(numbers.start, numbers.stop) if isinstance(numbers, slice) else numbers
    rows = read_rows(features, numbers)
    check_finite(rows, "features", shown)
    rows = rows.astype(np.float64)
    if flipped_features is not None:
        flipped = read_rows(flipped_features, numbers)
        check_finite(flipped, "flipped_features", shown)
        rows += flipped
    if not norm_weighting:
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        # A zero feature has no direction: it adds nothing to its template.
        rows /= np.where(norms == 0, 1, norms)
    return rows


def _unit(sums, ids):
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    if not norms.all():
        bad = int(ids[np.flatnonzero(norms[:, 0] == 0)[0]])
        raise ValueError(
            f"A template has no direction: its features or detector scores are all zero, or cancel. Received: template {bad}"
        )
    return sums / norms
