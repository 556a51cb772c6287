"""The answers of a `Recognizer`: plain data, `print` them, `to_dict()` for programs."""

import dataclasses


class _Result:
    def to_dict(self) -> dict:
        """The fields as a dictionary that JSON takes."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Verification(_Result):
    """Whether two photos show the same person.

    Args:
        score: Cosine of the two embeddings, -1..1.
        match: `True` where the score reaches the threshold, `False` where it does not, `None` without a threshold.
        threshold: Cosine from which on two photos count as the same person, or `None`: none is known.
        far: False accept rate that the threshold stands for, measured on the data that the model's card names: the share of
            pairs of strangers that reach it. `None` where nobody measured it: no FAR at all, or none so high or so low.
        score_far: The FAR that the score itself would have as a threshold, or `None`.
        rarity: The same in words, or `""`.
        far_words: `far` in words: where it is `None`, whether it is above or below the measured ones.

    Example:
    >>> recognizer = keras_sphereface.Recognizer()
    >>> answer = recognizer.verify("a.jpg", "b.jpg")
    >>> answer.match, answer.score
    """

    score: float
    match: bool | None
    threshold: float | None
    far: float | None
    score_far: float | None = None
    rarity: str = ""
    far_words: str = "unknown"

    def __str__(self):
        words = {True: "same person", False: "different people", None: "no decision"}[self.match]
        limit = "no threshold is known for this model"
        if self.threshold is not None:
            limit = f"threshold {self.threshold:.4f}, FAR {self.far_words}"
        return f"{words}: score {self.score:.4f} ({limit})" + (f"; {self.rarity}" if self.rarity else "")


@dataclasses.dataclass(frozen=True)
class Candidate(_Result):
    """A person of the gallery.

    Args:
        name: As enrolled.
        score: Highest cosine of the photo to one of the person's.

    Example:
    >>> best = keras_sphereface.Recognizer(gallery="people.db").identify("c.jpg").candidates[0]
    >>> best.name, best.score
    """

    name: str
    score: float


@dataclasses.dataclass(frozen=True)
class Identification(_Result):
    """Who a photo shows.

    Args:
        name: The best candidate's name where the score reaches the threshold, else `None`: nobody known, or no threshold.
        candidates: The nearest people, best first, whatever their scores.
        threshold: As in `Verification`.
        far: As in `Verification`, for one comparison; a stranger is compared with all `num_people`, so that the chance of a
            wrong name is up to `num_people` times as high.
        num_people: People in the gallery.

    Example:
    >>> recognizer = keras_sphereface.Recognizer(gallery="people.db")
    >>> answer = recognizer.identify("c.jpg", top=3)
    >>> print(answer)
    """

    name: str | None
    candidates: list
    threshold: float | None
    far: float | None
    num_people: int

    def __str__(self):
        best = self.candidates[0]
        limit = "no threshold is known for this model" if self.threshold is None else f"threshold {self.threshold:.4f}"
        limit += f", {self.num_people} {'person' if self.num_people == 1 else 'people'}"
        if self.name is not None:
            return f"{self.name}: score {best.score:.4f} ({limit})"
        verdict = "no decision" if self.threshold is None else "nobody of the gallery"
        return f"{verdict}: nearest is {best.name}, score {best.score:.4f} ({limit})"


@dataclasses.dataclass(frozen=True)
class Enrollment(_Result):
    """What enrolling did.

    Args:
        name: The person.
        added: Faces that were added.
        duplicates: Faces that the person had already, and that were passed over.
        total: Faces of the person now.

    Example:
    >>> recognizer = keras_sphereface.Recognizer(gallery="people.db")
    >>> recognizer.enroll("Ann", ["ann1.jpg", "ann2.jpg"]).total
    """

    name: str
    added: int
    duplicates: int
    total: int

    def __str__(self):
        passed = f", {self.duplicates} known already" if self.duplicates else ""
        return f"{self.name}: {self.added} added{passed}, {self.total} in the gallery"
