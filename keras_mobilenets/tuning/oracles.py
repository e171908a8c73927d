"""KerasTuner's oracles within a `Space`: grid, random, Bayesian, hyperband."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner import oracles
from keras_tuner.engine.trial import TrialStatus

from keras_mobilenets.architecture.arguments import check_choice, check_integer
from keras_mobilenets.tuning.space import Space
from keras_mobilenets.tuning.within import WithinSpace, is_range

MAX_SEED = 2**32 - 1  # of numpy, for the Gaussian process


class GridOracle(WithinSpace, keras_tuner.Oracle):
    """Every point in the order of the space."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        return _response(next(self._untried(), None))


class RandomOracle(WithinSpace, oracles.RandomSearchOracle):
    """Points in random order."""


class BayesianOracle(WithinSpace, oracles.BayesianOptimizationOracle):
    """The point with the best confidence bound under a Gaussian process.

    As in KerasTuner, but the bound is taken at every untried point instead of
    climbed, or at `CANDIDATES` random combinations where there are ranges.
    """

    CANDIDATES = 1000

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        done = [t for t in self.trials.values() if t.status == TrialStatus.COMPLETED]
        if len(done) < self.num_initial_points:
            return self._random_populate_space()
        candidates = self._candidates()
        if not candidates:
            return _response(None)
        sign = -1 if self.objective.direction == "max" else 1  # lower is better
        x = self._vectors(trial.hyperparameters.values for trial in done)
        y = np.array([sign * trial.score for trial in done])
        self.gpr = self._make_gpr().fit(x, y)
        if self.ongoing_trials:  # they are taken to end as expected
            running = self._vectors(
                trial.hyperparameters.values for trial in self.ongoing_trials.values()
            )
            y = np.append(y, self.gpr.predict(running))
            self.gpr.set_params(kernel=self.gpr.kernel_, optimizer=None)
            self.gpr.fit(np.vstack([x, running]), y)
        mean, deviation = self.gpr.predict(self._vectors(candidates), return_std=True)
        return _response(candidates[np.argmin(mean - self.beta * deviation)])

    def _candidates(self) -> list[dict[str, Any]]:
        if not any(map(is_range, self._others())):
            return list(self._untried())
        rng = self._rng()
        drawn = (self._draw(rng) for _ in range(self.CANDIDATES))
        return [values for values in drawn if not self._duplicate(values)]

    def _vectors(self, combinations: Iterable[dict[str, Any]]) -> np.ndarray:
        """Each hyperparameter between 0 and 1; an inactive one at its default."""
        space = self._nonfixed_space()
        return np.array(
            [
                [hp.value_to_prob(values.get(hp.name, hp.default)) for hp in space]
                for values in combinations
            ]
        )


class HyperbandOracle(WithinSpace, oracles.HyperbandOracle):
    """Hyperband over finitely many points.

    A bracket takes no more points than there are, and its rungs shrink with it. A
    failed trial is not promoted, and does not keep others from it.
    """

    def __init__(self, space: Space, *, max_trials: int | None, **settings: Any):
        super().__init__(space, **settings)
        self.max_trials = max_trials

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        while True:
            for bracket in self._brackets:
                values = self._start(bracket, trial_id) or self._promote(
                    bracket, trial_id
                )
                if values:
                    return _response(values)
            last = (
                self._current_bracket == 0
                and self._current_iteration + 1 == self.hyperband_iterations
            )
            if last or "size" in self._brackets[-1]:
                if self.ongoing_trials:  # they may be promoted yet
                    return {"status": TrialStatus.IDLE}
                return _response(None)
            self._increment_bracket_num()
            self._start_new_bracket()

    def _start(self, bracket: dict[str, Any], trial_id: str) -> dict[str, Any] | None:
        """A new point for the lowest rung, if it has room and there is one."""
        number, lowest = bracket["bracket_num"], bracket["rounds"][0]
        if "size" in bracket or len(lowest) == self._get_size(number, 0):
            return None
        values = self._random_values()
        if values is None:
            bracket["size"] = len(lowest)  # all points are in use
            return None
        lowest.append({"past_id": None, "id": trial_id})
        return {**values, **self._rung(number, 0)}

    def _promote(self, bracket: dict[str, Any], trial_id: str) -> dict[str, Any] | None:
        """The next trial for a higher rung, once it is sure to belong there."""
        number, rungs = bracket["bracket_num"], bracket["rounds"]
        size = lowest = bracket.get("size", self._get_size(number, 0))
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
                self._get_size(number, level),
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
                }
        return None

    def _rung(self, number: int, level: int) -> dict[str, Any]:
        """The hyperparameters by which KerasTuner's hyperband tells its rungs."""
        return {
            "tuner/epochs": self._get_epochs(number, level),
            "tuner/initial_epoch": self._get_epochs(number, level - 1) if level else 0,
            "tuner/bracket": number,
            "tuner/round": level,
        }


ORACLES = {
    "grid": GridOracle,
    "random": RandomOracle,
    "bayesian": BayesianOracle,
    "hyperband": HyperbandOracle,
}


def make_oracle(
    kind: str,
    space: Space,
    *,
    objective: str | keras_tuner.Objective = "val_accuracy",
    max_trials: int | None = None,
    seed: int | None = None,
    max_epochs: int | None = None,
    factor: int = 3,
    hyperband_iterations: int | None = None,
    num_initial_points: int = 3,
    max_retries_per_trial: int = 0,
) -> keras_tuner.Oracle:
    """An oracle of KerasTuner that proposes points of `space`, and no others.

    Its hyperparameters are "name", "alpha", "resolution" and the ranges of the
    space; hyperband adds KerasTuner's "tuner/epochs" and so on.

    Args:
        kind: "grid", "random", "bayesian" or "hyperband".
        objective: what to optimise, such as "val_accuracy" or "val_loss", or a
            `keras_tuner.Objective`. One; see `SearchResult.pareto` for several.
        max_trials: at most so many trials; by default all points are tried. Must
            be given where a range makes them infinitely many (a grid takes ten
            values of it).
        seed: 0 to 2**32 - 1; by default another one each time.
        max_epochs: of hyperband's highest rung, which needs it; others ignore it.
        factor: by which hyperband's rungs differ.
        hyperband_iterations: by default until the points or the trials run out.
        num_initial_points: random trials before the Gaussian process decides.
        max_retries_per_trial: how often a trial that fails is tried again.

    Raises:
        ValueError: an argument that is not as above.

    >>> oracle = make_oracle("grid", Space(alphas=(0.35, 0.5), max_macs=50e6))
    """
    oracle = ORACLES[check_choice("oracle", kind, ORACLES)]
    single = isinstance(objective, (str, keras_tuner.Objective))
    if not single or hasattr(objective, "objectives"):
        raise ValueError(
            'objective must be one, such as "val_accuracy", or a '
            f"keras_tuner.Objective; got {objective!r} (KerasTuner would add several "
            "up; SearchResult.pareto weighs accuracy against cost)"
        )
    if seed is not None:
        seed = check_integer("seed", seed, low=0, high=MAX_SEED)
    if max_trials is not None:
        max_trials = check_integer("max_trials", max_trials, low=1)
    elif space.ranges and kind != "grid":
        raise ValueError(
            f"max_trials must be given where {' and '.join(space.ranges)} may be any "
            "number in a range; got None"
        )
    settings: dict[str, Any] = {}
    if kind == "bayesian":
        settings["num_initial_points"] = check_integer(
            "num_initial_points", num_initial_points, low=1
        )
    if kind == "hyperband":
        settings = {
            "max_epochs": check_integer(
                "max_epochs", max_epochs, low=1, fix="hyperband needs it"
            ),
            "factor": check_integer("factor", factor, low=2),
            "hyperband_iterations": hyperband_iterations
            and check_integer("hyperband_iterations", hyperband_iterations, low=1),
        }
    return oracle(
        space,
        objective=objective,
        max_trials=max_trials,
        seed=seed,
        max_retries_per_trial=check_integer(
            "max_retries_per_trial", max_retries_per_trial, low=0
        ),
        **settings,
    )


def _response(values: dict[str, Any] | None) -> dict[str, Any]:
    """What `populate_space` answers: these values, or that there are no more."""
    status = TrialStatus.STOPPED if values is None else TrialStatus.RUNNING
    return {"status": status, "values": values}
