"""`train`: prepare, fit, save artifacts; everything around `model.fit`."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import platform
import time
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets import storage
from keras_mobilenets.data import Splits, as_picture, load_data
from keras_mobilenets.errors import UsageError
from keras_mobilenets.models import build
from keras_mobilenets.models.weights import check_weights_file
from keras_mobilenets.options import NOT_GIVEN, accepts, check_options, options_of
from keras_mobilenets.plots import plot_curves
from keras_mobilenets.settings import (
    Execution,
    Settings,
    differences,
    json_value,
    make_settings,
)
from keras_mobilenets.stopping import stop_requests
from keras_mobilenets.text import printable, short_name
from keras_mobilenets.training import workdir as work
from keras_mobilenets.training.asynchronous import fit as fit_asynchronously
from keras_mobilenets.training.asynchronous import measure_copy
from keras_mobilenets.training.averaging import averaged_weights
from keras_mobilenets.training.callbacks import (
    Follow,
    Save,
    StopDiverged,
    Validate,
    WriteLog,
)
from keras_mobilenets.training.checkpoint import count_metrics, restore_checkpoint
from keras_mobilenets.training.checkpoints import Checkpoints
from keras_mobilenets.training.compiling import compile
from keras_mobilenets.training.distribution import (
    Scale,
    describe_devices,
    distribute,
    gather_text,
    is_asynchronous,
    is_chief,
    make_scale,
    make_strategy,
)
from keras_mobilenets.training.features import keep_features, resting_epochs
from keras_mobilenets.training.inference import Measure, make_measure
from keras_mobilenets.training.interruption import SharedStop, watching_workers
from keras_mobilenets.training.position import Position
from keras_mobilenets.training.preflight import preflight
from keras_mobilenets.training.recalibration import recalibrate

SAMPLES = 10  # test images that a run leaves to try `predict` on


class Run(NamedTuple):
    """A run: the trained model, its report, and where they lie."""

    model: keras.Model
    report: dict[str, Any]
    workdir: pathlib.Path


@accepts(Settings, Execution)
def train(name: str = NOT_GIVEN, **options: Any) -> Run:
    """Train a MobileNet on a source of images and leave a complete work directory.

    `train()` alone trains MobileNetV2 (alpha 0.35, 48 px) on scikit-learn's digits
    with the `quick` recipe, in about a minute on a laptop. On any other data the
    defaults are alpha 1, 224 px and slim's recipe.

    A run that was killed goes on from its last checkpoint, with the steps that it
    would have taken, when the same call names its `workdir` again. One that is
    finished is given back. In a cluster every process makes the same call, with a
    workdir that all can read.

    Args:
        **options: fields of the recipe (`epochs=20`, `learning_rate=0.01`); its
            `batch_size` is that of one replica: two GPUs take twice as many images a
            step.

    Returns:
        A `Run` (model, report, workdir). With `ema_decay` the model holds the
        averaged weights. `model` is uncompiled and of plain Keras layers.

    Raises:
        UsageError: an impossible argument, before anything is written.
        TrainingDiverged: the loss became NaN; the last good state is kept.
        TrainingInterrupted: asked to stop (SIGTERM, SIGHUP or Ctrl-C); the state is
            kept.
        WorkerLost: another process of the cluster is gone.

    Example:
        run = km.train(data="digits", epochs=5)
        run.report["test"]["accuracy"]
    """
    options["name"] = name
    conduct = {k: options.pop(k) for k in options_of(Execution) if k in options}
    execution = Execution(**check_options(Execution, conduct))
    workdir: str | os.PathLike[str] | None = execution.workdir
    stored = None
    if execution.resume:
        workdir = unfinished = work.find_unfinished(workdir)
        _, stored = work.read_settings(unfinished)
    settings = make_settings(options, stored)
    with stop_requests():  # the other processes may be long in coming
        strategy = make_strategy(execution.strategy, execution.cpu_replicas)
        return run_in(
            workdir,
            settings,
            strategy=strategy,
            checkpoint_steps=execution.checkpoint_steps,
            may_resume=execution.resume is not False,
            verbose=execution.verbose,
        )


def run_in(
    workdir: str | os.PathLike[str] | None,
    settings: Settings,
    *,
    strategy: str | tf.distribute.Strategy = "none",
    until: int | None = None,
    index: str | os.PathLike[str] | None = None,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    checkpoint_steps: int = Execution.checkpoint_steps,
    may_resume: bool = True,
    brief: bool = False,
    verbose: bool = False,
) -> Run:
    """Carry out the run of `settings` in a directory, from wherever it is.

    What `train` is for one run, and a search for each of its trials.

    Args:
        workdir: new or empty, or that of the same run; None: the next free one.
        strategy: as in `train`.
        until: stop after so many epochs; the run can be continued then, and its report
            is returned but not written.
        index: of the data, as `Splits.index.save` writes it; by default the run's own,
            or the source is looked through.
        callbacks: more of them, of Keras, for `fit`.
        brief: without the test split, samples, curves and TensorBoard's files.
        checkpoint_steps, verbose: as in `train`.
        may_resume: False refuses to go on with a run that was begun.

    Raises: as `train`.
    """
    strategy = make_strategy(strategy)
    with stop_requests() as stop, watching_workers(strategy):
        path = None if workdir is None else pathlib.Path(workdir)
        if settings.deterministic:
            tf.config.experimental.enable_op_determinism()
        started = time.perf_counter()
        prepared = _prepare(path, settings, strategy, index, may_resume)
        if prepared is None:
            assert path is not None
            return _give_back(path, verbose)
        splits, model, scale, record = prepared
        with _directory(path, strategy, splits, record) as directory, stop.deferred():
            job = _Job(model, splits, settings, scale, directory, brief)
            job.verbose = verbose and is_chief(strategy)
            if job.verbose:
                print(job)
            fitting = time.perf_counter()
            job.restore()
            job.fit(SharedStop(stop, strategy), until, checkpoint_steps, callbacks)
            measured = job.measure()
            fitted = time.perf_counter()
            report = _make_report(job, measured)
            final = _plain(model)
            if job.finished and is_chief(strategy):
                timing = {
                    "preparing": round(fitting - started, 2),
                    "training": round(fitted - fitting, 2),
                }
                _save_artifacts(job, final, report, timing)
        if job.finished and job.verbose:
            _tell(report, splits, fitted - fitting, directory)
    return Run(final, report, directory)


def _prepare(
    workdir: pathlib.Path | None,
    settings: Settings,
    strategy: tf.distribute.Strategy,
    index: str | os.PathLike[str] | None,
    may_resume: bool,
) -> tuple[Splits, keras.Model, Scale, dict[str, Any]] | None:
    """Data and compiled model of a run, before anything is written.

    None where the run is finished already. The last of the four is what decides it.
    """
    scale = make_scale(settings.recipe, strategy)
    record = {**settings.as_dict(), "images_a_step": scale.batch_size}
    _check_agreement(strategy, record)
    checkpoints: list[pathlib.Path] = []
    if workdir is not None and (workdir / work.SETTINGS).is_file():
        _check_same_run(workdir, record, may_resume)
        if work.is_finished(workdir):
            return None
        if index is None and (workdir / work.INDEX).is_file():
            index = workdir / work.INDEX
        checkpoints = Checkpoints(workdir / work.CHECKPOINTS).all()
    elif workdir is not None and is_chief(strategy):
        work.check_unused(workdir)
    if settings.weights not in (None, "imagenet") and not checkpoints:
        check_weights_file(settings.weights)  # now: preparing data may take hours
    splits = load_data(
        settings.data,
        resolution=settings.resolution,
        channels=settings.channels,
        recipe=settings.recipe,
        seed=settings.seed,
        data_dir=settings.data_dir,
        batch_size=scale.batch_size,
        index=index,
        **settings.data_options,
    )
    # Only now: preparing data for the first time draws from Python's generator too.
    keras.utils.set_random_seed(settings.seed % 2**32)
    with strategy.scope():
        model = build(
            settings.name,
            classes=len(splits.classes),
            # A checkpoint holds all weights; the file may be gone by now.
            weights=None if checkpoints else settings.weights,
            dropout=settings.recipe.dropout,
            kernel_stddev=settings.recipe.kernel_stddev,
            **settings.network,
        )
        compile(model, settings.recipe, steps_per_epoch=splits.steps_per_epoch)
    return splits, model, scale, record


@contextlib.contextmanager
def _directory(
    workdir: pathlib.Path | None,
    strategy: tf.distribute.Strategy,
    splits: Splits,
    record: dict[str, Any],
) -> Iterator[pathlib.Path]:
    """The directory of the run, the chief's until the end of the block."""
    if not is_chief(strategy):
        (of_the_chief, *_) = gather_text(strategy, "")
        yield pathlib.Path(of_the_chief)
        return
    label = printable(pathlib.Path(splits.source).name.replace(":", "_")) or "data"
    with work.claim(workdir, label) as directory:
        if not work.is_unfinished(directory):
            splits.index.save(directory / work.INDEX)
            storage.write_json(
                directory / work.SETTINGS,
                record | {"classes": list(splits.classes), "images": _counts(splits)},
            )
        gather_text(strategy, os.fspath(directory))
        yield directory


def _check_agreement(strategy: tf.distribute.Strategy, record: dict[str, Any]) -> None:
    """All processes of a cluster were given the same settings."""
    ours = json.dumps(record)
    for theirs in gather_text(strategy, ours):
        if theirs != ours:
            different = "; ".join(differences(record, json.loads(theirs)))
            raise UsageError(
                f"all workers must be given the same settings; got {different}"
            )


def _check_same_run(
    workdir: pathlib.Path, record: dict[str, Any], may_resume: bool
) -> None:
    """The run that was begun there is the one that is asked for."""
    before, stored = work.read_settings(workdir)
    stored = {**before.as_dict(), "images_a_step": stored.get("images_a_step")}
    different = differences(record, stored)
    if work.is_finished(workdir):
        if different or not may_resume:
            what = f" ({'; '.join(different)})" if different else ""
            raise UsageError(
                f"workdir {str(workdir)!r} exists and is not empty: it holds another "
                f"run{what}; give the name of a new directory (nothing is overwritten)"
            )
    elif different or not may_resume:
        what = "; ".join(different) or "resume=False"
        raise UsageError(
            f"workdir {str(workdir)!r} holds an unfinished run; got {what}: resume "
            "it with its own settings (resume=True), or give another directory"
        )


def _give_back(workdir: pathlib.Path, verbose: bool) -> Run:
    """A run that needs nothing more."""
    work.clear_leftovers(workdir)
    if verbose:
        print(f"this run is finished: {workdir}")
    model = keras.saving.load_model(workdir / work.MODEL, compile=False)
    _, report = work.read_report(workdir)
    return Run(model, report, workdir)


class _Job:
    """A run in its directory: where it is, and how it goes on from there."""

    def __init__(
        self,
        model: keras.Model,
        splits: Splits,
        settings: Settings,
        scale: Scale,
        directory: pathlib.Path,
        brief: bool,
    ):
        self.model, self.splits = model, splits
        self.settings, self.recipe, self.scale = settings, settings.recipe, scale
        self.directory, self.brief, self.verbose = directory, brief, False
        self.strategy = model.distribute_strategy
        self.position = Position(splits.steps_per_epoch, self.recipe.head_epochs)
        self.checkpoints = Checkpoints(directory / work.CHECKPOINTS)
        self.counted: np.ndarray | None = None  # by the metrics, where it goes on
        self.cost = settings.cost(len(splits.classes))
        make: Any = measure_copy if is_asynchronous(self.strategy) else make_measure
        self._measure: Measure = make(model)
        self._validation = distribute(self.strategy, splits, "validation")
        self._validate = lambda: self._measure(self._validation)
        self.kept = "last"  # which weights the model has

    def __str__(self) -> str:
        settings, splits = self.settings, self.splits
        return (
            f"{settings.name}, alpha {settings.alpha:g}, {settings.shape}: "
            f"{self.cost.params:,} parameters, {self.cost.macs:,} mult-adds; "
            f"{splits.num_train:,} training images of {len(splits.classes)} classes; "
            f"recipe {self.recipe.name}, {self.recipe.epochs} epochs of "
            f"{splits.steps_per_epoch} steps; {self.scale} on "
            f"{describe_devices(self.strategy)}; {printable(str(self.directory))}"
        )

    def restore(self) -> None:
        """Go to the last checkpoint, if there is any."""
        note = self.checkpoints.restore_last(self.model)
        if note is not None:
            self.position.take(note)
        elif self.settings.weights and self.checkpoints.all():
            raise UsageError(
                f"none of the checkpoints in {str(self.checkpoints.folder)!r} can be "
                "read: remove them to begin again from the initial weights"
            )
        reached = gather_text(self.strategy, str(self.position.steps))
        if len(set(reached)) > 1:
            raise UsageError(
                "workdir must be a directory that all workers read; got checkpoints "
                f"after steps {', '.join(reached)}"
            )
        place = self.position
        if note is not None and self.verbose:
            print(f"going on after step {place.steps}, in epoch {place.epoch + 1}")
        if place.step:
            self.counted = count_metrics(self.model)

    @property
    def finished(self) -> bool:
        return self.position.over(
            self.recipe.epochs, self.recipe.early_stopping_patience
        )

    def fit(
        self,
        request: SharedStop,
        until: int | None,
        checkpoint_steps: int,
        more: Iterable[keras.callbacks.Callback],
    ) -> None:
        """Train from wherever the run is to its end, or to the end of an epoch."""
        model, splits, position = self.model, self.splits, self.position
        patience = self.recipe.early_stopping_patience
        end = self.recipe.epochs if until is None else min(until, self.recipe.epochs)
        chief = is_chief(self.strategy)
        asynchronous = is_asynchronous(self.strategy)
        model.train_step.stop_request = request
        log = WriteLog(position, self.directory / work.HISTORY if chief else None)
        log.write()
        callbacks = [
            Follow(position, self.counted),
            StopDiverged(position, splits, self.checkpoints),
            Validate(lambda: self._validate()),
            log,
            Save(position, self.checkpoints, checkpoint_steps, end, patience, request),
            *more,
        ]
        if chief and not self.brief:
            board = self.directory / work.TENSORBOARD
            callbacks.append(keras.callbacks.TensorBoard(board, write_graph=False))
        batches = None
        if not asynchronous:
            batches = distribute(self.strategy, splits, "endless")
            preflight(model, batches)

        def fit_epochs(until: int, batches: Any = batches) -> None:
            if position.step:  # a shorter epoch, to its end
                until = position.epoch + 1
            splits.set_position(position.epoch, position.step)
            span: dict[str, Any] = {
                "initial_epoch": position.epoch,
                "epochs": until,
                "steps_per_epoch": splits.steps_per_epoch - position.step,
                "verbose": 1 if self.verbose else 0,
            }
            if asynchronous:
                fit_asynchronously(model, splits, callbacks, **span)
            else:  # the data shuffles itself
                model.fit(batches, callbacks=callbacks, shuffle=False, **span)

        rest = min(resting_epochs(self.recipe), end)
        if position.epoch < rest:
            features, note = keep_features(model, self.settings, splits)
            if self.verbose:
                print(note)
        while position.step or not position.over(end, patience):
            if position.epoch >= rest:
                fit_epochs(end)
            elif features is None:
                fit_epochs(rest)
            else:
                images, self._validate = self._validate, features.measure
                with features.replacing_images(model):
                    fit_epochs(rest, features.batches)
                self._validate = images
            if model.stop_training:
                break
        if patience and self.finished:
            self._take_best()

    def _take_best(self) -> None:
        """Go back to the best epoch, or to the best of those that could be saved."""
        position = self.position
        saved = [
            epoch
            for epoch in range(position.epoch)
            if self.checkpoints.path(position.steps_after(epoch)).is_file()
        ]
        wanted, best = position.best(), position.best([*saved, position.epoch - 1])
        if best is None or wanted is None:
            return
        if best != wanted:
            warnings.warn(
                f"epoch {wanted + 1} was the best, and could not be saved; the model "
                f"is that of epoch {best + 1}",
                stacklevel=2,
            )
        if best != position.epoch - 1:
            path = self.checkpoints.path(position.steps_after(best))
            restore_checkpoint(self.model, path)
        self.kept = "best"

    def measure(self) -> dict[str, dict[str, float]]:
        """Loss and accuracy of the weights that the model is to have."""
        if self.recipe.batch_norm == "recalibrate":
            self.splits.set_position(self.position.epoch, 0)
            recalibrate(self.model, self.splits.train)
        with averaged_weights(self.model):
            measured = {"validation": self._measure(self._validation)}
            if not self.brief:
                test = distribute(self.strategy, self.splits, "test")
                measured["test"] = self._measure(test)
        return measured


def _plain(model: keras.Model) -> keras.Model:
    """The trained network, uncompiled, with the averages where they are kept."""
    # Not clone_model, which copies the compile state: then model.keras would need
    # this package's optimizer to load.
    final = keras.Model.from_config(model.get_config())
    with averaged_weights(model):
        final.set_weights(model.get_weights())
    return final


def _counts(splits: Splits) -> dict[str, int]:
    return {
        "train": splits.num_train,
        "validation": splits.num_validation,
        "test": splits.num_test,
    }


def _weights(splits: Splits) -> dict[str, dict[str, float]]:
    """What an image of each class counted, where they were not all the same."""
    if splits.class_weights is None:
        return {}
    named = splits.classes[-len(splits.class_weights) :]
    return {"class_weights": dict(zip(named, splits.class_weights, strict=True))}


def _make_report(job: _Job, measured: dict[str, dict[str, float]]) -> dict[str, Any]:
    settings, splits = job.settings, job.splits
    costs = (
        "params", "trainable_params", "macs", "peak_memory", "bytes_per_element",
    )  # fmt: skip
    packages = {"tensorflow": tf.__version__, "keras": keras.__version__}
    values = settings.as_dict()
    values["initial_weights"] = values.pop("weights")
    return {
        **values,
        "classes": list(splits.classes),
        "images": _counts(splits),
        **_weights(splits),
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


def _save_artifacts(
    job: _Job, model: keras.Model, report: dict[str, Any], timing: dict[str, float]
) -> None:
    """Write what a finished run leaves; the report last, for it marks the end."""
    directory = job.directory
    with storage.replacing(directory / work.MODEL) as beside:
        model.save(beside)
    if not job.brief:
        if job.position.log:
            storage.write_text(directory / work.HISTORY, job.position.as_csv())
            plot_curves(directory / work.HISTORY, directory / work.CURVES)
        _save_samples(job.splits, directory / work.SAMPLES)
    storage.write_json(directory / work.TIMING, timing)
    storage.write_json(directory / work.REPORT, json_value(report))
    # Only now: until then the run may have to be continued from one.
    job.checkpoints.remove()


def _save_samples(splits: Splits, folder: pathlib.Path) -> None:
    folder.mkdir(exist_ok=True)
    first = splits.test.unbatch().take(SAMPLES).as_numpy_iterator()
    for number, (image, label) in enumerate(first):
        pixels = np.rint(np.clip((image + 1) * 127.5, 0, 255)).astype("uint8")
        shown = short_name(splits.classes[label])
        with storage.replacing(folder / f"{number}-{shown}.png") as beside:
            as_picture(pixels).save(beside)


def _tell(
    report: dict[str, Any], splits: Splits, seconds: float, directory: pathlib.Path
) -> None:
    after = f"after {seconds:.0f} s of training"
    if "test" in report:
        accuracy = f"{report['test']['accuracy']:.2%}"
        print(f"test accuracy {accuracy} on {splits.num_test:,} images, {after}")
        if splits.test_is_validation:
            print(
                "there is no test split: these are the validation images, by which "
                "the run was also followed"
            )
    print(f"model, report and curves are in {directory}")
