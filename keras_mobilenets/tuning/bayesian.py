"""KerasTuner's Bayesian optimization within a `Space`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.hyperparameters import Fixed
from keras_tuner.engine.trial import TrialStatus
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern
from threadpoolctl import threadpool_limits

from keras_mobilenets.tuning.space_oracle import SpaceOracle, is_range, response


class BayesianOracle(SpaceOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """The point with the best confidence bound under a Gaussian process.

    As in KerasTuner, but the bound is taken at every untried point instead of
    climbed (at `CANDIDATES` random combinations where there are ranges); the process
    has a length for every hyperparameter, none below a tenth of its range, where it
    would know nothing between the points; and with a prior it explains what the
    prior, scaled to what was found, does not.
    """

    CANDIDATES = 1000
    LENGTHS = (0.1, 10.0)  # of a range of 1 [our choice]

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        done = [t for t in self.trials.values() if t.status == TrialStatus.COMPLETED]
        if len(done) < self.num_initial_points:
            return response(self.random_values())
        candidates = self._candidates()
        if not candidates:
            return response(None)
        sign = -1 if self.objective.direction == "max" else 1  # lower is better
        y = np.array([sign * trial.score for trial in done])
        running = [t.hyperparameters.values for t in self.ongoing_trials.values()]
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound
            bound = self._bound(
                [trial.hyperparameters.values for trial in done], y, running, candidates
            )
        return response(candidates[np.argmin(bound)])

    def _make_process(self) -> GaussianProcessRegressor:
        dimensions = len(self._searched())
        return GaussianProcessRegressor(
            kernel=Matern([1.0] * dimensions, self.LENGTHS, nu=2.5),
            normalize_y=True,
            alpha=self.alpha,
            random_state=self.seed,
        )

    def _bound(
        self,
        done: list[dict],
        y: np.ndarray,
        running: list[dict],
        candidates: list[dict],
    ) -> np.ndarray:
        """The lower confidence bound at the candidates."""
        promise = np.array([self.promise_of(values) for values in done])
        slope = min(0.0, np.polyfit(promise, y, 1)[0]) if np.ptp(promise) else 0.0
        x, y = self._vectors(done), y - slope * promise
        process = self._make_process().fit(x, y)
        if running:  # they are taken to end as expected
            x = np.vstack([x, self._vectors(running)])
            y = np.append(y, process.predict(self._vectors(running)))
            process.set_params(kernel=process.kernel_, optimizer=None).fit(x, y)
        mean, deviation = process.predict(self._vectors(candidates), return_std=True)
        promise = np.array([self.promise_of(values) for values in candidates])
        return mean + slope * promise - self.beta * deviation

    def _candidates(self) -> list[dict[str, Any]]:
        if not any(map(is_range, self.others())):
            return list(self.untried())
        rng = self.rng()
        drawn = (self.draw(rng) for _ in range(self.CANDIDATES))
        return [values for values in drawn if not self.is_tried(values)]

    def _searched(self) -> list[Any]:
        """The hyperparameters that have more than one value."""
        return [hp for hp in self.hyperparameters.space if not isinstance(hp, Fixed)]

    def _vectors(self, combinations: Iterable[dict[str, Any]]) -> np.ndarray:
        """Each hyperparameter between 0 and 1; an inactive one at its default."""
        space = self._searched()
        return np.array(
            [
                [hp.value_to_prob(values.get(hp.name, hp.default)) for hp in space]
                for values in combinations
            ]
        )
