"""How a search goes about its space: the options of `search` beside `Space`'s.

As in settings.py, an option is one field: its default, its check and its help. No
TensorFlow here.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any

from keras_mobilenets.architecture.arguments import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
)
from keras_mobilenets.errors import UsageError
from keras_mobilenets.options import Check, check_path, none_or, option
from keras_mobilenets.settings import Execution

ORACLES = ("grid", "random", "bayesian", "hyperband")
STRATEGIES = ("none", "mirrored")  # the others need processes of their own
MOST = 4096  # trials at a time; far above any use
MOST_TRIALS = 10**6

Strategy = str | Callable[[], Any]  # a function makes a tf.distribute.Strategy


def _whole(low: int, high: int) -> Check:
    return lambda name, value: check_integer(name, value, low=low, high=high)


def _positive(name: str, value: Any) -> float:
    return check_number(name, value, low=0, open_low=True)


def _memory(name: str, value: Any) -> float:
    value = _positive(name, value)
    if not os.path.exists("/proc/self/statm"):
        raise UsageError(
            f"memory_limit needs Linux's /proc, which is not here; got {value!r}"
        )
    return value


def _prior(name: str, value: Any) -> Any:
    if value is None or value == "published" or callable(value):
        return value
    raise UsageError(
        'prior must be "published", None, or a function of name, alpha and '
        f"resolution; got {value!r}"
    )


def _strategy(name: str, value: Any) -> Strategy:
    if callable(value):
        return value
    return check_choice(name, value, STRATEGIES)


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """What is tried first, and how it is carried out."""

    oracle: str = option(
        lambda name, value: check_choice(name, value, ORACLES),
        "grid (default), random, bayesian or hyperband",
        "grid",
    )
    max_trials: int | None = option(
        none_or(_whole(1, MOST_TRIALS)), "at most so many (default all points)", None
    )
    prior: Any = option(
        _prior,
        "the accuracy to expect, which decides what is tried first: published for "
        "what ImageNet's suggests, or a function of name, alpha and resolution",
        None,
    )
    directory: str | None = option(
        Execution.__dataclass_fields__["workdir"].metadata["check"],
        "of the search: a new one, or one to go on in (default the unfinished search "
        "of these settings in runs, else the next free runs/search-DATA-NUMBER)",
        None,
        text=True,
    )
    workers: int = option(
        _whole(1, MOST), "trials at a time on this machine (default 1)", 1
    )
    cluster: int = option(
        _whole(0, MOST),
        "processes of a local cluster: a chief here and so many workers (default 0)",
        0,
    )
    time_limit: float | None = option(none_or(_positive), "seconds of one trial", None)
    memory_limit: float | None = option(
        none_or(_memory), "bytes of resident memory of one trial (Linux)", None
    )
    strategy: Strategy = option(
        _strategy,
        "none (default), mirrored, or a function that makes a tf.distribute strategy; "
        "in every trial",
        "none",
    )
    isolate: bool = option(
        check_flag,
        "every trial in a process of its own (default); no: in this one, for a "
        "debugger, without limits",
        True,
    )
    verbose: bool = option(
        check_flag, "print progress, the table, and where everything is (default)", True
    )

    def __post_init__(self) -> None:
        limits = (self.time_limit, self.memory_limit)
        if not self.isolate and (self.workers > 1 or any(limits)):
            raise UsageError(
                "isolate=False runs one trial at a time, without limits; got "
                f"workers={self.workers}, time_limit={self.time_limit}, "
                f"memory_limit={self.memory_limit}"
            )
        if callable(self.strategy) and (self.isolate or self.cluster):
            check_importable("strategy", self.strategy)


def check_importable(name: str, function: Any) -> None:
    """Another process can find a function by its name.

    Raises:
        UsageError: it was made in a notebook, in a script, or in another function.
    """
    try:
        pickled = pickle.dumps(function)
        lost = b"__main__" in pickled and "__main__" in sys.modules
    except Exception:
        lost = True
    if lost:
        raise UsageError(
            f"{name} must be a function that other processes can import, as every "
            f"trial has one of its own; got {function!r}: write it into a module, or "
            "give isolate=False"
        )
