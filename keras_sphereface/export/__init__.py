"""Models for other runtimes: SavedModel, ONNX and LiteRT, each read again and compared after writing."""

from keras_sphereface.export.comparison import ExportReport
from keras_sphereface.export.exporter import FORMATS, PRECISIONS, ExportError, export, load

__all__ = ["FORMATS", "PRECISIONS", "ExportError", "ExportReport", "export", "load"]
