"""A run in its directory: where it is, and how it goes on from there."""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_mobilenets.data import Splits
from keras_mobilenets.errors import UsageError
from keras_mobilenets.settings import Settings
from keras_mobilenets.text import printable
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
from keras_mobilenets.training.counting import counting
from keras_mobilenets.training.distribution import (
    describe_devices,
    distribute,
    gather_text,
    is_asynchronous,
    is_chief,
)
from keras_mobilenets.training.features import keep_features, resting_epochs
from keras_mobilenets.training.interruption import SharedStop
from keras_mobilenets.training.measuring import Measure, make_measure
from keras_mobilenets.training.position import Position
from keras_mobilenets.training.preflight import preflight
from keras_mobilenets.training.recalibration import recalibrate
from keras_mobilenets.training.scale import Scale


class Job:
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
        self._measure: Measure = make(model, counting(splits.multi_label))
        self._validation = distribute(self.strategy, splits, "validation")
        self._validate = lambda: self._measure(self._validation)
        self.kept = "last"  # which weights the model has
        self.pretrained: dict[str, Any] | None = None  # what it began from

    def __str__(self) -> str:
        settings, splits = self.settings, self.splits
        return (
            f"{settings.name}, alpha {settings.alpha:g}, {settings.shape}: "
            f"{self.cost.params:,} parameters, {self.cost.macs:,} mult-adds; "
            f"{splits.num_train:,} training images of {len(splits.classes)} classes"
            f"{', several or none each' if splits.multi_label else ''}; "
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
