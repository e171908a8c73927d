"""Exponential moving averages of a whole model, as slim keeps them.

slim averages every model variable, the batch-norm statistics included, with
`num_updates`: the decay of step n (from 0) is min(decay, (1 + n) / (10 + n)), so
that a short run is not dominated by its initial values (train_image_classifier.py;
tf.train.ExponentialMovingAverage).
"""

from __future__ import annotations

import contextlib
import types
import weakref
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class ModelAverage:
    """The averages of one model's variables; updated inside its training step."""

    def __init__(self, model: keras.Model, decay: float):
        self.decay = float(decay)
        self._model = weakref.proxy(model)
        self.averages = [
            keras.Variable(
                tf.convert_to_tensor(variable),  # a copy; a variable would be shared
                dtype=variable.dtype,
                trainable=False,
                name=f"{variable.name}_average",
            )
            for variable in model.weights
        ]
        self._dtypes = {average.value.dtype for average in self.averages}

    def update(self, num_updates: Any) -> None:
        """Move every average one step; called in a replica or outside of any."""
        n = tf.cast(num_updates, tf.float64)
        rate = 1 - tf.minimum(tf.constant(self.decay, tf.float64), (1 + n) / (10 + n))
        rates = {dtype: tf.cast(rate, dtype) for dtype in self._dtypes}

        def move(average: tf.Variable, value: tf.Tensor, rates: dict) -> None:
            average.assign_sub((average - value) * rates[average.dtype])

        def move_all(strategy: tf.distribute.Strategy, rates: dict) -> None:
            for average, variable in zip(
                self.averages, self._model.weights, strict=True
            ):
                strategy.extended.update(
                    average.value, move, args=(variable.value, rates), group=False
                )

        tf.distribute.get_replica_context().merge_call(move_all, args=(rates,))


# Beside the models, not on them: a Keras model would take the averages for weights.
_AVERAGES: weakref.WeakKeyDictionary[keras.Model, ModelAverage] = (
    weakref.WeakKeyDictionary()
)


def _train_step(model: keras.Model, data: Any) -> dict[str, tf.Tensor]:
    step = tf.convert_to_tensor(model.optimizer.iterations)
    logs = type(model).train_step(model, data)
    _AVERAGES[model].update(step)
    return logs


def average_model(model: keras.Model, decay: float | None) -> None:
    """Keep averages of `model` from now on, or with None stop keeping them."""
    if decay is None:
        _AVERAGES.pop(model, None)
        model.__dict__.pop("train_step", None)
        return
    _AVERAGES[model] = ModelAverage(model, decay)
    model.train_step = types.MethodType(_train_step, model)


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
    model.set_weights([np.array(variable) for variable in average.averages])
    try:
        yield model
    finally:
        model.set_weights(own)
