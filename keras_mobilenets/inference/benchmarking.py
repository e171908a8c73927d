"""`benchmark`: how long one network takes in each form in which it can be run."""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_mobilenets.architecture.arguments import (
    VARIANTS,
    check_choice,
    check_flag,
    check_integer,
    check_known,
    check_number,
    shown,
    suggest,
)
from keras_mobilenets.architecture.shapes import Resolution
from keras_mobilenets.architecture.tables import NETWORKS
from keras_mobilenets.deploy import read_classifier
from keras_mobilenets.deploy.formats import format_in
from keras_mobilenets.deploy.forms import (
    FORMS,
    Subject,
    choose,
    scatter,
    subject_of,
    write_forms,
)
from keras_mobilenets.deploy.pictures import take_pictures
from keras_mobilenets.deploy.saved_model import GRAPH
from keras_mobilenets.deploy.timing import time_files
from keras_mobilenets.errors import UsageError
from keras_mobilenets.machine import about_machine
from keras_mobilenets.models import build
from keras_mobilenets.training.measuring import load_run_model
from keras_mobilenets.training.workdir import find_finished, read_report

BATCHES = (1, 32)
SECONDS = 2.0
EPSILON = "batch_norm_epsilon"
MOST_IMAGES = 1024  # of a batch
ACCEPTED = (
    f"{' or '.join(map(repr, NETWORKS))}, a Keras model, the directory of a finished "
    "run, or a file that export wrote"
)


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
    (batch norm folded, in a `tf.function`), files of LiteRT ("float32", "float16",
    "dynamic", "int8", "int16x8"), and "onnx", where the extra of that name is
    installed. They take turns in one process, of their own, on the processor, so that a
    busy machine slows all alike. A call is timed from an array of images to one of
    answers. How long it takes depends on the network, not on its weights and images,
    so that both may be made up.

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
        {"rows": [{"form", "batch", "bytes", "calls", "median_ms", "p10_ms", "p90_ms",
        "least_ms", "cpu_ms", "least_cpu_ms", "relative"}], "threads", "machine", ...},
        ready for JSON. Milliseconds are of a call, the median, percentiles and least;
        "cpu_ms" is the median of what the processor worked for it; "relative" is the
        median as a share of that of the first form with this batch.

    Raises:
        UsageError: an argument is impossible, or the model cannot be exported.

    >>> benchmark("mobilenet_v1", alpha=0.25, resolution=128)["rows"][0]["form"]
    'keras.applications'
    """
    if forms is not None:
        forms = _several("forms", forms, lambda one: check_choice("forms", one, FORMS))
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
    given = {
        "alpha": alpha,
        "rho": rho,
        "resolution": resolution,
        "channels": channels,
        "classes": classes,
    }
    # No more of `build`: weights would be replaced, and features cannot be exported.
    check_known("benchmark()", variant, (*given, *sum(VARIANTS.values(), ()), EPSILON))
    given |= variant
    network = {option: value for option, value in given.items() if value is not None}
    if network and not _is_name(model):
        option, value = next(iter(network.items()))
        raise UsageError(
            f"{option} is of a network by its name ({', '.join(NETWORKS)}); got "
            f"{option}={shown(value)} for {shown(model)}, which has its own"
        )

    def say(text: str) -> None:
        if verbose:
            print(f"{text} ...", file=sys.stderr, flush=True)

    how: dict[str, Any] = {
        "batches": batches,
        "threads": threads,
        "seconds": seconds,
        "say": say,
    }
    if _is_name(model) or isinstance(model, keras.Model):
        path = None
    else:
        path = _check_path(model)
    if path is None or (path.is_dir() and not (path / GRAPH).is_file()):
        about, subject = _find_subject(model, path, network, bool(variant))
        chosen = choose(subject, forms)
        shape = subject.folded.shape
        with tempfile.TemporaryDirectory() as folder:
            paths = write_forms(subject, chosen, pathlib.Path(folder), say)
            files = {form: (chosen[form].runtime, file) for form, file in paths.items()}
            rows = _rows(files, subject.images, how)
        for row in rows:
            row["text"] = chosen[row["form"]].text
    else:
        if forms is not None:
            raise UsageError(
                f"forms are of a network or a run; got {', '.join(forms)} for the file "
                f"{str(path)!r}, which is one already"
            )
        about = {"file": path.name}
        shape = read_classifier(path).shape  # raises where it cannot be run
        images = take_pictures(None, shape).proof
        rows = _rows({path.name: (format_in(str(path)), path)}, images, how)
    return {
        "network": about,
        "image": list(shape),
        "threads": threads,
        "seconds": seconds,
        "rows": rows,
        "machine": about_machine(),
    }


def _is_name(model: Any) -> bool:
    return isinstance(model, str) and model in NETWORKS


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


def _find_subject(
    model: Any, run: pathlib.Path | None, network: dict[str, Any], varied: bool
) -> tuple[dict[str, Any], Subject]:
    """What is timed, and how it is called: by a name, a model, or that of a run."""
    if run is not None:
        settings, report = read_report(find_finished(run))
        made = load_run_model(run, len(report["classes"]))
        name = None if settings.variant else settings.name
        return {"run": run.name}, subject_of(made, name, settings.alpha)
    if isinstance(model, keras.Model):
        return {"model": model.name}, subject_of(model)
    made = scatter(build(model, **network))
    name = None if varied else model
    return {"name": model, **network}, subject_of(made, name, network.get("alpha", 1.0))


def _rows(
    files: dict[str, tuple[str, pathlib.Path]],
    images: np.ndarray,
    how: dict[str, Any],
) -> list[dict[str, Any]]:
    """A row of each file with each batch, relative to the first file."""
    found = time_files(files, images, **how)
    first = next(iter(found.values()))
    return [
        {
            "form": name,
            "batch": batch,
            "bytes": _size(path),
            **found[name][batch],
            "relative": round(
                found[name][batch]["median_ms"] / first[batch]["median_ms"], 4
            ),
        }
        for batch in how["batches"]
        for name, (_, path) in files.items()
    ]


def _size(path: pathlib.Path) -> int:
    """Bytes of a file, or of all in a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
