"""What each kind of file is worth for a trained ImageNet network, on unseen photos.

Photographs are split into two halves, by turns of their names; crops of one half
calibrate, crops of the other are asked, and the other way round. The reference is the
network in float32.

    python -m experiments.quantisation WEIGHTS PHOTOS mobilenet_v2 --resolution 224

takes any weights that `km.build` does, of 1001 classes. The figures of docs/deploy.md
are of two networks that their authors quantised (dequantised again; google-coral's
repository test_data has both), on 22 photographs: five from there, 14 of scikit-image,
two of scikit-learn and one of Matplotlib. Written, a network at a time, to
experiments/results/quantisation.json; every row is of the same crops.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np
from PIL import Image

import keras_mobilenets as km
from experiments.benchmarks.contenders import ROOT
from keras_mobilenets.machine import about_machine
from keras_mobilenets.storage import write_json
from keras_mobilenets.text import table

RESULT = ROOT / "experiments" / "results" / "quantisation.json"
CROPS = 20  # of each photograph
SHARE = (0.45, 1.0)  # of its shorter side
KINDS = {
    "float32": {},
    "float16": {"quantization": "float16"},
    "dynamic": {"quantization": "dynamic"},
    "int8, biases as they were": {"quantization": "int8", "bias_correction": False},
    "int8": {"quantization": "int8"},
}


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
            given = {"calibration": splits, "labels": labels, **options}
            try:
                report = km.export(model, path, **given)
            except km.ExportFailed:  # which is a result here
                (kept,) = pathlib.Path(folder).glob("*.json")
                report = json.loads(kept.read_text())
        reports.append(report)
    return reports


def summary(name: str, reports: list[dict[str, Any]]) -> dict[str, Any]:
    """One row: what the reports on either half say together."""
    proofs = [report["proof"] for report in reports]
    images = [proof["images"] for proof in proofs]
    sure = [proof["sure_images"] for proof in proofs]
    if not all(sure):
        raise SystemExit("the network is sure of no photograph: is it trained?")

    def mean(figure: str, weights: list[int], power: int = 1) -> float:
        values = [proof[figure] ** power for proof in proofs]
        return float(np.average(values, weights=weights)) ** (1 / power)

    return {
        "kind": name,
        "bytes": reports[0]["bytes"],
        "images": sum(images),
        "agreement": round(mean("agreement", images), 4),
        "sure_images": sum(sure),
        "agreement_where_sure": round(mean("agreement_where_sure", sure), 4),
        "rms_logit_error": float(f"{mean('rms_logit_error', images, power=2):.3g}"),
        "rejected": any("failed" in report for report in reports),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", type=pathlib.Path)
    parser.add_argument("photos", type=pathlib.Path)
    parser.add_argument("name")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--classes", type=int, default=1001)
    given = parser.parse_args(arguments)
    network = {
        "name": given.name,
        "alpha": given.alpha,
        "resolution": given.resolution,
        "classes": given.classes,
    }
    model = km.build(weights=given.weights, **network)
    photos = sorted(given.photos.iterdir())
    rows = []
    for name, options in KINDS.items():
        rows.append(summary(name, measure(model, photos, options)))
        print(rows[-1], file=sys.stderr, flush=True)
    header = ["kind", "bytes", "agreement", "where sure", "rms error"]
    shown = [
        (
            row["kind"],
            f"{row['bytes']:,}",
            f"{row['agreement']:.1%} of {row['images']}",
            f"{row['agreement_where_sure']:.1%} of {row['sure_images']}",
            f"{row['rms_logit_error']:.2g}",
        )
        for row in rows
    ]
    print(table(header, shown))
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    results[f"{given.name} {given.alpha:g}, {given.resolution} px"] = {
        "network": {**network, "weights": given.weights.name},
        "photographs": len(photos),
        "crops_of_each": CROPS,
        "share_of_shorter_side": SHARE,
        "rows": rows,
        "machine": about_machine(),
    }
    write_json(RESULT, results)


if __name__ == "__main__":
    main()
