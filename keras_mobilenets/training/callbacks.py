"""What `train` hangs on `model.fit`."""

from __future__ import annotations

import itertools
import math
import os
import pathlib
from typing import Any

import keras
import numpy as np

from keras_mobilenets.data import Splits


class TrainingDiverged(RuntimeError):
    """The loss stopped being a number; the message names the step and the cause."""


class SetEpoch(keras.callbacks.Callback):
    """Tells the data which epoch it is in: its order depends on (seed, epoch)."""

    def __init__(self, splits: Splits):
        super().__init__()
        self.splits = splits

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.splits.set_epoch(epoch)


class LogLearningRate(keras.callbacks.Callback):
    """Adds `learning_rate` to the logs of every epoch, for the files behind it."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(np.array(self.model.optimizer.learning_rate))


class KeepLastGood(keras.callbacks.Callback):
    """Saves weights after every epoch; stops the run where the loss is no number."""

    def __init__(self, path: pathlib.Path, splits: Splits):
        super().__init__()
        self.path = path
        self.splits = splits
        self.epoch = 0
        self.saved: int | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None):
        loss = float((logs or {})["loss"])
        if math.isfinite(loss):
            return
        kept = (
            f"the weights after epoch {self.saved} are kept in {self.path}"
            if self.saved
            else "no epoch was finished, so no weights are kept"
        )
        raise TrainingDiverged(
            f"the loss became {loss} at step {batch + 1} of epoch {self.epoch + 1} "
            f"(learning rate {float(np.array(self.model.optimizer.learning_rate)):g}); "
            f"{self._cause(batch + 1)}; {kept}"
        )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # A rename is atomic: a killed run leaves the last whole file.
        beside = self.path.with_name(f"partial-{self.path.name}")
        self.model.save_weights(beside)
        os.replace(beside, self.path)
        self.saved = epoch + 1

    def _cause(self, steps: int) -> str:
        self.splits.set_epoch(self.epoch)
        seen = itertools.islice(self.splits.train.as_numpy_iterator(), steps)
        for step, (images, _) in enumerate(seen, start=1):
            if not np.isfinite(images).all():
                return f"batch {step} of the data holds values that are no numbers"
        return (
            "the images are finite, so the learning rate is the likely cause: lower it"
        )
