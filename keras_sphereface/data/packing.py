"""Images and labels on their way into a file, as all functions that write one take them."""

from keras_sphereface.data.images import encode_jpeg


def encoded(images, labels, quality, name, progress=False):
    """Iterates over images and labels together.

    Args:
        images: Iterable of image files' bytes, kept as they are, or of arrays that `encode_jpeg` takes.
        labels: As many labels.
        quality: JPEG quality for arrays.
        name: What the progress bar is called.
        progress: Whether to show one even where nobody looks. Defaults to `False`.

    Yields:
        `(bytes of an image file, label)`.

    Raises:
        ValueError: At the first image without a label, or that is none; at the end if labels are left.
    """
    from tqdm import tqdm

    count = 0
    bar = tqdm(images, total=len(labels), desc=name, unit="image", disable=None if progress else True)
    for count, data in enumerate(bar, start=1):
        if count > len(labels):
            raise ValueError(f"Expected one label an image. Received: {len(labels)} labels and more images than that")
        is_file = isinstance(data, bytes | bytearray | memoryview)
        yield bytes(data) if is_file else encode_jpeg(data, quality), labels[count - 1]
    if count != len(labels):
        raise ValueError(f"Expected one label an image. Received: {count} images and {len(labels)} labels")
