"""Fine-tuning against training from scratch, on twenty images a class.

    python -m experiments.finetuning

Fashion-MNIST of Debian's package dataset-fashion-mnist, V2 0.35 at 48 px. A network is
trained on the first five classes (T-shirt, trouser, pullover, dress, coat: 500 images
each). Then the other five (sandal, shirt, sneaker, bag, boot) are learned from 20
images each, in 40 steps of 20 in every row, by the weights after the last of them:

- from scratch, by `quick`, which is made for training small sets from scratch, with
  batch norm as it is trained and recalibrated at the end, and by `finetune` with all
  that keeps weights switched off;
- from the first network's weights, with a new classifier, by `finetune`: with its batch
  norm `frozen`, as it is, `train` and `recalibrate`; with the body at other shares of
  the rate; by the papers' RMSProp, the body at 0.3, which suits this network and ruins
  those of ImageNet (experiments/finetuning_photos.py); and with `freeze="body"`, the
  classifier alone.

Accuracy is on 2,000 test images of these classes. Three seeds, each with its own first
network and its own 20 images. Written to experiments/results/finetuning.json.
"""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from experiments.finetuning_photos import PAPERS
from keras_mobilenets.data.fashion import examples
from keras_mobilenets.data.order import permutation
from keras_mobilenets.storage import write_json
from keras_mobilenets.text import table

RESULT = pathlib.Path(__file__).parent / "results" / "finetuning.json"
NETWORK: dict[str, Any] = {"name": "mobilenet_v2", "alpha": 0.35, "resolution": 48}
FIRST, OTHER = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
MANY = {"train": 500, "validation": 40, "test": 100}  # images a class
FEW = {"train": 20, "validation": 20, "test": 400}
SEEDS = (0, 1, 2)
BAR = 10  # points

LENGTH = {"batch_size": 20, "epochs": 8, "decay_epochs": 8}
LENGTH |= {"early_stopping_patience": None}
BASE = {"recipe": "finetune", **LENGTH, "head_epochs": 2}
QUICK = {"recipe": "quick", **LENGTH}
SCRATCH = {**BASE, "head_epochs": 0, "body_learning_rate": 1.0, "batch_norm": "train"}
# The background class makes six of five: the classifier is not of as many as there.
DONOR = {"recipe": "quick", "epochs": 8, "decay_epochs": 8, "background_class": True}

FROM_SCRATCH: dict[str, dict[str, Any]] = {
    "from scratch, quick": QUICK,
    "from scratch, quick, recalibrated": QUICK | {"batch_norm": "recalibrate"},
    "from scratch, finetune, recalibrated": SCRATCH | {"batch_norm": "recalibrate"},
}
FINE_TUNED: dict[str, dict[str, Any]] = {
    "finetune: batch norm frozen": BASE,
    "batch norm trained": BASE | {"batch_norm": "train"},
    "batch norm recalibrated": BASE | {"batch_norm": "recalibrate"},
    "body at a tenth of the rate": BASE | {"body_learning_rate": 0.1},
    "papers' RMSProp, body at 0.3": BASE | PAPERS | {"body_learning_rate": 0.3},
    "classifier alone": BASE | {"freeze": "body"},
}


def write_folder(
    folder: pathlib.Path, classes: Sequence[int], sizes: dict[str, int], seed: int
) -> pathlib.Path:
    """Class folders of so many images a class, chosen by the seed.

    Training and validation images are of the training split, the test images of the
    test split: `sizes` are of train, validation and test.
    """
    for files, parts in (("train", ("train", "validation")), ("t10k", ("test",))):
        found = [example for _, example in examples(files)]
        for label in classes:
            images = [e["image"] for e in found if e["label"] == label]
            chosen = permutation(len(images), seed, label)
            for part in parts:
                target = folder / part / str(label)
                target.mkdir(parents=True)
                taken, chosen = chosen[: sizes[part]], chosen[sizes[part] :]
                for number in np.sort(taken):
                    image = Image.fromarray(images[number][..., 0])
                    image.save(target / f"{number}.png")
    return folder


def main() -> None:
    import keras_mobilenets as km

    started = time.perf_counter()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        for seed in SEEDS:
            folder = pathlib.Path(name) / str(seed)
            many = write_folder(folder / "first", FIRST, MANY, seed)
            few = write_folder(folder / "other", OTHER, FEW, seed)

            def run(
                label: str, folder=folder, seed=seed, **settings: Any
            ) -> pathlib.Path:
                run = km.train(
                    **NETWORK,
                    workdir=folder / label,
                    seed=seed,
                    verbose=False,
                    **settings,
                )
                accuracy = round(100 * run.report["test"]["accuracy"], 2)
                print(f"seed {seed}, {label}: {accuracy} %", flush=True)
                found.setdefault(label, []).append(accuracy)
                return run.workdir / "model.keras"

            weights = run("the first network, on its classes", data=many, **DONOR)
            for label, settings in FROM_SCRATCH.items():
                run(label, data=few, **settings)
            for label, settings in FINE_TUNED.items():
                run(label, data=few, weights=weights, **settings)
    gains = {
        label: [
            round(tuned - scratch, 2)
            for tuned, scratch in zip(
                found["finetune: batch norm frozen"], found[label], strict=True
            )
        ]
        for label in FROM_SCRATCH
    }
    rows = [
        {"run": label, "test_accuracy": each, "mean": round(statistics.mean(each), 2)}
        for label, each in found.items()
    ]
    header = ["run", *(f"seed {seed}" for seed in SEEDS), "mean"]
    print(table(header, [(r["run"], *r["test_accuracy"], r["mean"]) for r in rows]))
    for label, points in gains.items():
        print(f"finetune gains {points} points on {label!r}")
    result = {
        "network": NETWORK,
        "images_a_class": {"first": MANY, "other": FEW},
        "steps": LENGTH["epochs"] * FEW["train"] * len(OTHER) // LENGTH["batch_size"],
        "rows": rows,
        "gains": gains,
        "bar": BAR,
        "seconds": round(time.perf_counter() - started),
    }
    write_json(RESULT, result)


if __name__ == "__main__":
    main()
