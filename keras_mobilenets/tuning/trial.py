"""One trial from beginning to end, as it runs in a process of its own."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import keras_tuner
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from keras_mobilenets.training.averaging import averaged_weights
from keras_mobilenets.training.checkpoint import restore_checkpoint, save_checkpoint
from keras_mobilenets.training.distribution import make_strategy
from keras_mobilenets.tuning.hypermodel import HyperMobileNet

STATE = "state.npz"  # everything that a next rung of Hyperband continues from

Strategy = str | Callable[[], tf.distribute.Strategy]
STRATEGIES = ("none", "mirrored")  # the others need processes of their own


class Order(NamedTuple):
    """What a trial is to do; paths are those of its own and of an earlier trial."""

    hyperparameters: keras_tuner.HyperParameters
    weights: pathlib.Path
    state: pathlib.Path | None = None  # written where another may continue from it
    past: pathlib.Path | None = None
    tensorboard: pathlib.Path | None = None
    epochs: int | None = None
    initial_epoch: int = 0
    strategy: Strategy = "none"
    slot: int = 0  # of `slots` trials that run at a time
    slots: int = 1


def run(hypermodel: HyperMobileNet, order: Order) -> dict[str, float]:
    """Build, train and score one trial; the metrics of the weights it leaves.

    Those are the recipe's averaged weights after the last epoch, or with early
    stopping those of the best epoch.
    """
    hp = order.hyperparameters
    strategy = order.strategy
    strategy = strategy() if callable(strategy) else make_strategy(strategy)
    with strategy.scope():
        model = hypermodel.build(hp)
        if order.past is not None:
            restore_checkpoint(model, order.past)
    callbacks = [TensorBoardRow(order.tensorboard, hp)] if order.tensorboard else []
    patience = hypermodel.recipe(hp).early_stopping_patience
    history = hypermodel.fit(
        hp,
        model,
        epochs=order.epochs,
        initial_epoch=order.initial_epoch,
        callbacks=callbacks,
        verbose=0,
    ).history
    losses = history["val_loss"]
    kept = losses.index(min(losses)) if patience else -1
    metrics = {
        name if name.startswith("val_") else f"train_{name}": float(values[kept])
        for name, values in history.items()
    }
    metrics["epochs"] = float(order.initial_epoch + len(losses))
    if order.state is not None:
        save_checkpoint(model, order.state)
    if patience:
        _save_weights(model, order.weights)
    else:
        with averaged_weights(model):
            _save_weights(model, order.weights)
    return metrics


def share_machine(slot: int, slots: int) -> None:
    """Take this trial's share of the cores, and its own GPU where there are several.

    To be called before TensorFlow starts.
    """
    if slots == 1:
        return
    cores = max(1, len(os.sched_getaffinity(0)) // slots)
    tf.config.threading.set_intra_op_parallelism_threads(cores)
    tf.config.threading.set_inter_op_parallelism_threads(cores)
    if gpus := tf.config.list_physical_devices("GPU"):
        mine = gpus[slot % len(gpus)]
        tf.config.set_visible_devices(mine, "GPU")
        tf.config.experimental.set_memory_growth(mine, True)


def run_alone(hypermodel: HyperMobileNet, order: Order) -> dict[str, float]:
    """`run`, in a process that has nothing else to do."""
    share_machine(order.slot, order.slots)
    return run(hypermodel, order)


def describe_data(hypermodel: HyperMobileNet) -> dict[str, Any]:
    """What a search has to know of its data, which is prepared by the way."""
    recipe = next(iter(hypermodel.recipes.values()))
    splits = hypermodel.load(recipe, min(hypermodel.space.resolutions))
    return {"classes": len(splits.classes), "images": splits.num_train}


def _save_weights(model: keras.Model, path: pathlib.Path) -> None:
    beside = path.with_name(f"partial-{path.name}")
    model.save_weights(beside)
    os.replace(beside, path)


class TensorBoardRow(keras.callbacks.Callback):
    """The curves of a trial, and its row in TensorBoard's HParams."""

    def __init__(self, directory: pathlib.Path, hp: keras_tuner.HyperParameters):
        super().__init__()
        shutil.rmtree(directory, ignore_errors=True)  # of an interrupted attempt
        self._writer = tf.summary.create_file_writer(os.fspath(directory))
        values = {k: v for k, v in hp.values.items() if not k.startswith("tuner/")}
        with self._writer.as_default():
            hparams.hparams(values, trial_id=directory.name)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        with self._writer.as_default(step=epoch + 1):
            for name, value in (logs or {}).items():
                tf.summary.scalar(name, value)
        self._writer.flush()
