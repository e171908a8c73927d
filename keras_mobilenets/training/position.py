"""Where a run is, and what each of its epochs came to."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection
from typing import Any

from keras_mobilenets.errors import UsageError


class Position:
    """Epoch, and step of it, both from 0; and the logs of each epoch.

    This and a checkpoint's variables are all that a run is continued from.
    """

    def __init__(self, steps_per_epoch: int, head_epochs: int = 0):
        self.steps_per_epoch = steps_per_epoch
        self.head_epochs = head_epochs  # before which patience does not count
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
        """Go where a checkpoint's note says.

        Raises:
            UsageError: it is not the note of a run of as many steps an epoch.
        """
        epoch, step, log = (note.get(key) for key in ("epoch", "step", "log"))
        if not (
            isinstance(epoch, int)
            and isinstance(step, int)
            and isinstance(log, list)
            and 0 <= step < self.steps_per_epoch
            and len(log) == epoch
            and all(isinstance(row, dict) for row in log)
        ):
            raise UsageError(
                f"a checkpoint must be of this run; got one after epoch {epoch!r} and "
                f"step {step!r} of {self.steps_per_epoch}"
            )
        self.epoch, self.step, self.log = epoch, step, log
        self.first = self.step

    def best(self, among: Collection[int] | None = None) -> int | None:
        """The epoch of the lowest validation loss, from 0; None before the first.

        Only of epochs `among`, where they are given.
        """
        finite = [
            (row.get("val_loss", math.nan), number)
            for number, row in enumerate(self.log)
            if math.isfinite(row.get("val_loss", math.nan))
            and (among is None or number in among)
        ]
        return min(finite)[1] if finite else None

    def steps_after(self, epoch: int) -> int:
        """Steps of the run at the end of an epoch, counted from 0."""
        return (epoch + 1) * self.steps_per_epoch

    def over(self, epochs: int, patience: int | None) -> bool:
        """Whether the run is at its end: by epochs, or as nothing gets better."""
        best = self.best()
        since = max(-1 if best is None else best, self.head_epochs - 1)
        waited = 0 if best is None else self.epoch - 1 - since
        return self.epoch >= epochs or bool(patience and waited >= patience)

    def as_csv(self) -> str:
        """The logs, an epoch a row, with a header; every column of any row."""
        columns = list(dict.fromkeys(name for row in self.log for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.log)
        return text.getvalue()
