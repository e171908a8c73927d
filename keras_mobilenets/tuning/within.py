"""What KerasTuner's oracles lack, for all of them: they stay within a `Space`.

The engine is KerasTuner's: trials, retries, several tuners, the state on disk. Ours:
only points within the budget are proposed, none twice. What is proposed depends on
the seed, on the number of the trial and on what is known by then, so a search that
was killed goes on as it would have. Failed trials do not end it. Its files appear
whole or not at all, and where a kill fell between two of them the trial's decides.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import keras_tuner
import numpy as np
import tensorflow as tf
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_mobilenets.architecture.arguments import check_number
from keras_mobilenets.errors import UsageError
from keras_mobilenets.tuning.points import POINT, Point
from keras_mobilenets.tuning.space import Space

Prior = Callable[[str, float, int], float]  # what accuracy to expect

ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)


class WithinSpace:
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
        super().__init__(
            hyperparameters=hp,
            seed=seed,
            max_consecutive_failed_trials=math.inf,
            **settings,
        )
        if seed is not None:
            self.seed = seed  # KerasTuner takes 0 for none
        self._promise = _promise(space, prior)
        self._points = sorted(  # the most promising first, else as in the space
            space.feasible, key=lambda point: -self._promise[point.key]
        )
        self._identity = {
            "oracle": type(self).__name__,
            "objective": str(self.objective),
            "points": [list(point.key) for point in space.feasible],
            "ranges": {name: list(bounds) for name, bounds in space.ranges.items()},
        }

    # Proposals

    def _others(self) -> list[Any]:
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
            yield from complete(_values(point), self._others())

    def _untried(self) -> Iterator[dict[str, Any]]:
        return (values for values in self._grid() if not self._duplicate(values))

    def _rng(self) -> random.Random:
        return random.Random(f"{self.seed} {len(self.trials)}")

    def _promise_of(self, values: dict[str, Any]) -> float:
        return self._promise[tuple(values[field] for field in POINT)]

    def _pick(self, rng: random.Random, combinations: list[dict]) -> dict[str, Any]:
        """One at random; e times as likely for each deviation of promise."""
        weights = [math.exp(self._promise_of(values)) for values in combinations]
        return rng.choices(combinations, weights)[0]

    def _draw(self, rng: random.Random) -> dict[str, Any]:
        """A random combination, tried or not."""
        values = self._pick(rng, [_values(point) for point in self._points])
        for hp in self._others():
            if _is_active(hp, values):
                values[hp.name] = hp.random_sample(rng.getrandbits(32))
        return values

    def _random_values(self) -> dict[str, Any] | None:
        """A random combination that was not tried; None where all were."""
        rng = self._rng()
        for _ in range(self._max_collisions):
            if not self._duplicate(values := self._draw(rng)):
                return values
        untried = list(self._untried())
        return self._pick(rng, untried) if untried else None

    # Trials

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """The next trial, or the one that a kill interrupted, under its own id."""
        if not self.trials and tf.io.gfile.exists(self._get_oracle_fname()):
            self.reload()  # a tuner does so only once it has ended a trial
        for trial_id in self._retry_queue:
            trial = self.trials[trial_id]
            trial.metrics = type(trial.metrics)()  # a second try would be averaged in
            trial.score = trial.message = None
        return super().create_trial(tuner_id)

    def score_trial(self, trial: Trial) -> None:
        """KerasTuner's score; one that is missing or not finite is a failure."""
        objective = self.objective.name
        if trial.metrics.exists(objective):
            super().score_trial(trial)
        if trial.score is None or not math.isfinite(trial.score):
            trial.message = f"{objective} is {trial.score}"
            trial.score = math.nan  # by which KerasTuner knows an invalid trial

    # State on disk

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "identity": self._identity}

    def set_state(self, state: dict[str, Any]) -> None:
        kept = state.get("identity", {})
        other = [
            what for what in self._identity if kept.get(what) != self._identity[what]
        ]
        if other:
            raise UsageError(
                f"{self._project_dir!r} holds a search with another "
                f"{' and '.join(f'{what} ({_brief(kept, what)})' for what in other)}; "
                "got "
                f"{' and '.join(_brief(self._identity, what) for what in other)}: "
                "resume it as it was started, or give another directory"
            )
        declared = self.hyperparameters
        super().set_state(state)
        self.update_space(declared)  # some may be new

    def reload(self) -> None:
        """Take up a search from its files, wherever it was killed."""
        super().reload()
        # Not in the oracle's file: never handed out, will be proposed again.
        self.trials = {i: self.trials[i] for i in self.start_order if i in self.trials}
        ended = [i for i, trial in self.trials.items() if trial.status in ENDED]
        self.end_order += [i for i in ended if i not in self.end_order]
        # The last is handed out first.
        self._retry_queue = [i for i in reversed(self.trials) if i not in ended]
        self._tried_so_far = {
            self._compute_values_hash(trial.hyperparameters.values)
            for trial in self.trials.values()
        }

    def save(self) -> None:
        _write_json(self._get_oracle_fname(), self.get_state())

    def _save_trial(self, trial: Trial) -> None:
        path = f"{self._get_trial_dir(trial.trial_id)}/trial.json"
        _write_json(path, trial.get_state())


def _promise(space: Space, prior: Prior | None) -> dict[tuple, float]:
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


def _brief(identity: dict[str, Any], what: str) -> str:
    value = identity.get(what)
    return f"{len(value)} of them" if isinstance(value, list) else str(value)


def _values(point: Point) -> dict[str, Any]:
    return {field: getattr(point, field) for field in POINT}


def is_range(hp: Any) -> bool:
    """Whether there are infinitely many values, or too many to list."""
    return getattr(hp, "step", 1) is None


def _is_active(hp: Any, values: dict[str, Any]) -> bool:
    return all(condition.is_active(values) for condition in hp.conditions)


def response(values: dict[str, Any] | None) -> dict[str, Any]:
    """What `populate_space` answers: these values, or that there are no more."""
    status = TrialStatus.STOPPED if values is None else TrialStatus.RUNNING
    return {"status": status, "values": values}


def _write_json(path: str, state: dict[str, Any]) -> None:
    """Whole or not at all, wherever TensorFlow can write."""
    beside = f"{path}.partial"
    with tf.io.gfile.GFile(beside, "w") as file:
        file.write(json.dumps(state))
    tf.io.gfile.rename(beside, path, overwrite=True)
