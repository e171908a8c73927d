"""Exponential moving averages of a whole model, as slim keeps them.

slim averages every model variable, the batch-norm statistics included, with
`num_updates`: the decay of step n (from 0) is min(decay, (1 + n) / (10 + n)), so
that a short run is not dominated by its initial values (train_image_classifier.py;
tf.train.ExponentialMovingAverage).

They are a variable of the optimizer: Keras saves and restores them with the model.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.recipe import NEUTRAL
from keras_mobilenets.training import values
from keras_mobilenets.training.freezing import find_classifier
from keras_mobilenets.training.step import (
    bind,
    check_compiled,
    find_model,
    recipe_optimizer,
)

Base: Any = object  # to a type checker: what it is mixed into


class OfRecipe(Base):
    """What makes a Keras optimizer that of a recipe: before it in a class' bases.

    `recipe` is what the training step needs to know of a recipe: its fields `FIELDS`,
    and `head_steps`, its head_epochs in steps. It is part of the optimizer's
    configuration, so a model that Keras loads, whose optimizer it then builds, is
    bound to its recipe's step again. None: a plain Keras optimizer.
    """

    FIELDS = (
        "ema_decay",
        "synchronize_batch_norm",
        "weight_decay",
        "weight_decay_scope",
        "freeze",
        "body_learning_rate",
        "batch_norm",
    )

    def __init__(
        self, *args: Any, recipe: Mapping[str, Any] | None = None, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self.recipe = None
        if recipe is not None:  # a file of an older version has not got all of it
            stored = {**NEUTRAL, "head_steps": 0, **recipe}
            self.recipe = {f: stored[f] for f in (*self.FIELDS, "head_steps")}
        self._shares: list[float] | None = None  # of the rate, a variable of the body's
        self.averages: Any = None  # keras.Variable: all of them, end to end
        self._model_of: Any = None

    def attach(self, model: keras.Model) -> None:
        """Tell the optimizer which model's variables it is to average."""
        self._model_of = weakref.ref(model)

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        if self.recipe is None:
            super().build(variables)
            return
        if self._model_of is None:
            bind(find_model(self))
        model = self._model_of()
        variables = model.train_step.trained
        super().build(variables)
        share = self.recipe["body_learning_rate"]
        if share != 1:
            full = {id(variable) for variable in find_classifier(model).weights}
            self._shares = [1.0 if id(v) in full else share for v in variables]
        if self.recipe["ema_decay"] is not None:
            # One variable: a step of MobileNetV2 has one update to trace, not 262.
            self.averages = self.add_variable(
                shape=(sum(int(np.prod(v.shape)) for v in model.weights),),
                dtype=keras.backend.result_type("float32", model.weights[0].dtype),
                initializer=lambda shape, dtype: _concat(
                    [v.value for v in model.weights], dtype
                ),
                name="averages",
            )

    def rate_of(self, variable: tf.Variable, learning_rate: tf.Tensor) -> tf.Tensor:
        """The learning rate of one variable: the body's has a share of it."""
        if self._shares is None:
            return learning_rate
        share = self._shares[self._get_variable_index(variable)]
        return learning_rate if share == 1 else learning_rate * share

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        step = tf.convert_to_tensor(self._iterations)
        super().apply(grads, trainable_variables)
        if self.averages is not None:
            self._move_averages(step)

    def _move_averages(self, step: tf.Tensor) -> None:
        """In a replica, or outside of any."""
        assert self.recipe is not None
        n = tf.cast(step, tf.float64)
        decay = tf.constant(self.recipe["ema_decay"], tf.float64)
        rate = tf.cast(1 - tf.minimum(decay, (1 + n) / (10 + n)), self.averages.dtype)
        model = self._model_of()

        def move(averages: tf.Variable, values: list[Any], rate: tf.Tensor) -> None:
            averages.assign_sub((averages - _concat(values, averages.dtype)) * rate)

        def move_on_every_device(
            strategy: tf.distribute.Strategy, rate: tf.Tensor
        ) -> None:
            values = [variable.value for variable in model.weights]
            strategy.extended.update(
                self.averages.value, move, args=(values, rate), group=False
            )

        context = tf.distribute.get_replica_context()
        context.merge_call(move_on_every_device, args=(rate,))

    def get_config(self) -> dict[str, Any]:
        recipe = {} if self.recipe is None else {"recipe": dict(self.recipe)}
        return {**super().get_config(), **recipe}


def _concat(values: list[Any], dtype: Any) -> tf.Tensor:
    return tf.concat([tf.reshape(tf.cast(v, dtype), [-1]) for v in values], axis=0)


def get_averages(model: keras.Model) -> list[np.ndarray] | None:
    """The average of every weight, in the order of `model.get_weights()`.

    None where none are kept: the recipe has no `ema_decay`.
    """
    flat = getattr(recipe_optimizer(model), "averages", None)
    if flat is None:
        return None
    shapes = [tuple(variable.shape) for variable in model.weights]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = np.split(keras.ops.convert_to_numpy(flat), ends[:-1])
    return [p.reshape(shape) for p, shape in zip(parts, shapes, strict=True)]


def set_averages(model: keras.Model, values: list[np.ndarray]) -> None:
    """Replace the averages by `values`, in the order of `model.get_weights()`."""
    flat = recipe_optimizer(model).averages
    flat.assign(np.concatenate([np.ravel(value) for value in values]))


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[keras.Model]:
    """Within the block the model has its averaged weights; after it, its own.

    They are for inference: what `model.save` writes within the block is the network
    alone, and loads wherever Keras does. Changes nothing for a model without averages
    (`ema_decay=None`), or before its first step.

    Raises:
        UsageError: the model is not compiled.

    Example:
        with km.averaged_weights(model):
            model.evaluate(splits.test)
            model.save("averaged.keras")
    """
    check_compiled(model)
    optimizer = model.optimizer
    averages = get_averages(model) if int(np.array(optimizer.iterations)) else None
    own = []
    if averages is not None:
        own = [values.read(variable) for variable in model.weights]
        _write(model, averages)

    def save(*args: Any, **kwargs: Any) -> None:
        model.optimizer = None  # its slots belong to the other weights
        try:
            type(model).save(model, *args, **kwargs)
        finally:
            model.optimizer = optimizer

    nested = "get_compile_config" in vars(model)
    if not nested:
        model.get_compile_config = lambda: None
        model.save = save
    try:
        yield model
    finally:
        if not nested:
            del model.get_compile_config, model.save
        if averages is not None:
            _write(model, own)


def _write(model: keras.Model, arrays: list[np.ndarray]) -> None:
    for variable, array in zip(model.weights, arrays, strict=True):
        values.write(variable, array)
