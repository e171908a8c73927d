"""The command line: `keras-mobilenets VERB ...`.

Here is what it accepts; what each verb does is in verbs.py. A user's mistake is one
line on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import keras_mobilenets as km
from keras_mobilenets import verbs
from keras_mobilenets.errors import (
    ExportFailed,
    SearchStopped,
    TrainingDiverged,
    TrainingInterrupted,
    UsageError,
    WorkerLost,
)
from keras_mobilenets.execution import Execution
from keras_mobilenets.options import NOT_GIVEN, add_options, options_of, parse_value
from keras_mobilenets.recipe import Recipe
from keras_mobilenets.settings import Settings
from keras_mobilenets.text import printable
from keras_mobilenets.tuning.options import SearchOptions
from keras_mobilenets.tuning.space import Space

# What ends a command with one line instead of a traceback.
STOPS = (
    UsageError, TrainingDiverged, TrainingInterrupted, SearchStopped, WorkerLost,
    ExportFailed,
)  # fmt: skip


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="keras-mobilenets",
        description="MobileNetV1 and V2: train, evaluate, predict, and know the cost.",
    )
    parser.add_argument("--version", action="version", version=km.__version__)
    parsers = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)

    def verb(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        made = parsers.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        made.add_argument("--json", action="store_true", help="print JSON")
        made.add_argument(
            "--debug", action="store_true", help="show the traceback of an error"
        )
        return made

    def fields(made: argparse.ArgumentParser) -> None:
        made.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE",
            help="any argument, such as expansion=4; may be repeated",
        )  # fmt: skip

    def network(made: argparse.ArgumentParser, without: Iterable[str] = ()) -> None:
        made.add_argument(
            "name", nargs="?", default=NOT_GIVEN,
            help=options_of(Settings)["name"].metadata["help"],
        )  # fmt: skip
        shape(made, without)

    def shape(made: argparse.ArgumentParser, without: Iterable[str] = ()) -> None:
        variation = [
            name
            for name, field in options_of(Settings).items()
            if field.metadata["group"] == "variant"
        ]
        only = ["alpha", "rho", "resolution", "channels", *variation]
        add_options(made, Settings, title="the network", only=only, without=without)

    def option(made: argparse.ArgumentParser, *names: str, **texts: str) -> None:
        for name in names:
            made.add_argument(f"--{name.replace('_', '-')}", type=parse_value)
        for name, text in texts.items():
            made.add_argument(
                f"--{name.replace('_', '-')}", type=parse_value, help=text
            )

    def devices(made: argparse.ArgumentParser) -> None:
        add_options(made, Execution, only=("strategy", "cpu_replicas"))

    def recipe(made: argparse.ArgumentParser, taken: Iterable[str] = ()) -> None:
        title = "fields of the recipe"
        add_options(made, Recipe, title=title, without=taken)

    made = verb("train", verbs.train, "train on digits, a TFDS name, a folder or a CSV")
    network(made)
    only = set(options_of(Settings)) - {a.dest for a in made._actions}
    add_options(made, Settings, title="the run", only=only)
    add_options(made, Execution, title="how it is carried out", without=("verbose",))
    recipe(made, options_of(Settings))
    fields(made)

    made = verb("launch", verbs.launch, "train or evaluate in several processes here")
    made.epilog = (
        "TensorFlow's servers listen on every interface of this machine, to anyone, "
        "without a password: where others reach it, close its ports to them."
    )
    made.add_argument(
        "-n", "--workers", type=parse_value, help="processes that train (default 2)"
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

    made = verb(
        "search", verbs.search, "find the best alpha and resolution in a budget"
    )
    made.add_argument(
        "names", nargs="*", metavar="NAME",
        help=options_of(Space)["names"].metadata["help"],
    )  # fmt: skip
    of_search = {*options_of(Space), *options_of(SearchOptions)}
    add_options(made, Space, title="what is searched", without=("names",))
    add_options(made, SearchOptions, title="how", without=("verbose",))
    taken = {*of_search, "name", "alpha", "rho", "resolution"}
    add_options(made, Settings, title="the runs", without=taken)
    recipe(made, taken | set(options_of(Settings)))
    fields(made)

    made = verb("evaluate", verbs.evaluate, "accuracy of a finished run")
    made.add_argument("workdir", nargs="?", help="of train (default: the newest run)")
    made.add_argument(
        "--model",
        metavar="FILE",
        help="what export wrote, in the place of the run's own",
    )
    made.add_argument("--data", help="another source with the same classes")
    made.add_argument("--label", help="of that: a TFDS feature, or a column of the CSV")
    made.add_argument("--image", help="likewise")
    made.add_argument("--split", help="test (default), validation or train")
    made.add_argument("--data-dir", help="where TFDS keeps prepared data")
    made.add_argument(
        "--report", metavar="FOLDER", help="a new folder, for figures and pictures"
    )
    devices(made)

    made = verb("predict", verbs.predict, "classes of image files, by a finished run")
    made.add_argument(
        "images", nargs="+", metavar="IMAGE", help="files, or folders of them"
    )
    made.add_argument("--csv", metavar="FILE", help="a new CSV file, for the answers")
    made.add_argument("--workdir", help="of train (default: the newest run)")
    made.add_argument(
        "--model", metavar="FILE", help="what export wrote, which needs no run"
    )
    option(
        made,
        top="classes of each image (default 3; all, where it may have several labels)",
        threshold="probability above which it is said to have one of several labels "
        "(default 0.5)",
        alpha="of imagenet (default 1.0)",
        resolution="of the network with given weights (default 224)",
    )
    for name, text in (
        ("weights", "imagenet or a file, instead of a run: ImageNet's names"),
        ("name", "of imagenet: mobilenet_v1 or mobilenet_v2 (default)"),
        ("recipe", "that prepares images for given weights (default slim's)"),
    ):
        made.add_argument(f"--{name}", help=text)

    made = verb(
        "export", verbs.export, "a run's model for LiteRT, ONNX or TensorFlow, proven"
    )
    made.add_argument("model", nargs="?", metavar="WORKDIR", help="default: the newest")
    made.add_argument(
        "--path", metavar="FILE",
        help="a new .tflite or .onnx file, or a folder without a suffix for a "
        "SavedModel (default: a .tflite file in the work directory)",
    )  # fmt: skip
    made.add_argument(
        "--quantization", metavar="KIND",
        help="of .tflite: float16, dynamic, int8 or int16x8 (default: float32)",
    )  # fmt: skip
    made.add_argument(
        "--calibration", metavar="DATA",
        help="any source of train, to measure ranges and to prove (default: the run's)",
    )  # fmt: skip
    made.add_argument("--input", help="float32 (default), or uint8 for raw pixels")
    option(
        made,
        bias_correction="of int8: make up for what rounding shifts (default true)",
        fine_tune="of int8: epochs of training in 8 bits before it",
        learning_rate="of these (default 1e-3)",
    )
    made.add_argument("--data-dir", help="where TFDS keeps prepared data")

    made = verb("benchmark", verbs.benchmark, "how fast a network is in each form")
    made.add_argument(
        "model", nargs="?", metavar="MODEL", default="mobilenet_v2",
        help="mobilenet_v1 or mobilenet_v2 (default) with random weights, the "
        "directory of a run, or a file of export",
    )  # fmt: skip
    shape(made)
    made.add_argument(
        "--forms", nargs="+", metavar="FORM",
        help="keras.applications, keras, fused (batch norm folded), float32, float16, "
        "dynamic, int8, int16x8 (default: all)",
    )  # fmt: skip
    made.add_argument(
        "--batches", nargs="+", type=parse_value, metavar="N",
        help="images in a call (default 1 and 32)",
    )  # fmt: skip
    option(
        made,
        classes="of the network (default 1000)",
        threads="of each form (default 1)",
        seconds="of each form with each batch (default 2)",
    )
    made.set_defaults(threads=NOT_GIVEN)  # `train` has an option of this name too
    fields(made)

    made = verb(
        "doctor", verbs.doctor, "check a source of images before training on it"
    )
    for name, text in (
        ("data", "digits (default), a TFDS name, a folder of class folders or a CSV"),
        ("label", "a TFDS feature, or a column of the CSV (default label)"),
        ("image", "likewise, or the path (default image; path)"),
        ("data-dir", "where TFDS keeps prepared data"),
        ("recipe", "whose distortions the sheet shows (default slim_v2)"),
        ("sheet", "a new PNG file: training images, and what a run makes of them"),
    ):
        made.add_argument(f"--{name}", help=text)
    made.set_defaults(data="digits")
    add_options(made, Settings, only=("multi_label",))
    option(
        made,
        resolution="pixels of a side in the sheet, or HEIGHTxWIDTH (default 224)",
        channels="of the images in the sheet: 1, 3 (default) or 4",
        batch_size="of one replica (default the recipe's)",
    )
    devices(made)

    made = verb(
        "cost", verbs.cost, "parameters, mult-adds and memory, without TensorFlow"
    )
    network(made, without=("batch_norm_epsilon",))
    option(
        made, "classes", "bytes_per_element",
        splits="groups that V2's bottlenecks run in, as km.split (default: not so)",
    )  # fmt: skip
    made.add_argument("--no-top", action="store_true", help="without the classifier")
    made.add_argument("--layers", action="store_true", help="a row for every layer")
    fields(made)

    made = verb("recommend", verbs.recommend, "published networks within a budget")
    option(
        made,
        max_macs="mult-adds, such as 150e6",
        max_params="parameters, such as 2e6",
        max_latency_ms="milliseconds on a Pixel 1",
        min_top1="ImageNet top-1 in percent",
    )
    made.add_argument("--name", help="mobilenet_v1 or mobilenet_v2")

    made = verb("recipes", verbs.recipes, "list recipes, show one, or compare two")
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
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (*STOPS, OSError) as error:
        if parsed.debug:
            traceback.print_exc()
        message = printable(" ".join(str(error).split()))
        print(f"keras-mobilenets: error: {message}", file=sys.stderr)
        sys.stdout.flush()
        if isinstance(error, WorkerLost):
            os._exit(error.status)  # TensorFlow's own farewell would wait for the lost
        return getattr(error, "status", UsageError.status)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
