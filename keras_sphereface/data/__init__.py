"""Face images: training sets (RecordIO, folders, TFRecord, synthetic), their augmentation, and pairs for evaluation.

Names are imported when they are first used.
"""

import importlib

_PUBLIC = {
    "Augmentation": "augmentation",
    "FaceDataset": "dataset",
    "IJBImages": "ijb_images",
    "IJBMeta": "ijb",
    "PairSet": "pairs",
    "RecordIOReader": "recordio",
    "RecordIOWriter": "recordio_writer",
    "TFRecordWriter": "tfrecord",
    "align": "alignment",
    "as_image": "images",
    "decode_image": "images",
    "encode_jpeg": "images",
    "encode_png": "images",
    "from_folder": "dataset",
    "from_recordio": "dataset",
    "from_tfrecord": "dataset",
    "ijb": None,
    "read_bin": "bin_pairs",
    "read_cfp": "pair_lists",
    "read_ijb": "ijb",
    "read_image": "images",
    "read_lfw": "pair_lists",
    "read_pair_list": "pair_lists",
    "similarity_transform": "alignment",
    "synthetic": "dataset",
    "synthetic_pairs": "synthetic_faces",
    "write_bin": "bin_pairs",
    "write_recordio": "recordio",
    "write_tfrecord": "tfrecord",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_PUBLIC[name] or name}")
    value = module if _PUBLIC[name] is None else getattr(module, name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
