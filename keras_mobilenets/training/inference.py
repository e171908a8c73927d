"""`evaluate` and `predict`: what a finished run's model is worth and says."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.architecture.arguments import (
    check_choice,
    check_flag,
    check_integer,
    shown,
)
from keras_mobilenets.data import load_data, load_image
from keras_mobilenets.errors import UsageError
from keras_mobilenets.given import MEMORY_BUDGET, Given, take
from keras_mobilenets.options import check_path
from keras_mobilenets.training.distribution import (
    distribute,
    is_asynchronous,
    is_chief,
    make_strategy,
)
from keras_mobilenets.training.interruption import watching_workers
from keras_mobilenets.training.workdir import (
    INDEX,
    MODEL,
    find_finished,
    read_report,
)

# As evaluated: each image once, without distortion.
PARTS = {"test": "test", "validation": "validation", "train": "train_once"}

# Mean loss and accuracy over batches, and the number of images that they are of.
Measure = Callable[..., dict[str, float]]


def load_run_model(directory: pathlib.Path, classes: int) -> keras.Model:
    """The model of a finished run, of which its report says that it has classes.

    Raises:
        UsageError: the file is damaged, of another network, or its weights are no
            numbers.
    """
    path = directory / MODEL
    try:
        model = keras.saving.load_model(path, compile=False)
        outputs = model.output_shape
        weights = model.get_weights()
    except Exception as error:  # of zip, HDF5, JSON or Keras, as the damage has it
        raise UsageError(
            f"{str(path)!r} cannot be read as a Keras model "
            f"({type(error).__name__}: {error})"
        ) from error
    if tuple(outputs) != (None, classes):
        raise UsageError(
            f"{str(path)!r} must have the {classes} classes of its report; it has "
            f"outputs of shape {outputs}"
        )
    if not all(np.isfinite(value).all() for value in weights):
        raise UsageError(f"{str(path)!r} holds weights that are no numbers (NaN)")
    return model


def make_measure(model: keras.Model, forward: Any = None) -> Measure:
    """`measure(batches, verbose=False)` for a model ending in softmax.

    It gives the mean cross entropy, without smoothing, and the accuracy over every
    image exactly once: batches may be of any `tf.distribute` strategy, and have
    weights that are 0 for filling. One trace serves all datasets of one kind.
    `forward` is called in the model's place.
    """
    strategy = model.distribute_strategy
    forward = forward or model

    def sums(images: tf.Tensor, labels: tf.Tensor, weights: Any = 1.0) -> tf.Tensor:
        scores = forward(images, training=False)
        loss = keras.losses.sparse_categorical_crossentropy(labels, scores)
        right = tf.equal(tf.argmax(scores, axis=-1), tf.cast(labels, tf.int64))
        weights = tf.broadcast_to(tf.cast(weights, tf.float64), tf.shape(loss))
        each = [tf.cast(loss, tf.float64), tf.cast(right, tf.float64), 1.0]
        return tf.stack([tf.reduce_sum(weights * value) for value in each])

    @tf.function(autograph=False)
    def step(batch: Any) -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(sums, batch), axis=None)

    def measure(batches: Any, verbose: bool = False) -> dict[str, float]:
        if isinstance(batches, tf.data.Dataset):
            step.get_concrete_function(batches.element_spec)  # a short last batch too
        total = np.zeros(3)
        length = batches.cardinality  # of distributed batches, not a method
        length = int(length() if callable(length) else length)
        bar = keras.utils.Progbar(length, verbose=1 if verbose else 0)
        for batch in batches:
            total += np.array(step(batch))
            loss, accuracy = total[:2] / max(total[2], 1)
            bar.add(1, [("loss", loss), ("accuracy", accuracy)])
        if not total[2]:
            raise UsageError("there must be at least one image to measure; got none")
        return {"loss": float(loss), "accuracy": float(accuracy)}

    return measure


def evaluate(
    workdir: str | os.PathLike[str] | None = None,
    *,
    data: Any = None,
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
    strategy: str | tf.distribute.Strategy = "auto",
    cpu_replicas: int | None = None,
    verbose: bool = True,
) -> dict[str, Any]:
    """Loss and accuracy of a finished run on a split, every image exactly once.

    Args:
        workdir: of `train`; by default the newest run in `runs`.
        data: another source with the same classes; by default the run's own, which is
            to be passed again if it was in memory.
        split: "test", "validation" or "train".
        data_dir: where TFDS keeps its prepared data.
        strategy, cpu_replicas: as in `train`.
        verbose: show progress.

    Returns:
        {"loss", "accuracy", "images", "split", "data", "workdir"}; the loss is
        cross entropy without label smoothing.

    Raises:
        ValueError: no finished run there, or data of other classes.

    Example:
        km.evaluate("runs/digits-1")["accuracy"]
    """
    check_choice("split", split, PARTS)
    check_flag("verbose", verbose)
    directory = find_finished(workdir)
    settings, report = read_report(directory)
    budget = settings.data_options.get("memory_budget", MEMORY_BUDGET)
    source = take(settings.data if data is None else data, budget)
    strategy = make_strategy(strategy, cpu_replicas)
    if is_asynchronous(strategy):
        raise UsageError(
            "strategy 'parameter_server' is for training; got it for evaluation: give "
            "strategy='none'"
        )
    again = isinstance(source, Given) and str(source) == settings.data
    own = data is None or again
    index = directory / INDEX
    splits = load_data(
        source,
        resolution=settings.resolution,
        channels=settings.channels,
        recipe=settings.recipe,
        batch_size=settings.recipe.batch_size * strategy.num_replicas_in_sync,
        seed=settings.seed,
        data_dir=settings.data_dir if data_dir is None else data_dir,
        index=index if own and data_dir is None and index.is_file() else None,
        **(settings.data_options if own else {}),
    )
    if list(splits.classes) != report["classes"]:
        raise UsageError(
            f"data must have the classes that {directory} was trained on "
            f"({_few(report['classes'])}); got {str(source)!r} with "
            f"{_few(splits.classes)}"
        )
    with strategy.scope():
        model = load_run_model(directory, len(splits.classes))
    with watching_workers(strategy):
        result = make_measure(model)(
            distribute(strategy, splits, PARTS[split]), verbose and is_chief(strategy)
        )
    return {
        **result,
        "images": getattr(splits, f"num_{split}"),
        "split": split,
        "data": str(source),
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
    if isinstance(images, (str, os.PathLike)):
        images = [images]
    if not isinstance(images, Iterable):
        raise UsageError(f"images must be paths of image files; got {shown(images)}")
    paths = [check_path("images", path) and os.fspath(path) for path in images]
    if not paths:
        raise UsageError("images must name at least one file; got none")
    directory = find_finished(workdir)
    settings, report = read_report(directory)
    model = load_run_model(directory, len(report["classes"]))
    batch = np.stack(
        [
            load_image(p, settings.resolution, settings.recipe, settings.channels)
            for p in paths
        ]
    )
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
