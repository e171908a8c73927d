"""What a finished run leaves: model, report, curves, a few images of its test split."""

from __future__ import annotations

import pathlib
import platform
from importlib import metadata
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets import storage
from keras_mobilenets.data import Splits, as_picture
from keras_mobilenets.plots import plot_curves
from keras_mobilenets.text import short_name
from keras_mobilenets.training import workdir as work
from keras_mobilenets.training.averaging import averaged_weights
from keras_mobilenets.training.card import make_card
from keras_mobilenets.training.job import Job

SAMPLES = 10  # test images that a run leaves to try `predict` on


def plain_model(model: keras.Model) -> keras.Model:
    """The trained network, uncompiled, with the averages where they are kept."""
    # Not clone_model, which copies the compile state: then model.keras would need
    # this package's optimizer to load.
    final = keras.Model.from_config(model.get_config())
    with averaged_weights(model):
        final.set_weights(model.get_weights())
    return final


def _class_weights(splits: Splits) -> dict[str, dict[str, float]]:
    """What an image of each class counted, where they were not all the same."""
    if splits.class_weights is None:
        return {}
    named = splits.classes[-len(splits.class_weights) :]
    return {"class_weights": dict(zip(named, splits.class_weights, strict=True))}


def make_report(job: Job, measured: dict[str, dict[str, float]]) -> dict[str, Any]:
    settings, splits = job.settings, job.splits
    costs = (
        "params", "trainable_params", "macs", "peak_memory", "bytes_per_element",
    )  # fmt: skip
    packages = {"tensorflow": tf.__version__, "keras": keras.__version__}
    values = settings.as_dict()
    values["initial_weights"] = values.pop("weights")
    return {
        **values,
        "pretrained": job.pretrained,
        "classes": list(splits.classes),
        "multi_label": splits.multi_label,
        "images": splits.counts,
        **_class_weights(splits),
        "test_is_validation": splits.test_is_validation,
        "scale": job.scale._asdict(),
        "steps_per_epoch": splits.steps_per_epoch,
        "epochs": job.position.epoch,
        "weights": "averaged" if settings.recipe.ema_decay else job.kept,
        **measured,
        "cost": {name: getattr(job.cost, name) for name in costs},
        "versions": {
            "python": platform.python_version(),
            "keras_mobilenets": metadata.version("keras_mobilenets"),
            **packages,
            "numpy": np.__version__,
        },
        "devices": [device.device_type for device in tf.config.list_logical_devices()],
    }


def save_artifacts(
    job: Job, model: keras.Model, report: dict[str, Any], timing: dict[str, float]
) -> None:
    """Write what a finished run leaves; the report last, for it marks the end."""
    directory = job.directory
    with storage.replacing(directory / work.MODEL) as beside:
        model.save(beside)
    if not job.brief:
        if job.position.log:
            storage.write_text(directory / work.HISTORY, job.position.as_csv())
            plot_curves(directory / work.HISTORY, directory / work.CURVES)
        storage.write_text(directory / work.CARD, make_card(report, job.settings))
        _save_samples(job.splits, directory / work.SAMPLES)
    storage.write_json(directory / work.TIMING, timing)
    storage.write_json(directory / work.REPORT, storage.json_value(report))
    # Only now: until then the run may have to be continued from one.
    job.checkpoints.remove()


def _save_samples(splits: Splits, folder: pathlib.Path) -> None:
    folder.mkdir(exist_ok=True)
    first = splits.test.unbatch().take(SAMPLES).as_numpy_iterator()
    for number, (image, label) in enumerate(first):
        pixels = np.rint(np.clip((image + 1) * 127.5, 0, 255)).astype("uint8")
        shown = short_name(splits.label_text(label)) or "none"
        with storage.replacing(folder / f"{number}-{shown}.png") as beside:
            as_picture(pixels).save(beside)


def tell(
    report: dict[str, Any], splits: Splits, seconds: float, directory: pathlib.Path
) -> None:
    after = f"after {seconds:.0f} s of training"
    if "test" in report:
        said = "accuracy {accuracy:.2%}"
        if splits.multi_label:
            said = "F1 {f1_score:.2%}, binary accuracy {binary_accuracy:.2%}"
        said = said.format(**report["test"])
        print(f"test {said} on {splits.num_test:,} images, {after}")
        if splits.test_is_validation:
            print(
                "there is no test split: these are the validation images, by which "
                "the run was also followed"
            )
    print(f"model, report and curves are in {directory}")
