"""Models for other runtimes: SavedModel, ONNX and LiteRT, each read again and compared after writing."""

from keras_sphereface.export.exporter import FORMATS, PRECISIONS, ExportError, ExportReport, export, load

__all__ = ["FORMATS", "PRECISIONS", "ExportError", "ExportReport", "export", "load"]
