"""From photos to aligned faces: detection, choice among several faces, alignment.

Photos are worked on where they are: nothing is uploaded, and no picture is kept.
"""

from typing import TYPE_CHECKING

from keras_sphereface.lazy import attach

if TYPE_CHECKING:  # The same names, for editors and type checkers.
    from keras_sphereface.faces.aligner import FaceAligner as FaceAligner
    from keras_sphereface.faces.choice import CHOICES as CHOICES
    from keras_sphereface.faces.choice import choose as choose
    from keras_sphereface.faces.detectors import DETECTORS as DETECTORS
    from keras_sphereface.faces.detectors import Detector as Detector
    from keras_sphereface.faces.detectors import Face as Face
    from keras_sphereface.faces.detectors import get as get
    from keras_sphereface.faces.mtcnn import MTCNN as MTCNN

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "aligner": ["FaceAligner"],
        "choice": ["CHOICES", "choose"],
        "detectors": ["DETECTORS", "Detector", "Face", "get"],
        "mtcnn": ["MTCNN"],
    },
)
