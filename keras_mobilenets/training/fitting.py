"""`train`: prepare, fit, save artifacts; everything around `model.fit`."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_mobilenets.execution import Execution
from keras_mobilenets.models.weights import Loaded
from keras_mobilenets.options import NOT_GIVEN, accepts, check_options, options_of
from keras_mobilenets.settings import Settings, make_settings
from keras_mobilenets.stopping import stop_requests
from keras_mobilenets.text import printable
from keras_mobilenets.training import workdir as work
from keras_mobilenets.training.artifacts import (
    make_report,
    plain_model,
    save_artifacts,
    tell,
)
from keras_mobilenets.training.distribution import is_chief
from keras_mobilenets.training.interruption import SharedStop, watching_workers
from keras_mobilenets.training.job import Job
from keras_mobilenets.training.preparing import claim_directory, prepare
from keras_mobilenets.training.strategies import make_strategy


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
        prepared = prepare(path, settings, strategy, index, may_resume)
        if prepared is None:
            assert path is not None
            return _give_back(path, verbose)
        splits, model, scale, record = prepared
        with (
            claim_directory(path, strategy, splits, record) as directory,
            stop.deferred(),
        ):
            job = Job(model, splits, settings, scale, directory, brief)
            job.verbose = verbose and is_chief(strategy)
            job.pretrained = record["pretrained"]
            if job.verbose:
                print(job)
                if job.pretrained is not None:
                    print(printable(str(Loaded(**job.pretrained))))
            fitting = time.perf_counter()
            job.restore()
            job.fit(SharedStop(stop, strategy), until, checkpoint_steps, callbacks)
            measured = job.measure()
            fitted = time.perf_counter()
            report = make_report(job, measured)
            final = plain_model(model)
            if job.finished and is_chief(strategy):
                timing = {
                    "preparing": round(fitting - started, 2),
                    "training": round(fitted - fitting, 2),
                }
                save_artifacts(job, final, report, timing)
        if job.finished and job.verbose:
            tell(report, splits, fitted - fitting, directory)
    return Run(final, report, directory)


def _give_back(workdir: pathlib.Path, verbose: bool) -> Run:
    """A run that needs nothing more."""
    work.clear_leftovers(workdir)
    if verbose:
        print(f"this run is finished: {workdir}")
    model = keras.saving.load_model(workdir / work.MODEL, compile=False)
    _, report = work.read_report(workdir)
    return Run(model, report, workdir)
