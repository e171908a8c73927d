"""The errors of this package, each with the exit status of the command line."""

from __future__ import annotations

import re


class UsageError(ValueError):
    """A mistake in what was asked for; the message says what is accepted instead.

    A `ValueError`, so that code written for any Keras package catches it. Only this
    one is shown as one line by the command line: other ValueErrors are faults of ours
    or of a library, and keep their traceback.
    """

    status = 2

    def __init__(self, message: str):
        # One line, also where what was received is an array of several.
        super().__init__(re.sub(r"\s*\n\s*", " ", message))


class TrainingDiverged(RuntimeError):
    """The loss stopped being a number; the message names the step and the cause."""

    status = 3


class TrainingInterrupted(RuntimeError):
    """The run was asked to stop, saved its state, and can be resumed."""

    status = 4


class SearchStopped(RuntimeError):
    """Trials cannot be run any more; the search can be resumed."""

    status = 4


class WorkerLost(RuntimeError):
    """Another process of the run is gone; start all again to resume."""

    status = 5


class ExportFailed(RuntimeError):
    """An exported file does not say what the model says; it was kept aside."""

    status = 6
