"""Answers from photos: are these two the same person, who is this.

Photos are worked on where they are: nothing is uploaded, and no picture is kept. A gallery holds names, embeddings and the
SHA-256 of each aligned crop, by which the same picture is known again.
"""

from typing import TYPE_CHECKING

from keras_sphereface.lazy import attach

if TYPE_CHECKING:  # The same names, for editors and type checkers.
    from keras_sphereface.recognition.embedding_files import write_embeddings as write_embeddings
    from keras_sphereface.recognition.gallery import Gallery as Gallery
    from keras_sphereface.recognition.recognizer import Recognizer as Recognizer
    from keras_sphereface.recognition.results import Candidate as Candidate
    from keras_sphereface.recognition.results import Enrollment as Enrollment
    from keras_sphereface.recognition.results import Identification as Identification
    from keras_sphereface.recognition.results import Verification as Verification
    from keras_sphereface.recognition.thresholds import Thresholds as Thresholds

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "embedding_files": ["write_embeddings"],
        "gallery": ["Gallery"],
        "recognizer": ["Recognizer"],
        "results": ["Candidate", "Enrollment", "Identification", "Verification"],
        "thresholds": ["Thresholds"],
    },
)
