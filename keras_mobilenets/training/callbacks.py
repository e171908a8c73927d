"""What `train` hangs on `model.fit`."""

from __future__ import annotations

import itertools
import math
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_mobilenets import storage
from keras_mobilenets.data import Splits
from keras_mobilenets.errors import TrainingDiverged, TrainingInterrupted
from keras_mobilenets.training.averaging import averaged_weights
from keras_mobilenets.training.checkpoint import restore_metrics
from keras_mobilenets.training.checkpoints import Checkpoints
from keras_mobilenets.training.interruption import SharedStop
from keras_mobilenets.training.position import Position


class Follow(keras.callbacks.Callback):
    """Keeps `position`, before all other callbacks."""

    def __init__(self, position: Position, counted: Any):
        super().__init__()
        self.position = position
        self.counted = counted  # by the metrics, in the epoch that is continued

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.position.first = self.position.step
        if self.counted is not None:  # Keras has just reset the metrics
            restore_metrics(self.model, self.counted)
            self.counted = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.position.step = self.position.first + batch + 1


class StopDiverged(keras.callbacks.Callback):
    """Stops the run where the loss is no number, and says why."""

    def __init__(self, position: Position, splits: Splits, checkpoints: Checkpoints):
        super().__init__()
        self.position = position
        self.splits = splits
        self.checkpoints = checkpoints

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        loss = float((logs or {})["loss"])
        if math.isfinite(loss):
            return
        whole = self.checkpoints.all()
        kept = f"the last good state is kept in {whole[-1]}" if whole else (
            "no checkpoint was reached, so no weights are kept"
        )  # fmt: skip
        raise TrainingDiverged(
            f"the loss became {loss} at step {self.position.step} of epoch "
            f"{self.position.epoch + 1} "
            f"(learning rate {learning_rate(self.model):g}); {self._cause()}; {kept}"
        )

    def _cause(self) -> str:
        self.splits.set_position(self.position.epoch, self.position.first)
        first, last = self.position.first + 1, self.position.step
        seen = itertools.islice(self.splits.train, last + 1 - first)
        for step, (images, *_) in enumerate(seen, start=first):
            if not np.isfinite(images).all():
                return f"batch {step} of the data holds values that are no numbers"
        return (
            "the images are finite, so the learning rate is the likely cause: lower it"
        )


class Validate(keras.callbacks.Callback):
    """Adds `val_*` of every epoch to the logs, of the averages where they are kept.

    Instead of `validation_data` of `fit`, whose mean counts the filling of a last
    batch, and which knows nothing of averages.
    """

    def __init__(self, measure: Callable[[], dict[str, float]]):
        super().__init__()
        self.measure = measure

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is None:
            return
        with averaged_weights(self.model):
            logs |= {f"val_{k}": v for k, v in self.measure().items()}
        logs["learning_rate"] = learning_rate(self.model)


class WriteLog(keras.callbacks.Callback):
    """A row an epoch in `position.log`, and in a CSV file that is always whole."""

    def __init__(self, position: Position, path: pathlib.Path | None):
        super().__init__()
        self.position = position
        self.path = path

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        row = {name: float(value) for name, value in (logs or {}).items()}
        self.position.log.append({"epoch": epoch, **row})
        self.write()

    def write(self) -> None:
        """The file; a disk that is full does not end the run, whose notes have it."""
        if self.path is None:
            return
        try:
            storage.write_text(self.path, self.position.as_csv())
        except OSError as error:
            warnings.warn(
                f"{self.path} was not written ({error}); training goes on",
                stacklevel=2,
            )


class Save(keras.callbacks.Callback):
    """A checkpoint after every epoch, every so many steps, and when asked to stop."""

    def __init__(
        self,
        position: Position,
        checkpoints: Checkpoints,
        every: int,
        epochs: int,
        patience: int | None,
        request: SharedStop,
    ):
        super().__init__()
        self.position = position
        self.checkpoints = checkpoints
        self.every = every
        self.epochs = epochs
        self.patience = patience
        self.request = request
        self.saved = position.steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        place = self.position
        stop = self.request.agreed()
        if place.step == place.steps_per_epoch:  # see on_epoch_end
            return
        if stop or place.steps - self.saved >= self.every:
            self._save()
        if stop:
            raise self._interrupted()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        place = self.position
        place.epoch, place.step = epoch + 1, 0
        self._save()
        if place.over(self.epochs, self.patience):
            self.model.stop_training = True
        elif self.request.agreed():
            raise self._interrupted()

    def _save(self) -> None:
        place = self.position
        self.saved = place.steps
        best = place.best() if self.patience else None
        self.checkpoints.save(
            self.model,
            place.steps,
            place.note(),
            None if best is None else place.steps_after(best),
        )

    def _interrupted(self) -> TrainingInterrupted:
        return TrainingInterrupted(
            f"asked to stop, after step {self.position.steps}; the state is kept in "
            f"{self.checkpoints.folder}: give the same command, or 'train --resume', "
            "to go on"
        )


def learning_rate(model: keras.Model) -> float:
    """Of the next step."""
    return float(np.array(model.optimizer.learning_rate))
