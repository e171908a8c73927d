"""`search`: trials over alpha and resolution within a budget, and what they found."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_mobilenets.errors import SearchStopped, UsageError
from keras_mobilenets.options import accepts
from keras_mobilenets.startup import other_backend
from keras_mobilenets.stopping import stop_requests
from keras_mobilenets.tuning.isolation import CallFailed, Server
from keras_mobilenets.tuning.options import (
    Asked,
    SearchOptions,
    networks,
    read_options,
)
from keras_mobilenets.tuning.points import Point
from keras_mobilenets.tuning.space import LITERT, Space

if TYPE_CHECKING:
    from keras_mobilenets.tuning.results import SearchResult
    from keras_mobilenets.tuning.runner import Plan
    from keras_mobilenets.tuning.stored_oracle import StoredOracle
    from keras_mobilenets.tuning.trial import Prepared


@accepts(Space, SearchOptions)
def search(data: Any = "digits", **options: Any) -> SearchResult | None:
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
        data: as `source` in `load_data`. Images in memory are copied to every trial.
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
    asked = read_options({"data": data, **options})
    with stop_requests(), contextlib.ExitStack() as stack:
        try:
            # It imports TensorFlow while this process does.
            server = stack.enter_context(Server()) if asked.options.isolate else None
            if _role() is not None and asked.options.directory is None:
                raise UsageError(
                    "directory must be given in a cluster, the same on all machines; "
                    "got None"
                )
            if _role() == "worker":
                _join(asked, server)
                return None
            return _search(asked, server)
        except KeyboardInterrupt:
            raise SearchStopped(
                "asked to stop; what was found is kept: give the same command to go on"
            ) from None
        except OSError as error:
            raise SearchStopped(
                f"the search could not go on ({error}); what was found is kept: give "
                "the same command to go on"
            ) from error


def _role() -> str | None:
    if why := other_backend():
        raise UsageError(f"search() {why}")
    from keras_mobilenets.tuning import engine  # it imports KerasTuner

    return engine.role()


def _search(asked: Asked, server: Server | None) -> SearchResult:
    """Be the one that decides what is tried."""
    from keras_mobilenets.tuning.directory import INDEX, SEARCH, begin, claim, finish
    from keras_mobilenets.tuning.latency import as_function
    from keras_mobilenets.tuning.local_cluster import serve
    from keras_mobilenets.tuning.progress import Progress, rehearse
    from keras_mobilenets.tuning.runner import Plan, Runner

    space, options = asked.space, asked.options
    with contextlib.ExitStack() as stack:
        label = (
            pathlib.Path(str(asked.arguments["data"])).name.replace(":", "_") or "data"
        )
        path = stack.enter_context(claim(options.directory, label, asked.identity))
        scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = prepare_data(asked, server, path / INDEX, scratch / INDEX)
        if options.verbose:
            for line in data.pretrained:
                print(line)
        space = dataclasses.replace(space, classes=data.classes)
        budget, measured = asked.budget, None
        if budget.get("latency") == LITERT:
            measured = measured_latencies(asked, space, server, path)
            known = as_function(measured, path / SEARCH)
            budget = {**budget, "latency": known}
        space = dataclasses.replace(space, **budget)
        plan = Plan(path.absolute(), space, asked.arguments, options)
        epochs = max(
            networks(space, asked.arguments, name)[0].recipe.epochs
            for name in space.names
        )
        make = functools.partial(
            make_oracle,
            space=space,
            objective=options.objective,
            max_trials=options.max_trials,
            max_epochs=epochs,
            seed=asked.arguments.get("seed", 0),
            prior=options.prior,
        )
        oracle = make(options.oracle)
        begin(path, asked.identity, scratch / INDEX, measured)
        oracle.folder = plan.path
        oracle.take_up()
        progress = Progress(
            oracle,
            space,
            path,
            epochs=epochs,
            at_a_time=options.workers * max(options.cluster, 1),
            # As many trials, and quicker than Gaussian processes.
            plan=rehearse(
                make("random" if options.oracle == "bayesian" else options.oracle)
            ),
            verbose=options.verbose,
        )
        progress.begin()
        if options.cluster:
            serve(
                oracle,
                progress,
                workers=options.cluster,
                job=(work, (plan.for_workers(),)),
                logs=path,
            )
        elif _role() == "chief":
            serve(oracle, progress)
        else:
            Runner(plan, oracle, server, progress).run()
        result = progress.end()
        finish(path)
        return result


def _join(asked: Asked, server: Server | None) -> None:
    """Be a worker of a chief that was started by itself."""
    from keras_mobilenets.tuning.runner import Plan

    path = pathlib.Path(asked.options.directory or "").absolute()
    work(Plan(path, asked.space, asked.arguments, asked.options), server)


def work(plan: Plan, server: Server | None = None) -> None:
    """Be a worker: run what the chief hands out, until it has no more."""
    from keras_mobilenets.tuning.protocol import Client
    from keras_mobilenets.tuning.runner import Runner

    with contextlib.ExitStack() as stack:
        if server is None and plan.options.isolate:
            server = stack.enter_context(Server())
        objective = plan.options.objective
        oracle = make_oracle("grid", space=plan.space, objective=objective)
        Runner(plan, Client(oracle), server).run(os.environ["KERASTUNER_TUNER_ID"])


def make_oracle(
    kind: str, *, objective: str = "accuracy", **settings: Any
) -> StoredOracle:
    """The oracle of a search."""
    import keras_tuner

    from keras_mobilenets.tuning import oracles
    from keras_mobilenets.tuning.results import OBJECTIVES

    # With its direction: to find that out KerasTuner would start TensorFlow.
    metric = keras_tuner.Objective(OBJECTIVES[objective], "max")
    return oracles.make_oracle(kind, objective=metric, **settings)


def prepare_data(
    asked: Asked, server: Server | None, index: pathlib.Path, save_index: pathlib.Path
) -> Prepared:
    """What `prepare` finds, where TensorFlow may start."""
    from keras_mobilenets.tuning.trial import prepare

    arguments = (
        [
            settings
            for name in asked.space.names
            for settings in networks(asked.space, asked.arguments, name)
        ],
        asked.options.strategy if server is not None else "none",
        index if index.is_file() else None,
        save_index,
        asked.options.objective,
    )
    return _call(server, "the data could not be read", prepare, *arguments)


def measured_latencies(
    asked: Asked, space: Space, server: Server | None, path: pathlib.Path
) -> Any:
    """Of the points of a search: as its directory has them, else measured now."""
    from keras_mobilenets.tuning import directory, latency, litert

    if (path / directory.SEARCH).is_file():
        return directory.read(path).get("measured")
    kind = "int8" if asked.options.objective == "int8_accuracy" else None

    def measure_point(point: Point) -> float:
        return _call(
            server,
            f"the latency of {point} could not be measured",
            litert.measure_latency,
            *(point.key, space.classes, space.variant, kind),
        )

    def say(text: str) -> None:
        if asked.options.verbose:
            print(text, flush=True)

    return latency.measure(space, asked.budget, measure_point, say)


def _call(
    server: Server | None, problem: str, function: Callable[..., Any], *arguments: Any
) -> Any:
    """What a function gives that starts TensorFlow: in a process, if there are any."""
    if server is None:
        return function(*arguments)
    try:
        return server.call(function, *arguments)
    except CallFailed as failure:
        if isinstance(failure.__cause__, UsageError):
            raise failure.__cause__ from None
        raise SearchStopped(f"{problem}: {failure}") from failure
