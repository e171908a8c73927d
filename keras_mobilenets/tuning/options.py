"""What `search` is asked: its options beside `Space`'s, and all of them checked.

As in settings.py, an option is one field: its default, its check and its help. No
TensorFlow here.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from keras_mobilenets.architecture.arguments import (
    check_choice,
    check_flag,
    check_known,
    check_number,
)
from keras_mobilenets.architecture.shapes import pixels
from keras_mobilenets.errors import UsageError
from keras_mobilenets.execution import Execution
from keras_mobilenets.options import (
    NOT_GIVEN,
    check_options,
    is_given,
    none_or,
    option,
    options_of,
    whole,
)
from keras_mobilenets.recipe import FIELDS
from keras_mobilenets.settings import Settings, make_settings, take_data
from keras_mobilenets.storage import json_value
from keras_mobilenets.tuning.identity import identify
from keras_mobilenets.tuning.results import OBJECTIVES
from keras_mobilenets.tuning.space import RANGES, Space
from keras_mobilenets.weight_files import find_weights

ORACLES = ("grid", "random", "bayesian", "hyperband")
STRATEGIES = ("none", "mirrored")  # the others need processes of their own
MOST = 4096  # trials at a time; far above any use
MOST_TRIALS = 10**6

Strategy = str | Callable[[], Any]  # a function makes a tf.distribute.Strategy


def _positive(name: str, value: Any) -> float:
    return check_number(name, value, low=0, open_low=True)


def _memory(name: str, value: Any) -> float:
    value = _positive(name, value)
    if not os.path.exists("/proc/self/statm"):
        raise UsageError(
            f"memory_limit needs Linux's /proc, which is not here; got {value!r}"
        )
    return value


def check_prior(name: str, value: Any) -> Any:
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
    objective: str = option(
        lambda name, value: check_choice(name, value, OBJECTIVES),
        "accuracy (default), or int8_accuracy, that of the trial's int8 file as LiteRT "
        "runs it; both on the validation images",
        "accuracy",
    )
    max_trials: int | None = option(
        none_or(whole(1, MOST_TRIALS)), "at most so many (default all points)", None
    )
    prior: Any = option(
        check_prior,
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
        whole(1, MOST), "trials at a time on this machine (default 1)", 1
    )
    cluster: int = option(
        whole(0, MOST),
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


# What `search()` chooses where nothing is said: four points, a few minutes.
QUICK = {"alphas": (0.35, 0.5), "resolutions": (32, 48)}

# What a trial's settings take from its point.
SETTLED = ("name", "alpha", "rho", "resolution")

BUDGET = ("max_macs", "max_params", "max_memory", "max_latency_ms", "latency")
# Of SearchOptions; a search may be extended.
DECISIVE = ("oracle", "objective", "prior", "strategy")
OF_SPACE, OF_SEARCH = options_of(Space), options_of(SearchOptions)
OF_RUNS = [name for name in (*options_of(Settings), *FIELDS) if name not in SETTLED]


class Asked(NamedTuple):
    """What `search` was asked, checked."""

    space: Space  # without its budget, which needs the number of classes
    budget: dict[str, Any]
    arguments: dict[str, Any]  # of every trial, as `train` takes them
    options: SearchOptions
    identity: dict[str, Any]  # what must be equal to go on with a search


def read_options(given: Mapping[str, Any]) -> Asked:
    """Check all that `search` was given.

    Raises:
        UsageError: an unknown or impossible argument.
    """
    check_known("search()", given, [*OF_SPACE, *OF_SEARCH, *OF_RUNS])
    given = take_data(given)
    options = SearchOptions(
        **check_options(SearchOptions, {k: given[k] for k in given if k in OF_SEARCH})
    )
    budget = check_options(Space, {k: given[k] for k in given if k in BUDGET})
    rest = {k: v for k, v in given.items() if k not in OF_SEARCH and k not in BUDGET}
    space, arguments = read_space(rest, "search()")
    runs = [networks(space, arguments, name)[0] for name in space.names]
    identity = {
        **{run.name: _without_point(run, space) for run in runs},
        **{k: identify(k, getattr(space, k)) for k in OF_SPACE if k not in BUDGET},
        **{k: identify(k, budget.get(k)) for k in BUDGET},
        **{k: identify(k, getattr(options, k)) for k in DECISIVE},
    }
    return Asked(space, budget, arguments, options, json_value(identity))


def read_space(given: Mapping[str, Any], where: str) -> tuple[Space, dict[str, Any]]:
    """What is searched, and what every trial is given beside it, as `train` takes it.

    Raises:
        UsageError: an unknown or impossible argument.
    """
    check_known(where, given, [k for k in (*OF_SPACE, *OF_RUNS) if k not in BUDGET])
    given = take_data(given)
    searched = {
        name: value
        for name, value in given.items()
        if name in OF_SPACE
        and is_given(OF_SPACE[name], value)
        and (name not in RANGES or isinstance(value, Sequence))
    }
    arguments = {
        name: value
        for name, value in given.items()
        if name in OF_RUNS and name not in searched and value is not NOT_GIVEN
    }
    if arguments.get("data", "digits") == "digits":
        searched.setdefault("alphas", QUICK["alphas"])
        if "rhos" not in searched:
            searched.setdefault("resolutions", QUICK["resolutions"])
    space = Space(**searched)
    runs = [networks(space, arguments, name)[0] for name in space.names]
    if runs[0].weights is not None:
        find_weights(runs[0].weights)
    variant = {k: v for k, v in runs[0].variant.items() if k != "batch_norm_epsilon"}
    if runs[0].channels != 3:
        variant["channels"] = runs[0].channels
    return dataclasses.replace(space, variant=variant), arguments


def networks(space: Space, arguments: dict[str, Any], name: str) -> list[Settings]:
    """The settings of a run of a network, for each alpha, at the lowest of the rest."""
    smallest = min(space.resolutions, key=pixels)
    lowest = {field: bounds[0] for field, bounds in space.ranges.items()}
    point = {**lowest, "name": name, "resolution": smallest}
    return [
        make_settings({**arguments, **point, "alpha": alpha}, where="search()")
        for alpha in space.alphas
    ]


def _without_point(run: Settings, space: Space) -> dict[str, Any]:
    """What all runs of a network have in common, in words."""
    values = {k: v for k, v in run.as_dict().items() if k not in SETTLED}
    values["recipe"] = {
        k: v for k, v in values["recipe"].items() if k not in space.ranges
    }
    return values
