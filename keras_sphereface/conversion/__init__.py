"""Other people's PyTorch checkpoints and ONNX files to Keras models, each conversion checked against the original.

The package is called `conversion`, so that `keras_sphereface.convert` is always the function.
"""

from keras_sphereface.conversion.architecture import architectures
from keras_sphereface.conversion.converter import convert
from keras_sphereface.conversion.report import ConversionReport

__all__ = ["ConversionReport", "architectures", "convert"]
