"""Time and memory of searching a large gallery: 1,000,000 embeddings of 512 numbers in a memory-mapped file.

    python benchmarks/identification.py                     # writes 2 GB to a temporary folder
    python benchmarks/identification.py --gallery 20000     # a quick look

Half of the probes have a mate in the gallery; the others are the same kind of picture under a label not enrolled. The
floor is the bare matrix product of the probes with the same file, in blocks. Resident memory counts the pages of the mapped
file that the system keeps cached; anonymous memory is what the search itself takes.
"""

import argparse
import json
import os
import pathlib
import tempfile
import time

import numpy as np

from keras_sphereface.evaluation import identification

WIDTH, BLOCK = 512, 8192


def write_gallery(path, rows, rng):
    """Writes unit embeddings, block by block; returns them memory-mapped."""
    gallery = np.lib.format.open_memmap(path, "w+", np.float32, (rows, WIDTH))
    for start in range(0, rows, BLOCK):
        block = rng.standard_normal((min(BLOCK, rows - start), WIDTH), np.float32)
        gallery[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    gallery.flush()
    return np.load(path, mmap_mode="r")


def anonymous_gigabytes():
    """Memory of this process that is not the cache of a file, now."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 2**20


def matrix_products(gallery, probes):
    """The floor."""
    for start in range(0, len(gallery), BLOCK):
        (probes @ gallery[start : start + BLOCK].T).max(axis=1)


def main():
    """Runs the benchmark and prints floor, ours and ratio, and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", type=int, default=1_000_000)
    parser.add_argument("--probes", type=int, default=1000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        gallery = write_gallery(pathlib.Path(folder, "gallery.npy"), args.gallery, rng)
        mates = np.sort(rng.choice(args.gallery, args.probes, replace=False))
        probes = gallery[mates] + 0.02 * rng.standard_normal((args.probes, WIDTH), np.float32)
        labels = np.where(np.arange(args.probes) % 2, mates, -1 - mates)  # every second probe's person is not enrolled
        before = anonymous_gigabytes()
        start = time.perf_counter()
        report = identification(gallery, np.arange(args.gallery), probes, labels)
        ours = time.perf_counter() - start
        after = anonymous_gigabytes()
        start = time.perf_counter()
        matrix_products(gallery, probes)
        floor = time.perf_counter() - start
    print(report)
    result = {
        "gallery": args.gallery,
        "probes": args.probes,
        "floor_s": round(floor, 2),
        "ours_s": round(ours, 2),
        "ratio": round(ours / floor, 2),
        "anonymous_gb_before": round(before, 2),
        "anonymous_gb_after": round(after, 2),
        "load_average": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
