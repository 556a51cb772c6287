"""Verification and identification of photos."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_sphereface.arguments import whole_number
from keras_sphereface.data.images import Photo
from keras_sphereface.evaluation.embeddings import pair_scores
from keras_sphereface.faces.detectors import Detector
from keras_sphereface.hints import Embedder, Path, Size
from keras_sphereface.recognition.gallery import Gallery, check_name
from keras_sphereface.recognition.models import open_model
from keras_sphereface.recognition.photos import PhotoEmbedder, as_list, name_of
from keras_sphereface.recognition.results import Candidate, Enrollment, Identification, Verification
from keras_sphereface.recognition.search import PeopleIndex
from keras_sphereface.recognition.thresholds import Entries

WHICH = ("largest", "central")


class Recognizer:
    """Tells whether two photos show the same person, and who of a gallery a photo shows.

    Photos are never uploaded and never kept. A gallery holds names, embeddings and the crops' SHA-256. May be used from
    several threads.

    Args:
        model: A name or path for `load_pretrained`, an ONNX or LiteRT file of `keras-sphereface export`, a `keras.Model`, a
            callable from uint8 `(n, h, w, 3)` crops to `(n, d)` embeddings, or an object with such a `predict`. Defaults to
            `None`, the embedded model.
        detector: `"mtcnn"` (extra `[faces]`), an object with `detect(image)`, or `None`: photos are aligned crops of the
            model's size. Defaults to `"mtcnn"`.
        which: Which face of a photo with several: `"largest"` or `"central"`. Defaults to `"largest"`.
        threshold: Cosine from which on two photos count as the same person. Defaults to `None`: the model's at `far`.
        far: False accept rate that decides among the model's measured thresholds. Defaults to `None`: 1e-3, or the nearest
            that was measured.
        thresholds: Measured thresholds as in `Thresholds`, e.g. a report of `keras_sphereface.evaluate`. Defaults to `None`:
            those of the preset or of the model's card, where the model is named; none of a model that is given as an object.
        gallery: Path of the gallery's file (made when somebody is enrolled), a `Gallery`, or `None`, one in memory.
            Defaults to `None`.
        index: `"exact"`, or `"usearch"` (extra `[search]`), approximate, for millions. Defaults to `"exact"`.
        flip: Fusion with the mirror image, as in `evaluate`; thresholds belong to one. Defaults to `"sum"`.
        batch_size: Pictures per block. Defaults to `32`.
        size: `(height, width)` of the crops. Defaults to `None`: the model's.
        dtype: Dtype policy that a Keras model computes in, as in `load_pretrained`. Defaults to `None`: its own.

    Raises:
        ValueError: If an argument is none of these, no threshold is known at `far`, or the gallery belongs to another model.
        MissingDependencyError: If the detector's or the index's package is not installed.

    Example:
    >>> recognizer = Recognizer(gallery="people.db")
    >>> print(recognizer.verify("a.jpg", "b.jpg"))
    >>> recognizer.enroll("Ann", ["ann1.jpg", "ann2.jpg"])
    >>> recognizer.identify("c.jpg").name
    """

    def __init__(
        self,
        model: Path | Embedder | None = None,
        detector: str | Detector | None = "mtcnn",
        which: str = "largest",
        threshold: float | None = None,
        far: float | None = None,
        thresholds: Entries | None = None,
        gallery: Path | Gallery | None = None,
        index: str = "exact",
        flip: str = "sum",
        batch_size: int = 32,
        size: Size | None = None,
        dtype: Any = None,
    ):
        if which not in WHICH:
            raise ValueError(
                f"Expected which as one of {WHICH}. Received: which={which!r}. For all: identify_all(photo)"
            )
        model = open_model(model, size, thresholds, dtype)
        self.thresholds = model.thresholds
        self.threshold, self.far = model.thresholds.decide(threshold, far)
        self.photos = PhotoEmbedder(model, detector, which, flip, batch_size)
        self.gallery = gallery if isinstance(gallery, Gallery) else Gallery(gallery)
        self._people, self._lock = PeopleIndex(self.gallery, index), threading.Lock()
        self._is_bound = False
        if self.gallery.is_bound():
            self._bind()

    def verify(
        self, first: Photo, second: Photo, threshold: float | None = None, far: float | None = None
    ) -> Verification:
        """Compares the faces of two photos.

        Args:
            first, second: Photos: paths, bytes, open files (as uploads are), Pillow images or arrays.
            threshold, far: Another decision than the recognizer's, for this call. Default to `None`.

        Returns:
            `Verification`; without a known threshold its `match` is `None`.

        Raises:
            NoFaceError: If a photo has no face.
            ValueError: If a photo cannot be read.
        """
        embeddings = self.photos.embed_crops(self.photos.crops([first, second]))
        return self.compare(*embeddings, threshold=threshold, far=far)

    def compare(
        self, first: ArrayLike, second: ArrayLike, threshold: float | None = None, far: float | None = None
    ) -> Verification:
        """As `verify`, of two embeddings `(d,)`."""
        score = float(pair_scores(np.stack([first, second]), [0], [1])[0])
        threshold, far = self._decision(threshold, far)
        match = None if threshold is None else score >= threshold
        known = self.thresholds
        words = known.in_words(score), known.far_in_words(threshold, far)
        return Verification(score, match, threshold, far, known.far_of(score), *words)

    def embed(
        self, photos: Photo | Sequence[Photo], on_error: Callable[[Photo, Exception], None] | None = None
    ) -> np.ndarray:
        """Embeds many photos, block by block, with a progress bar on a terminal.

        Args:
            photos: Photos as in `verify`; a single one counts as a list of one.
            on_error: Function `(photo, error)` that is called for a photo that has no face or cannot be read; its row is NaN
                then. Defaults to `None`: the error is raised.

        Returns:
            `(n, d)` float32, rows of unit length.

        Raises:
            NoFaceError, ValueError, OSError: As `verify`, without `on_error`.
        """
        return self.photos.embed(as_list(photos), on_error)

    def enroll(self, name: str, photos: Photo | Sequence[Photo]) -> Enrollment:
        """Adds photos of one person to the gallery.

        Args:
            name: The person.
            photos: One photo or several, as in `verify`. A picture that the person has already is passed over.

        Returns:
            `Enrollment`.

        Raises:
            ValueError: If the name is none, or a photo cannot be used or is somebody else's already; nothing is added then.
        """
        name = check_name(name)
        photos, whose = as_list(photos), f"{name}'s photo"
        crops = self.photos.crops(photos, whose)
        names = [name_of(photo, number, whose) for number, photo in enumerate(photos, 1)]
        embeddings = self.photos.embed_crops(crops, names)
        self._bind()
        digests = [hashlib.sha256(crop.tobytes()).digest() for crop in crops]
        added, duplicates = self.gallery.add(name, digests, embeddings)
        return Enrollment(name, added, duplicates, self.gallery.count(name))

    def remove(self, name: str) -> int:
        """Removes a person from the gallery; the file's bytes are overwritten.

        Returns:
            Number of faces that were removed.

        Raises:
            ValueError: If nobody has this name.
        """
        return self.gallery.remove(name)

    def identify(
        self, photo: Photo, top: int = 5, threshold: float | None = None, far: float | None = None
    ) -> Identification:
        """Looks a photo's face up in the gallery.

        Args:
            photo: As in `verify`.
            top: How many people to name. Defaults to `5`.
            threshold, far: As in `verify`.

        Returns:
            `Identification`.

        Raises:
            ValueError: If the gallery is empty, or as `verify`.
        """
        self._check_search(top)
        crops = self.photos.crop(photo, "the photo")[None]
        return self._look_up(self.photos.embed_crops(crops)[0], top, threshold, far)

    def identify_all(
        self, photo: Photo, top: int = 5, threshold: float | None = None, far: float | None = None
    ) -> list[Identification]:
        """As `identify`, for every face of a photo.

        Returns:
            List of `Identification`, the largest face first.
        """
        self._check_search(top)
        crops = np.stack(self.photos.align(photo, which="all"))
        return [self._look_up(row, top, threshold, far) for row in self.photos.embed_crops(crops)]

    def read_gallery(self) -> None:
        """Reads the gallery, as the next search would, so that its errors are not taken for those of a photo.

        Raises:
            ValueError: If the gallery is empty, or belongs to another model.
            FileFormatError: If it is damaged.
        """
        self._check_search()
        with self._lock:
            self._people.update()

    def _check_search(self, top=1):
        whole_number("top", top)
        if not self.gallery.is_bound():
            raise ValueError(f"The gallery {self.gallery.path} is empty. Enroll somebody first")
        self._bind()

    def _look_up(self, embedding, top, threshold, far):
        threshold, far = self._decision(threshold, far)
        with self._lock:
            found, num_people = self._people.nearest(embedding, top)
        if not found:
            raise ValueError(f"The gallery {self.gallery.path} is empty. Enroll somebody first")
        candidates = [Candidate(name, float(np.clip(score, -1, 1))) for name, score in found]
        is_known = threshold is not None and candidates[0].score >= threshold
        return Identification(candidates[0].name if is_known else None, candidates, threshold, far, num_people)

    def _decision(self, threshold, far):
        if threshold is None and far is None:
            return self.threshold, self.far
        return self.thresholds.decide(threshold, far)

    def _bind(self):
        """Ties the gallery to the model, or checks that it is tied to this one."""
        if not self._is_bound:
            self.gallery.bind(self.photos.fingerprint())
            self._is_bound = True
