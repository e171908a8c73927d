"""The model of a finished run, and the loss and accuracy of any model on batches."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.errors import UsageError
from keras_mobilenets.training.workdir import MODEL

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
