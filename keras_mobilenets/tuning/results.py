"""What a search found: a table of its trials, the front, the best within a budget.

Nothing here imports TensorFlow or KerasTuner.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_mobilenets import storage
from keras_mobilenets.architecture.arguments import check_choice, check_number
from keras_mobilenets.errors import UsageError
from keras_mobilenets.tuning.points import LIMITS, POINT, key_of
from keras_mobilenets.tuning.space import Space

if TYPE_CHECKING:
    import keras_tuner
    from matplotlib.figure import Figure

COSTS = tuple(field for field, _ in LIMITS.values())
FORMATS = (".json", ".csv")

SETTINGS = ("trial", "status", "name", "alpha", "rho", "resolution")
COLUMNS = {"val_accuracy": "accuracy", "accuracy": "train_accuracy"}  # of metrics
# What a search can be asked to optimise, as the table calls it, and its metric.
OBJECTIVES = {"accuracy": "val_accuracy", "int8_accuracy": "int8_accuracy"}
REMARKS = ("seconds", "message")  # the last columns
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The trials of a search, finished or not.

    Attributes:
        table: one row (a dict) a trial: "trial", "status", "name", "alpha", "rho",
            "resolution" (pixels of a side, or text such as "96x160", which has no
            rho), the other hyperparameters, "macs", "params",
            "peak_memory" (bytes), "latency_ms", "epochs", "accuracy" (validation,
            0 to 1), "int8_accuracy" (the same of the int8 file) where that is the
            objective, the other scores, "seconds", "message" of a failure. What is
            not known is None.
        objective: the column that was optimised, and `direction`: "max" or "min". The
            front and the plot are of it, or of "accuracy" where it is another score.
        reference: for each cost, that of the dearest point that was allowed.
        cost: over which the front is unless another is asked for: "latency_ms" where
            a latency was given that all points have, else "macs".

    >>> result = SearchResult.read("search/results.json")  # doctest: +SKIP
    >>> result.best(max_macs=100e6)["alpha"]  # doctest: +SKIP
    0.5
    """

    table: list[Row]
    objective: str = "accuracy"
    direction: str = "max"
    reference: dict[str, float] = dataclasses.field(default_factory=dict)
    cost: str = "macs"

    @classmethod
    def from_oracle(cls, oracle: keras_tuner.Oracle, space: Space) -> SearchResult:
        """The trials that an oracle knows.

        "epochs" and "seconds" are read from metrics of these names.
        """
        name = COLUMNS.get(oracle.objective.name, oracle.objective.name)
        rows = []
        for trial in sorted(
            oracle.trials.values(), key=lambda trial: int(trial.trial_id)
        ):
            values = trial.hyperparameters.values
            point = space.point(*key_of(values))
            scores = {
                COLUMNS.get(name, name): _score(trial, name)
                for name in list(trial.metrics.metrics)
            }
            row = {
                "trial": trial.trial_id,
                "status": trial.status,
                **{field: getattr(point, field) for field in SETTINGS[2:]},
                **point.plain,
                **{name: value for name, value in values.items() if name not in POINT},
                **{cost: getattr(point, cost) for cost in COSTS},
                "epochs": round(scores.pop("epochs", values.get("tuner/epochs", 0)))
                or None,
                **{
                    column: scores.pop(column, None)
                    for column in dict.fromkeys(("accuracy", name))
                    if column in OBJECTIVES
                },
                **scores,
                "message": trial.message,
            }
            rows.append({column: _finite(value) for column, value in row.items()})
        reference = {
            cost: max(values)
            for cost in COSTS
            if None not in (values := [getattr(p, cost) for p in space.feasible])
        }
        timed = space.latency is not None and "latency_ms" in reference
        return cls(
            _aligned(rows),
            name,
            oracle.objective.direction,
            reference,
            "latency_ms" if timed else "macs",
        )

    @property
    def finished(self) -> list[Row]:
        """The rows of trials that ended with a value of the objective."""
        return [
            row
            for row in self.table
            if row["status"] == "COMPLETED" and row.get(self.objective) is not None
        ]

    @property
    def _accuracy(self) -> str:
        """The column that the front and the plot are of."""
        return self.objective if self.objective in OBJECTIVES else "accuracy"

    def pareto(self, cost: str | None = None) -> list[Row]:
        """The trials that no other beats in accuracy at the same `cost` or less.

        `cost` is "macs", "params", "peak_memory" or "latency_ms"; by default that of
        the search. The cheapest comes first; of equals, the first trial stands.
        """
        cost = check_choice("cost", self.cost if cost is None else cost, COSTS)
        accuracy = self._accuracy
        front: list[Row] = []
        rows = [
            row
            for row in self.finished
            if row[accuracy] is not None and row[cost] is not None
        ]
        for row in sorted(rows, key=lambda row: (row[cost], -row[accuracy])):
            if not front or row[accuracy] > front[-1][accuracy]:
                front.append(row)
        return front

    def best(
        self,
        *,
        max_macs: float | None = None,
        max_params: float | None = None,
        max_memory: float | None = None,
        max_latency_ms: float | None = None,
    ) -> Row:
        """The trial with the best objective within a budget; of equals the cheapest.

        Raises:
            ValueError: no finished trial is within it.
        """
        given = (max_macs, max_params, max_memory, max_latency_ms)
        limits = {
            limit: check_number(limit, value, low=0)
            for limit, value in zip(LIMITS, given, strict=True)
            if value is not None
        }
        within = [
            row
            for row in self.finished
            if all(
                (value := row[LIMITS[limit][0]]) is not None and value <= most
                for limit, most in limits.items()
            )
        ]
        if not within:
            raise UsageError(self._why_none(limits))
        sign = -1 if self.direction == "max" else 1

        def order(row: Row) -> tuple[float, ...]:
            price = row[self.cost]
            return sign * row[self.objective], math.inf if price is None else price

        return min(within, key=order)

    def hypervolume(
        self, cost: str | None = None, *, reference: float | None = None
    ) -> float:
        """The area that the front dominates, as a share of all: 0 to 1.

        In other words the accuracy to be had, on average, within a budget between 0
        and `reference`, by default the cost of the dearest point of the space. Only
        with the same reference can two searches be compared.
        """
        cost = self.cost if cost is None else cost
        front = self.pareto(cost)
        if reference is None:
            costs = [row[cost] for row in self.finished if row[cost] is not None]
            reference = self.reference.get(cost, max(costs, default=1))
        check_number("reference", reference, low=0, open_low=True)
        front = [row for row in front if row[cost] <= reference]
        ends = [*(row[cost] for row in front[1:]), reference]
        return (
            sum(
                row[self._accuracy] * (end - row[cost])
                for row, end in zip(front, ends, strict=bool(front))
            )
            / reference
        )

    def plot(
        self, path: str | os.PathLike[str] | None = None, *, cost: str | None = None
    ) -> Figure:
        """Accuracy over the logarithm of a cost, in the manner of V1's figure 4."""
        from keras_mobilenets.plots import plot_search  # matplotlib is slow to import

        cost = self.cost if cost is None else cost
        front, accuracy = self.pareto(cost), self._accuracy
        return plot_search(self.finished, front, path, cost=cost, accuracy=accuracy)

    def write(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write the table as JSON or CSV, as the suffix says, whole or not at all."""
        path = pathlib.Path(path)
        check_choice("suffix of path", path.suffix, FORMATS)
        if path.suffix == ".json":
            text = json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False)
        else:
            columns = list(self.table[0]) if self.table else list(SETTINGS)
            file = io.StringIO()
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.table)
            text = file.getvalue()
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.write_text(path, text)
        return path

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> SearchResult:
        """What `write` wrote as JSON.

        Raises:
            UsageError: the file is not one that `write` writes.
        """
        stored = storage.read_json(path)
        try:
            result = cls(**stored)
            for row in result.table:
                [row[column] for column in (*SETTINGS, *COSTS, "accuracy")]
                row[result._accuracy]
            result.pareto()
            [result.reference[cost] + 1 for cost in result.reference]
            return result
        except (TypeError, KeyError, AttributeError, UsageError) as error:
            raise UsageError(
                f"{os.fspath(path)!r} is not a table of a search, or damaged: {error!r}"
            ) from error

    def _why_none(self, limits: Mapping[str, float]) -> str:
        if not self.finished:
            return f"no trial has finished with a value of {self.objective}"
        asked = " and ".join(f"{limit}={most:g}" for limit, most in limits.items())
        least = []
        for limit in limits:
            field, form = LIMITS[limit]
            known = [row[field] for row in self.finished if row[field] is not None]
            least.append(form.format(min(known)) if known else f"no known {field}")
        return (
            f"no finished trial is within {asked}; the least of the "
            f"{len(self.finished)} finished are {', '.join(least)}"
        )


def _score(trial: Any, metric: str) -> float:
    """A metric at the step that KerasTuner holds for the best, else the last."""
    history = trial.metrics.get_history(metric)
    at_best = [seen for seen in history if seen.step == trial.best_step]
    return float((at_best or history)[-1].mean())


def _aligned(rows: list[Row]) -> list[Row]:
    """All rows with all columns: of failed trials some are missing."""
    known = dict.fromkeys(
        column for row in sorted(rows, key=len, reverse=True) for column in row
    )
    columns = [column for column in known if column not in REMARKS] + list(REMARKS)
    return [{column: row.get(column) for column in columns} for row in rows]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
