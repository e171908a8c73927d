"""What says the classes of images: the network of a run, or a file of weights."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from keras_mobilenets.architecture.arguments import check_name
from keras_mobilenets.architecture.shapes import Resolution, as_resolution
from keras_mobilenets.deploy import read_classifier
from keras_mobilenets.errors import UsageError
from keras_mobilenets.inference.run_data import check_fits
from keras_mobilenets.models.pretrained import build_pretrained
from keras_mobilenets.models.weights.imagenet import imagenet_names
from keras_mobilenets.recipe import Recipe, get_recipe
from keras_mobilenets.settings import AUTHORS
from keras_mobilenets.training.measuring import load_run_model
from keras_mobilenets.training.workdir import find_finished, read_report
from keras_mobilenets.weight_files import find_weights


class Predictor(NamedTuple):
    """A network with the names of its classes, and how images are prepared for it."""

    answer: Callable[[np.ndarray], np.ndarray]  # a batch -> probabilities
    classes: tuple[str, ...]
    multi_label: bool
    resolution: Resolution
    channels: int
    recipe: Recipe
    source: str  # what it is, for a message


def of_run(workdir: str | os.PathLike[str] | None) -> Predictor:
    """The network of a finished run, by default the newest in `runs`."""
    directory = find_finished(workdir)
    settings, report = read_report(directory)
    return Predictor(
        load_run_model(directory, len(report["classes"])).predict_on_batch,
        tuple(report["classes"]),
        report.get("multi_label", False),
        settings.resolution,
        settings.channels,
        settings.recipe,
        str(directory),
    )


def of_weights(
    weights: str | os.PathLike[str],
    name: str | None = None,
    alpha: float | None = None,
    resolution: Resolution | None = None,
    recipe: str | Recipe | None = None,
) -> Predictor:
    """A network trained on ImageNet, by "imagenet" or a file, with ImageNet's names.

    Images are prepared as by its authors, or as `recipe` does in evaluation.

    Raises:
        UsageError: weights that are not of ImageNet's classes, or made for images that
            are scaled otherwise.
    """
    kind, path = find_weights(weights)
    if kind == "safetensors":
        raise UsageError(
            f"weights of PyTorch are for images scaled by a mean and a deviation of "
            f"each channel, which no recipe here does; got {str(path)!r}: scale the "
            "images, and call km.build(weights=...) on them"
        )
    if kind == "keras" and pathlib.Path(weights).expanduser().is_dir():
        raise UsageError(
            "weights must be 'imagenet' or a file; got the run "
            f"{os.fspath(weights)!r}, which knows its classes: give it as workdir"
        )
    name = None if name is None else check_name(name)
    model, loaded = build_pretrained(weights, name, alpha, resolution)
    height, width, channels = model.input_shape[1:]
    return Predictor(
        model.predict_on_batch,
        imagenet_names(model.output_shape[-1]),
        False,
        height if height == width else (height, width),
        channels,
        get_recipe(AUTHORS[loaded.network] if recipe is None else recipe),
        loaded.file,
    )


def of_file(path: Any, workdir: str | os.PathLike[str] | None) -> Predictor:
    """An exported file, which knows how images are prepared unless a run is to say it.

    Raises:
        UsageError: it is none, is not of that run, or nobody knows.
    """
    file = read_classifier(path, os.cpu_count() or 1)
    recipe = file.recipe
    if workdir is not None:
        settings, report = read_report(find_finished(workdir))
        check_fits(file, path, settings, report)
        recipe = settings.recipe
    if recipe is None:
        raise UsageError(
            "workdir must be given where the file does not say how images are "
            f"prepared; {os.fspath(path)!r} was exported without: km.export(..., "
            "calibration=km.load_data(...)) writes it down"
        )
    height, width, channels = file.shape
    return Predictor(
        file.probabilities,
        file.classes,
        file.squashing == "sigmoid",
        as_resolution(height, width),
        channels,
        recipe,
        os.fspath(path),
    )


def find_predictor(
    workdir: str | os.PathLike[str] | None,
    weights: str | os.PathLike[str] | None,
    file: str | os.PathLike[str] | None = None,
    **network: Any,
) -> Predictor:
    """That of the weights or the file, where there is one, or else of the run.

    Raises:
        UsageError: both were given, or options of the one for the other.
    """
    given = {option: value for option, value in network.items() if value is not None}
    if weights is None:
        if given:
            raise UsageError(
                f"{next(iter(given))} is of weights without a run; got "
                f"{next(iter(given.values()))!r}, and no weights: a run knows its own"
            )
        return of_run(workdir) if file is None else of_file(file, workdir)
    if file is not None:
        raise UsageError(
            f"give model or weights, not both; got {os.fspath(file)!r} and "
            f"{os.fspath(weights)!r}"
        )
    if workdir is not None:
        raise UsageError(
            f"give workdir or weights, not both; got {os.fspath(workdir)!r} and "
            f"{os.fspath(weights)!r}"
        )
    return of_weights(weights, **given)
