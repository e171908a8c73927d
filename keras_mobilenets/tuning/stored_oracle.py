"""The state of a search on disk, and how it is taken up again.

    oracle.json          what was proposed, and in which order
    trials/ID.json       a trial: its hyperparameters, metrics, status
    trials/ID.log        what it printed
    trials/ID/           its run: a work directory, as `train` makes them

Files appear whole or not at all; where a kill fell between two of them, the trial's
decides. They are not trusted: one that is damaged or gone is named.
"""

from __future__ import annotations

import contextlib
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_mobilenets import storage
from keras_mobilenets.errors import UsageError
from keras_mobilenets.tuning import engine

ORACLE = "oracle.json"
TRIALS = "trials"

ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)
KNOWN = (*ENDED, TrialStatus.RUNNING, TrialStatus.INVALID)


class StoredOracle(engine.Oracle):
    """An oracle that a kill at any moment costs no more than the trials that ran."""

    def __init__(self, **settings: Any):
        # One that fails says nothing of the next.
        super().__init__(max_consecutive_failed_trials=math.inf, **settings)
        self.verbose = 0
        self.interrupted: list[str] = []  # trials to be handed out again, in order
        self.identity: dict[str, Any] = {}  # what must be equal to go on

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """The next trial, or one that was interrupted, under its own id."""
        if not self.trials:
            self.take_up()
        if not self.interrupted or tuner_id in self.ongoing_trials:
            return super().create_trial(tuner_id)
        trial = self.trials[self.interrupted.pop(0)]
        trial.metrics = type(trial.metrics)()  # a second try would be averaged in
        trial.score = trial.message = None
        trial.status = TrialStatus.RUNNING
        self.tuner_ids.add(tuner_id)
        self.ongoing_trials[tuner_id] = trial
        self.save()
        return trial

    def score_trial(self, trial: Trial) -> None:
        """KerasTuner's score; one that is missing or not finite is a failure."""
        objective = self.objective.name
        if trial.metrics.exists(objective):
            super().score_trial(trial)
        if trial.score is None or not math.isfinite(trial.score):
            trial.message = f"{objective} is {trial.score}"
            trial.score = math.nan  # by which KerasTuner knows an invalid trial

    def save(self) -> None:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            storage.write_json(self.folder / ORACLE, self.get_state())

    def save_trial(self, trial: Trial) -> None:
        if self.folder is not None:
            path = self._path_of(trial.trial_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            storage.write_json(path, trial.get_state())

    def _path_of(self, trial_id: str) -> pathlib.Path:
        assert self.folder is not None
        return self.folder / TRIALS / f"{trial_id}.json"

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "identity": self.identity}

    def take_up(self) -> None:
        """Go on with the search that is kept in the folder, or begin one there.

        Raises:
            UsageError: it is another search, or a file of it is damaged or gone.
        """
        if self.folder is None:
            return
        if (self.folder / ORACLE).exists():
            self.reload()
        elif any((self.folder / TRIALS).glob("[!.]*.json")):
            raise UsageError(
                f"{str(self.folder / ORACLE)!r} is missing, and there are trials that "
                "it should list: put it back, or give another directory"
            )
        else:
            self.save()  # before the first trial, or its loss would not be noticed

    def reload(self) -> None:
        assert self.folder is not None
        path = self.folder / ORACLE
        state = storage.read_json(path)
        with _naming(path):
            self._check_identity(state["identity"])
            trials = {}
            for trial_id in state["start_order"]:
                if not trial_id.isdigit():  # it becomes a path
                    raise ValueError(f"trial {trial_id!r}")
                # Those that it does not list were never handed out.
                trials[trial_id] = self._read_trial(trial_id)
            self.trials = trials
            self.set_state({**state, "ongoing_trials": {}, "retry_queue": []})
            # The trials' own files are newer.
            ended = [i for i, trial in trials.items() if trial.status in ENDED]
            listed = [i for i in state["end_order"] if i in ended]
            self.end_order = listed + [i for i in ended if i not in listed]
            self.interrupted = [i for i in trials if i not in ended]

    def set_state(self, state: dict[str, Any]) -> None:
        declared = self.hyperparameters
        super().set_state(state)
        self.update_space(declared)  # some may be new

    def _check_identity(self, kept: dict[str, Any]) -> None:
        other = [what for what, value in self.identity.items() if kept[what] != value]
        if other:
            named = " and ".join(f"{what} ({_brief(kept[what])})" for what in other)
            ours = " and ".join(_brief(self.identity[what]) for what in other)
            raise UsageError(
                f"{str(self.folder)!r} holds a search with another {named}; got "
                f"{ours}: resume it as it was started, or give another directory"
            )

    def _read_trial(self, trial_id: str) -> Trial:
        path = self._path_of(trial_id)
        state = storage.read_json(path)
        with _naming(path):
            trial = Trial.from_state(state)
            for name in trial.metrics.metrics:
                history = trial.metrics.get_history(name)
                [float(seen.mean()) for seen in history][-1]  # what the table shows
            self.check_trial(trial, trial_id)
            return trial

    def check_trial(self, trial: Trial, trial_id: str) -> None:
        """What was read of a trial can be one of this search."""
        if trial.trial_id != trial_id or trial.status not in KNOWN:
            raise ValueError(f"trial {trial.trial_id!r}, status {trial.status!r}")
        if trial.status == TrialStatus.COMPLETED and not math.isfinite(trial.score):
            raise ValueError(f"completed with the score {trial.score!r}")


def _brief(value: Any) -> str:
    return f"{len(value)} of them" if isinstance(value, list) else str(value)


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    """Within the block what goes wrong is the fault of a file."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{str(path)!r} is damaged ({type(error).__name__}: {error}): put back the "
            "file as it was, or give another directory"
        ) from error
