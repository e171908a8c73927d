"""`train`: data, network, recipe, fit, report; everything around `model.fit`."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import time
from importlib import metadata
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from keras_mobilenets.architecture.arguments import NATIVE_RESOLUTION, check_integer
from keras_mobilenets.data import Splits, load_data
from keras_mobilenets.errors import UsageError
from keras_mobilenets.models import build
from keras_mobilenets.plots import plot_curves
from keras_mobilenets.recipe import Recipe
from keras_mobilenets.training import workdir as files
from keras_mobilenets.training.asynchronous import fit as fit_asynchronously
from keras_mobilenets.training.asynchronous import measure_copy
from keras_mobilenets.training.averaging import averaged_weights
from keras_mobilenets.training.callbacks import (
    Follow,
    Position,
    Save,
    StopDiverged,
    Validate,
    WriteLog,
    as_csv,
)
from keras_mobilenets.training.checkpoint import (
    Checkpoints,
    count_metrics,
    restore_checkpoint,
)
from keras_mobilenets.training.compiling import compile
from keras_mobilenets.training.distribution import (
    Scale,
    distribute,
    gather_text,
    is_asynchronous,
    is_chief,
    make_scale,
    make_strategy,
)
from keras_mobilenets.training.inference import make_measure
from keras_mobilenets.training.interruption import StopRequest, watching_workers
from keras_mobilenets.training.preflight import preflight
from keras_mobilenets.training.settings import (
    DEFAULTS,
    Settings,
    differences,
    make_settings,
)

CHECKPOINT_STEPS = 1000  # between checkpoints inside an epoch
KEPT = 2  # checkpoints, besides the best
SAMPLES = 10


class Run(NamedTuple):
    """A finished run: the trained model, its report, and where they lie."""

    model: keras.Model
    report: dict[str, Any]
    workdir: pathlib.Path


def train(
    name: str = DEFAULTS["name"],
    *,
    data: str | os.PathLike[str] = DEFAULTS["data"],
    alpha: float | None = None,
    rho: float | None = None,
    resolution: int | None = None,
    recipe: str | Recipe | None = None,
    workdir: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    strategy: str | tf.distribute.Strategy = "auto",
    cpu_replicas: int | None = None,
    deterministic: bool = False,
    resume: bool | None = None,
    checkpoint_steps: int = CHECKPOINT_STEPS,
    verbose: bool = True,
    **settings: Any,
) -> Run:
    """Train a MobileNet on a source of images and leave a complete work directory.

    `train()` alone trains MobileNetV2 (alpha 0.35, 48 px) on scikit-learn's digits
    with the `quick` recipe, in about a minute on a laptop. On any other data the
    defaults are alpha 1, 224 px and slim's recipe.

    A run that was killed goes on from its last checkpoint, with the steps that it
    would have taken, when the same call names its `workdir` again. One that is
    finished is given back.

    Args:
        name, alpha, rho, resolution, weights: as in `build`.
        data: as `source` in `load_data`: "digits", a TFDS name, or a folder.
        recipe: a name in `km.recipes`, or a `Recipe`. Its `batch_size` is that of
            one replica: two GPUs take twice as many images a step.
        workdir: a directory that is new or empty, or that of a run to go on with; by
            default the next free `runs/<data>-<number>`. Gets `model.keras`,
            `report.json`, `history.csv`, `curves.png`, `tensorboard/`, `samples/`.
        seed: of weights, order, augmentation and dropout.
        data_dir: where TFDS keeps its prepared data.
        strategy: "auto" (the cluster of TF_CONFIG, else all GPUs, else one device),
            "none", "mirrored", "multi_worker", "parameter_server", "tpu", or a
            `tf.distribute.Strategy`. In a cluster every process makes the same call,
            with a workdir that all can read.
        cpu_replicas: so many replicas on the CPU, to try "mirrored" without GPUs.
        deterministic: TensorFlow's deterministic operations, for results that are
            the same bit for bit; slower on GPUs.
        resume: True goes on with the run of `workdir`, or the newest unfinished one
            in `runs`, with its own settings; False refuses to; None does so where
            `workdir` holds an unfinished run of the same settings.
        checkpoint_steps: steps between checkpoints inside an epoch; there is one
            after every epoch too. The last two are kept until the run is finished,
            and with early stopping the best.
        verbose: show progress.
        **settings: fields of the recipe (`epochs=20`, `learning_rate=0.01`),
            variations of the network (`expansion=4`), and `broken`, `splits`,
            `memory_budget` and `threads` of `load_data` (`broken="fail"`).

    Returns:
        A `Run` (model, report, workdir). With `ema_decay` the model holds the
        averaged weights. `model` is uncompiled and of plain Keras layers.

    Raises:
        ValueError: an impossible argument, before anything is written.
        TrainingDiverged: the loss became NaN; the last good state is kept.
        TrainingInterrupted: SIGTERM was received; the state is kept.
        WorkerLost: another process of the cluster is gone.

    Example:
        run = km.train(data="digits", epochs=5)
        run.report["test"]["accuracy"]
    """
    checkpoint_steps = check_integer("checkpoint_steps", checkpoint_steps, low=1)
    arguments = {
        "name": name, "data": data, "alpha": alpha, "rho": rho,
        "resolution": resolution, "recipe": recipe, "weights": weights, "seed": seed,
        "data_dir": data_dir, "deterministic": deterministic, **settings,
    }  # fmt: skip
    stored = None
    if resume:
        workdir = files.find_unfinished(workdir)
        stored = files.read_settings(workdir)
    chosen = make_settings(arguments, stored)
    if files.is_finished(workdir):
        before = files.read_settings(pathlib.Path(workdir))
        if chosen.as_dict().items() <= before.items():
            return _finished(pathlib.Path(workdir), verbose)
    files.check_unused(workdir)
    strategy = make_strategy(strategy, cpu_replicas)
    if chosen.deterministic:
        tf.config.experimental.enable_op_determinism()
    scale = make_scale(chosen.recipe, strategy)
    record = {**chosen.as_dict(), "images_a_step": scale.batch_size}
    _check_agreement(strategy, record)
    chief = is_chief(strategy)

    started = time.perf_counter()
    splits = load_data(
        chosen.data,
        resolution=chosen.resolution,
        recipe=chosen.recipe,
        seed=chosen.seed,
        data_dir=chosen.data_dir,
        batch_size=scale.batch_size,
        **chosen.data_options,
    )
    # Only now: preparing data for the first time draws from Python's generator too.
    keras.utils.set_random_seed(chosen.seed)
    with strategy.scope():
        model = build(
            chosen.name,
            classes=len(splits.classes),
            weights=chosen.weights,
            dropout=chosen.recipe.dropout,
            kernel_stddev=chosen.recipe.kernel_stddev,
            **chosen.network,
        )
        compile(model, chosen.recipe, steps_per_epoch=splits.steps_per_epoch)
    record |= {"classes": list(splits.classes), "images": _counts(splits)}
    directory = None
    if chief:
        directory = _begin(workdir, record, splits, resume)
    (directory, *_) = map(pathlib.Path, gather_text(strategy, str(directory or "")))
    with files.lock(directory) if chief else open(os.devnull):
        price = chosen.cost(len(splits.classes))
        if verbose and chief:
            print(
                f"{chosen.name}, alpha {chosen.alpha:g}, {chosen.resolution} px: "
                f"{price.params:,} parameters, {price.macs:,} mult-adds; "
                f"{splits.num_train:,} training images of {len(splits.classes)} "
                f"classes; recipe {chosen.recipe.name}, {chosen.recipe.epochs} epochs "
                f"of {splits.steps_per_epoch} steps; {scale}; {directory}"
            )
        fitting = time.perf_counter()
        with watching_workers(strategy):
            position, measured = _fit(
                model, splits, chosen, directory, checkpoint_steps, verbose and chief
            )
        fitted = time.perf_counter()
        report = _make_report(chosen, scale, splits, measured, len(position.log))
        report["cost"] = {
            "params": price.params,
            "trainable_params": price.trainable_params,
            "macs": price.macs,
            "peak_memory": price.peak_memory,
            "bytes_per_element": price.bytes_per_element,
        }
        final = _plain(model)
        if chief:
            timing = {
                "preparing": round(fitting - started, 2),
                "training": round(fitted - fitting, 2),
            }
            _leave(directory, final, report, splits, timing)
    if verbose and chief:
        print(
            f"test accuracy {report['test']['accuracy']:.2%} on "
            f"{splits.num_test:,} images, after {fitted - fitting:.0f} s of training\n"
            f"model, report and curves are in {directory}"
        )
    return Run(final, report, directory)


def _finished(workdir: pathlib.Path, verbose: bool) -> Run:
    """A run that needs nothing more."""
    if verbose:
        print(f"this run is finished: {workdir}")
    model = keras.saving.load_model(workdir / files.MODEL, compile=False)
    return Run(model, files.read_report(workdir), workdir)


def _check_agreement(strategy: tf.distribute.Strategy, record: dict[str, Any]) -> None:
    """All processes of a cluster were given the same settings."""
    ours = json.dumps(record)
    for theirs in gather_text(strategy, ours):
        if theirs != ours:
            different = "; ".join(differences(record, json.loads(theirs)))
            raise UsageError(
                f"all workers must be given the same settings; got {different}"
            )


def _counts(splits: Splits) -> dict[str, int]:
    return {
        "train": splits.num_train,
        "validation": splits.num_validation,
        "test": splits.num_test,
    }


def _begin(
    workdir: str | os.PathLike[str] | None,
    record: dict[str, Any],
    splits: Splits,
    resume: bool | None,
) -> pathlib.Path:
    """The directory of the run: a new one, or that of the same run, begun before."""
    if workdir is None or not files.is_unfinished(pathlib.Path(workdir)):
        label = pathlib.Path(splits.source).name.replace(":", "_") or "data"
        directory = files.make_workdir(workdir, label)
        files.write_json(directory / files.SETTINGS, record)
        return directory
    directory = pathlib.Path(workdir)
    different = differences(record, files.read_settings(directory))
    if different or resume is False:
        what = "; ".join(different) or "resume=False"
        raise UsageError(
            f"workdir {str(directory)!r} holds an unfinished run; got {what}: resume "
            "it with its own settings (resume=True), or give another directory"
        )
    return directory


def _fit(
    model: keras.Model,
    splits: Splits,
    settings: Settings,
    directory: pathlib.Path,
    checkpoint_steps: int,
    verbose: bool,
) -> tuple[Position, dict[str, dict[str, float]]]:
    """Train from wherever the run is to its end; measure what came of it."""
    strategy, recipe = model.distribute_strategy, settings.recipe
    chief = is_chief(strategy)
    position = Position(splits.steps_per_epoch)
    checkpoints = Checkpoints(directory / files.CHECKPOINTS, KEPT)
    counted = _resume(model, position, checkpoints, verbose)
    if chief:
        files.write_text(directory / files.HISTORY, as_csv(position.log))
    asynchronous = is_asynchronous(strategy)
    measure = measure_copy(model) if asynchronous else make_measure(model)
    validation = distribute(strategy, splits, "validation")
    request = StopRequest()
    request.share(model)
    callbacks = [
        Follow(position, counted),
        StopDiverged(position, splits, checkpoints),
        Validate(lambda: measure(validation)),
        WriteLog(position, directory / files.HISTORY if chief else None),
        Save(
            position,
            checkpoints,
            checkpoint_steps,
            recipe.epochs,
            recipe.early_stopping_patience,
            request,
        ),
    ]
    if chief:
        board = directory / files.TENSORBOARD
        callbacks.append(keras.callbacks.TensorBoard(board, write_graph=False))
    batches = None if asynchronous else distribute(strategy, splits, "endless")

    def fit(until: int) -> None:
        splits.set_position(position.epoch, position.step)
        span = {
            "initial_epoch": position.epoch,
            "epochs": until,
            "steps_per_epoch": splits.steps_per_epoch - position.step,
            "verbose": 1 if verbose else 0,
        }
        if asynchronous:
            fit_asynchronously(model, splits, callbacks, **span)
        else:  # the data shuffles itself
            preflight(model, batches)
            model.fit(batches, callbacks=callbacks, shuffle=False, **span)

    def over() -> bool:
        return position.over(recipe.epochs, recipe.early_stopping_patience)

    with request.listening():
        if position.step:  # a shorter epoch, to its end
            fit(until=position.epoch + 1)
        if not over():
            fit(until=recipe.epochs)
    if recipe.early_stopping_patience:
        best = position.best_step()
        if best is not None and best != position.steps:
            restore_checkpoint(model, checkpoints.path(best))
    with averaged_weights(model):
        measured = {
            "validation": measure(validation),
            "test": measure(distribute(strategy, splits, "test")),
        }
    return position, measured


def _resume(
    model: keras.Model, position: Position, checkpoints: Checkpoints, verbose: bool
) -> np.ndarray | None:
    """Go to the last checkpoint, if any; what the metrics had counted there."""
    note = checkpoints.restore_last(model)
    if note is not None:
        position.take(note)
    reached = gather_text(model.distribute_strategy, str(position.steps))
    if len(set(reached)) > 1:
        raise UsageError(
            "workdir must be a directory that all workers read; got checkpoints after "
            f"steps {', '.join(reached)}"
        )
    if note is None:
        return None
    if verbose:
        print(f"going on after step {position.steps}, in epoch {position.epoch + 1}")
    return count_metrics(model) if position.step else None


def _plain(model: keras.Model) -> keras.Model:
    """The trained network, uncompiled, with the averages where they are kept."""
    # Not clone_model, which copies the compile state: then model.keras would need
    # this package's optimizer to load.
    final = keras.Model.from_config(model.get_config())
    with averaged_weights(model):
        final.set_weights(model.get_weights())
    return final


def _kept_weights(recipe: Recipe) -> str:
    """Which weights of the run its model has."""
    kept = "best" if recipe.early_stopping_patience else "last"
    return "averaged" if recipe.ema_decay else kept


def _make_report(
    settings: Settings,
    scale: Scale,
    splits: Splits,
    measured: dict[str, dict[str, float]],
    epochs: int,
) -> dict[str, Any]:
    values = settings.as_dict()
    return {
        "name": settings.name,
        "alpha": settings.alpha,
        "rho": settings.resolution / NATIVE_RESOLUTION,
        "resolution": settings.resolution,
        "variant": values["variant"],
        "data": settings.data,
        "data_dir": settings.data_dir,
        "data_options": values["data_options"],
        "classes": list(splits.classes),
        "images": _counts(splits),
        "seed": settings.seed,
        "deterministic": settings.deterministic,
        "recipe": values["recipe"],
        "scale": scale._asdict(),
        "steps_per_epoch": splits.steps_per_epoch,
        "epochs": epochs,
        "weights": _kept_weights(settings.recipe),
        **measured,
        "versions": {
            "python": platform.python_version(),
            "keras_mobilenets": metadata.version("keras_mobilenets"),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "devices": [device.device_type for device in tf.config.list_logical_devices()],
    }


def _leave(
    directory: pathlib.Path,
    model: keras.Model,
    report: dict[str, Any],
    splits: Splits,
    timing: dict[str, float],
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
    files.write_json(directory / files.TIMING, timing)
    files.write_json(directory / files.REPORT, report)
    # Only now: until then the run may have to be continued from one.
    for path in Checkpoints(directory / files.CHECKPOINTS, KEPT).all():
        path.unlink()
    for leftover in (directory / files.CHECKPOINTS).glob(".*"):
        leftover.unlink()
    (directory / files.CHECKPOINTS).rmdir()
    (directory / files.LOCK).unlink(missing_ok=True)
