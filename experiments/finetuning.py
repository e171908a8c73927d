"""Fine-tuning against training from scratch, on twenty images a class.

    python -m experiments.finetuning

Fashion-MNIST of Debian's package dataset-fashion-mnist, V2 0.35 at 32 px. A network is
trained on the first five classes (T-shirt, trouser, pullover, dress, coat: 400 images
each). Then the other five (sandal, shirt, sneaker, bag, boot) are learned from 20
images each, for as many steps in every row:

- from scratch, by the recipe `finetune` with all that keeps weights switched off, and
  by `quick`, which is made for training small sets from scratch;
- from the first network's weights by `finetune`: with its batch norm `frozen`, as it
  is, `train` and `recalibrate`; with `freeze="body"`, the classifier alone; and with
  `body_learning_rate` and `head_epochs` as if there were no body to be kept.

20 other images a class are for validation, by which the best epoch is kept; accuracy is
on the 5,000 test images of these classes. Three seeds, each with its own first network
and its own 20 images. Written to experiments/results/finetuning.json.
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

from keras_mobilenets.data.fashion import examples
from keras_mobilenets.data.order import permutation
from keras_mobilenets.storage import write_json
from keras_mobilenets.text import table

RESULT = pathlib.Path(__file__).parent / "results" / "finetuning.json"
NETWORK: dict[str, Any] = {"name": "mobilenet_v2", "alpha": 0.35, "resolution": 32}
FIRST, OTHER = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
SEEDS = (0, 1, 2)
EPOCHS = 60
BAR = 10  # points, over the better of the two from scratch

BASE = {
    "recipe": "finetune",
    "batch_size": 20,
    "epochs": EPOCHS,
    "decay_epochs": EPOCHS,
}
SCRATCH = {"head_epochs": 0, "body_learning_rate": 1.0, "batch_norm": "train"}
FROM_SCRATCH: dict[str, dict[str, Any]] = {
    "from scratch, finetune": BASE | SCRATCH,
    "from scratch, quick": BASE | {"recipe": "quick", "early_stopping_patience": 10},
}
FINE_TUNED: dict[str, dict[str, Any]] = {
    "batch norm frozen": BASE,
    "batch norm trained": BASE | {"batch_norm": "train"},
    "batch norm recalibrated": BASE | {"batch_norm": "recalibrate"},
    "classifier alone": BASE | {"freeze": "body"},
    "all at once, one rate": BASE | {"head_epochs": 0, "body_learning_rate": 1.0},
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
    accuracies: dict[str, list[float]] = {}
    epochs: dict[str, list[int]] = {}
    first_networks = []
    with tempfile.TemporaryDirectory() as name:
        for seed in SEEDS:
            folder = pathlib.Path(name) / str(seed)

            def run(label: str, folder=folder, seed=seed, **settings: Any) -> Any:
                run = km.train(
                    **NETWORK,
                    workdir=folder / label,
                    seed=seed,
                    verbose=False,
                    **settings,
                )
                print(f"seed {seed}, {label}: {run.report['test']['accuracy']:.2%}")
                return run

            sizes = {"train": 400, "validation": 40, "test": 100}
            many = write_folder(folder / "first", FIRST, sizes, seed)
            donor = run("the first network", data=many, recipe="quick")
            first_networks.append(round(100 * donor.report["test"]["accuracy"], 2))
            sizes = {"train": 20, "validation": 20, "test": 1000}
            few = write_folder(folder / "other", OTHER, sizes, seed)
            weights = donor.workdir / "model.keras"
            for label, settings in (FROM_SCRATCH | FINE_TUNED).items():
                given = weights if label in FINE_TUNED else None
                report = run(label, data=few, weights=given, **settings).report
                found = round(100 * report["test"]["accuracy"], 2)
                accuracies.setdefault(label, []).append(found)
                epochs.setdefault(label, []).append(report["epochs"])
    rows = [
        {
            "run": label,
            "test_accuracy": found,
            "mean": round(statistics.mean(found), 2),
            "epochs": epochs[label],
        }
        for label, found in accuracies.items()
    ]
    best = max(FROM_SCRATCH, key=lambda label: statistics.mean(accuracies[label]))
    pairs = zip(accuracies["batch norm frozen"], accuracies[best], strict=True)
    gains = [round(tuned - scratch, 2) for tuned, scratch in pairs]
    header = ["run", *(f"seed {seed}" for seed in SEEDS), "mean"]
    print(table(header, [(r["run"], *r["test_accuracy"], r["mean"]) for r in rows]))
    print(f"finetune gains {gains} points over {best!r}, by {BAR} or more is the bar")
    result = {
        "network": NETWORK,
        "images_a_class": {"train": 20, "validation": 20, "test": 1000},
        "first_network_test_accuracy": first_networks,
        "most_steps": EPOCHS * (20 * len(OTHER) // BASE["batch_size"]),
        "rows": rows,
        "gain_over": best,
        "gains": gains,
        "bar": BAR,
        "seconds": round(time.perf_counter() - started),
    }
    write_json(RESULT, result)


if __name__ == "__main__":
    main()
