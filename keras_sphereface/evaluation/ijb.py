"""IJB-B and IJB-C: 1:1 over the official pair list, 1:N with both galleries, from the features of images."""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from keras_sphereface.evaluation.identification import FPIRS, RANKS, check_limits, identification
from keras_sphereface.evaluation.mates import check_ranks
from keras_sphereface.evaluation.report import RATE_WIDTH, VerificationReport, check_details, percent, signature
from keras_sphereface.evaluation.results import Result
from keras_sphereface.evaluation.templates import template_embeddings
from keras_sphereface.evaluation.verification import NO_ACCURACY, check_fars, verification

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)

# Pairs scored at once: two sides of 512 float32 are 2 MB, which stays in a core's cache.
PAIR_ROWS = 512

# Pairs between two steps of the progress bar, and the work of one thread at a time.
PAIR_BLOCK = 131_072

# What the signature says by itself.
_OWN_DETAILS = (
    *("flip", "detector_score", "norm", "media", "distance", "galleries"),
    *("folds", "threshold", "intervals", "identity", "ties"),
)

# NumPy gathers and multiplies outside the interpreter lock; more than a few threads only wait for memory.
THREADS = 4


@dataclasses.dataclass(frozen=True)
class IJBReport(Result):
    """What `ijb` measured.

    Attributes:
        name: `"ijbb"` or `"ijbc"`.
        verification: `VerificationReport` over the pair list (draw it with `.verification.plot(folder)`), or `None`.
        identification: Gallery name -> `Identification`; empty without 1:N lists.
        rank_rates: Rank k -> mean of the galleries' rank-k rates, or `None`.
        tpir: FPIR limit -> rank k -> mean of the galleries' TPIR, `None` where a gallery does not support the limit.
        num_images, num_templates: Sizes.
        signature: How the numbers were computed.

    Example:
    >>> report = keras_sphereface.evaluate_ijb(model, "IJBC", "ijbc", features="ijbc_features.h5")
    >>> report.verification.tar_at_far[1e-4].tar, report.rank_rates[1]
    """

    name: str
    verification: VerificationReport | None
    identification: dict
    rank_rates: dict
    tpir: dict
    num_images: int
    num_templates: int
    signature: str

    @property
    def notes(self) -> list[str]:
        """What a reader has to know about the 1:1 numbers."""
        if self.verification is None:
            return []
        # The protocol has neither folds nor a threshold, and nobody quotes its accuracy.
        return [f"1:1: {note}" for note in self.verification.notes if note != NO_ACCURACY]

    def rows(self) -> list[tuple[str, str]]:
        """Returns the table's rows: a label and a text each."""
        rows = [("images", str(self.num_images)), ("templates", str(self.num_templates))]
        if self.verification is not None:
            rows += [("1:1 pairs", str(self.verification.num_pairs)), *self.verification.rows()]
        if self.identification:
            parts = {name: result.rank_rates for name, result in self.identification.items()}
            rows += [(f"1:N rank {k}", _with_parts(rate, parts, k)) for k, rate in self.rank_rates.items()]
            for limit, by_rank in self.tpir.items():
                parts = {name: result.tpir[limit] for name, result in self.identification.items()}
                rows += [
                    (f"1:N TPIR at FPIR {limit:g}, rank {k}", _with_parts(rate, parts, k))
                    for k, rate in by_rank.items()
                ]
        return rows


def ijb(
    meta: Any,
    features: ArrayLike,
    flipped_features: ArrayLike | None = None,
    detector_score: bool = True,
    norm_weighting: bool = True,
    fars: Sequence[float] = FARS,
    fpirs: Sequence[float] = FPIRS,
    ranks: Sequence[int] = RANKS,
    details: dict | None = None,
    progress: bool = True,
) -> IJBReport:
    """Evaluates image features on IJB-B or IJB-C.

    1:1: the cosine of both templates of every listed pair; see `verification` for the rates. 1:N: each gallery is
    searched by all probe templates on its own, and the rates are averaged over the galleries; a probe is mated in the
    gallery that has its subject and nonmated in the other; see `identification`. Templates: see `template_embeddings`.

    Args:
        meta: `keras_sphereface.data.IJBMeta`, from `keras_sphereface.data.read_ijb`.
        features: `(n, d)` features of the images in the order of `meta.image_names`, as the network gives them: an
            array, a memory map or an h5py dataset (see `features.extract`).
        flipped_features: `(n, d)` features of the mirror images, added before everything else. Defaults to `None`.
        detector_score: Whether images are weighted by their detector score. Defaults to `True`, as published numbers.
        norm_weighting: Whether the norm of a feature counts. Defaults to `True`, as published numbers.
        fars: False accept rates for 1:1. Defaults to 1e-1, ..., 1e-6.
        fpirs: False positive identification rates for 1:N. Defaults to `(1e-1, 1e-2, 1e-3)`.
        ranks: Ranks for 1:N. Defaults to `(1, 5, 10)`.
        details: Dict of further parts of the signature, e.g. `{"model": "sfnet20"}`. Defaults to `None`.
        progress: Whether to show progress bars, on a terminal only. Defaults to `True`.

    Returns:
        `IJBReport`.

    Raises:
        ValueError: If features do not fit the meta files, or hold NaN, or an argument is out of its range.

    Example:
    >>> meta = keras_sphereface.data.read_ijb("IJBC", "ijbc")
    >>> with keras_sphereface.evaluation.open_features("ijbc_features.h5", meta.image_names) as file:
    ...     report = keras_sphereface.evaluation.ijb(meta, file["features"], file["flipped_features"])

    Reference: Whitelam et al., IARPA Janus Benchmark-B Face Dataset, CVPRW 2017; Maze et al., IARPA Janus Benchmark - C,
    ICB 2018.
    """
    ranks, fpirs, fars = check_ranks(ranks), check_limits(fpirs), check_fars(fars)
    details = {
        **check_details(details, *_OWN_DETAILS),
        "flip": "none" if flipped_features is None else "sum",
        "detector_score": "on" if detector_score else "off",
        "norm": "on" if norm_weighting else "off",
        "media": "mean-then-sum",
        "distance": "cosine",
    }
    templates, ids = template_embeddings(
        features,
        meta.template_ids,
        meta.media_ids,
        detector_scores=meta.detector_scores if detector_score else None,
        norm_weighting=norm_weighting,
        flipped_features=flipped_features,
        progress=progress,
    )
    report = None
    if len(meta.pair_mated):
        scores = template_pair_scores(templates, ids, meta.pair_left, meta.pair_right, progress)
        report = verification(
            scores, meta.pair_mated, fars=fars, bootstrap=0, name=f"{meta.name}-1:1", details=details, hardest=0
        )
    results = {
        gallery.name: _search(meta, gallery, templates, ids, ranks, fpirs, details, progress)
        for gallery in meta.galleries
    }
    return IJBReport(
        name=meta.name,
        verification=report,
        identification=results,
        rank_rates={k: _mean(result.rank_rates[k] for result in results.values()) for k in ranks if results},
        tpir={
            limit: {k: _mean(result.tpir[limit][k] for result in results.values()) for k in ranks}
            for limit in fpirs
            if results
        },
        num_images=len(meta.template_ids),
        num_templates=len(ids),
        signature=signature(meta.name, **details, galleries="mean-of-" + "-".join(results) if results else None),
    )


def template_pair_scores(
    templates: np.ndarray, ids: np.ndarray, left: np.ndarray, right: np.ndarray, progress: bool = True
) -> np.ndarray:
    """Scores pairs of templates by their dot product.

    Args:
        templates: `(t, d)` float32 of unit length.
        ids: `(t,)` template ids, ascending.
        left: `(n,)` template ids.
        right: `(n,)` template ids.
        progress: Whether to show a progress bar, on a terminal only. Defaults to `True`.

    Returns:
        `(n,)` float32 in -1..1; each score depends on its two templates alone.

    Raises:
        ValueError: If a pair names a template that is not among `ids`.
    """
    scores = np.empty(len(left), np.float32)

    def score_block(start):
        part = slice(start, start + PAIR_BLOCK)
        rows = template_rows(ids, left[part]), template_rows(ids, right[part])
        for first in range(0, len(rows[0]), PAIR_ROWS):
            some = slice(first, first + PAIR_ROWS)
            sides = templates[rows[0][some]], templates[rows[1][some]]
            products = np.einsum("ij,ij->i", *sides)
            scores[start + first : start + first + len(products)] = np.clip(products, -1, 1)

    starts = range(0, len(left), PAIR_BLOCK)
    with ThreadPoolExecutor(THREADS) as pool:
        list(tqdm(pool.map(score_block, starts), "pairs", len(starts), disable=None if progress else True))
    return scores


def template_rows(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the row of each wanted template id.

    Args:
        ids: `(t,)` ids, ascending.
        wanted: `(n,)` ids.

    Raises:
        ValueError: If one is not there.
    """
    rows = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    missing = np.flatnonzero(ids[rows] != wanted)
    if len(missing):
        raise ValueError(f"A template has no images. Received: template {int(np.asarray(wanted)[missing[0]])}")
    return rows


def _search(meta, gallery, templates, ids, ranks, fpirs, details, progress):
    return identification(
        templates[template_rows(ids, gallery.template_ids)],
        gallery.subject_ids,
        templates[template_rows(ids, meta.probes.template_ids)],
        meta.probes.subject_ids,
        ranks=ranks,
        fpirs=fpirs,
        progress=progress,
        name=f"{meta.name}-1:N-{gallery.name}",
        details={name: value for name, value in details.items() if name != "distance"},
    )


def _mean(values):
    values = list(values)
    return None if not values or None in values else sum(values) / len(values)


def _with_parts(mean, parts, k):
    each = ", ".join(f"{name} {percent(rates[k])}" for name, rates in parts.items())
    return f"{percent(mean, RATE_WIDTH)}  ({each})" if mean is not None else "too few probes"
