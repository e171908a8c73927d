"""`search`: trials over alpha and resolution within a budget, and what they found."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keras_mobilenets.architecture.arguments import (
    check_choice,
    check_integer,
    check_number,
)
from keras_mobilenets.errors import SearchStopped, UsageError
from keras_mobilenets.recipe import Recipe
from keras_mobilenets.tuning.isolation import CallFailed, Server
from keras_mobilenets.tuning.space import Latency

if TYPE_CHECKING:
    import keras_tuner

    from keras_mobilenets.tuning.hypermodel import HyperMobileNet
    from keras_mobilenets.tuning.results import SearchResult
    from keras_mobilenets.tuning.trial import Strategy
    from keras_mobilenets.tuning.tuner import Tuner

# What `search()` chooses where nothing is said: four points, a few minutes.
QUICK = {"alphas": (0.35, 0.5), "resolutions": (32, 48)}


def search(
    data: str | os.PathLike[str] = "digits",
    *,
    names: str | Sequence[str] = ("mobilenet_v2",),
    alphas: Sequence[float] | None = None,
    resolutions: Sequence[int] | None = None,
    rhos: Sequence[float] | None = None,
    max_macs: float | None = None,
    max_params: float | None = None,
    max_memory: float | None = None,
    max_latency_ms: float | None = None,
    latency: Latency | None = None,
    oracle: str = "grid",
    max_trials: int | None = None,
    prior: str | Callable[[str, float, int], float] | None = None,
    recipe: str | Recipe | None = None,
    weights: str | os.PathLike[str] | None = None,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    directory: str | os.PathLike[str] | None = None,
    workers: int = 1,
    cluster: int = 0,
    time_limit: float | None = None,
    memory_limit: float | None = None,
    strategy: Strategy = "none",
    isolate: bool = True,
    verbose: bool = True,
    **settings: Any,
) -> SearchResult | None:
    """Find the best alpha and resolution within a budget, by training them.

    `search()` alone trains four networks on scikit-learn's digits. Only points
    within the budget are trained, each in a process of its own: one that raises,
    crashes or exceeds a limit is a failed trial in the table, and the search goes
    on. A search that was stopped or killed goes on where it was when it is called
    again with the same settings: finished trials stay as they are.

    In a cluster of many machines every one calls `search` with the same settings,
    the same shared `directory`, and KerasTuner's environment variables
    (KERASTUNER_TUNER_ID "chief" or any other name, KERASTUNER_ORACLE_IP and
    KERASTUNER_ORACLE_PORT). Messages between them are not encrypted.

    Args:
        data: as `source` in `load_data`: "digits", a TFDS name, or a folder.
        names, alphas, resolutions, rhos: the points; see `Space` for its defaults.
        max_macs, max_params: the most mult-adds and parameters, plain counts.
        max_memory: bytes of activations of the largest step, as in `cost`.
        max_latency_ms, latency: milliseconds, and where they come from: a mapping
            of (name, alpha, resolution) or a function of the three; by default the
            published ones of a Google Pixel 1.
        oracle: "grid", "random", "bayesian" or "hyperband".
        max_trials: at most so many; by default all points.
        prior: the accuracy to expect, which decides what is tried first: a function
            of name, alpha and resolution, or "published" for what ImageNet's
            suggests.
        recipe, weights, seed, data_dir: as in `train`.
        directory: of the search; a new one, or one to go on in. By default the
            unfinished search of these settings in `runs`, else the next free
            `runs/search-<data>-<number>`.
        workers: trials at a time on this machine.
        cluster: processes of a local cluster: a chief here and so many workers.
        time_limit: seconds of one trial.
        memory_limit: bytes of resident memory of one trial (Linux).
        strategy: "none", "mirrored", or a function that makes a `tf.distribute`
            strategy; in every trial.
        isolate: False trains in this process, for a debugger; then there are no
            limits.
        verbose: print progress, the table, and where everything is.
        **settings: `learning_rate`, `weight_decay`, `dropout` as (low, high) are
            searched; else as in `train` (`epochs=20`, `expansion=4`,
            `broken="fail"`).

    Returns:
        A `SearchResult`. None in the worker of a cluster.

    Raises:
        ValueError: an impossible argument, or a budget that leaves no point; before
            anything is trained.
        SearchStopped: trials can no longer be started, or the chief of a cluster is
            gone; call again to go on.

    Example:
        result = km.search("photos", alphas=(0.35, 0.5, 1.0), max_macs=100e6)
        result.best(max_params=2e6)
    """
    if data == "digits" and alphas is None:
        alphas = QUICK["alphas"]
    if data == "digits" and resolutions is None and rhos is None:
        resolutions = QUICK["resolutions"]
    points = {"alphas": alphas, "resolutions": resolutions, "rhos": rhos}
    points = {key: value for key, value in points.items() if value is not None}
    limits = {
        "max_macs": max_macs,
        "max_params": max_params,
        "max_memory": max_memory,
        "max_latency_ms": max_latency_ms,
    }
    check_integer("workers", workers, low=1)
    check_integer("cluster", cluster, low=0)
    for name, limit in (("time_limit", time_limit), ("memory_limit", memory_limit)):
        if limit is not None:
            check_number(name, limit, low=0, open_low=True)
    if not isolate and (workers > 1 or time_limit or memory_limit):
        raise UsageError(
            "isolate=False runs one trial at a time, without limits; got "
            f"workers={workers}, time_limit={time_limit}, memory_limit={memory_limit}"
        )
    if memory_limit is not None and not os.path.exists("/proc/self/statm"):
        raise UsageError(
            f"memory_limit needs Linux's /proc, which is not here; got {memory_limit!r}"
        )

    with contextlib.ExitStack() as stack:
        # It imports TensorFlow while this process does.
        server = stack.enter_context(Server()) if isolate else None

        from keras_tuner.src.distribute import utils as roles

        from keras_mobilenets.tuning.cluster import serve
        from keras_mobilenets.tuning.directory import claim, finish, identify
        from keras_mobilenets.tuning.hypermodel import HyperMobileNet
        from keras_mobilenets.tuning.progress import Progress, rehearse
        from keras_mobilenets.tuning.trial import STRATEGIES

        if not callable(strategy):
            check_choice("strategy", strategy, STRATEGIES)
        hypermodel = HyperMobileNet(
            data, names=names, **points, recipe=recipe, weights=weights, seed=seed,
            data_dir=data_dir, **settings,
        )  # fmt: skip
        options = {
            "workers": workers,
            "time_limit": time_limit,
            "memory_limit": memory_limit,
            "strategy": strategy,
            "isolate": isolate,
        }
        if roles.has_chief_oracle():
            if directory is None:
                raise UsageError(
                    "directory must be given in a cluster, the same on all machines; "
                    "got None"
                )
            if not roles.is_chief_oracle():
                return work(hypermodel, pathlib.Path(directory), options, server)
        about = _describe(hypermodel, server)
        space = dataclasses.replace(
            hypermodel.space, classes=about["classes"], latency=latency, **limits
        )
        make = functools.partial(
            _make_oracle,
            space=space,
            max_trials=max_trials,
            max_epochs=hypermodel.epochs,
            seed=seed,
            prior=prior,
        )
        made = make(oracle)
        chosen = {**limits, "oracle": oracle, "seed": seed, "prior": prior}
        label = pathlib.Path(data).name.replace(":", "_") or "data"
        path = claim(stack, directory, label, identify(hypermodel, chosen))
        progress = Progress(
            made,
            space,
            path,
            epochs=hypermodel.epochs,
            at_a_time=workers * max(cluster, 1),
            # As many trials, and quicker than Gaussian processes.
            plan=rehearse(make("random" if oracle == "bayesian" else oracle)),
            verbose=verbose,
        )
        tuner = _make_tuner(made, hypermodel, path, options, on_result=progress)
        progress.begin()
        if cluster:
            tuner.save()
            job = work, (hypermodel, path, options)
            serve(made, progress, workers=cluster, job=job, logs=path)
        else:
            tuner.search(server=server)
        result = progress.end()
        finish(path)
        return result


def work(
    hypermodel: HyperMobileNet,
    path: pathlib.Path,
    options: dict[str, Any],
    server: Server | None = None,
) -> None:
    """Be a worker: run what the chief hands out, until it has no more."""
    # The chief's oracle decides; this one only says what the objective is.
    oracle = _make_oracle("grid", space=hypermodel.space)
    _make_tuner(oracle, hypermodel, path, options).search(server=server)


def _make_oracle(kind: str, **settings: Any) -> keras_tuner.Oracle:
    import keras_tuner

    from keras_mobilenets.tuning.oracles import make_oracle

    # With its direction: to find that out KerasTuner would start TensorFlow.
    objective = keras_tuner.Objective("val_accuracy", "max")
    return make_oracle(kind, objective=objective, **settings)


def _make_tuner(
    oracle: keras_tuner.Oracle,
    hypermodel: HyperMobileNet,
    path: pathlib.Path,
    options: dict[str, Any],
    **more: Any,
) -> Tuner:
    from keras_mobilenets.tuning.tuner import Tuner

    directory = {"directory": path.parent, "project_name": path.name}
    return Tuner(oracle, hypermodel, **directory, **options, **more)


def _describe(hypermodel: HyperMobileNet, server: Server | None) -> dict[str, Any]:
    """What the data is, found where TensorFlow may start."""
    from keras_mobilenets.tuning.trial import describe_data

    if server is None:
        return describe_data(hypermodel)
    try:
        return server.call(describe_data, hypermodel)
    except CallFailed as failure:
        if isinstance(failure.__cause__, ValueError):
            raise failure.__cause__ from None
        raise SearchStopped(f"the data could not be read: {failure}") from failure
