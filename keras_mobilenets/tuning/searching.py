"""`search`: trials over alpha and resolution within a budget, and what they found."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_mobilenets.architecture.arguments import check_known
from keras_mobilenets.errors import SearchStopped, UsageError
from keras_mobilenets.options import accepts, check_options, is_given, options_of
from keras_mobilenets.recipe import FIELDS
from keras_mobilenets.settings import Settings, make_settings
from keras_mobilenets.tuning.identity import identify
from keras_mobilenets.tuning.isolation import CallFailed, Server
from keras_mobilenets.tuning.options import SearchOptions
from keras_mobilenets.tuning.space import RANGES, Space

if TYPE_CHECKING:
    from keras_mobilenets.tuning.results import SearchResult
    from keras_mobilenets.tuning.runner import Plan

# What `search()` chooses where nothing is said: four points, a few minutes.
QUICK = {"alphas": (0.35, 0.5), "resolutions": (32, 48)}

# What a trial's settings take from its point.
SETTLED = ("name", "alpha", "rho", "resolution")


@accepts(Space, SearchOptions)
def search(
    data: str | os.PathLike[str] = "digits", **options: Any
) -> SearchResult | None:
    """Find the best alpha and resolution within a budget, by training them.

    `search()` alone trains four networks on scikit-learn's digits. Only points
    within the budget are trained, each as a run in a work directory of its own and in
    a process of its own: one that raises, crashes or exceeds a limit is a failed trial
    in the table, and the search goes on. A search that was stopped or killed goes on
    where it was when it is called again with the same settings: finished trials stay
    as they are, the one that ran goes on from its last checkpoint.

    In a cluster of many machines every one calls `search` with the same settings,
    the same shared `directory`, and KerasTuner's environment variables
    (KERASTUNER_TUNER_ID "chief" or any other name, KERASTUNER_ORACLE_IP and
    KERASTUNER_ORACLE_PORT). Messages between them are not encrypted.

    Args:
        data: as `source` in `load_data`: "digits", a TFDS name, or a folder.
        **options: what else decides a run, as in `train`: `recipe`, `weights`, `seed`,
            `data_dir`, fields of the recipe (`epochs=20`), variations of the network
            (`expansion=4`), data options (`broken="fail"`).

    Returns:
        A `SearchResult`. None in the worker of a cluster.

    Raises:
        UsageError: an impossible argument, or a budget that leaves no point; before
            anything is trained.
        SearchStopped: asked to stop (SIGTERM or SIGHUP), trials can no longer be
            started or written, or the chief of a cluster is gone; call again to go on.

    Example:
        result = km.search("photos", alphas=(0.35, 0.5, 1.0), max_macs=100e6)
        result.best(max_params=2e6)
    """
    space, arguments, chosen = split_options({"data": data, **options})
    with contextlib.ExitStack() as stack:
        stack.enter_context(_stopping_on_signals())
        # It imports TensorFlow while this process does.
        server = stack.enter_context(Server()) if chosen.isolate else None

        from keras_mobilenets.tuning import engine
        from keras_mobilenets.tuning.runner import Plan

        role = engine.role()
        if role is not None and chosen.directory is None:
            raise UsageError(
                "directory must be given in a cluster, the same on all machines; got "
                "None"
            )
        path = pathlib.Path(chosen.directory or "")
        plan = Plan(path, space, arguments, chosen)
        if role == "worker":
            return work(plan, server)
        try:
            return _search(plan, server, stack)
        except OSError as error:
            raise SearchStopped(
                f"the search could not be written ({error}); give the same command to "
                "resume it"
            ) from error


def split_options(
    given: Mapping[str, Any], where: str = "search()"
) -> tuple[Space, dict[str, Any], SearchOptions]:
    """What is searched, what every trial is given, and how: all of it checked.

    Raises:
        UsageError: an unknown or impossible argument.
    """
    of_space, of_search = options_of(Space), options_of(SearchOptions)
    of_runs = [name for name in (*options_of(Settings), *FIELDS) if name not in SETTLED]
    check_known(where, given, dict.fromkeys([*of_space, *of_search, *of_runs]))
    chosen = {k: v for k, v in given.items() if k in of_search}
    searched = {
        name: value
        for name, value in given.items()
        if name in of_space
        and is_given(of_space[name], value)
        and (name not in RANGES or isinstance(value, Sequence))
    }
    arguments = {
        k: v for k, v in given.items() if k not in of_search and k not in searched
    }
    arguments = {k: v for k, v in arguments.items() if k not in of_space or k in RANGES}
    if arguments.get("data", "digits") == "digits":
        searched.setdefault("alphas", QUICK["alphas"])
        if "rhos" not in searched:
            searched.setdefault("resolutions", QUICK["resolutions"])
    unlimited = {k: v for k, v in searched.items() if not k.startswith("max_")}
    space = Space(**unlimited)
    runs = [_settings(arguments, space, name) for name in space.names]
    variant = {k: v for k, v in runs[0].variant.items() if k != "batch_norm_epsilon"}
    weights = runs[0].weights
    if weights not in (None, "imagenet") and not os.path.isfile(weights):
        raise UsageError(
            f'weights must be None, "imagenet" or an existing file; got {weights!r}'
        )
    # With the budget, which counts 1000 classes until the data is known.
    space = dataclasses.replace(space, variant=variant)
    limits = {k: v for k, v in searched.items() if k.startswith("max_")}
    return (
        _Limited(space, limits),
        arguments,
        SearchOptions(**check_options(SearchOptions, chosen)),
    )
