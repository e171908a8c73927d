"""An epoch on features that are kept, beside the same epoch through the network.

    python -m experiments.benchmarks.features

`train` with the recipe `finetune` and `freeze="body"`, V2 1.0 at 224 px, on 500
generated training images and 100 for validation: once as it is, and once with a memory
budget that has no room for the features. An epoch is all that lies between the ends of
two: steps, validation and checkpoint. The first, in which all is traced, is left out.
Written to experiments/results/benchmark_features.json.
"""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time
from typing import Any

import numpy as np
from PIL import Image

from experiments.benchmarks.contenders import ROOT
from keras_mobilenets.machine import about_machine
from keras_mobilenets.storage import write_json
from keras_mobilenets.text import table

RESULT = ROOT / "experiments" / "results" / "benchmark_features.json"
NETWORK: dict[str, Any] = {"name": "mobilenet_v2", "alpha": 1.0, "resolution": 224}
CLASSES, SIZES = 5, {"train": 100, "validation": 20, "test": 20}  # images a class
EPOCHS = 4
BAR = 10
CONTENDERS = {"kept": 2**28, "through the network": 1}  # bytes for features


def write_folder(folder: pathlib.Path) -> pathlib.Path:
    """Class folders of noise on stripes, whose width and slope are the class."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:224, :224]
    for part, size in SIZES.items():
        for label in range(CLASSES):
            target = folder / part / f"stripes {label}"
            target.mkdir(parents=True)
            for number in range(size):
                phase = random.uniform(0, 2 * np.pi)
                across = rows * np.cos(label) + columns * np.sin(label)
                stripes = 60 * np.sin(across / (4 + 3 * label) + phase)
                noise = random.normal(128, 40, (224, 224, 3))
                pixels = np.clip(noise + stripes[..., None], 0, 255).astype("uint8")
                Image.fromarray(pixels).save(target / f"{number}.png")
    return folder


def main() -> None:
    import keras

    import keras_mobilenets as km
    from keras_mobilenets.settings import make_settings
    from keras_mobilenets.training.fitting import run_in

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.ends: list[float] = []

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as name:
        parent = pathlib.Path(name)
        data = write_folder(parent / "data")
        keras.utils.set_random_seed(0)
        donor = km.build(classes=CLASSES, **NETWORK)
        splits = km.load_data(
            data, resolution=NETWORK["resolution"], batch_size=20, recipe="finetune"
        )
        km.recalibrate(donor, splits.train, batches=5)
        donor.save(parent / "donor.keras")
        found: dict[str, dict[str, Any]] = {}
        weights = {}
        for label, budget in CONTENDERS.items():
            settings = make_settings(
                {
                    **NETWORK,
                    "data": data,
                    "weights": parent / "donor.keras",
                    "recipe": "finetune",
                    "freeze": "body",
                    "epochs": EPOCHS,
                    "head_epochs": 0,
                    "memory_budget": budget,
                }
            )
            clock, started = Clock(), time.perf_counter()
            run = run_in(parent / label, settings, callbacks=[clock], verbose=True)
            each = np.diff(clock.ends).tolist()
            weights[label] = run.model.get_weights()
            found[label] = {
                "epoch_seconds": round(statistics.median(each), 3),
                "run_seconds": round(time.perf_counter() - started, 1),
                "test_accuracy": run.report["test"]["accuracy"],
                "validation_loss": run.report["validation"]["loss"],
            }
    kept, through = found.values()
    ratio = through["epoch_seconds"] / kept["epoch_seconds"]
    apart = max(np.abs(a - b).max() for a, b in zip(*weights.values(), strict=True))
    print(table(["", *kept], [(label, *of.values()) for label, of in found.items()]))
    print(
        f"{ratio:.0f} x faster an epoch ({BAR} is the bar), weights {apart:.1g} apart"
    )
    result = {
        "machine": about_machine(),
        "images": {part: CLASSES * size for part, size in SIZES.items()},
        "network": NETWORK,
        "runs": found,
        "times_faster": round(ratio, 1),
        "bar": BAR,
        "largest_difference_of_weights": float(apart),
    }
    write_json(RESULT, result)


if __name__ == "__main__":
    main()
