"""What `train` hangs on `model.fit`."""

from __future__ import annotations

import csv
import io
import itertools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_mobilenets.data import Splits
from keras_mobilenets.errors import TrainingDiverged, TrainingInterrupted
from keras_mobilenets.training.averaging import averaged_weights
from keras_mobilenets.training.checkpoint import Checkpoints, restore_metrics
from keras_mobilenets.training.interruption import StopRequest
from keras_mobilenets.training.workdir import write_text


class Position:
    """Where a run is: epoch, and step of it, both from 0; and the logs of each epoch.

    This and a checkpoint's variables are all that a run is continued from.
    """

    def __init__(self, steps_per_epoch: int):
        self.steps_per_epoch = steps_per_epoch
        self.epoch = self.step = 0
        self.first = 0  # step of this process' first pass over the data
        self.log: list[dict[str, float]] = []

    @property
    def steps(self) -> int:
        """Steps since the beginning of the run."""
        return self.epoch * self.steps_per_epoch + self.step

    def note(self) -> dict[str, Any]:
        """For a checkpoint's note."""
        return {"epoch": self.epoch, "step": self.step, "log": self.log}

    def take(self, note: dict[str, Any]) -> None:
        """Go where a checkpoint's note says."""
        self.epoch, self.step, self.log = note["epoch"], note["step"], note["log"]
        self.first = self.step

    def best(self) -> int | None:
        """The epoch of the lowest validation loss, from 0; None before the first."""
        losses = [row.get("val_loss", math.nan) for row in self.log]
        finite = [(loss, n) for n, loss in enumerate(losses) if math.isfinite(loss)]
        return min(finite)[1] if finite else None

    def best_step(self) -> int | None:
        """The steps after which it was reached."""
        best = self.best()
        return None if best is None else (best + 1) * self.steps_per_epoch

    def over(self, epochs: int, patience: int | None) -> bool:
        """Whether the run is at its end: by epochs, or as nothing gets better."""
        best = self.best()
        waited = 0 if best is None else self.epoch - 1 - best
        return self.epoch >= epochs or bool(patience and waited >= patience)


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

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None):
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
            f"(learning rate {_learning_rate(self.model):g}); {self._cause()}; {kept}"
        )

    def _cause(self) -> str:
        self.splits.set_position(self.position.epoch, self.position.first)
        first, last = self.position.first + 1, self.position.step
        seen = itertools.islice(self.splits.train, last + 1 - first)
        for step, (images, _) in enumerate(seen, start=first):
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
        logs["learning_rate"] = _learning_rate(self.model)


class WriteLog(keras.callbacks.Callback):
    """A row an epoch in `position.log`, and in a CSV file that is always whole."""

    def __init__(self, position: Position, path: pathlib.Path | None):
        super().__init__()
        self.position = position
        self.path = path

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        row = {name: float(value) for name, value in (logs or {}).items()}
        self.position.log.append({"epoch": epoch, **row})
        if self.path:
            write_text(self.path, as_csv(self.position.log))


class Save(keras.callbacks.Callback):
    """A checkpoint after every epoch, every so many steps, and when asked to stop."""

    def __init__(
        self,
        position: Position,
        checkpoints: Checkpoints,
        every: int,
        epochs: int,
        patience: int | None,
        request: StopRequest,
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
        self.saved = self.position.steps
        best = self.position.best_step() if self.patience else None
        note = self.position.note()
        self.checkpoints.save(self.model, self.position.steps, note, best)

    def _interrupted(self) -> TrainingInterrupted:
        return TrainingInterrupted(
            f"asked to stop, after step {self.position.steps}; the state is kept in "
            f"{self.checkpoints.folder}: give the same command, or 'train --resume', "
            "to go on"
        )


def _learning_rate(model: keras.Model) -> float:
    return float(np.array(model.optimizer.learning_rate))


def as_csv(rows: list[dict[str, float]]) -> str:
    """Rows as CSV with a header; every column of any row."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
