"""What the verbs of the command line do: a call of the public API each."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import warnings
from typing import Any

import keras_mobilenets as km
from keras_mobilenets import cluster, printing
from keras_mobilenets.cluster import is_chief, read_task
from keras_mobilenets.errors import UsageError
from keras_mobilenets.execution import Execution
from keras_mobilenets.options import NOT_GIVEN, given_options, parse_value
from keras_mobilenets.recipe import Recipe, difference, get_recipe
from keras_mobilenets.settings import Settings
from keras_mobilenets.startup import start_tensorflow
from keras_mobilenets.stopping import stop_requests
from keras_mobilenets.text import printable, table
from keras_mobilenets.tuning.options import SearchOptions
from keras_mobilenets.tuning.space import Space


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments from `--set FIELD=VALUE` options."""
    settings = {}
    for pair in arguments.set:
        field, equals, value = pair.partition("=")
        if not (field and equals):
            raise UsageError(
                f"--set must be FIELD=VALUE, such as expansion=4; got {pair!r}"
            )
        if hasattr(arguments, field):
            raise UsageError(
                f"--set is for arguments without an option; got {pair!r}: give "
                f"{'NAME' if field == 'name' else '--' + field.replace('_', '-')}"
            )
        if field in settings:
            raise UsageError(f"--set must give {field} once; got {pair!r} too")
        settings[field] = parse_value(value)
    return settings


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The named options that were given."""
    values = {name: getattr(arguments, name) for name in names}
    return {k: v for k, v in values.items() if v is not None and v is not NOT_GIVEN}


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def train(arguments: argparse.Namespace) -> None:
    options = given_options(arguments, Settings, Execution, Recipe)
    with stop_requests():  # already while TensorFlow starts
        start_tensorflow()
        run = km.train(**{"verbose": not arguments.json, **options})
    if arguments.json and is_chief(read_task()):
        _print_json(run.report)


def launch(arguments: argparse.Namespace) -> int:
    command = arguments.command[arguments.command[:1] == ["--"] :]
    return cluster.launch(
        command, **_given(arguments, "workers", "servers", "restarts")
    )


def evaluate(arguments: argparse.Namespace) -> None:
    start_tensorflow()
    result = km.evaluate(
        arguments.workdir,
        **_given(
            arguments,
            *("model", "data", "label", "image", "split", "data_dir"),
            *("strategy", "cpu_replicas", "report"),
        ),
        verbose=not arguments.json,
    )
    if not is_chief(read_task()):
        return
    if arguments.json:
        return _print_json(result)
    printing.print_evaluation(result, arguments.report)


def predict(arguments: argparse.Namespace) -> int:
    start_tensorflow()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* cannot be read")  # said below
        results = km.predict(
            arguments.images,
            arguments.workdir,
            **_given(
                arguments,
                *("csv", "model", "top", "threshold", "weights"),
                *("name", "alpha", "resolution", "recipe"),
            ),
            verbose=not arguments.json,
        )
    if arguments.json:
        _print_json(results)
    elif arguments.csv:
        print(f"{len(results):,} images: {arguments.csv}")
    else:
        printing.print_answers(results)
    errors = [result["error"] for result in results if "error" in result]
    for error in errors:
        print(f"keras-mobilenets: not predicted: {printable(error)}", file=sys.stderr)
    return 1 if errors else 0


def export(arguments: argparse.Namespace) -> None:
    start_tensorflow()
    report = km.export(
        arguments.model,
        **_given(
            arguments,
            *("path", "quantization", "calibration", "input", "bias_correction"),
            *("fine_tune", "learning_rate", "data_dir"),
        ),
        verbose=not arguments.json,
    )
    if arguments.json:
        return _print_json(report)
    printing.print_export(report)


def benchmark(arguments: argparse.Namespace) -> None:
    start_tensorflow()
    options = given_options(arguments, Settings)
    options |= _given(arguments, "classes", "forms", "batches", "threads", "seconds")
    result = km.benchmark(arguments.model, **options)
    if arguments.json:
        return _print_json(result)
    printing.print_benchmark(result)


def doctor(arguments: argparse.Namespace) -> int:
    start_tensorflow()
    devices = _given(arguments, "strategy", "cpu_replicas", "batch_size")
    strategy = _given(arguments, "strategy", "cpu_replicas")
    if strategy:  # before TensorFlow is used
        km.make_strategy(**strategy)
    report = km.check_data(
        arguments.data,
        **_given(
            arguments,
            *("data_dir", "label", "image", "multi_label"),
            *("resolution", "channels", "recipe", "sheet"),
        ),
    )
    if devices and report["splits"]:
        images = report["splits"]["train"]["images"]
        report["scale"] = km.check_scale(
            images, **_given(arguments, "recipe"), **devices
        )
        report["problems"] += report["scale"].pop("problems")
    if arguments.json:
        _print_json(report)
        return 1 if report["problems"] else 0
    printing.print_check(report)
    return 1 if report["problems"] else 0


def search(arguments: argparse.Namespace) -> int:
    start_tensorflow()
    options = given_options(arguments, Space, SearchOptions, Settings, Recipe)
    options["names"] = arguments.names or None
    for size in options.get("resolutions", ()):
        if isinstance(size, tuple):  # which may be meant as two squares
            raise UsageError(
                f"--resolutions must be numbers, or pairs such as 96x160, with spaces "
                f"between them; got {','.join(map(str, size))}"
            )
    result = km.search(**{"verbose": not arguments.json, **options})
    if result is None:  # a worker: the chief has the table
        return 0
    if arguments.json:
        _print_json(dataclasses.asdict(result))
    return 0 if result.finished else 1


def cost(arguments: argparse.Namespace) -> None:
    options = {
        "include_top": not arguments.no_top,
        **_given(arguments, "classes", "bytes_per_element", "splits"),
        **given_options(arguments, Settings),
    }
    cost = km.cost(**options)
    if arguments.json:
        return _print_json(cost.as_dict())
    printing.print_cost(options.get("name", "mobilenet_v2"), cost, arguments.layers)


def recommend(arguments: argparse.Namespace) -> int:
    limits = _given(
        arguments, "max_macs", "max_params", "max_latency_ms", "min_top1", "name"
    )
    points = km.recommend(**limits)
    if arguments.json:
        _print_json([point._asdict() for point in points])
    elif points:
        printing.print_points(points)
    else:
        print("no published network fits; raise a limit", file=sys.stderr)
    return 0 if points else 1


def recipes(arguments: argparse.Namespace) -> None:
    chosen = [get_recipe(name) for name in arguments.names]
    if len(chosen) > 2:
        raise UsageError(
            f"recipes takes no name, one or two; got {len(chosen)}: "
            f"{', '.join(arguments.names)}"
        )
    if not chosen:
        if arguments.json:
            return _print_json({n: r.as_dict() for n, r in km.recipes.items()})
        rows: list[tuple[Any, ...]] = [
            (name, recipe.summary) for name, recipe in km.recipes.items()
        ]
        print(table(["recipe", "what it is"], rows))
    elif len(chosen) == 1:
        (recipe,) = chosen
        if arguments.json:
            return _print_json(
                {
                    field: {"value": value, "source": recipe.sources[field]}
                    for field, value in recipe.as_dict().items()
                }
            )
        printing.print_recipe(recipe)
    else:
        first, second = chosen
        differing = difference(first, second)
        if arguments.json:
            fields = (
                "field", first.name, second.name,
                f"{first.name} source", f"{second.name} source",
            )  # fmt: skip
            return _print_json(
                [dict(zip(fields, row, strict=True)) for row in differing]
            )
        printing.print_difference(first, second)
