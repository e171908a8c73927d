"""One trial from beginning to end, as it runs in a process of its own.

A trial is a training run in a work directory of its own: what `train` does about
checkpoints, resuming, diverged runs and the report, it does here too.
"""

from __future__ import annotations

import csv
import os
import pathlib
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from keras_mobilenets import storage
from keras_mobilenets.errors import UsageError
from keras_mobilenets.models import build, load_weights
from keras_mobilenets.settings import Settings
from keras_mobilenets.training import workdir
from keras_mobilenets.training.fitting import Run, run_in
from keras_mobilenets.training.strategies import make_strategy
from keras_mobilenets.tuning import litert
from keras_mobilenets.tuning.hypermodel import load
from keras_mobilenets.tuning.options import Strategy

T = TypeVar("T")

WAIT = 1.0  # seconds between two attempts at a run that another process is in


class Task(NamedTuple):
    """What a trial is to do."""

    settings: Settings
    workdir: pathlib.Path  # of its run; hyperband's next rung goes on there
    values: dict[str, Any]  # its hyperparameters, for TensorBoard
    until: int | None = None  # epochs, where the run is judged before its end
    data_index: pathlib.Path | None = None
    strategy: Strategy = "none"
    objective: str = "accuracy"
    slot: int = 0  # of `slots` trials that run at a time
    slots: int = 1


def run_trial(task: Task) -> dict[str, float]:
    """Train one trial; the metrics of the weights that it leaves."""
    share_machine(task.slot, task.slots)
    strategy = _make_strategy(task.strategy)
    run = _when_free(lambda: _train(task, strategy))
    with open(run.workdir / workdir.HISTORY, newline="") as file:
        rows = [
            {k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)
        ]
    write_board(run.workdir / workdir.TENSORBOARD, task.values, rows)
    best = min(rows, key=lambda row: row.get("val_loss", float("inf")))
    kept = best if run.report["weights"] == "best" else rows[-1]
    trained = {
        f"train_{name}": value
        for name, value in kept.items()
        if name not in ("epoch", "learning_rate") and not name.startswith("val_")
    }
    measured = {f"val_{k}": float(v) for k, v in run.report["validation"].items()}
    if task.objective == "int8_accuracy":
        measured[task.objective] = _when_free(lambda: _measure_int8(task, run))
    return {**measured, **trained, "epochs": float(run.report["epochs"])}


def _train(task: Task, strategy: tf.distribute.Strategy) -> Run:
    return run_in(
        task.workdir,
        task.settings,
        strategy=strategy,
        until=task.until,
        index=task.data_index,
        brief=True,
    )


def _measure_int8(task: Task, run: Run) -> float:
    settings = task.settings
    splits = load(settings, settings.recipe.batch_size, index=task.data_index)
    with workdir.claim(task.workdir, ""):
        return litert.measure_accuracy(run.model, splits, run.workdir)


def _when_free(function: Callable[[], T]) -> T:
    """A worker that was taken for dead may still be in the run: wait for its end."""
    while True:
        try:
            return function()
        except storage.InUse:
            time.sleep(WAIT)


def _make_strategy(strategy: Strategy) -> tf.distribute.Strategy:
    if not callable(strategy):
        return make_strategy(strategy)
    made = strategy()
    if not isinstance(made, tf.distribute.Strategy):
        raise UsageError(
            "strategy must be a function that makes a tf.distribute.Strategy; got "
            f"{strategy!r}, which made {made!r}"
        )
    return made


def write_board(
    folder: pathlib.Path, values: dict[str, Any], rows: list[dict[str, float]]
) -> None:
    """The curves of a trial, and its row in TensorBoard's HParams."""
    for before in folder.glob("events.*"):  # of a lower rung
        before.unlink()
    searched = {k: v for k, v in values.items() if not k.startswith("tuner/")}
    with tf.summary.create_file_writer(os.fspath(folder)).as_default():
        hparams.hparams(searched, trial_id=folder.parent.name)
        for row in rows:
            for name, value in row.items():
                tf.summary.scalar(name, value, step=int(row["epoch"]) + 1)


def share_machine(slot: int, slots: int) -> None:
    """Take this trial's share of the cores, and its own GPU where there are several.

    To be called before TensorFlow starts.
    """
    if slots == 1:
        return
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    cores = max(1, available // slots)
    tf.config.threading.set_intra_op_parallelism_threads(cores)
    tf.config.threading.set_inter_op_parallelism_threads(cores)
    if gpus := tf.config.list_physical_devices("GPU"):
        mine = gpus[slot % len(gpus)]
        tf.config.set_visible_devices(mine, "GPU")
        tf.config.experimental.set_memory_growth(mine, True)


class Prepared(NamedTuple):
    """What is known of a search before its first trial."""

    classes: int
    pretrained: list[str]  # what was loaded into each network, in a line


def prepare(
    networks: Iterable[Settings],
    strategy: Strategy,
    index: Any,
    save_index: Any,
    objective: str = "accuracy",
) -> Prepared:
    """How many classes the data of a search has; its trials would start.

    The data is prepared by the way, and its index written to `save_index`.

    Args:
        networks: the settings of a trial of each network and alpha.
        strategy: made here, where it can be, it can be made in every trial.
        index: of a search that is gone on with.
        objective: for which there must be images enough.

    Raises:
        UsageError: of the data, or of weights that do not fit a network.
    """
    _make_strategy(strategy)
    settings = list(networks)
    splits = load(settings[0], settings[0].recipe.batch_size, index=index)
    if objective == "int8_accuracy":
        litert.check_enough(splits)
    splits.index.save(save_index)
    lines = []
    for one in settings:
        if one.weights is not None:
            model = build(one.name, classes=len(splits.classes), **one.network)
            lines.append(str(load_weights(model, one.weights)))
    return Prepared(len(splits.classes), lines)
