"""RecordIO to shuffled, flipped batches of uint8 images, beside `tf.io.decode_jpeg` alone on the same bytes and cores.

    python benchmarks/input_pipeline.py                         # 20,000 synthetic faces, packed to a temporary folder
    python benchmarks/input_pipeline.py --rec faces/train.rec   # your own
    python benchmarks/input_pipeline.py --records 5822653       # start-up and memory with an index of MS1MV2's size

The floor decodes bytes that lie in memory by the same accurate transform, in two ways, of which the faster counts: tf.data
mapping each image (as many calls at a time as TensorFlow finds best), and tf.data mapping whole batches.
"""

import argparse
import os
import pathlib
import resource
import tempfile
import time

import numpy as np
import timing

import keras_sphereface as ksf
from keras_sphereface.data.recordio_writer import RecordIOWriter

BATCH = 128
READ_AHEAD = 24  # more batches than wait or are being made
IDENTITIES, EACH = 1000, 20
RECORD_BYTES = 12_288  # a face of 112x112 as a JPEG, about


def pack_synthetic(path):
    """Packs synthetic faces as JPEG; returns the path."""
    import tensorflow as tf

    faces = ksf.data.synthetic(200, 5)
    encoded = [tf.io.encode_jpeg(faces.read(i)[0], quality=95).numpy() for i in range(faces.num_images)]
    with RecordIOWriter(path) as writer:
        for number in range(IDENTITIES * EACH):
            writer.add(encoded[number % len(encoded)], number // EACH)
    return path


def decode_alone(dataset, images):
    """The floors: decoding only, from memory, image by image and batch by batch."""
    import tensorflow as tf

    data = [dataset.source.read(record)[0] for record in range(images)]
    decode = lambda item: tf.io.decode_jpeg(item, 3, dct_method="INTEGER_ACCURATE")  # noqa: E731
    decoded = tf.TensorSpec((*dataset.image_size, 3), tf.uint8)
    together = lambda batch: tf.map_fn(decode, batch, fn_output_signature=decoded)  # noqa: E731
    bytes_of_all = tf.data.Dataset.from_tensor_slices(data).cache()
    each = bytes_of_all.map(decode, num_parallel_calls=os.cpu_count()).batch(BATCH, drop_remainder=True)
    batches = bytes_of_all.batch(BATCH, drop_remainder=True).map(together, num_parallel_calls=os.cpu_count())
    options = tf.data.Options()
    options.autotune.enabled = False  # An iterator's end often waits for the tuner's next turn: as long again.
    each, batches = each.with_options(options), batches.with_options(options)
    return {"image_by_image": lambda: sum(1 for _ in each), "batch_by_batch": lambda: sum(1 for _ in batches)}


def throughput(dataset, images, augment):
    """Ours, from one endless stream, and what empties it of the batches that were made while nobody asked.

    A stream of its own for each run would make some batches for nobody at its end.
    """
    stream = iter(dataset.batches(BATCH, augment=augment, repeat=True))
    take = lambda batches: [next(stream)[1] for _ in range(batches)]  # noqa: E731
    return lambda: take(images // BATCH), lambda: take(READ_AHEAD)


def write_sparse(folder, records):
    """An index of many records beside a .rec file that is a hole on the disk but for its first images."""
    small = pathlib.Path(folder, "small.rec")
    with RecordIOWriter(small, insightface=False) as writer:
        image = ksf.data.synthetic(1, 1).read(0)[0]
        import tensorflow as tf

        writer.add(tf.io.encode_jpeg(image).numpy(), 0)
    path = pathlib.Path(folder, "train.rec")
    path.write_bytes(small.read_bytes())
    os.truncate(path, records * RECORD_BYTES)
    with open(pathlib.Path(folder, "train.idx"), "w") as file:
        file.writelines(f"{number}\t{number * RECORD_BYTES}\n" for number in range(records))
    return path


def start_up(records):
    """Seconds until the first batch's records are known, and the memory it took."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_sparse(folder, records)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        dataset = ksf.data.from_recordio(path, num_classes=85_742)
        opened = time.perf_counter() - start
        dataset.records_of_step(0, BATCH)
        shuffled = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{records} records: opened in {opened:.2f} s, first shuffled batch known after {shuffled:.2f} s, "
          f"{(peak - before) / 1024:.0f} MB more at the peak")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rec", help="a .rec file; synthetic faces if not given")
    parser.add_argument("--images", type=int, default=12_800, help="images of one run")
    parser.add_argument("--augment", default="flip", choices=("none", "flip", "strong"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, help="measure start-up with an index of this size instead")
    args = parser.parse_args()
    if args.records:
        start_up(args.records)
        return
    with tempfile.TemporaryDirectory() as folder:
        dataset = ksf.data.from_recordio(args.rec or pack_synthetic(os.path.join(folder, "train.rec")))
        images = min(args.images, dataset.num_images) // BATCH * BATCH
        mean_bytes = np.mean([len(dataset.source.read(record)[0]) for record in range(500)])
        floors = decode_alone(dataset, images)
        ours, emptied = throughput(dataset, images, args.augment)
        seconds = timing.in_turn({**floors, "ours": ours}, args.rounds, before={"ours": emptied})
    floor = min(seconds[name] for name in floors)
    timing.report(
        f"{images} JPEGs of {mean_bytes:.0f} bytes, augment={args.augment}",
        floor,
        seconds["ours"],
        **{f"{name}_images_per_second": round(images / value) for name, value in seconds.items()},
        share_of_floor=round(floor / seconds["ours"], 3),
        share_of_image_by_image=round(seconds["image_by_image"] / seconds["ours"], 3),
    )


if __name__ == "__main__":
    main()
