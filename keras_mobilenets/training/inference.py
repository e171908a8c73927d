"""`evaluate` and `predict`: what a finished run's model is worth and says."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.architecture.arguments import check_choice, check_integer
from keras_mobilenets.data import load_data, load_image
from keras_mobilenets.recipe import FIELDS, Recipe, get_recipe, recipes
from keras_mobilenets.training.losses import SmoothedCrossentropy
from keras_mobilenets.training.workdir import MODEL, find_workdir, read_report


def _recipe_of(report: dict[str, Any]) -> Recipe:
    """The recipe a run was trained with, from its report."""
    values = {k: v for k, v in report["recipe"].items() if k in FIELDS}
    name = report["recipe"].get("name")
    # A recipe of the user's own has all its fields in the report.
    return get_recipe(name if name in recipes else "quick", **values)


def _load_model(directory: pathlib.Path) -> keras.Model:
    try:
        return keras.saving.load_model(directory / MODEL, compile=False)
    except Exception as error:  # of zip, HDF5, JSON or Keras, as the damage has it
        raise ValueError(
            f"{str(directory / MODEL)!r} cannot be read as a Keras model "
            f"({type(error).__name__}: {error})"
        ) from error


def measure(
    model: keras.Model, batches: tf.data.Dataset, verbose: bool = False
) -> dict[str, float]:
    """Cross entropy without smoothing, and accuracy, of a model ending in softmax."""
    judge = keras.Model(model.inputs, model.outputs)  # leaves `model` uncompiled
    judge.compile(
        loss=SmoothedCrossentropy(from_logits=False),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False,
    )
    result = judge.evaluate(batches, verbose=1 if verbose else 0, return_dict=True)
    return {key: float(value) for key, value in result.items()}


def evaluate(
    workdir: str | os.PathLike[str] | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> dict[str, Any]:
    """Loss and accuracy of a finished run on a split, every image exactly once.

    Args:
        workdir: of `train`; by default the newest run in `runs`.
        data: another source with the same classes; by default the run's own.
        split: "test", "validation" or "train" (as it is trained on: augmented).
        data_dir: where TFDS keeps its prepared data.
        verbose: show progress.

    Returns:
        {"loss", "accuracy", "images", "split", "data", "workdir"}; the loss is
        cross entropy without label smoothing.

    Raises:
        ValueError: no finished run there, or data of other classes.

    Example:
        km.evaluate("runs/digits-1")["accuracy"]
    """
    check_choice("split", split, ("test", "validation", "train"))
    directory = find_workdir(workdir)
    report = read_report(directory)
    source = report["data"] if data is None else data
    splits = load_data(
        source,
        resolution=report["resolution"],
        recipe=_recipe_of(report),
        seed=report["seed"],
        data_dir=report["data_dir"] if data_dir is None else data_dir,
        **(report.get("data_options", {}) if data is None else {}),
    )
    if list(splits.classes) != report["classes"]:
        raise ValueError(
            f"data must have the classes that {directory} was trained on "
            f"({_few(report['classes'])}); got {os.fspath(source)!r} with "
            f"{_few(splits.classes)}"
        )
    result = measure(_load_model(directory), getattr(splits, split), verbose)
    return {
        **result,
        "images": getattr(splits, f"num_{split}"),
        "split": split,
        "data": os.fspath(source),
        "workdir": str(directory),
    }


def _few(classes: Sequence[str]) -> str:
    shown = ", ".join(list(classes)[:4])
    return f"{len(classes)}: {shown}{', ...' if len(classes) > 4 else ''}"


def predict(
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    workdir: str | os.PathLike[str] | None = None,
    *,
    top: int = 3,
) -> list[dict[str, Any]]:
    """The most probable classes of image files, by a finished run's model.

    Args:
        images: a path, or several.
        workdir: of `train`; by default the newest run in `runs`.
        top: how many classes of each image.

    Returns:
        For each image {"image", "classes", "probabilities"}, best first.

    Raises:
        ValueError: no finished run there, or a file that is no image.

    Example:
        km.predict("runs/digits-1/samples/0-3.png")
    """
    top = check_integer("top", top, low=1)
    paths = [images] if isinstance(images, (str, os.PathLike)) else list(images)
    if not paths:
        raise ValueError("images must name at least one file; got none")
    directory = find_workdir(workdir)
    report = read_report(directory)
    recipe = _recipe_of(report)
    batch = np.stack([load_image(p, report["resolution"], recipe) for p in paths])
    model = _load_model(directory)
    results = []
    for path, scores in zip(paths, model.predict(batch, verbose=0), strict=True):
        best = np.argsort(-scores, kind="stable")[:top]
        results.append(
            {
                "image": os.fspath(path),
                "classes": [report["classes"][i] for i in best],
                "probabilities": [float(scores[i]) for i in best],
            }
        )
    return results
