"""RMSProp as TensorFlow 1 computes it, for Keras 3.

Keras' own RMSprop starts the mean square at 0; TF1's, which trained the
MobileNets, at 1. With a gradient of 0.01 and epsilon 1e-3 the first step differs
thirtyfold. Both put epsilon inside the root and the learning rate inside the
momentum buffer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_mobilenets.architecture.arguments import check_number, shown
from keras_mobilenets.errors import UsageError
from keras_mobilenets.training.averaging import OfRecipe


def _beside(variable: keras.Variable) -> contextlib.AbstractContextManager:
    """Puts slots on the parameter server of their variable, for the fused kernel."""
    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.ParameterServerStrategy):
        return contextlib.nullcontext()
    return strategy.extended.colocate_vars_with(variable.value)


def _check_rate(learning_rate: Any) -> Any:
    rate = learning_rate
    if isinstance(rate, Mapping):  # the configuration of a schedule
        with contextlib.suppress(Exception):  # whatever Keras finds wrong with it
            rate = keras.optimizers.schedules.deserialize(dict(rate))
        if not callable(rate):
            raise UsageError(
                "learning_rate must be a number above 0, a Keras learning-rate "
                f"schedule, or the configuration of one; got {shown(learning_rate)}"
            )
    if callable(rate):
        return rate
    return check_number("learning_rate", rate, low=0, open_low=True)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class SGD(OfRecipe, keras.optimizers.SGD):
    """Keras' SGD, as the optimizer of a recipe."""

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        rate = self.rate_of(variable, learning_rate)
        super().update_step(gradient, variable, rate)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class RMSprop(OfRecipe, keras.optimizers.Optimizer):
    """`tf.compat.v1.train.RMSPropOptimizer`, step for step.

    For every variable w with gradient g:

        mean_square += (g^2 - mean_square) * (1 - rho)
        momentum_buffer = momentum * momentum_buffer
                          + learning_rate * g / sqrt(mean_square + epsilon)
        w -= momentum_buffer

    Defaults are slim's (train_image_classifier.py). Works in any Keras model and
    under any `tf.distribute` strategy that Keras supports. The update is TF's own
    fused kernel, one operation a variable.

    Args:
        learning_rate: a number above 0, or a Keras learning-rate schedule.
        rho: decay of the mean square, in [0, 1).
        momentum: in [0, 1).
        epsilon: added inside the root, at least 0.
        initial_accumulator: where the mean square starts; 1 in TF1, 0 in Keras.
        **kwargs: `clipnorm`, `global_clipnorm`, ... of every Keras optimizer; and
            `recipe`, which `keras_mobilenets.compile` sets.

    Raises:
        UsageError: an argument that is no number, or out of its range.

    Example:
        model.compile(optimizer=km.RMSprop(0.045), loss="mse")
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.045,
        rho: float = 0.9,
        momentum: float = 0.9,
        epsilon: float = 1.0,
        initial_accumulator: float = 1.0,
        name: str = "rmsprop",
        **kwargs: Any,
    ):
        rate = _check_rate(learning_rate)
        super().__init__(learning_rate=rate, name=name, **kwargs)
        for argument, value, below in (
            ("rho", rho, 1.0),
            ("momentum", momentum, 1.0),
            ("epsilon", epsilon, float("inf")),
            ("initial_accumulator", initial_accumulator, float("inf")),
        ):
            if check_number(argument, value, low=0) >= below:
                raise UsageError(f"{argument} must be below {below:g}; got {value!r}")
        self.rho = float(rho)
        self.momentum = float(momentum)
        self.epsilon = float(epsilon)
        self.initial_accumulator = float(initial_accumulator)

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        start = keras.initializers.Constant(self.initial_accumulator)
        self._mean_squares, self._momentum_buffers = [], []
        for variable in self._trainable_variables:  # a recipe may freeze some
            with _beside(variable):
                self._mean_squares += self.add_optimizer_variables(
                    [variable], "mean_square", initializer=start
                )
                self._momentum_buffers += self.add_optimizer_variables(
                    [variable], "momentum"
                )

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        index = self._get_variable_index(variable)
        dtype = variable.dtype

        def scalar(value: Any) -> tf.Tensor:
            return tf.cast(value, dtype)

        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self._mean_squares[index].value.handle,
            mom=self._momentum_buffers[index].value.handle,
            lr=scalar(self.rate_of(variable, learning_rate)),
            rho=scalar(self.rho),
            momentum=scalar(self.momentum),
            epsilon=scalar(self.epsilon),
            grad=tf.cast(tf.convert_to_tensor(gradient), dtype),
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "initial_accumulator": self.initial_accumulator,
        }
