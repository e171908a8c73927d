"""What each kind of file is worth for a trained ImageNet network, on unseen photos.

Photographs are split into two halves, by turns of their names; crops of one half
calibrate, crops of the other are asked, and the other way round. The reference is the
network in float32.

    python -m experiments.quantisation WEIGHTS PHOTOS mobilenet_v2 --resolution 224

takes any weights that `km.build` does, of 1001 classes. The figures of docs/deploy.md
are of two networks that their authors quantised (dequantised again; google-coral's
repository test_data has both), on 22 photographs: five from there, 14 of scikit-image,
two of scikit-learn and one of Matplotlib.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
from typing import Any

import numpy as np
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.text import table

CROPS = 20  # of each photograph
SHARE = (0.45, 1.0)  # of its shorter side
KINDS = {
    "float32": {},
    "float16": {"quantization": "float16"},
    "dynamic": {"quantization": "dynamic"},
    "int8, biases as they were": {"quantization": "int8", "bias_correction": False},
    "int8": {"quantization": "int8"},
}
FIGURES = ("agreement", "agreement_where_sure", "rms_logit_error")


def crops(photo: pathlib.Path, resolution: int, rng: np.random.Generator) -> np.ndarray:
    """Squares out of a photograph, half of them mirrored: uint8 [CROPS, r, r, 3]."""
    image = Image.open(photo).convert("RGB")
    made = []
    for _ in range(CROPS):
        side = int(min(image.size) * rng.uniform(*SHARE))
        left, top = (int(rng.integers(0, most - side + 1)) for most in image.size)
        crop = image.crop((left, top, left + side, top + side))
        crop = crop.resize((resolution, resolution), Image.Resampling.BILINEAR)
        pixels = np.asarray(crop)
        made.append(pixels[:, ::-1] if rng.random() < 0.5 else pixels)
    return np.stack(made)


def measure(
    model: Any, photos: list[pathlib.Path], options: dict[str, Any]
) -> list[dict[str, Any]]:
    """The report of `km.export`, for either half."""
    rng = np.random.default_rng(0)
    images = [crops(photo, model.input_shape[1], rng) for photo in photos]
    labels = [str(number) for number in range(model.output_shape[-1])]
    reports = []
    for half in (0, 1):
        parts = {
            "train": np.concatenate(images[half::2]),
            "test": np.concatenate(images[1 - half :: 2]),
        }
        # Labels are wanted, and not looked at: they are of other classes.
        data = {k: (v, np.arange(len(v)) % 2) for k, v in parts.items()}
        splits = km.load_data(data, resolution=model.input_shape[1], batch_size=8)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "file.tflite")
            options = {"calibration": splits, "labels": labels, **options}
            try:
                report = km.export(model, path, **options)
            except km.ExportFailed:  # which is a result here
                (kept,) = pathlib.Path(folder).glob("*.json")
                report = json.loads(kept.read_text())
        reports.append(report)
    return reports


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("photos", type=pathlib.Path)
    parser.add_argument("name")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--classes", type=int, default=1001)
    given = parser.parse_args(arguments)
    model = km.build(
        given.name,
        alpha=given.alpha,
        resolution=given.resolution,
        classes=given.classes,
        weights=given.weights,
    )
    rows = []
    for name, options in KINDS.items():
        reports = measure(model, sorted(given.photos.iterdir()), options)
        proofs = [report["proof"] for report in reports]
        images = [proof["images"] for proof in proofs]
        sure = [proof["sure_images"] for proof in proofs]
        if not all(sure):
            raise SystemExit("the network is sure of no photograph: is it trained?")
        shares = [
            np.average([proof[figure] for proof in proofs], weights=weights)
            for figure, weights in zip(FIGURES, (images, sure, images), strict=True)
        ]
        rows.append(
            (
                name,
                f"{reports[0]['bytes']:,}",
                f"{shares[0]:.1%} of {sum(images)}",
                f"{shares[1]:.1%} of {sum(sure)}",
                f"{shares[2]:.2g}",
                min(report["latency"]["least_ms"] for report in reports),
            )
        )
    header = ["kind", "bytes", "agreement", "where sure", "rms error", "ms"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
