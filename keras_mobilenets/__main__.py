"""The command line: `keras-mobilenets VERB ...`.

Verbs only: each parses, makes one call of the public API and prints. A user's
mistake is one line on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import glob
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NoReturn

import keras_mobilenets as km
from keras_mobilenets.cluster import LOST, launch, read_task
from keras_mobilenets.recipe import difference, get_recipe
from keras_mobilenets.text import count, table

# Exit statuses of training that did not come to its end.
STATUS = {
    "TrainingDiverged": 3,
    "TrainingInterrupted": 4,
    "SearchStopped": 4,
    "WorkerLost": LOST,
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _start_tensorflow() -> None:
    """Import TensorFlow without its notices.

    TensorFlow 2.21 writes some straight to the descriptor, before it reads its log
    level. A user's own TF_CPP_MIN_LOG_LEVEL lets all through.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as notices:
        os.dup2(notices.fileno(), 2)
        try:
            import tensorflow as tf

            if not glob.glob("/dev/nvidia*"):
                # Without a GPU, looking for one complains of CUDA: do it here.
                tf.config.list_physical_devices()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _value(text: str) -> Any:
    """A number, True, False, None or a tuple where `text` is one, else the text.

    What it is not, the API's own checks say.
    """
    try:
        if text.lower() in ("nan", "inf", "-inf"):
            return float(text)
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments from `--set FIELD=VALUE` options."""
    settings = {}
    for pair in arguments.set:
        field, equals, value = pair.partition("=")
        if not (field and equals):
            raise ValueError(
                f"--set must be FIELD=VALUE, such as expansion=4; got {pair!r}"
            )
        if hasattr(arguments, field):
            raise ValueError(
                f"--set is for arguments without an option; got {pair!r}: give "
                f"{'NAME' if field == 'name' else '--' + field.replace('_', '-')}"
            )
        if field in settings:
            raise ValueError(f"--set must give {field} once; got {pair!r} too")
        settings[field] = _value(value)
    return settings


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The named options that were given."""
    values = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _train(arguments: argparse.Namespace) -> None:
    _start_tensorflow()
    options = _given(
        arguments, "data", "alpha", "rho", "resolution", "recipe", "workdir",
        "weights", "seed", "data_dir", "epochs", "batch_size", "learning_rate",
        "strategy", "cpu_replicas", "checkpoint_steps", "resume", "deterministic",
    )  # fmt: skip
    run = km.train(
        arguments.name,
        **{"verbose": not arguments.json, **_settings(arguments), **options},
    )
    if arguments.json and _is_first():
        _print_json(run.report)


def _is_first() -> bool:
    """Whether this is the process of a cluster that speaks for all."""
    task = read_task()
    return task is None or task.index == 0


def _launch(arguments: argparse.Namespace) -> int:
    command = arguments.command[arguments.command[:1] == ["--"] :]
    return launch(command, **_given(arguments, "workers", "servers", "restarts"))


def _evaluate(arguments: argparse.Namespace) -> None:
    _start_tensorflow()
    result = km.evaluate(
        arguments.workdir,
        **_given(arguments, "data", "split", "data_dir", "strategy", "cpu_replicas"),
        verbose=not arguments.json,
    )
    if not _is_first():
        return
    if arguments.json:
        _print_json(result)
    else:
        print(
            f"{result['split']} accuracy {result['accuracy']:.2%}, cross entropy "
            f"{result['loss']:.4f}, on {result['images']:,} images of "
            f"{result['data']}, by {result['workdir']}"
        )


def _predict(arguments: argparse.Namespace) -> None:
    _start_tensorflow()
    results = km.predict(arguments.images, arguments.workdir, top=arguments.top)
    if arguments.json:
        return _print_json(results)
    rows = [
        (
            result["image"],
            *(
                f"{name} {probability:.1%}"
                for name, probability in zip(
                    result["classes"], result["probabilities"], strict=True
                )
            ),
        )
        for result in results
    ]
    places = [f"{place}." for place in range(1, len(rows[0]))]
    print(table(["image", *places], rows))


def _doctor(arguments: argparse.Namespace) -> int:
    _start_tensorflow()
    devices = _given(arguments, "strategy", "cpu_replicas", "batch_size")
    strategy = _given(arguments, "strategy", "cpu_replicas")
    if strategy:  # before TensorFlow is used
        km.make_strategy(**strategy)
    report = km.check_data(
        arguments.data,
        **_given(arguments, "data_dir", "resolution", "recipe", "sheet"),
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
    splits = report["splits"]
    if splits:
        rows = [
            (
                split,
                f"{of['images']:,}",
                *(" ... ".join(map(str, of[side])) for side in ("height", "width")),
                f"{of['repeated']:,}",
            )
            for split, of in splits.items()
        ]
        header = ["split", "images", "height", "width", "repeated"]
        print(table(header, rows), end="\n\n")
        rows = [(name, *counts.values()) for name, counts in report["classes"].items()]
        print(table(["class", *splits], rows), end="\n\n")
    for file in report["tar_files"]:
        found = "missing" if file["found"] is None else f"{file['found']:,} found"
        print(f"tar file: {file['path']} ({file['bytes']:,} bytes; {found})")
    for file in report["broken"]:
        print(f"broken: {file['path']} ({file['reason']})")
    for same in report["duplicates"]:
        print(
            "the same: "
            + ", ".join(f"{e['image']} ({e['class']}, {e['split']})" for e in same)
        )
    for name, value in report.get("scale", {}).items():
        shown = value if isinstance(value, bool) else f"{value:,}"
        print(f"{name.replace('_', ' ')}: {shown}")
    for kind, sentences in (("note", "notes"), ("problem", "problems")):
        for sentence in report[sentences]:
            print(f"{kind}: {sentence}")
    if report["sheet"]:
        print(f"contact sheet: {report['sheet']}")
    print("problems were found" if report["problems"] else "no problems found")
    return 1 if report["problems"] else 0


def _search(arguments: argparse.Namespace) -> int:
    _start_tensorflow()
    options = _given(
        arguments, "data", "alphas", "resolutions", "rhos", "max_macs", "max_params",
        "max_memory", "max_latency_ms", "oracle", "max_trials", "prior", "recipe",
        "weights", "seed", "data_dir", "directory", "workers", "cluster", "time_limit",
        "memory_limit", "strategy", "epochs", "batch_size", "learning_rate",
    )  # fmt: skip
    if arguments.names:
        options["names"] = arguments.names
    result = km.search(
        **{"verbose": not arguments.json, **_settings(arguments), **options}
    )
    if result is None:  # a worker: the chief has the table
        return 0
    if arguments.json:
        _print_json(dataclasses.asdict(result))
    return 0 if result.finished else 1


def _cost(arguments: argparse.Namespace) -> None:
    options = _given(
        arguments, "alpha", "rho", "resolution", "classes", "bytes_per_element"
    )
    cost = km.cost(
        arguments.name,
        **{"include_top": not arguments.no_top, **_settings(arguments), **options},
    )
    if arguments.json:
        return _print_json(cost.as_dict())
    if arguments.layers:
        rows = [
            (
                row.name,
                row.layer.kind,
                f"{row.layer.size_out}x{row.layer.size_out}x{row.layer.channels_out}",
                f"{row.macs:,}",
                f"{row.params:,}",
                f"{row.memory:,}",
            )
            for row in cost.layers
        ]
        header = ["layer", "kind", "output", "mult-adds", "parameters", "memory"]
        print(table(header, rows), end="\n\n")
    rows = [
        ("mult-adds", f"{cost.macs:,}", count(cost.macs)),
        ("parameters", f"{cost.params:,}", count(cost.params)),
        ("trainable", f"{cost.trainable_params:,}", count(cost.trainable_params)),
        (
            "peak memory",
            f"{cost.peak_memory:,}",
            f"{count(cost.peak_memory)}B of activations, one image, "
            f"{cost.bytes_per_element} bytes each",
        ),
    ]
    print(table([arguments.name, "exactly", "about"], rows))


def _recommend(arguments: argparse.Namespace) -> int:
    limits = _given(
        arguments, "max_macs", "max_params", "max_latency_ms", "min_top1", "name"
    )
    points = km.recommend(**limits)
    if arguments.json:
        _print_json([point._asdict() for point in points])
    elif points:
        rows = [
            (
                point.name,
                point.alpha,
                point.resolution,
                point.top1,
                point.top5,
                count(point.macs),
                count(point.params),
                point.latency_ms,
            )
            for point in points
        ]
        header = [
            "network", "alpha", "px", "top-1 %", "top-5 %", "mult-adds", "parameters",
            "Pixel 1 ms",
        ]  # fmt: skip
        print(table(header, rows))
    else:
        print("no published network fits; raise a limit", file=sys.stderr)
    return 0 if points else 1


def _recipes(arguments: argparse.Namespace) -> None:
    chosen = [get_recipe(name) for name in arguments.names]
    if len(chosen) > 2:
        raise ValueError(
            f"recipes takes no name, one or two; got {len(chosen)}: "
            f"{', '.join(arguments.names)}"
        )
    if not chosen:
        if arguments.json:
            return _print_json({n: r.as_dict() for n, r in km.recipes.items()})
        rows = [(name, recipe.summary) for name, recipe in km.recipes.items()]
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
        rows = [(f, v, recipe.sources[f]) for f, v in recipe.as_dict().items()]
        print(f"{recipe.name}: {recipe.summary}\n")
        print(table(["field", "value", "source"], rows))
    else:
        first, second = chosen
        rows = difference(first, second)
        if arguments.json:
            fields = (
                "field", first.name, second.name,
                f"{first.name} source", f"{second.name} source",
            )  # fmt: skip
            return _print_json([dict(zip(fields, row, strict=True)) for row in rows])
        for field, one, other, source, other_source in rows:
            print(f"{field}\n  {first.name}: {one}  {source}")
            print(f"  {second.name}: {other}  {other_source}")
        print(f"{len(rows)} fields differ")


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="keras-mobilenets",
        description="MobileNetV1 and V2: train, evaluate, predict, and know the cost.",
    )
    parser.add_argument("--version", action="version", version=km.__version__)
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)

    def verb(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        made.add_argument("--json", action="store_true", help="print JSON")
        return made

    def network(made: argparse.ArgumentParser, defaults: str) -> None:
        made.add_argument(
            "name", nargs="?", default="mobilenet_v2",
            help="mobilenet_v1 or mobilenet_v2 (default)",
        )  # fmt: skip
        made.add_argument(
            "--alpha", type=_value, help=f"width multiplier (default {defaults})"
        )
        made.add_argument("--rho", type=_value, help="resolution multiplier of 224")
        made.add_argument("--resolution", type=_value, help="the same in pixels")
        made.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE",
            help="any further argument, such as expansion=4; may be repeated",
        )  # fmt: skip

    def option(made: argparse.ArgumentParser, *names: str, **texts: str) -> None:
        for name in names:
            made.add_argument(f"--{name.replace('_', '-')}", type=_value)
        for name, text in texts.items():
            made.add_argument(f"--{name.replace('_', '-')}", type=_value, help=text)

    def devices(made: argparse.ArgumentParser) -> None:
        made.add_argument(
            "--strategy",
            help="auto (default), none, mirrored, multi_worker, parameter_server, tpu",
        )
        option(made, cpu_replicas="replicas on the CPU, to try mirrored without GPUs")

    made = verb("train", _train, "train on digits, a TFDS name or an image folder")
    network(made, "0.35 on digits, else 1.0")
    option(made, seed="seed of weights and data (default 0)")
    for name, text in (
        ("data", "digits (default), a TFDS name, or a folder of class folders"),
        ("recipe", "a name from 'keras-mobilenets recipes'"),
        ("workdir", "a new directory (default runs/DATA-NUMBER)"),
        ("weights", "imagenet, or a weights file to start from"),
        ("data-dir", "where TFDS keeps prepared data"),
    ):
        made.add_argument(f"--{name}", help=text)
    option(made, "epochs", "batch_size", "learning_rate")
    devices(made)
    option(made, checkpoint_steps="steps between checkpoints (default 1000)")
    made.add_argument(
        "--resume", action="store_true", default=None,
        help="go on with the run in --workdir, or the newest that is not finished",
    )  # fmt: skip
    made.add_argument(
        "--deterministic", action="store_true", default=None,
        help="the same result bit for bit, also when killed and resumed",
    )  # fmt: skip

    made = verb("launch", _launch, "train or evaluate in several processes here")
    made.add_argument(
        "-n", "--workers", type=_value, help="processes that train (default 2)"
    )
    option(
        made,
        servers="parameter servers, for asynchronous training (default 0)",
        restarts="times to start all again after one was lost (default 0)",
    )
    made.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- COMMAND",
        help="such as: -- train --workdir run",
    )  # fmt: skip

    made = verb("search", _search, "find the best alpha and resolution in a budget")
    made.add_argument(
        "names", nargs="*", metavar="NAME",
        help="mobilenet_v1, mobilenet_v2 (default), or both",
    )  # fmt: skip
    for name, text in (
        ("alphas", "width multipliers (default on digits: 0.35 0.5)"),
        ("resolutions", "input sides in pixels (default on digits: 32 48)"),
        ("rhos", "the same as multiples of 224"),
    ):
        made.add_argument(f"--{name}", type=_value, nargs="+", help=text)
    option(
        made,
        max_macs="mult-adds, such as 150e6",
        max_params="parameters, such as 2e6",
        max_memory="bytes of activations, as cost counts them",
        max_latency_ms="milliseconds on a Pixel 1, as published",
        max_trials="at most so many (default: all points)",
        seed="of proposals, weights and data (default 0)",
        workers="trials at a time (default 1)",
        cluster="a local cluster: a chief, and so many workers",
        time_limit="seconds of a trial",
        memory_limit="bytes of a trial's process, such as 4e9",
        learning_rate="a number, or a range to search, such as 0.01,0.1",
    )
    for name, text in (
        ("data", "digits (default), a TFDS name, or a folder of class folders"),
        ("oracle", "grid (default), random, bayesian or hyperband"),
        ("prior", "published: try first what ImageNet's accuracies suggest"),
        ("recipe", "a name from 'keras-mobilenets recipes'"),
        ("directory", "of the search, new or to go on in (default: see search())"),
        ("weights", "imagenet, or a weights file to start from"),
        ("data-dir", "where TFDS keeps prepared data"),
        ("strategy", "none (default) or mirrored, in every trial"),
    ):
        made.add_argument(f"--{name}", help=text)
    option(made, "epochs", "batch_size")
    made.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE",
        help="any further argument, such as dropout=0,0.5; may be repeated",
    )  # fmt: skip

    made = verb("evaluate", _evaluate, "accuracy of a finished run")
    made.add_argument("workdir", nargs="?", help="of train (default: the newest run)")
    made.add_argument("--data", help="another source with the same classes")
    made.add_argument("--split", help="test (default), validation or train")
    made.add_argument("--data-dir", help="where TFDS keeps prepared data")
    devices(made)

    made = verb("predict", _predict, "classes of image files, by a finished run")
    made.add_argument("images", nargs="+", metavar="IMAGE")
    made.add_argument("--workdir", help="of train (default: the newest run)")
    made.add_argument("--top", type=_value, default=3, help="classes shown (default 3)")

    made = verb("doctor", _doctor, "check a source of images before training on it")
    for name, text in (
        ("data", "digits (default), a TFDS name, or a folder of class folders"),
        ("data-dir", "where TFDS keeps prepared data"),
        ("recipe", "whose distortions the sheet shows (default slim_v2)"),
        ("sheet", "a new PNG file: training images, and what a run makes of them"),
    ):
        made.add_argument(f"--{name}", help=text)
    made.set_defaults(data="digits")
    option(
        made,
        resolution="pixels of a side in the sheet (default 224)",
        batch_size="of one replica (default the recipe's)",
    )
    devices(made)

    made = verb("cost", _cost, "parameters, mult-adds and memory, without TensorFlow")
    network(made, "1.0")
    option(made, "classes", "bytes_per_element")
    made.add_argument("--no-top", action="store_true", help="without the classifier")
    made.add_argument("--layers", action="store_true", help="a row for every layer")

    made = verb("recommend", _recommend, "published networks within a budget")
    option(
        made,
        max_macs="mult-adds, such as 150e6",
        max_params="parameters, such as 2e6",
        max_latency_ms="milliseconds on a Pixel 1",
        min_top1="ImageNet top-1 in percent",
    )
    made.add_argument("--name", help="mobilenet_v1 or mobilenet_v2")

    made = verb("recipes", _recipes, "list recipes, show one, or compare two")
    made.add_argument("names", nargs="*", metavar="RECIPE")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = _make_parser()
    parsed = parser.parse_args(arguments)
    try:
        status = parsed.run(parsed) or 0
        sys.stdout.flush()  # here, where a closed pipe is expected
        return status
    except ValueError as error:
        message = " ".join(str(error).split())
        print(f"keras-mobilenets: error: {message}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        # By name: importing the classes would import TensorFlow.
        status = STATUS.get(type(error).__name__)
        if status is None:
            raise
        print(f"keras-mobilenets: error: {error}", file=sys.stderr)
        sys.stdout.flush()
        if status == LOST:  # TensorFlow's own farewell would wait for the lost
            os._exit(status)
        return status
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
