"""What follows from the number of replicas: images of a step, learning rate."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_mobilenets.recipe import Recipe
from keras_mobilenets.training.distribution import is_asynchronous, is_multi_worker


class Scale(NamedTuple):
    """What follows from the number of replicas, in one place.

    `batch_size` images a step on all `replicas` together (the recipe's batch is that
    of one replica), and the first `learning_rate` after any warm-up, multiplied by
    the replicas where the recipe says so. `workers` processes train; where they do so
    `asynchronous`ly, each step is of one of them alone, by a gradient that the others'
    steps have made stale: where they are more than the recipe's rate was chosen for,
    the rate is divided in proportion (Zhang et al. 2016, arXiv:1511.05950).
    """

    replicas: int
    workers: int
    batch_size: int
    learning_rate: float
    asynchronous: bool = False

    def __str__(self) -> str:
        each = self.batch_size // self.replicas
        where = f" in {self.workers} processes" if self.workers > 1 else ""
        if self.asynchronous:
            where = f" by one of {self.workers} workers"
            return (
                f"{self.batch_size} images a step{where}, rate {self.learning_rate:g}"
            )
        many = f"{self.replicas} replicas{where} x {each} = " * (self.replicas > 1)
        return f"{many}{self.batch_size} images a step, rate {self.learning_rate:g}"


def make_scale(recipe: Recipe, strategy: tf.distribute.Strategy) -> Scale:
    """The sizes of a run of `recipe` under `strategy`."""
    replicas, workers = strategy.num_replicas_in_sync, 1
    learning_rate = recipe.learning_rate
    if recipe.scale_learning_rate:
        learning_rate *= replicas
    asynchronous = is_asynchronous(strategy)
    if asynchronous:
        workers = strategy.extended._num_workers
        learning_rate *= min(1, recipe.asynchronous_workers / workers)
    if is_multi_worker(strategy):
        workers = replicas // len(strategy.extended.worker_devices)
    return Scale(
        replicas, workers, recipe.batch_size * replicas, learning_rate, asynchronous
    )
