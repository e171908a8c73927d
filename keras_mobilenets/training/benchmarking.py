"""`benchmark`: how long one network takes in each form in which it can be run."""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_mobilenets.architecture.arguments import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    shown,
    suggest,
)
from keras_mobilenets.architecture.shapes import Resolution
from keras_mobilenets.architecture.tables import NETWORKS
from keras_mobilenets.deploy import read_classifier
from keras_mobilenets.deploy.forms import FORMS, scatter, subject_of, write_forms
from keras_mobilenets.deploy.pictures import take_pictures
from keras_mobilenets.deploy.timing import time_files
from keras_mobilenets.errors import UsageError
from keras_mobilenets.machine import about_machine
from keras_mobilenets.models import build
from keras_mobilenets.training.inference import load_run_model
from keras_mobilenets.training.workdir import find_finished, read_report

BATCHES = (1, 32)
SECONDS = 2.0
MOST_IMAGES = 1024  # of a batch
ACCEPTED = (
    f"{' or '.join(map(repr, NETWORKS))}, a Keras model, the directory of a finished "
    "run, or a file that export wrote"
)
Say = Callable[[str], None]
Figures = dict[str, dict[int, dict[str, Any]]]


def benchmark(
    model: keras.Model | str | os.PathLike[str] = "mobilenet_v2",
    *,
    alpha: float | None = None,
    rho: float | None = None,
    resolution: Resolution | None = None,
    channels: int | None = None,
    classes: int | None = None,
    forms: Sequence[str] | None = None,
    batches: Sequence[int] = BATCHES,
    threads: int = 1,
    seconds: float = SECONDS,
    verbose: bool = True,
    **variant: Any,
) -> dict[str, Any]:
    """How long a network takes here in each form: which of them to ship.

    Forms are "keras.applications" (their network of the same alpha and size, of one
    that has no variation), "keras" (the model itself, in a `tf.function`), "fused"
    (batch norm folded, in a `tf.function`), and files of LiteRT: "float32", "float16",
    "dynamic", "int8" and "int16x8". They take turns in one process, of their own, on
    the processor, so that a busy machine slows all alike. A call is timed from an array
    of images to one of answers. How long it takes depends on the network, not on its
    weights, and hardly on the images, so that both may be made up.

    Args:
        model: the name of a network, which gets random weights; a Keras model that
            classifies images; the directory of a finished run; or a file that `export`
            wrote, which is timed as it is.
        alpha, rho, resolution, channels, classes: of a network by its name, as in
            `build`.
        forms: some of the above; by default all.
        batches: numbers of images in a call.
        threads: of each form. TensorFlow's operations run one after another.
        seconds: of each form with each batch, at least three calls.
        verbose: say on standard error what is being done.
        **variant: variations of a network by its name, as in `build`.

    Returns:
        {"rows": [{"form", "text", "bytes", "batch", "calls", "median_ms", "p10_ms",
        "p90_ms", "least_ms", "relative"}], "threads", "machine", ...}, ready for JSON.
        Milliseconds are of a call; "relative" is the median as a share of that of the
        first form with the same batch.

    Raises:
        UsageError: an argument is impossible, or the model cannot be exported.

    >>> benchmark("mobilenet_v1", alpha=0.25, resolution=128)["rows"][0]["form"]
    'keras.applications'
    """
    if forms is not None:
        forms = _several("forms", forms, lambda form: check_choice("form", form, FORMS))
    batches = _several(
        "batches",
        batches,
        lambda size: check_integer("batches", size, low=1, high=MOST_IMAGES),
    )
    most = os.cpu_count() or 1
    threads = check_integer(
        "threads", threads, low=1, high=most, fix="no more than this machine has cores"
    )
    seconds = check_number("seconds", seconds, low=0, open_low=True, high=3600)
    check_flag("verbose", verbose)
    network = {
        "alpha": alpha,
        "rho": rho,
        "resolution": resolution,
        "channels": channels,
        "classes": classes,
    }
    network = {k: v for k, v in network.items() if v is not None} | variant

    def say(text: str) -> None:
        if verbose:
            print(f"{text} ...", file=sys.stderr, flush=True)

    how: dict[str, Any] = {
        "batches": batches,
        "threads": threads,
        "seconds": seconds,
        "say": say,
    }
    named = isinstance(model, str) and model in NETWORKS
    if network and not named:
        option, value = next(iter(network.items()))
        raise UsageError(
            f"{option} is of a network by its name ({', '.join(NETWORKS)}); got "
            f"{option}={shown(value)} for {shown(model)}, which has its own"
        )
    if named:
        made = scatter(build(model, **network))
        alpha = network.get("alpha", 1.0)
        about = {"name": model, **network}
        rows, shape = _of_model(made, forms, how, None if variant else model, alpha)
    elif isinstance(model, keras.Model):
        about = {"model": model.name}
        rows, shape = _of_model(model, forms, how)
    else:
        path = _check_path(model)
        about = {"model": str(path)}
        if path.is_dir():
            settings, report = read_report(find_finished(path))
            made = load_run_model(path, len(report["classes"]))
            name = None if settings.variant else settings.name
            rows, shape = _of_model(made, forms, how, name, settings.alpha)
        elif forms is not None:
            raise UsageError(
                f"forms are of a network or a run; got {', '.join(forms)} for the file "
                f"{str(path)!r}, which is one already"
            )
        else:
            rows, shape = _of_file(path, how)
    return {
        "network": about,
        "image": list(shape),
        "threads": threads,
        "seconds": seconds,
        "rows": rows,
        "machine": about_machine(),
    }


def _several(argument: str, given: Any, check: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Some different things, each checked."""
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise UsageError(
            f"{argument} must be a list of at least one; got {shown(given)}"
        )
    checked = tuple(check(one) for one in given)
    if len(set(checked)) < len(checked):
        raise UsageError(f"{argument} must differ; got {shown(given)}")
    return checked


def _check_path(model: Any) -> pathlib.Path:
    if not isinstance(model, (str, os.PathLike)) or not os.fspath(model):
        raise UsageError(f"model must be {ACCEPTED}; got {shown(model)}")
    path = pathlib.Path(os.fsdecode(model)).expanduser()
    if "\0" in str(path) or not path.exists():
        hint = suggest(model, NETWORKS)
        raise UsageError(f"model must be {ACCEPTED}; got {shown(model)}{hint}")
    return path


def _of_model(
    model: keras.Model,
    forms: tuple[str, ...] | None,
    how: dict[str, Any],
    name: str | None = None,
    alpha: float = 1.0,
) -> tuple[list[dict[str, Any]], tuple[int, ...]]:
    """Rows of all forms of a model, or of some, and the shape of an image."""
    if forms is not None and "keras.applications" in forms and name is None:
        raise UsageError(
            "forms: 'keras.applications' has only networks without a variation, by "
            f"their name or of a run; got it for {model.name!r}"
        )
    subject = subject_of(model, name, alpha)
    chosen = {form: FORMS[form] for form in forms or FORMS}
    with tempfile.TemporaryDirectory() as folder:
        files = write_forms(subject, chosen, pathlib.Path(folder), how["say"])
        found = time_files(files, subject.images, **how)
        texts = {form: chosen[form].text for form in files}
        rows = _rows(files, texts, found)
    return rows, subject.folded.shape


def _of_file(
    path: pathlib.Path, how: dict[str, Any]
) -> tuple[list[dict[str, Any]], tuple[int, ...]]:
    shape = read_classifier(path).shape  # that it can be run
    images = take_pictures(None, shape).proof
    files = {path.name: path}
    found = time_files(files, images, **how)
    return _rows(files, {path.name: path.name}, found), shape


def _rows(
    files: dict[str, pathlib.Path], texts: dict[str, str], found: Figures
) -> list[dict[str, Any]]:
    first = found[next(iter(files))]
    return [
        {
            "form": name,
            "text": texts[name],
            "bytes": files[name].stat().st_size,
            "batch": batch,
            **found[name][batch],
            "relative": round(
                found[name][batch]["median_ms"] / first[batch]["median_ms"], 4
            ),
        }
        for batch in first
        for name in files
    ]
