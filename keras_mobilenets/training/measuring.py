"""The model of a finished run, and the loss and accuracy of any model on batches."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.errors import UsageError
from keras_mobilenets.training.counting import OF_CLASSES, Counting
from keras_mobilenets.training.workdir import MODEL

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


def make_measure(
    model: keras.Model, of: Counting = OF_CLASSES, forward: Any = None
) -> Measure:
    """`measure(batches, verbose=False)` for a model ending in probabilities.

    It gives the mean cross entropy, without smoothing, and the accuracy, or what else
    is counted, over every image exactly once: batches may be of any `tf.distribute`
    strategy, and have weights that are 0 for filling. One trace serves all datasets of
    one kind. `forward` is called in the model's place.
    """
    strategy = model.distribute_strategy
    forward = forward or model

    def sums(images: tf.Tensor, labels: tf.Tensor, weights: Any = 1.0) -> tf.Tensor:
        return of.sums(forward(images, training=False), labels, weights)

    @tf.function(autograph=False)
    def step(batch: Any) -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(sums, batch), axis=None)

    def measure(batches: Any, verbose: bool = False) -> dict[str, float]:
        if isinstance(batches, tf.data.Dataset):
            step.get_concrete_function(batches.element_spec)  # a short last batch too
        total: Any = 0.0
        length = batches.cardinality  # of distributed batches, not a method
        length = int(length() if callable(length) else length)
        bar = keras.utils.Progbar(length, verbose=1 if verbose else 0)
        for batch in batches:
            total = total + np.array(step(batch))
            bar.add(1, list(of.figures(total).items()) if total[0] else [])
        if not np.any(total):
            raise UsageError("there must be at least one image to measure; got none")
        return {name: float(value) for name, value in of.figures(total).items()}

    return measure
