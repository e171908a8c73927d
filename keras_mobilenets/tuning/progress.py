"""What is seen of a search: its table on disk, a line a trial, the time left."""

from __future__ import annotations

import pathlib
import threading
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_mobilenets.text import count, table
from keras_mobilenets.tuning.points import key_of
from keras_mobilenets.tuning.protocol import record
from keras_mobilenets.tuning.results import SearchResult
from keras_mobilenets.tuning.space import Space
from keras_mobilenets.tuning.stored_oracle import ENDED

TABLES = ("results.json", "results.csv")
PLOT = "search.png"


class Progress:
    """Keeps the table of a search on disk, and says how it goes.

    To be called with every trial that has ended, from any thread.

    Args:
        oracle, space: of the search.
        path: its directory.
        epochs: of a trial whose oracle does not say.
        at_a_time: trials that run at the same time.
        plan: what the search is expected to try: the values of each trial.
    """

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        space: Space,
        path: pathlib.Path,
        *,
        epochs: int,
        at_a_time: int,
        plan: list[dict[str, Any]],
        verbose: bool,
    ):
        self._oracle, self._space, self._path = oracle, space, path
        self._epochs, self._at_a_time = epochs, at_a_time
        self._verbose = verbose
        self._plan = [self._work(values) for values in plan]
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Say what is to be done."""
        space = self._space
        asked = len(space.names) * len(space.alphas) * len(space.resolutions)
        ended = self._ended(self._result())
        self._print(
            f"networks within the budget: {len(space.feasible)} of {asked}; trials: "
            f"{len(self._plan)}"
            + (f", of which {len(ended)} have ended" if ended else "")
            + f"; directory: {self._path}"
        )

    def __call__(self, trial: Trial) -> None:
        with self._lock:
            result = self._write()
            ended = self._ended(result)
            row = next(row for row in ended if row["trial"] == trial.trial_id)
            if row["status"] == TrialStatus.COMPLETED:
                scores = ", ".join(
                    f"{column.replace('_', ' ')} {row[column]:.2%}"
                    for column in dict.fromkeys(("accuracy", result.objective))
                )
                outcome = f"{scores} in {row['seconds']:.0f} s"
            else:
                outcome = f"failed ({row['message']})"
            total = max(len(self._plan), len(ended))
            self._print(
                f"[{len(ended)}/{total}] {row['name']}, alpha {row['alpha']:g}, "
                f"{row['resolution']} px: {outcome}{self._left(ended)}"
            )

    def end(self) -> SearchResult:
        """Leave the table and the plot, and show them."""
        result = self._write()
        self._print(f"\n{summary(result)}\n\ntable: {self._path / TABLES[1]}")
        if result.finished:
            result.plot(self._path / PLOT)
            self._print(f"plot: {self._path / PLOT}")
        return result

    def _result(self) -> SearchResult:
        return SearchResult.from_oracle(self._oracle, self._space)

    def _write(self) -> SearchResult:
        result = self._result()
        for name in TABLES:
            result.write(self._path / name)
        return result

    @staticmethod
    def _ended(result: SearchResult) -> list[dict[str, Any]]:
        return [row for row in result.table if row["status"] in ENDED]

    def _work(self, values: dict[str, Any]) -> float:
        """Mult-adds of the training images' forward passes, up to a factor."""
        epochs = values.get("tuner/epochs") or self._epochs
        return self._space.point(*key_of(values)).macs * (
            epochs - (values.get("tuner/initial_epoch") or 0)
        )

    def _left(self, ended: list[dict[str, Any]]) -> str:
        """How long the rest will take: so much a trial, and so much a mult-add."""
        timed = [row for row in ended if row["seconds"] is not None]
        trials = len(self._plan) - len(ended)
        if not timed or trials <= 0:
            return ""
        work = np.array([self._work(row) for row in timed])
        seconds = np.array([row["seconds"] for row in timed])
        terms = np.stack([np.ones_like(work), work], axis=1)
        rates = np.linalg.lstsq(terms / work.mean(), seconds / work.mean())[0]
        if len(timed) < 3 or min(rates) < 0:
            rates = np.array([seconds.mean(), 0.0])
        left = sum(self._plan) - sum(map(self._work, ended))
        about = float(rates @ [trials, max(0.0, left)]) / self._at_a_time
        return f"; about {duration(about)} left"

    def _print(self, text: str) -> None:
        if self._verbose:
            print(text, flush=True)


def rehearse(oracle: keras_tuner.Oracle) -> list[dict[str, Any]]:
    """What a fresh oracle proposes until it stops, if all trials end alike."""
    while (trial := oracle.create_trial("rehearsal")).status == TrialStatus.RUNNING:
        record(oracle, trial.trial_id, {oracle.objective.name: 0.5})
        trial.status = TrialStatus.COMPLETED
        oracle.end_trial(trial)
    return [trial.hyperparameters.values for trial in oracle.trials.values()]


def duration(seconds: float) -> str:
    """
    >>> duration(75), duration(600), duration(8000)
    ('75 s', '10 min', '2.2 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def summary(result: SearchResult) -> str:
    """The table of a search for the terminal; a star marks the front."""
    front = [row["trial"] for row in result.pareto()]
    timed, scored = result.cost == "latency_ms", result.objective != "accuracy"
    header = [
        "trial", "network", "alpha", "px", "mult-adds", "parameters",
        *(["ms"] if timed else []), "epochs", "seconds", "accuracy",
        *([result.objective.replace("_", " ")] if scored else []), "",
    ]  # fmt: skip

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:.2%}"

    rows = [
        (
            row["trial"],
            row["name"],
            row["alpha"],
            row["resolution"],
            count(row["macs"]),
            count(row["params"]),
            *([row["latency_ms"]] if timed else []),
            row["epochs"] and f"{row['epochs']:.0f}",
            row["seconds"] and f"{row['seconds']:.0f}",
            percent(row["accuracy"]),
            *([percent(row[result.objective])] if scored else []),
            "*" if row["trial"] in front else (row["message"] or ""),
        )
        for row in result.table
    ]
    price = "latency" if timed else "cost"
    best = f"* none is more accurate at the same {price} or less"
    return f"{table(header, rows)}\n{best}"
