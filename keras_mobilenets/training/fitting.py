"""`train`: data, network, recipe, fit, report; everything around `model.fit`."""

from __future__ import annotations

import csv
import os
import pathlib
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from keras_mobilenets.architecture import cost
from keras_mobilenets.architecture.arguments import (
    NATIVE_RESOLUTION,
    VARIANTS,
    check_integer,
    check_known,
    check_name,
)
from keras_mobilenets.data import Splits, load_data
from keras_mobilenets.models import build
from keras_mobilenets.plots import plot_curves
from keras_mobilenets.recipe import FIELDS, Recipe, get_recipe
from keras_mobilenets.training import workdir as files
from keras_mobilenets.training.averaging import averaged_weights
from keras_mobilenets.training.callbacks import KeepLastGood, LogLearningRate, SetEpoch
from keras_mobilenets.training.compiling import compile
from keras_mobilenets.training.inference import measure
from keras_mobilenets.training.losses import regularize

# What `train()` chooses where nothing is said: a run of a minute on the digits,
# and the authors' network and recipe on everything else.
QUICK_START = {"alpha": 0.35, "resolution": 48, "recipe": "quick"}
AUTHORS = {"mobilenet_v1": "slim_v1", "mobilenet_v2": "slim_v2"}
DATA_OPTIONS = ("broken", "splits", "memory_budget", "threads")  # of load_data
SAMPLES = 10


class Run(NamedTuple):
    """A finished run: the trained model, its report, and where they lie."""

    model: keras.Model
    report: dict[str, Any]
    workdir: pathlib.Path


def _split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """(variations of the network, fields of the recipe, arguments of load_data)."""
    network = dict.fromkeys((*sum(VARIANTS.values(), ()), "batch_norm_epsilon"))
    groups = (network, FIELDS, DATA_OPTIONS)
    check_known("train()", settings, (*network, *FIELDS, *DATA_OPTIONS))
    return tuple({k: v for k, v in settings.items() if k in group} for group in groups)


def train(
    name: str = "mobilenet_v2",
    *,
    data: str | os.PathLike[str] = "digits",
    alpha: float | None = None,
    rho: float | None = None,
    resolution: int | None = None,
    recipe: str | Recipe | None = None,
    workdir: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    verbose: bool = True,
    **settings: Any,
) -> Run:
    """Train a MobileNet on a source of images and leave a complete work directory.

    `train()` alone trains MobileNetV2 (alpha 0.35, 48 px) on scikit-learn's digits
    with the `quick` recipe, in about a minute on a laptop. On any other data the
    defaults are alpha 1, 224 px and slim's recipe.

    Args:
        name, alpha, rho, resolution, weights: as in `build`.
        data: as `source` in `load_data`: "digits", a TFDS name, or a folder.
        recipe: a name in `km.recipes`, or a `Recipe`.
        workdir: a directory that is new or empty; by default the next free
            `runs/<data>-<number>`. Gets `model.keras`, `report.json`,
            `history.csv`, `curves.png`, `tensorboard/` and `samples/`.
        seed: of weights, order, augmentation and dropout.
        data_dir: where TFDS keeps its prepared data.
        verbose: show progress.
        **settings: fields of the recipe (`epochs=20`, `learning_rate=0.01`),
            variations of the network (`expansion=4`), and `broken`, `splits`,
            `memory_budget` and `threads` of `load_data` (`broken="fail"`).

    Returns:
        A `Run` (model, report, workdir). With `ema_decay` the model holds the
        averaged weights. `model` is uncompiled and of plain Keras layers.

    Raises:
        ValueError: an impossible argument, before anything is written.
        TrainingDiverged: the loss became NaN; the last good weights are kept.

    Example:
        run = km.train(data="digits", epochs=5)
        run.report["test"]["accuracy"]
    """
    name = check_name(name)
    seed = check_integer("seed", seed, low=0)
    quick = data == "digits"
    if rho is None and resolution is None:
        resolution = QUICK_START["resolution"] if quick else NATIVE_RESOLUTION
    if alpha is None:
        alpha = QUICK_START["alpha"] if quick else 1.0
    variant, overrides, options = _split_settings(settings)
    recipe = get_recipe(
        recipe or (QUICK_START["recipe"] if quick else AUTHORS[name]), **overrides
    )
    epsilon = {k: variant.pop(k) for k in ("batch_norm_epsilon",) if k in variant}
    network = {"alpha": alpha, "rho": rho, "resolution": resolution, **variant}
    pixels = cost(name, **network).layers[0].layer.size_in  # checks all of them
    files.check_unused(workdir)

    started = time.perf_counter()
    splits = load_data(
        data, resolution=pixels, recipe=recipe, seed=seed, data_dir=data_dir, **options
    )
    # Only now: preparing data for the first time draws from Python's generator too.
    keras.utils.set_random_seed(seed)
    model = build(
        name,
        classes=len(splits.classes),
        weights=weights,
        dropout=recipe.dropout,
        kernel_stddev=recipe.kernel_stddev,
        **network,
        **epsilon,
    )
    compile(model, recipe, steps_per_epoch=splits.steps_per_epoch)
    price = cost(name, classes=len(splits.classes), **network)
    label = pathlib.Path(splits.source).name.replace(":", "_") or "data"
    directory = files.make_workdir(workdir, label)
    if verbose:
        print(
            f"{name}, alpha {alpha:g}, {pixels} px: {price.params:,} parameters, "
            f"{price.macs:,} mult-adds; {splits.num_train:,} training images of "
            f"{len(splits.classes)} classes; recipe {recipe.name}, {recipe.epochs} "
            f"epochs of {splits.steps_per_epoch} steps; {directory}"
        )
    fitting = time.perf_counter()
    _fit(model, splits, recipe, directory, verbose)
    fitted = time.perf_counter()

    # Not clone_model, which copies the compile state: then model.keras would need
    # this package's optimizer to load.
    final = keras.Model.from_config(model.get_config())
    regularize(final, 0.0, "all")
    with averaged_weights(model):
        final.set_weights(model.get_weights())
    accuracy = {
        "validation": measure(final, splits.validation),
        "test": measure(final, splits.test),
    }
    report = {
        "name": name,
        "alpha": alpha,
        "rho": pixels / NATIVE_RESOLUTION,
        "resolution": pixels,
        "variant": {**variant, **epsilon},
        # A path object is a folder wherever one stands; its bare name is not.
        "data": data if isinstance(data, str) else os.path.abspath(data),
        "data_dir": None if data_dir is None else os.fspath(data_dir),
        "data_options": options,
        "classes": list(splits.classes),
        "images": {
            "train": splits.num_train,
            "validation": splits.num_validation,
            "test": splits.num_test,
        },
        "seed": seed,
        "recipe": {"name": recipe.name, **recipe.as_dict()},
        "steps_per_epoch": splits.steps_per_epoch,
        "epochs": _epochs_run(directory / files.HISTORY),
        "weights": _kept_weights(recipe),
        **accuracy,
        "cost": {
            "params": price.params,
            "trainable_params": price.trainable_params,
            "macs": price.macs,
            "peak_memory": price.peak_memory,
            "bytes_per_element": price.bytes_per_element,
        },
        "seconds": {
            "preparing": round(fitting - started, 2),
            "training": round(fitted - fitting, 2),
        },
        "versions": _versions(),
        "devices": [device.device_type for device in tf.config.list_logical_devices()],
    }
    _leave(directory, final, report, splits)
    if verbose:
        print(
            f"test accuracy {accuracy['test']['accuracy']:.2%} on "
            f"{splits.num_test:,} images, after {fitted - fitting:.0f} s of training\n"
            f"model, report and curves are in {directory}"
        )
    return Run(final, report, directory)


def _fit(
    model: keras.Model,
    splits: Splits,
    recipe: Recipe,
    directory: pathlib.Path,
    verbose: bool,
) -> None:
    callbacks = [
        SetEpoch(splits),
        LogLearningRate(),
        keras.callbacks.CSVLogger(directory / files.HISTORY),
        keras.callbacks.TensorBoard(directory / files.TENSORBOARD, write_graph=False),
        KeepLastGood(directory / files.CHECKPOINT, splits),
    ]
    if recipe.early_stopping_patience:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                "val_loss",
                patience=recipe.early_stopping_patience,
                restore_best_weights=True,
            )
        )
    model.fit(
        splits.train,
        validation_data=splits.validation,
        epochs=recipe.epochs,
        callbacks=callbacks,
        shuffle=False,  # the data shuffles itself
        verbose=1 if verbose else 0,
    )


def _kept_weights(recipe: Recipe) -> str:
    """Which weights of the run its model has."""
    if recipe.ema_decay:
        return "averaged"
    return "best" if recipe.early_stopping_patience else "last"


def _epochs_run(history: pathlib.Path) -> int:
    with open(history, newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "keras_mobilenets": metadata.version("keras_mobilenets"),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def _leave(
    directory: pathlib.Path,
    model: keras.Model,
    report: dict[str, Any],
    splits: Splits,
) -> None:
    """Write what a finished run leaves; the report last, for it marks the end."""
    beside = directory / f"partial-{files.MODEL}"
    model.save(beside)
    os.replace(beside, directory / files.MODEL)
    plot_curves(directory / files.HISTORY, directory / files.CURVES)
    samples = directory / files.SAMPLES
    samples.mkdir(exist_ok=True)
    first = splits.test.unbatch().take(SAMPLES).as_numpy_iterator()
    for number, (image, label) in enumerate(first):
        pixels = np.rint(np.clip((image + 1) * 127.5, 0, 255)).astype("uint8")
        shown = splits.classes[label].replace("/", "_")
        Image.fromarray(pixels).save(samples / f"{number}-{shown}.png")
    (directory / files.CHECKPOINT).unlink(missing_ok=True)
    files.write_json(directory / files.REPORT, report)
