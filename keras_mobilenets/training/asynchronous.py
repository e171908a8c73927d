"""Asynchronous training with parameter servers, as the papers' 16 workers did.

Keras 3's `fit` knows no parameter servers. Here the chief hands out steps through
TensorFlow's ClusterCoordinator; every worker reads the data in an order of its own,
computes gradients from the variables as it finds them, and updates them at once.
A worker that is lost gets its step done by another.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.data import Splits
from keras_mobilenets.training.counting import Counting
from keras_mobilenets.training.measuring import Measure, make_measure

ROUND = 20  # steps of each worker between two looks at the run


def measure_copy(model: keras.Model, of: Counting) -> Measure:
    """As `make_measure`, by a copy on the chief: workers know only training steps."""
    copy = keras.Model.from_config(model.get_config())
    inner = make_measure(copy, of)

    def measure(batches: Any, verbose: bool = False) -> dict[str, float]:
        copy.set_weights(model.get_weights())
        return inner(batches, verbose)

    return measure


def fit(
    model: keras.Model,
    splits: Splits,
    callbacks: list[keras.callbacks.Callback],
    *,
    initial_epoch: int,
    epochs: int,
    steps_per_epoch: int,
    verbose: bool,
) -> None:
    """`model.fit`, asynchronously; `callbacks` see every so many steps at once."""
    strategy = model.distribute_strategy
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    data = splits.endless(anywhere=True)
    iterator = iter(coordinator.create_per_worker_dataset(data))
    workers = strategy.extended._num_workers

    @tf.function(autograph=False)
    def step(batches: Any) -> dict[str, tf.Tensor]:
        return strategy.run(model.train_step, args=(next(batches),))

    heard = keras.callbacks.CallbackList(
        callbacks,
        add_history=True,
        add_progbar=verbose,
        model=model,
        epochs=epochs,
        steps=steps_per_epoch,
        verbose=int(verbose),
    )
    model.stop_training = False
    model.train_step.choose_phase()  # `fit` is called anew where the next begins
    heard.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        heard.on_epoch_begin(epoch)
        taken: list[dict[str, float]] = []
        while len(taken) < steps_per_epoch:
            size = min(ROUND * workers, steps_per_epoch - len(taken))
            before = int(model.optimizer.iterations.numpy())
            results = [
                coordinator.schedule(step, args=(iterator,)) for _ in range(size)
            ]
            coordinator.join()
            # Keras counts by reading and writing, and workers overtake each other.
            model.optimizer.iterations.assign(before + size)
            taken += [result.fetch() for result in results]
            heard.on_train_batch_end(len(taken) - 1, _means(taken))
        heard.on_epoch_end(epoch, _means(taken))
        if model.stop_training:
            break
    heard.on_train_end()


def _means(taken: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([logs[name] for logs in taken])) for name in taken[0]}
