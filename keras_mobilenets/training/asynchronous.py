"""Asynchronous training with parameter servers, as the papers' 16 workers did.

Keras 3's `fit` knows no parameter servers. Here the chief hands out steps through
TensorFlow's ClusterCoordinator; every worker reads the data in an order of its own,
computes gradients from the variables as it finds them, and updates them at once.
A worker that is lost gets its step done by another.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_mobilenets.data import Splits
from keras_mobilenets.training.inference import Measure, make_measure

ROUND = 20  # steps of each worker between two looks at the run


def measure_copy(model: keras.Model) -> Measure:
    """As `make_measure`, by a copy on the chief: workers know only training steps."""
    copy = keras.Model.from_config(model.get_config())
    inner = make_measure(copy)

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
    def step(batches: Any) -> None:
        strategy.run(model.train_step, args=(next(batches),))

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
    heard.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        model.reset_metrics()
        heard.on_epoch_begin(epoch)
        done = 0
        while done < steps_per_epoch:
            size = min(ROUND * workers, steps_per_epoch - done)
            for _ in range(size):
                coordinator.schedule(step, args=(iterator,))
            coordinator.join()
            done += size
            heard.on_train_batch_end(done - 1, _logs(model))
        heard.on_epoch_end(epoch, _logs(model))
        if model.stop_training:
            break
    heard.on_train_end()


def _logs(model: keras.Model) -> dict[str, float]:
    return {name: float(value) for name, value in model.get_metrics_result().items()}
