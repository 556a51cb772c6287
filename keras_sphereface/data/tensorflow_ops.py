"""The hot path of the tf.data view: decoding and augmenting a whole batch inside compiled TensorFlow functions."""

import functools

import numpy as np
import tensorflow as tf

from keras_sphereface.data.augmentation import LUMA, PRESETS, resampling_table

# The bytes that tell the size of a PNG, and where an Exif block begins in a JPEG: after the start marker or a JFIF block.
_HEAD = 32
_PNG = np.frombuffer(b"\x89PNG", np.uint8)
_EXIF = np.frombuffer(b"Exif", np.uint8)
_EXIF_PLACES = (6, 24)


@functools.cache
def decoder(image_size):
    """A compiled function from image files' bytes, shape `(n,)`, to uint8 images `(n, *image_size, 3)`.

    It raises `tf.errors.InvalidArgumentError` unless every file is a JPEG or PNG of exactly that size and upright; the
    size is read from the header before anything is decoded. The caller then turns to Pillow.
    """
    height, width = image_size

    def decode(data):
        head = tf.io.decode_raw(data, tf.uint8, fixed_length=_HEAD)
        is_png = tf.reduce_all(head[:4] == _PNG)
        size = tf.cond(is_png, lambda: _png_size(head), lambda: tf.io.extract_jpeg_shape(data)[:2])
        turned = tf.reduce_any([tf.reduce_all(head[place : place + 4] == _EXIF) for place in _EXIF_PLACES])
        fits = tf.reduce_all(size == [height, width]) & ~turned
        with tf.control_dependencies([tf.debugging.Assert(fits, ["not an upright image of the expected size"])]):
            # The accurate transform is what Pillow uses: both views then see the same pixels.
            image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(image, (height, width, 3))

    def decode_batch(batch):
        spec = tf.TensorSpec((height, width, 3), tf.uint8)
        return tf.map_fn(decode, batch, fn_output_signature=spec, parallel_iterations=1)

    return tf.function(decode_batch, input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False)


def _png_size(head):
    digits = tf.cast(tf.reshape(head[16:24], (2, 4)), tf.int32)
    return tf.reduce_sum(digits * [1 << 24, 1 << 16, 1 << 8, 1], axis=1)


@functools.cache
def augmenter(augmentation, image_size):
    """A compiled function from images and the arrays of `augmentation.Parameters` to augmented images."""
    height, width = image_size
    geometric = augmentation.crop or augmentation.low_resolution or augmentation.photometric or augmentation.grayscale

    def augment(images, boxes, low_sides, gains, contrasts, saturations):
        if not geometric:
            flip = (boxes[:, 1] > boxes[:, 3])[:, None, None, None]
            return tf.where(flip, tf.reverse(images, [2]), images)
        values = tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), image_size)
        if augmentation.low_resolution:
            values = _lower_resolution(values, low_sides, resampling_table(height), resampling_table(width))
        if augmentation.photometric or augmentation.grayscale:
            values = _photometric(values, gains, contrasts, saturations)
        return tf.cast(tf.clip_by_value(tf.round(values), 0.0, 255.0), tf.uint8)

    if augmentation == PRESETS["none"]:
        return lambda images, *parameters: images
    numbers = tf.TensorSpec((None,), tf.float32)
    signature = [
        tf.TensorSpec((None, height, width, 3), tf.uint8),
        tf.TensorSpec((None, 4), tf.float32),
        tf.TensorSpec((None,), tf.int32),
        *[numbers] * 3,
    ]
    return tf.function(augment, input_signature=signature, autograph=False)


def _lower_resolution(values, low_sides, rows, columns):
    chosen = tf.where(low_sides >= 0)
    sides = tf.gather_nd(low_sides, chosen)
    some = tf.gather_nd(values, chosen)
    low = tf.einsum("nij,njkc,nlk->nilc", tf.gather(rows, sides), some, tf.gather(columns, sides))
    return tf.tensor_scatter_nd_update(values, chosen, low)


def _photometric(values, gains, contrasts, saturations):
    gain, contrast, saturation = (array[:, None, None, None] for array in (gains, contrasts, saturations))
    values *= gain
    mean = tf.reduce_mean(tf.tensordot(values, LUMA, 1), axis=(1, 2))[:, None, None, None]
    values = mean + contrast * (values - mean)
    grey = tf.tensordot(values, LUMA, 1)[..., None]
    return grey + saturation * (values - grey)
