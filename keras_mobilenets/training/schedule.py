"""The learning rate of every recipe: exponential decay behind a linear warm-up."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_mobilenets.architecture.arguments import (
    check_flag,
    check_integer,
    check_number,
)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class ExponentialDecay(keras.optimizers.schedules.LearningRateSchedule):
    """`tf.compat.v1.train.exponential_decay`, with an optional linear warm-up.

    At step s: learning_rate * decay_rate ** (s / decay_steps), the exponent
    rounded down where `staircase`: the first drop comes exactly at
    s == decay_steps. Before `warmup_steps` the rate climbs linearly from 0 to
    the value it has there (as in TF Model Garden).

    >>> float(ExponentialDecay(0.045, 10, 0.98)(10))  # doctest: +ELLIPSIS
    0.0440...
    """

    def __init__(
        self,
        learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = True,
        warmup_steps: int = 0,
    ):
        super().__init__()
        self.learning_rate = check_number("learning_rate", learning_rate, low=0)
        self.decay_steps = check_integer("decay_steps", decay_steps, low=1)
        self.decay_rate = check_number("decay_rate", decay_rate, low=0)
        self.staircase = check_flag("staircase", staircase)
        self.warmup_steps = check_integer("warmup_steps", warmup_steps, low=0)

    def __call__(self, step: Any) -> tf.Tensor:
        # In whole numbers and float64, so that no boundary is missed and 500 drops
        # do not add up to 500 roundings.
        step = tf.cast(step, tf.int64)

        def decayed(at: tf.Tensor) -> tf.Tensor:
            if self.staircase:
                drops = tf.cast(at // self.decay_steps, tf.float64)
            else:
                drops = tf.cast(at, tf.float64) / self.decay_steps
            return self.learning_rate * tf.pow(
                tf.constant(self.decay_rate, tf.float64), drops
            )

        rate = decayed(step)
        if self.warmup_steps:
            reached = tf.cast(step, tf.float64) / self.warmup_steps
            top = decayed(tf.constant(self.warmup_steps, tf.int64))
            rate = tf.where(step < self.warmup_steps, reached * top, rate)
        return tf.cast(rate, keras.config.floatx())

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate,
            "staircase": self.staircase,
            "warmup_steps": self.warmup_steps,
        }
