"""KerasTuner's hyperband within a `Space`."""

from __future__ import annotations

import itertools
import math
from typing import Any

from keras_tuner.engine.trial import TrialStatus

from keras_mobilenets.tuning import engine
from keras_mobilenets.tuning.space import Space
from keras_mobilenets.tuning.space_oracle import SpaceOracle, response

FIRST = "tuner/first_trial"  # whose run the trials of higher rungs go on with


class HyperbandOracle(SpaceOracle, engine.Hyperband):
    """Hyperband over finitely many points.

    A bracket takes no more points than there are, and its rungs shrink with it. A
    failed trial is not promoted, and does not keep others from it.
    """

    def __init__(self, space: Space, *, max_trials: int | None, **settings: Any):
        super().__init__(space, **settings)
        self.max_trials = max_trials

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        while True:
            for bracket in self.brackets:
                values = self._start(bracket, trial_id) or self._promote(
                    bracket, trial_id
                )
                if values:
                    return response(values)
            if self.in_last_bracket or "size" in self.brackets[-1]:
                if self.ongoing_trials:  # they may be promoted yet
                    return {"status": TrialStatus.IDLE}
                return response(None)
            self.start_next_bracket()

    def _start(self, bracket: dict[str, Any], trial_id: str) -> dict[str, Any] | None:
        """A new point for the lowest rung, if it has room and there is one."""
        number, lowest = bracket["bracket_num"], bracket["rounds"][0]
        if "size" in bracket or len(lowest) == self.size_of(number, 0):
            return None
        values = self.random_values()
        if values is None:
            bracket["size"] = len(lowest)  # all points are in use
            return None
        lowest.append({"past_id": None, "id": trial_id})
        return {**values, **self._rung(number, 0)}

    def _promote(self, bracket: dict[str, Any], trial_id: str) -> dict[str, Any] | None:
        """The next trial for a higher rung, once it is sure to belong there."""
        number, rungs = bracket["bracket_num"], bracket["rounds"]
        size = lowest = bracket.get("size", self.size_of(number, 0))
        for level, (below, rung) in enumerate(zip(rungs, rungs[1:], strict=False), 1):
            trials = [self.trials[entry["id"]] for entry in below]
            failed = sum(trial.status == TrialStatus.FAILED for trial in trials)
            promoted = {entry["past_id"] for entry in rung}
            waiting = [
                trial
                for trial in trials
                if trial.status == TrialStatus.COMPLETED
                and trial.trial_id not in promoted
            ]
            contenders = size - failed
            size = min(
                contenders,
                self.size_of(number, level),
                math.ceil(lowest / self.factor**level),
            )
            # More have ended than will be left behind: the best of them is sure.
            if len(promoted) < size and len(waiting) > contenders - size:
                pick = max if self.objective.direction == "max" else min
                best = pick(waiting, key=lambda trial: trial.score)
                rung.append({"past_id": best.trial_id, "id": trial_id})
                return {
                    **best.hyperparameters.values,
                    **self._rung(number, level),
                    "tuner/trial_id": best.trial_id,
                    FIRST: best.hyperparameters.values.get(FIRST, best.trial_id),
                }
        return None

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        for bracket in self.brackets:  # of a file that may be damaged
            self.size_of(bracket["bracket_num"], 0)
            for entry in itertools.chain(*bracket["rounds"]):
                self.trials[entry["id"]]

    def _rung(self, number: int, level: int) -> dict[str, Any]:
        """The hyperparameters by which KerasTuner's hyperband tells its rungs."""
        return {
            "tuner/epochs": self.epochs_of(number, level),
            "tuner/initial_epoch": self.epochs_of(number, level - 1) if level else 0,
            "tuner/bracket": number,
            "tuner/round": level,
        }
