"""The checkpoints of a run: a folder of files, of which the last and the best stay."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_mobilenets.errors import UsageError
from keras_mobilenets.storage import PARTIAL
from keras_mobilenets.training.checkpoint import (
    NOTE,
    restore_checkpoint,
    save_checkpoint,
)
from keras_mobilenets.training.distribution import is_chief

KEPT = 2  # besides the best: a damaged one gives way to the one before


class Checkpoints:
    """The states of a run: files `step-00001234.npz`, each with a note of what it is.

    Files of other names are not looked at.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def path(self, step: int) -> pathlib.Path:
        """The file of the state after that many steps."""
        return self.folder / f"step-{step:08d}.npz"

    def all(self) -> list[pathlib.Path]:
        """Whole checkpoints, oldest first."""
        found = self.folder.glob("step-*.npz")
        return sorted(p for p in found if re.fullmatch(r"step-\d+\.npz", p.name))

    def save(
        self, model: keras.Model, step: int, note: Mapping[str, Any], best: int | None
    ) -> None:
        """Save, then remove what is neither among the last nor the best so far.

        A disk that is full does not end the run, which goes on with the checkpoints
        that it has.
        """
        chief = is_chief(model.distribute_strategy)
        try:
            if chief:
                self.folder.mkdir(exist_ok=True)
            save_checkpoint(model, self.path(step), {**note, "best": best})
        except OSError as error:
            warnings.warn(
                f"no checkpoint after step {step} ({error}); the last one is kept and "
                "training goes on",
                stacklevel=2,
            )
            return
        if not chief:
            return
        whole = self.all()
        # A run may be continued from the last but one, so its best is kept too.
        kept = {*whole[-KEPT:], self.path(step)}
        bests = [_note(path).get("best") for path in kept]
        kept |= {self.path(step) for step in bests if isinstance(step, int)}
        for path in whole:
            if path not in kept:
                with contextlib.suppress(OSError):
                    path.unlink()

    def restore_last(self, model: keras.Model) -> dict[str, Any] | None:
        """Restore the newest readable one: its note, or None."""
        for path in reversed(self.all()):
            try:
                return restore_checkpoint(model, path)
            except UsageError as error:
                if "does not fit" in str(error):
                    raise
                warnings.warn(f"{error}; trying the one before", stacklevel=2)
        return None

    def remove(self) -> None:
        """Remove all of them, half-written ones too; what else lies there stays."""
        for path in (*self.all(), *self.folder.glob(f"{PARTIAL}*")):
            with contextlib.suppress(OSError):
                path.unlink()
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def _note(path: pathlib.Path) -> dict[str, Any]:
    try:
        with np.load(path) as stored:
            note = json.loads(stored[NOTE].tobytes())
    except (OSError, ValueError, KeyError, RecursionError, zipfile.BadZipFile):
        return {}
    return note if isinstance(note, dict) else {}
