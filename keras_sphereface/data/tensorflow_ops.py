"""The hot path of the tf.data view: decoding and augmenting a whole batch inside compiled TensorFlow functions."""

import functools

import tensorflow as tf

from keras_sphereface.data.augmentation import LUMA, resampling_table

DECODED_A_TURN = 8


@functools.cache
def decoder(image_size):
    """A compiled function from image files' bytes and bools, shape `(n,)`, to uint8 images `(n, *image_size, 3)`.

    Where the bool is true, the image is mirrored. The headers have been checked: it raises `tf.errors.OpError` if a file is
    broken behind its header.
    """

    def decode_batch(batch, mirrored):
        images = tf.TensorArray(tf.uint8, tf.shape(batch)[0], element_shape=(*image_size, 3))
        images = _decode_into(images, batch, ~mirrored, lambda image: image)
        return _decode_into(images, batch, mirrored, lambda image: tf.reverse(image, [1])).stack()

    signature = [tf.TensorSpec((None,), tf.string), tf.TensorSpec((None,), tf.bool)]
    return tf.function(decode_batch, input_signature=signature, autograph=False)


def _decode_into(images, batch, chosen, change):
    """Writes the chosen files' images, changed, to their places in a `TensorArray`.

    Without a condition for each image, and several images a turn of the loop: each costs some microseconds an image.
    """
    places = tf.cast(tf.where(chosen)[:, 0], tf.int32)
    start = tf.constant(0)
    for count in (DECODED_A_TURN, 1):  # the last ones singly

        def turn(start, images, count=count):
            for place in tf.unstack(places[start : start + count], count):
                # The accurate transform is what Pillow uses: both views then see the same pixels.
                image = tf.io.decode_jpeg(batch[place], channels=3, dct_method="INTEGER_ACCURATE")  # reads PNG as well
                images = images.write(place, tf.ensure_shape(change(image), images.element_shape))
            return start + count, images

        def is_full(start, images, count=count):
            return start + count <= tf.size(places)

        start, images = tf.while_loop(is_full, turn, (start, images), parallel_iterations=1)
    return images


@functools.cache
def augmenter(augmentation, image_size):
    """A compiled function from images and the arrays of `augmentation.Parameters` to augmented images.

    For an `Augmentation` that resamples; NumPy is quicker at mirroring.
    """
    height, width = image_size

    def augment(images, boxes, low_sides, gains, contrasts, saturations):
        values = tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), image_size)
        if augmentation.low_resolution:
            values = _lower_resolution(values, low_sides, resampling_table(height), resampling_table(width))
        if augmentation.photometric or augmentation.grayscale:
            values = _photometric(values, gains, contrasts, saturations)
        return tf.cast(tf.clip_by_value(tf.round(values), 0.0, 255.0), tf.uint8)

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
