"""What detection and alignment cost in accuracy: LFW's aligned crops against photos made from them, aligned again.

    python benchmarks/alignment.py LFW_112X112 PAIRS.TXT NETWORK.ONNX
    python benchmarks/alignment.py LFW_112X112 PAIRS.TXT NETWORK.ONNX --pairs 60     # a quick look

Each crop is enlarged, turned and laid on a grey photo of 250 x 250 pixels, about the size of LFW's own; the photo is
detected and aligned as `Recognizer` does it. NETWORK.ONNX takes one 112x112 image, `(x / 255 - mean) / std` with ImageNet's
mean and std. The pairs are taken evenly from the 6,000 of the protocol; mirror images are added.
"""

import argparse
import json

import numpy as np
from PIL import Image

from keras_sphereface.data import PairSet, read_lfw
from keras_sphereface.data.alignment import ARCFACE_112X112
from keras_sphereface.errors import NoFaceError, require
from keras_sphereface.evaluator import evaluate
from keras_sphereface.faces import FaceAligner

SIDE, GREY = 250, 110
ENLARGED, TURNED = (1.1, 1.5), 15  # factors; degrees to either side


def photo(crop, rng):
    """Lays a crop on a photo; returns the photo and the five points' true places in it."""
    scale, angle = rng.uniform(*ENLARGED), np.radians(rng.uniform(-TURNED, TURNED))
    factor = scale * np.exp(1j * angle)
    middle, shift = (np.array(crop.shape[1::-1]) - 1) / 2, rng.uniform(-15, 15, 2)
    target = (SIDE - 1) / 2 + shift
    offset = target @ [1, 1j] - factor * (middle @ [1, 1j])
    back, origin = 1 / factor, -offset / factor
    # Pillow counts from the pixel's edge.
    half = 0.5 + 0.5j
    origin = origin - back * half + half
    matrix = (back.real, -back.imag, origin.real, back.imag, back.real, origin.imag)
    image = Image.fromarray(crop).transform(
        (SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=(GREY,) * 3
    )
    places = factor * (ARCFACE_112X112 @ [1, 1j]) + offset
    return np.asarray(image), np.stack([places.real, places.imag], axis=1)


def network(path):
    """The embedding function of the ONNX file."""
    session = require("onnxruntime", "export").InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])

    def embed(images):
        scaled = ((images / np.float32(255) - mean) / deviation).transpose(0, 3, 1, 2)
        return np.concatenate([session.run(None, {name: image[None]})[0] for image in np.ascontiguousarray(scaled)])

    return embed


def subset(pairs, count):
    """Every so many-th pair, with only the images that these need, decoded."""
    chosen = np.unique(np.linspace(0, len(pairs) - 1, count).astype(int))
    used, inverse = np.unique(np.concatenate([pairs.left[chosen], pairs.right[chosen]]), return_inverse=True)
    left, right = np.split(inverse, 2)
    return np.stack([pairs.image(index) for index in used]), left, right, pairs.mated[chosen]


def realign(crops, seed=0):
    """Makes a photo of each crop and aligns it; returns the new crops and what happened."""
    rng, aligner = np.random.default_rng(seed), FaceAligner(which="central")
    aligned, errors, recognised, missed = crops.copy(), [], 0, 0
    for index, crop in enumerate(crops):
        image, places = photo(crop, rng)
        try:
            face = aligner.faces(image)[0]
            aligned[index] = aligner(image)[0]
            errors.append(np.linalg.norm(face.points.mean(axis=0) - places.mean(axis=0)))
            recognised += aligner(crop)[0] is not None and np.array_equal(aligner(crop)[0], crop)
        except NoFaceError:
            missed += 1
    return aligned, {"missed": missed, "recognised": recognised / len(crops), "shift_px": float(np.median(errors))}


def main():
    """Prints both accuracies at the best threshold and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lfw")
    parser.add_argument("protocol")
    parser.add_argument("network")
    parser.add_argument("--pairs", type=int, default=300)
    args = parser.parse_args()
    crops, left, right, mated = subset(read_lfw(args.lfw, args.protocol), args.pairs)
    aligned, happened = realign(crops)
    embed, result = network(args.network), {"pairs": len(left), "images": len(crops), **happened}
    for name, images in (("given", crops), ("aligned", aligned)):
        report = evaluate(embed, PairSet.from_arrays(images, left, right, mated, name=name), bootstrap=0)
        result[name] = report.best_threshold_accuracy
        result[f"{name}_auc"] = report.auc
    cosines = [np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(embed(crops), embed(aligned))]
    print(f"given crops {result['given']:.4f}, photos aligned again {result['aligned']:.4f} (best threshold)")
    print(json.dumps({**result, "cosine_given_aligned": float(np.median(cosines))}))


if __name__ == "__main__":
    main()
