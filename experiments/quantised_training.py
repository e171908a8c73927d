"""Fine-tuning to 8 bits where calibration loses: channels of very different size.

    python -m experiments.quantised_training

V1 0.25 at 32 px (`shallow`, `activation="relu"`) is trained on the digits. Then
channels behind its depthwise convolutions are multiplied by factors between 1/n and n,
and the kernels that read them divided by the same, which changes nothing in float32:
ReLU lets any factor pass. In 8 bits all channels of a layer share one range, so that
the small ones are lost. (Networks get so by themselves: Nagel et al. 2019,
arXiv:1906.04721, figure 2, shows it of MobileNetV2.)

Accuracy of the files on the 180 test digits, as LiteRT runs them: in float32, in int8
calibrated with bias correction, and in int8 after `km.fine_tune_quantized`. Three
seeds. Written to experiments/results/quantised_training.json.
"""

from __future__ import annotations

import pathlib
import statistics
import tempfile
from typing import Any

import keras
import numpy as np

import keras_mobilenets as km
from experiments.report import RESULTS
from keras_mobilenets.deploy import export_model
from keras_mobilenets.machine import about_machine
from keras_mobilenets.storage import write_json
from keras_mobilenets.text import table

RESULT = RESULTS / "quantised_training.json"
NETWORK: dict[str, Any] = {
    "name": "mobilenet_v1",
    "alpha": 0.25,
    "resolution": 32,
    "shallow": True,
    "activation": "relu",
}
SEEDS = (0, 1, 2)
FACTORS = (1, 10, 30)  # n
EPOCHS = 20  # of fine-tuning; training is `quick`'s
KINDS = ("float32", "calibrated", "fine-tuned")


def scale_channels(model: keras.Model, largest: float, seed: int) -> None:
    """Multiply channels between depthwise and pointwise convolutions, and undo it."""
    rng = np.random.default_rng(seed)
    end = np.log(largest)
    for layer in model.layers:
        if layer.name.endswith("depthwise_bn"):
            factor = np.exp(rng.uniform(-end, end, layer.gamma.shape)).astype("float32")
            layer.gamma.assign(layer.gamma * factor)
            layer.beta.assign(layer.beta * factor)
            reader = model.get_layer(layer.name.replace("depthwise_bn", "project"))
            reader.kernel.assign(reader.kernel / factor[:, None])


def accuracy(model: keras.Model, splits: km.Splits, quantization: str | None) -> float:
    """Of a file on the test split, whether it agrees with the network or not."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.tflite")
        report = export_model(
            model,
            path,
            quantization=quantization,
            calibration=splits,
            may_disagree=True,
        )
    return report["proof"]["accuracy"]


def measure(seed: int, run: km.Run) -> list[dict[str, Any]]:
    """A row for each n."""
    rows = []
    for largest in FACTORS:
        splits = km.load_data(
            "digits", resolution=NETWORK["resolution"], recipe="quick", seed=seed
        )
        model = keras.models.clone_model(run.model)
        model.set_weights(run.model.get_weights())
        scale_channels(model, largest, seed)
        tuned = km.fine_tune_quantized(model, splits, epochs=EPOCHS, verbose=False)
        models = {None: model, "int8": model, "tuned": tuned}
        found = {
            kind: accuracy(models[which], splits, "int8" if which else None)
            for kind, which in zip(KINDS, models, strict=True)
        }
        rows.append({"seed": seed, "n": largest, **found})
        print(rows[-1], flush=True)
    return rows


def text(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, and each seed, as printed and as in docs/deploy.md."""
    lines = []
    for largest in FACTORS:
        of = [row for row in rows if row["n"] == largest]
        cells = [
            f"{statistics.mean(row[kind] for row in of):.1%} "
            f"({', '.join(f'{100 * row[kind]:.1f}' for row in of)})"
            for kind in KINDS
        ]
        lines.append((largest, *cells))
    return table(["n", *KINDS], lines)


def main() -> None:
    rows = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            run = km.train(
                **NETWORK, seed=seed, workdir=pathlib.Path(folder, "run"), verbose=False
            )
        rows += measure(seed, run)
    print(text(rows))
    settings = {"network": NETWORK, "recipe": "quick", "fine_tuning_epochs": EPOCHS}
    write_json(RESULT, {"settings": settings, "machine": about_machine(), "rows": rows})


if __name__ == "__main__":
    main()
