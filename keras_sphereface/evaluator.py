"""Measures a model on face pairs: embeds every image once, scores the pairs, reports."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from keras_sphereface.arguments import whole_number
from keras_sphereface.evaluation.embeddings import check_embeddings, check_flip, fuse, pair_scores
from keras_sphereface.evaluation.report import VerificationReport
from keras_sphereface.evaluation.verification import (
    FARS,
    NUM_HARDEST,
    REPLICATES,
    check_choices,
    check_fars,
    check_identities,
    verification,
)


def evaluate(
    model: Callable[[Any], Any],
    pairs: Any,
    flip: str = "sum",
    batch_size: int = 64,
    crop: str | tuple[int, int] | None = None,
    threshold: float | None = None,
    fars: Sequence[float] = FARS,
    bootstrap: int = REPLICATES,
    seed: int = 0,
    hardest: int = NUM_HARDEST,
) -> VerificationReport:
    """Measures a model on pairs of face images.

    Every distinct image is decoded and embedded once, block by block; a pair's score is the cosine of the two (fused)
    embeddings, computed in float64. Definitions of the numbers are in `keras_sphereface.evaluation.verification`.

    Args:
        model: A `keras.Model`, or any callable, from images `(n, h, w, 3)`, RGB, 0..255, to embeddings `(n, d)`. A
            `keras.Model` gets float32 in blocks of always `batch_size` images, a callable gets uint8 in blocks of at
            most `batch_size`.
        pairs: `keras_sphereface.data.PairSet`, e.g. from `read_bin` or `read_lfw`.
        flip: Flip test: `"none"`, `"sum"` (raw embeddings of image and mirror image are added, before any
            normalization) or `"concat"` (they stand side by side). Defaults to `"sum"`.
        batch_size: Images per block. The numbers do not depend on it, up to the model's own rounding. Defaults to
            `64`.
        crop: `None`: images are used as they are. `"center"`: their middle, in the size of the model's input (112x96
            models take the columns 8..104 of 112x112 images). `(h, w)`: their middle in this size. Defaults to `None`.
        threshold: Threshold chosen elsewhere, instead of the folds. Defaults to `None`.
        fars: False accept rates for TAR. Defaults to 1e-2, ..., 1e-6.
        bootstrap: Draws for the intervals, by people where `pairs` knows them; `0` for none. Defaults to `1000`.
        seed: Seed of the draws. Defaults to `0`.
        hardest: How many pairs of each kind to list. Defaults to `12`.

    Returns:
        `keras_sphereface.evaluation.VerificationReport`: `print` it, `.save(path)` it, `.plot(folder)` it.

    Raises:
        ValueError: If `pairs` is no set of pairs or its identities contradict `mated`, an argument is out of its range,
            image and model sizes differ, or an embedding holds NaN, is all zeros or changes its width; the message names
            the image.

    Example:
    >>> report = evaluate(model, ksf.data.read_bin("lfw.bin"))  # doctest: +SKIP
    >>> print(report)  # doctest: +SKIP
    """
    check_model(model)
    fars = check_fars(fars)
    check_choices(threshold, bootstrap, seed, hardest)
    check_pairs(pairs)
    identities = pairs.pair_identities()
    check_identities(identities, pairs.mated)
    embeddings = embed_images(model, pairs, flip, batch_size, crop)
    size = _crop_size(model, crop)
    report = verification(
        pair_scores(embeddings, pairs.left, pairs.right),
        pairs.mated,
        folds=pairs.folds,
        identities=identities,
        threshold=threshold,
        fars=fars,
        bootstrap=bootstrap,
        seed=seed,
        name="-".join(word for word in (pairs.name, pairs.protocol) if word) or "pairs",
        details={"flip": flip, "crop": None if size is None else f"{size[0]}x{size[1]}", "distance": "cosine"},
        hardest=hardest,
    )
    for entry in report.hardest:
        entry["left"], entry["right"] = (pairs.names[side[entry["pair"]]] for side in (pairs.left, pairs.right))
    report.norms = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    report.pairs = pairs
    return report


def embed_images(
    model: Callable[[Any], Any],
    pairs: Any,
    flip: str = "sum",
    batch_size: int = 64,
    crop: str | tuple[int, int] | None = None,
) -> np.ndarray:
    """Embeds the unique images of a pair set, fused with their mirror images.

    Args:
        model, pairs, flip, batch_size, crop: As in `evaluate`.

    Returns:
        `(num_images, d)` float32, or `(num_images, 2 d)` for `flip="concat"`; not normalized.
    """
    check_flip(flip)
    check_pairs(pairs)
    size = _crop_size(model, crop)
    fused, first = None, 0
    with tqdm(total=pairs.num_images, desc=f"embedding {pairs.name}", unit="image", disable=None) as bar:
        for images in pairs.images(batch_size):
            images = center_crop(images, size)
            names = pairs.names[first : first + len(images)]
            parts = [embed_batch(model, side, batch_size, names, first) for side in _sides(images, flip)]
            block = fuse(parts[0], parts[-1], flip)
            if fused is None:
                fused = np.empty((pairs.num_images, block.shape[1]), np.float32)
            check_embeddings(block, names, fused.shape[1], first)
            fused[first : first + len(block)] = block
            first += len(block)
            bar.update(len(block))
    if fused is None:
        raise ValueError(f"Expected at least one image. Received: pairs={pairs!r}")
    return fused


def check_model(model: Any) -> None:
    """Raises `ValueError` unless a model can be called; the path of one is the usual mistake."""
    if not callable(model):
        raise ValueError(f"Expected a model, e.g. keras_sphereface.load_pretrained(path). Received: model={model!r}")


def check_pairs(pairs: Any) -> None:
    """Raises `ValueError` unless `pairs` is a set of pairs; the path of one is the usual mistake."""
    if not hasattr(pairs, "images"):
        raise ValueError(f"Expected a PairSet, e.g. keras_sphereface.data.read_bin(path). Received: pairs={pairs!r}")


def center_crop(images: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Returns the middle of `(n, h, w, 3)` images; an odd rest leaves one row or column more at the end. `None` takes all.

    Raises:
        ValueError: If the images are smaller than `size`.
    """
    if size is None:
        return images
    rest = [have - want for have, want in zip(images.shape[1:3], size)]
    if min(rest) < 0:
        raise ValueError(f"Expected images of at least {tuple(size)}. Received: images of {images.shape[1:3]}")
    top, left = rest[0] // 2, rest[1] // 2
    return images[:, top : top + size[0], left : left + size[1]]


def _sides(images, flip):
    return (images,) if flip == "none" else (images, images[:, :, ::-1])


def embed_batch(
    model: Callable[[Any], Any],
    images: np.ndarray,
    batch_size: int,
    names: Sequence[str] | None = None,
    first: int = 0,
    check: bool = True,
) -> np.ndarray:
    """Runs a model on one block of images and checks that it gave one usable embedding per image.

    Args:
        model: As in `evaluate`.
        images: uint8 `(k, h, w, 3)`, RGB; k at most `batch_size`.
        batch_size: Number of images that a `keras.Model` always gets: the block is filled up with black images.
        names: Names of the images for messages. Defaults to `None`: row numbers only.
        first: Number of the block's first image in the whole set, for messages. Defaults to `0`.
        check: Whether the embeddings are checked; `False` where somebody else does who knows the names. Defaults to `True`.

    Returns:
        `(k, d)` float32.

    Raises:
        ValueError: If sizes differ, or an embedding holds NaN or is all zeros.
    """
    if hasattr(model, "predict_on_batch"):
        check_size(model, images)
        # Always one shape: a smaller last block would compile the model again.
        block = np.zeros((batch_size, *images.shape[1:]), np.float32)
        block[: len(images)] = images
        embeddings = np.asarray(model.predict_on_batch(block))[: len(images)]
    else:
        embeddings = model(np.ascontiguousarray(images))
        if hasattr(embeddings, "detach"):  # PyTorch's, which is no array while it has a gradient or lies on a GPU
            embeddings = embeddings.detach().cpu()
        embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or len(embeddings) != len(images):
        raise ValueError(
            f"Expected the model to give ({len(images)}, d) embeddings for {len(images)} images "
            f"from {names[0] if names else first!r} on. "
            f"Received: shape {embeddings.shape}"
        )
    if check:
        embeddings = check_embeddings(embeddings, names, first_row=first)
    return np.asarray(embeddings, np.float32)


def check_size(model: Any, images: np.ndarray) -> None:
    """Raises `ValueError` unless `(n, h, w, 3)` images are of the size of a model's input, where it has one."""
    shape = input_size(model)
    if shape is not None and any(want not in (None, have) for want, have in zip(shape, images.shape[1:3])):
        raise ValueError(
            f"Expected images of the model's input size {shape}. Received: images of {images.shape[1:3]}. "
            "Align the images to this size, or ask for their middle with crop='center'."
        )


def input_size(model: Any) -> tuple[int | None, int | None] | None:
    """Returns the `(height, width)` of a model's input, with `None` for what it leaves open, or `None` if unknown."""
    shape = getattr(model, "input_shape", None)
    return tuple(shape[1:3]) if isinstance(shape, tuple) and len(shape) == 4 else None


def _crop_size(model, crop):
    if crop is None:
        return None
    if crop != "center":
        if not isinstance(crop, tuple | list) or len(crop) != 2:
            raise ValueError(f"Expected crop as None, 'center' or (height, width). Received: crop={crop!r}")
        return tuple(whole_number(f"crop[{axis}]", side) for axis, side in enumerate(crop))
    size = input_size(model)
    if size is None or None in size:
        raise ValueError("crop='center' needs a model with a fixed input size; give crop=(height, width) instead.")
    return size
