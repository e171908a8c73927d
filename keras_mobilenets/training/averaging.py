"""Exponential moving averages of a whole model, as slim keeps them.

slim averages every model variable, the batch-norm statistics included, with
`num_updates`: the decay of step n (from 0) is min(decay, (1 + n) / (10 + n)), so
that a short run is not dominated by its initial values (train_image_classifier.py;
tf.train.ExponentialMovingAverage).
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class ModelAverage:
    """The averages of one model's variables; updated inside its training step.

    They lie end to end in one variable: a step of MobileNetV2 then has one update
    to trace and run, not 262.
    """

    def __init__(self, model: keras.Model, decay: float):
        self.decay = float(decay)
        self._model = weakref.proxy(model)
        self.flat = keras.Variable(
            self._flatten([variable.value for variable in model.weights]),
            trainable=False,
            name="averages",
        )

    def _flatten(self, values: list[Any]) -> tf.Tensor:
        dtype = values[0].dtype
        return tf.concat([tf.reshape(tf.cast(v, dtype), [-1]) for v in values], axis=0)

    @property
    def averages(self) -> list[np.ndarray]:
        """The average of every variable, in the order of `model.get_weights()`."""
        shapes = [tuple(variable.shape) for variable in self._model.weights]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        parts = np.split(keras.ops.convert_to_numpy(self.flat), ends[:-1])
        return [p.reshape(shape) for p, shape in zip(parts, shapes, strict=True)]

    def update(self, num_updates: Any) -> None:
        """Move the averages one step; called in a replica or outside of any."""
        n = tf.cast(num_updates, tf.float64)
        rate = 1 - tf.minimum(tf.constant(self.decay, tf.float64), (1 + n) / (10 + n))

        def move(average: tf.Variable, values: list[Any], rate: tf.Tensor) -> None:
            rate = tf.cast(rate, average.dtype)
            average.assign_sub((average - self._flatten(values)) * rate)

        def move_on_every_device(strategy: tf.distribute.Strategy, rate: tf.Tensor):
            values = [variable.value for variable in self._model.weights]
            strategy.extended.update(
                self.flat.value, move, args=(values, rate), group=False
            )

        context = tf.distribute.get_replica_context()
        context.merge_call(move_on_every_device, args=(rate,))


# Beside the models, not on them: a Keras model would take the averages for weights.
_AVERAGES: weakref.WeakKeyDictionary[keras.Model, ModelAverage] = (
    weakref.WeakKeyDictionary()
)


def average_model(model: keras.Model, decay: float | None) -> None:
    """Keep averages of `model` from now on, or with None stop keeping them."""
    inner = getattr(model.train_step, "unaveraged", model.train_step)
    if decay is None:
        _AVERAGES.pop(model, None)
        model.train_step = inner
        return
    average = _AVERAGES[model] = ModelAverage(model, decay)

    def train_step(data: Any) -> dict[str, tf.Tensor]:
        step = tf.convert_to_tensor(model.optimizer.iterations)
        logs = inner(data)
        average.update(step)
        return logs

    train_step.unaveraged = inner
    model.train_step = train_step


def get_average(model: keras.Model) -> ModelAverage | None:
    """The averages that `compile` with an `ema_decay` keeps of this model."""
    return _AVERAGES.get(model)


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[keras.Model]:
    """Within the block the model has its averaged weights; after it, its own.

    Does nothing for a model compiled without `ema_decay`.

    Example:
        with km.averaged_weights(model):
            model.evaluate(splits.test)
            model.save("averaged.keras")
    """
    average = get_average(model)
    if average is None:
        yield model
        return
    own = [np.array(variable) for variable in model.weights]
    model.set_weights(average.averages)
    try:
        yield model
    finally:
        model.set_weights(own)
