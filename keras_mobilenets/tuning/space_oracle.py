"""What KerasTuner's oracles lack, for all of them: they stay within a `Space`.

The engine is KerasTuner's. Ours: only points within the budget are proposed, none
twice. What is proposed depends on the seed, on the number of the trial and on what is
known by then, so a search that was killed goes on as it would have. Failed trials do
not end it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_mobilenets.architecture.arguments import check_number
from keras_mobilenets.tuning.points import POINT, Key, key_of
from keras_mobilenets.tuning.space import Space
from keras_mobilenets.tuning.stored_oracle import StoredOracle

Prior = Callable[..., float]  # what accuracy to expect

DRAWS = 20  # of known combinations in a row, until the unknown ones are listed


class SpaceOracle(StoredOracle):
    """What the four have in common, put in front of KerasTuner's class."""

    def __init__(
        self,
        space: Space,
        *,
        seed: int | None = None,
        prior: Prior | None = None,
        **settings: Any,
    ):
        hp = keras_tuner.HyperParameters()
        space.declare(hp)
        super().__init__(hyperparameters=hp, seed=seed, **settings)
        if seed is not None:
            self.seed = seed  # KerasTuner takes 0 for none
        self._tried: set[frozenset] = set()
        self._promise = _promise(space, prior)
        self._points = [  # the most promising first, else as in the space
            space.values(point)
            for point in sorted(
                space.feasible, key=lambda point: -self._promise[point.key]
            )
        ]
        self.identity = {
            "oracle": type(self).__name__,
            "objective": str(self.objective),
            "points": [list(point.plain.values()) for point in space.feasible],
            "ranges": {name: list(bounds) for name, bounds in space.ranges.items()},
        }

    # Proposals

    def others(self) -> list[Any]:
        """What is searched beside the points: ranges, and the hypermodel's own."""
        return [hp for hp in self.hyperparameters.space if hp.name not in POINT]

    def _grid(self) -> Iterator[dict[str, Any]]:
        """Every combination; of a range, KerasTuner's ten values."""

        def complete(values: dict[str, Any], others: list[Any]) -> Iterator[dict]:
            if not others:
                yield values
                return
            first, *rest = others
            # A set, in KerasTuner; not of numbers only.
            choices = sorted(first.values) if is_range(first) else first.values
            for value in choices if _is_active(first, values) else ():
                yield from complete({**values, first.name: value}, rest)
            if not _is_active(first, values):
                yield from complete(values, rest)

        for point in self._points:
            yield from complete(dict(point), self.others())

    def untried(self) -> Iterator[dict[str, Any]]:
        return (values for values in self._grid() if not self.is_tried(values))

    def rng(self) -> random.Random:
        return random.Random(f"{self.seed} {len(self.trials)}")

    def promise_of(self, values: dict[str, Any]) -> float:
        return self._promise[key_of(values)]

    def _pick(self, rng: random.Random, combinations: list[dict]) -> dict[str, Any]:
        """One at random; e times as likely for each deviation of promise."""
        weights = [math.exp(self.promise_of(values)) for values in combinations]
        return rng.choices(combinations, weights)[0]

    def draw(self, rng: random.Random) -> dict[str, Any]:
        """A random combination, tried or not."""
        values = dict(self._pick(rng, self._points))
        for hp in self.others():
            if _is_active(hp, values):
                values[hp.name] = hp.random_sample(rng.getrandbits(32))
        return values

    def random_values(self) -> dict[str, Any] | None:
        """A random combination that was not tried; None where all were."""
        rng = self.rng()
        for _ in range(DRAWS):
            if not self.is_tried(values := self.draw(rng)):
                return values
        untried = list(self.untried())
        return self._pick(rng, untried) if untried else None

    # What was tried

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        trial = super().create_trial(tuner_id)
        if trial.status == TrialStatus.RUNNING:
            self._tried.add(_key(trial.hyperparameters.values))
        return trial

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        super().end_trial(trial)
        self._tried.add(_key(trial.hyperparameters.values))  # some may be new

    def is_tried(self, values: dict[str, Any]) -> bool:
        return _key(values) in self._tried

    def reload(self) -> None:
        super().reload()
        self._tried = {
            _key(trial.hyperparameters.values) for trial in self.trials.values()
        }

    def check_trial(self, trial: Trial, trial_id: str) -> None:
        super().check_trial(trial, trial_id)
        self.promise_of(trial.hyperparameters.values)  # a point of the space


def _promise(space: Space, prior: Prior | None) -> dict[Key, float]:
    """What is expected of each point, in standard deviations over the space."""
    if prior is None:
        return {point.key: 0.0 for point in space.feasible}
    expected = [
        check_number(f"prior of {point}", prior(*point.key), low=-math.inf)
        for point in space.feasible
    ]
    mean, deviation = np.mean(expected), np.std(expected) or 1.0
    return {
        point.key: float((value - mean) / deviation)
        for point, value in zip(space.feasible, expected, strict=True)
    }


def is_range(hp: Any) -> bool:
    """Whether there are infinitely many values, or too many to list."""
    return getattr(hp, "step", 1) is None


def _is_active(hp: Any, values: dict[str, Any]) -> bool:
    return all(condition.is_active(values) for condition in hp.conditions)


def response(values: dict[str, Any] | None) -> dict[str, Any]:
    """What `populate_space` answers: these values, or that there are no more."""
    status = TrialStatus.STOPPED if values is None else TrialStatus.RUNNING
    return {"status": status, "values": values}


def _key(values: dict[str, Any]) -> frozenset:
    """By which combinations are told apart, whatever rung of hyperband tries them."""
    return frozenset(
        (name, value) for name, value in values.items() if name[:6] != "tuner/"
    )
