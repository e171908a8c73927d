"""Which steps a network that was trained on ImageNet survives.

    python -m experiments.finetuning_photos --weights FILE --photos FOLDER

FILE is a trained MobileNetV1 0.25 at 128 px, such as the authors'
mobilenet_v1_0.25_128_quant.tflite; FOLDER holds a few photographs. Each photograph is a
class: crops of a tenth to a quarter of its shorter side, 20 of its left half to train
on, and of the right half 10 to validate and 30 to test. All rows are of the recipe
`finetune` with the classifier's ten epochs first, to the end of its thirty, without
early stopping:

- by TensorFlow 1's RMSProp as the papers had it (epsilon 1, momentum 0.9, rate 0.045),
  the body at several shares of the rate;
- by Keras' (epsilon 1e-7, no momentum, rate 0.01), which the recipe takes.

A network in whose kernels batch norm is folded has the same outputs as one with kernels
a fifth as large and scales five times as large. Steps in proportion to the gradient
(epsilon 1) are 25 times as large there: each row is of both. Written to
experiments/results/finetuning_photos.json.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import tempfile
from typing import Any

import numpy as np
from PIL import Image

from keras_mobilenets.storage import write_json
from keras_mobilenets.text import table

RESULT = pathlib.Path(__file__).parent / "results" / "finetuning_photos.json"
NETWORK: dict[str, Any] = {"name": "mobilenet_v1", "alpha": 0.25, "resolution": 128}
CROPS = {"train": (20, 0.0), "validation": (10, 0.5), "test": (30, 0.5)}
SIDES = (0.1, 0.25)  # of a crop, of the shorter side of its half
SUFFIXES = (".bmp", ".jpg", ".jpeg", ".png")
UNFOLDED = 5.0  # times as large a scale of batch norm, with smaller kernels

PAPERS: dict[str, Any] = {"learning_rate": 0.045, "epsilon": 1.0, "momentum": 0.9}
PAPERS |= {"initial_accumulator": 1.0, "weight_decay": 4e-5}
RULES: dict[str, dict[str, Any]] = {
    "finetune": {},
    "finetune, body at a tenth": {"body_learning_rate": 0.1},
    "classifier alone": {"freeze": "body"},
    "papers' RMSProp, body at 0.3": PAPERS | {"body_learning_rate": 0.3},
    "papers' RMSProp, body at 0.1": PAPERS | {"body_learning_rate": 0.1},
    "papers' RMSProp, body at 0.03": PAPERS | {"body_learning_rate": 0.03},
    "papers' RMSProp, body at 0.01": PAPERS | {"body_learning_rate": 0.01},
    "papers' RMSProp, body at 0.003": PAPERS | {"body_learning_rate": 0.003},
}


def write_crops(photos: list[pathlib.Path], folder: pathlib.Path, seed: int) -> None:
    """Class folders of crops, a class a photograph."""
    draws = np.random.default_rng(seed)
    for path in photos:
        photo = Image.open(path).convert("RGB")
        half, height = photo.width / 2, photo.height
        for part, (count, left) in CROPS.items():
            target = folder / part / path.stem
            target.mkdir(parents=True)
            for number in range(count):
                side = draws.uniform(*SIDES) * min(half, height)
                x = left * photo.width + draws.uniform(0, half - side)
                y = draws.uniform(0, height - side)
                box = tuple(int(edge) for edge in (x, y, x + side, y + side))
                size = (NETWORK["resolution"],) * 2
                photo.crop(box).resize(size).save(target / f"{number}.png")


def unfold(model: Any, times: float) -> None:
    """Make kernels smaller, and the scales of batch norm larger: the outputs stay."""
    for layer in model.layers:
        if not hasattr(layer, "moving_mean"):
            continue
        convolution = layer.input._keras_history.operation
        kernel, *rest = convolution.get_weights()
        convolution.set_weights([kernel / times, *rest])
        gamma, beta, mean, variance = layer.get_weights()
        layer.set_weights([gamma * times, beta, mean / times, variance])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, type=pathlib.Path)
    parser.add_argument("--photos", required=True, type=pathlib.Path)
    options = parser.parse_args()
    photos = sorted(p for p in options.photos.iterdir() if p.suffix in SUFFIXES)
    result = {"network": NETWORK, "weights": options.weights.name}
    result |= {"photos": [path.name for path in photos], "unfolded": UNFOLDED}
    result["rows"] = rows = measure(options.weights, photos)
    header = ["rule", "weights", "after the classifier", "lowest", "last", "test"]
    print(table(header, [tuple(row.values()) for row in rows]))
    write_json(RESULT, result)


def measure(
    weights: pathlib.Path, photos: list[pathlib.Path], **settings: Any
) -> list[dict[str, Any]]:
    """Validation accuracy, in percent, along the run of every rule, and at its end."""
    import keras_mobilenets as km

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_crops(photos, folder / "crops", seed=0)
        model = km.build(**NETWORK, weights=weights, include_top=False)
        unfold(model, UNFOLDED)
        model.save(folder / "unfolded.keras")
        kinds = {"folded": weights, "unfolded": folder / "unfolded.keras"}
        for rule, fields in RULES.items():
            for kind, path in kinds.items():
                run = km.train(
                    **NETWORK,
                    **{"recipe": "finetune", "early_stopping_patience": None},
                    **{"data": folder / "crops", "weights": path, "verbose": False},
                    workdir=folder / f"{rule}, {kind}",
                    **{**fields, **settings},
                )
                head = km.recipes["finetune"].head_epochs
                with open(run.workdir / "history.csv", newline="") as file:
                    each = [float(row["val_accuracy"]) for row in csv.DictReader(file)]
                values = [*each[head - 1 : head], min(each[head:]), each[-1]]
                values.append(run.report["test"]["accuracy"])
                shares = [round(100 * value, 1) for value in values]
                names = ("after_classifier", "lowest", "last", "test")
                rows.append(
                    {"rule": rule, "weights": kind}
                    | dict(zip(names, shares, strict=True))
                )
                print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
