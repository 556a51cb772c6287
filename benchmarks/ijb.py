"""Time and memory of the IJB-C protocols on generated data of its size: 469,375 images, 23,124 templates, 15,658,489 pairs.

    python benchmarks/ijb.py                 # the full size; writes about 1.2 GB to a temporary folder
    python benchmarks/ijb.py --scale 0.01    # a quick look

Features lie in an HDF5 file, meta files in the official text formats. "verification" is what 1:1 takes once both exist:
pooling the templates, scoring the pairs, counting. The floor is the same number of dot products of pairs of rows alone,
on one thread. Processor seconds stand beside wall seconds: on a machine with other work the wall clock says little.
"""

import argparse
import json
import os
import resource
import tempfile
import time

import h5py
import numpy as np

from keras_sphereface.data.ijb import read_ijb
from keras_sphereface.evaluation.ijb import ijb

IMAGES, TEMPLATES, PAIRS, MATED = 469_375, 23_124, 15_658_489, 19_557
GALLERY, PROBES = 1_772, 19_593
WIDTH = 512
LANDMARKS = "38.29 51.70 73.53 51.50 56.03 71.74 41.55 92.37 70.73 92.20"
BLOCK = 500_000


def write_meta(folder, scale, rng):
    """Writes meta files of the official formats; template t is of person t % (2 * gallery size)."""
    images, templates, pairs, mated = (max(int(n * scale), 100) for n in (IMAGES, TEMPLATES, PAIRS, MATED))
    gallery, probes = max(int(GALLERY * scale), 10), max(int(PROBES * scale), 60)
    people = 2 * gallery
    template_of = np.sort(np.append(np.arange(templates), rng.integers(0, templates, images - templates)))
    with (
        open(f"{folder}/ijbc_face_tid_mid.txt", "w") as media,
        open(f"{folder}/ijbc_name_5pts_score.txt", "w") as points,
    ):
        for image, template in enumerate(template_of.tolist(), 1):
            media.write(f"{image}.jpg {template + 1} {image // 3}\n")
            points.write(f"{image}.jpg {LANDMARKS} 0.9{image % 1000:03d}\n")
    with open(f"{folder}/ijbc_template_pair_label.txt", "w") as file:
        for first in range(0, pairs, BLOCK):
            count = min(BLOCK, pairs - first)
            left, right = rng.integers(0, templates, (2, count))
            if first < mated:
                some = min(mated - first, count)
                right[:some] = (left[:some] + people) % templates
            label = np.arange(first, first + count) < mated
            file.writelines(
                f"{a + 1} {b + 1} {c:d}\n" for a, b, c in zip(left.tolist(), right.tolist(), label.tolist())
            )
    for name, rows in (
        ("gallery_G1", range(gallery)),
        ("gallery_G2", range(gallery, people)),
        ("probe_mixed", range(people, min(people + probes, templates))),
    ):
        with open(f"{folder}/ijbc_1N_{name}.csv", "w") as file:
            file.write("TEMPLATE_ID,SUBJECT_ID\n")
            file.writelines(f"{row + 1},{row % people}\n" for row in rows)
    return images


def write_features(path, count, rng):
    with h5py.File(path, "w") as file:
        features = file.create_dataset("features", (count, WIDTH), np.float32)
        for first in range(0, count, 8192):
            features[first : first + 8192] = rng.standard_normal((min(8192, count - first), WIDTH), np.float32)


def timed(function, *arguments):
    """Returns the function's result, wall seconds and processor seconds of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return result, round(time.perf_counter() - wall, 2), round(time.process_time() - cpu, 2)


def dot_products(templates, pairs, rng):
    """Takes the bare dot products of random pairs of rows, in cache-sized blocks on one thread, and times them."""
    rows = rng.standard_normal((templates, WIDTH), np.float32)
    left, right = rng.integers(0, templates, (2, pairs))
    scores = np.empty(pairs, np.float32)

    def run():
        for first in range(0, pairs, 512):
            part = slice(first, first + 512)
            scores[part] = np.einsum("ij,ij->i", rows[left[part]], rows[right[part]])

    return timed(run)


def peak_gigabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of IJB-C's size")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        images = write_meta(folder, args.scale, rng)
        write_features(f"{folder}/features.h5", images, rng)
        meta, reading, reading_cpu = timed(read_ijb, folder, "ijbc")
        with h5py.File(f"{folder}/features.h5") as file:
            only_pairs = meta.__class__(**{**vars(meta), "galleries": (), "probes": None})
            report, verifying, verifying_cpu = timed(ijb, only_pairs, file["features"])
            peak = peak_gigabytes()
            only_search = meta.__class__(**{**vars(meta), "pair_mated": meta.pair_mated[:0]})
            _, searching, searching_cpu = timed(ijb, only_search, file["features"])
        result = {
            "images": images,
            "templates": report.num_templates,
            "pairs": len(meta.pair_mated),
            "reading_meta_s": reading,
            "reading_meta_cpu_s": reading_cpu,
            "verification_s": verifying,
            "verification_cpu_s": verifying_cpu,
            "identification_s": searching,
            "identification_cpu_s": searching_cpu,
            "peak_rss_gb_verification": round(peak, 2),
            "peak_rss_gb": round(peak_gigabytes(), 2),
        }
    _, result["floor_s"], result["floor_cpu_s"] = dot_products(result["templates"], result["pairs"], rng)
    result["ratio"] = round(result["verification_s"] / result["floor_s"], 2)
    result["ratio_cpu"] = round(result["verification_cpu_s"] / result["floor_cpu_s"], 2)
    result["load_average"] = round(os.getloadavg()[0], 1)
    width = max(map(len, result))
    print("\n".join(f"{key:<{width}}  {value}" for key, value in result.items()))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
