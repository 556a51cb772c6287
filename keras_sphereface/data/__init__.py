"""Face images: training sets (RecordIO, folders, TFRecord, synthetic), their augmentation, and pairs for evaluation.

Names are imported when they are first used.
"""

from typing import TYPE_CHECKING

from keras_sphereface.lazy import attach

if TYPE_CHECKING:  # The same names, for editors and type checkers.
    from keras_sphereface.data import ijb as ijb
    from keras_sphereface.data.alignment import align as align
    from keras_sphereface.data.alignment import similarity_transform as similarity_transform
    from keras_sphereface.data.augmentation import Augmentation as Augmentation
    from keras_sphereface.data.bin_pairs import read_bin as read_bin
    from keras_sphereface.data.bin_pairs import write_bin as write_bin
    from keras_sphereface.data.dataset import FaceDataset as FaceDataset
    from keras_sphereface.data.dataset import from_folder as from_folder
    from keras_sphereface.data.dataset import from_recordio as from_recordio
    from keras_sphereface.data.dataset import from_tfrecord as from_tfrecord
    from keras_sphereface.data.dataset import synthetic as synthetic
    from keras_sphereface.data.folder_pairs import folder_pairs as folder_pairs
    from keras_sphereface.data.ijb import IJBMeta as IJBMeta
    from keras_sphereface.data.ijb import read_ijb as read_ijb
    from keras_sphereface.data.ijb_images import IJBImages as IJBImages
    from keras_sphereface.data.images import as_image as as_image
    from keras_sphereface.data.images import decode_image as decode_image
    from keras_sphereface.data.images import encode_jpeg as encode_jpeg
    from keras_sphereface.data.images import encode_png as encode_png
    from keras_sphereface.data.images import read_image as read_image
    from keras_sphereface.data.pair_lists import class_folds as class_folds
    from keras_sphereface.data.pair_lists import lfw_identity as lfw_identity
    from keras_sphereface.data.pair_lists import read_cfp as read_cfp
    from keras_sphereface.data.pair_lists import read_lfw as read_lfw
    from keras_sphereface.data.pair_lists import read_pair_list as read_pair_list
    from keras_sphereface.data.pairs import PairSet as PairSet
    from keras_sphereface.data.pairs import number_names as number_names
    from keras_sphereface.data.recordio import RecordIOReader as RecordIOReader
    from keras_sphereface.data.recordio import write_recordio as write_recordio
    from keras_sphereface.data.recordio_writer import RecordIOWriter as RecordIOWriter
    from keras_sphereface.data.synthetic_faces import synthetic_pairs as synthetic_pairs
    from keras_sphereface.data.tfrecord import TFRecordWriter as TFRecordWriter
    from keras_sphereface.data.tfrecord import write_tfrecord as write_tfrecord

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "alignment": ["align", "similarity_transform"],
        "augmentation": ["Augmentation"],
        "bin_pairs": ["read_bin", "write_bin"],
        "dataset": ["FaceDataset", "from_folder", "from_recordio", "from_tfrecord", "synthetic"],
        "folder_pairs": ["folder_pairs"],
        "ijb": ["IJBMeta", "read_ijb"],
        "ijb_images": ["IJBImages"],
        "images": ["as_image", "decode_image", "encode_jpeg", "encode_png", "read_image"],
        "pair_lists": ["class_folds", "lfw_identity", "read_cfp", "read_lfw", "read_pair_list"],
        "pairs": ["PairSet", "number_names"],
        "recordio": ["RecordIOReader", "write_recordio"],
        "recordio_writer": ["RecordIOWriter"],
        "synthetic_faces": ["synthetic_pairs"],
        "tfrecord": ["TFRecordWriter", "write_tfrecord"],
    },
    submodules=["ijb"],
)
