"""`latency="litert"`: what each point of a space takes here, measured once.

What was measured is kept in the search's own file (see directory.py) and counts from
then on, wherever the search goes on: another measure could put a point on the other
side of the budget. No TensorFlow here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from keras_mobilenets.architecture.arguments import check_number
from keras_mobilenets.errors import UsageError
from keras_mobilenets.tuning.points import Key, Point, key_of
from keras_mobilenets.tuning.space import Space

MS = "latency_ms"
Rows = list[dict[str, Any]]  # as JSON keeps what was measured


def measure(
    space: Space,
    budget: Mapping[str, Any],
    measure_point: Callable[[Point], float],
    say: Callable[[str], None],
) -> Rows:
    """The latency of every point that keeps the rest of a budget.

    Raises:
        UsageError: none does.
    """
    rest = {k: v for k, v in budget.items() if k not in ("latency", "max_latency_ms")}
    points = dataclasses.replace(space, **rest).feasible
    noun = "point" if len(points) == 1 else "points"
    say(f"measuring the latency of {len(points)} {noun}")
    return [{**point.plain, MS: measure_point(point)} for point in points]


def as_function(rows: Any, path: Any) -> Callable[..., float | None]:
    """What was measured, as `Space` takes a latency.

    Raises:
        UsageError: `rows`, from the file `path`, are not what `measure` gives.
    """
    try:
        known: dict[Key, float] = {
            key_of(row): check_number(MS, row[MS], low=0) for row in rows
        }
    except (TypeError, KeyError, ValueError) as error:
        raise UsageError(
            f"{str(path)!r} must hold the measured latencies of its search; it does "
            f"not ({type(error).__name__}: {error}): put it back as it was, or give "
            "another directory"
        ) from error
    return lambda *key: known.get(key)
