"""A run that ends early: asked to stop, or left by another of its processes."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_mobilenets.errors import WorkerLost
from keras_mobilenets.training.distribution import is_multi_worker


class StopRequest:
    """SIGTERM as a wish, heard by all processes of a run after the same step."""

    def __init__(self) -> None:
        self._wanted = False
        # Outside any scope: each process has its own.
        with tf.init_scope():
            self._mine = tf.Variable(0.0, trainable=False)
            self._all = tf.Variable(0.0, trainable=False)
        self._shared = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Within the block SIGTERM is heard; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.signal(signal.SIGTERM, self._hear)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)

    def _hear(self, *_: Any) -> None:
        self._wanted = True

    def share(self, model: keras.Model) -> None:
        """Let every training step of a multi-worker run tell all who wants to stop.

        A step needs all processes: one that stops alone would leave the others
        waiting.
        """
        if not is_multi_worker(model.distribute_strategy):
            return
        self._shared = True
        model.train_step.stop_request = self

    def tell_all(self) -> None:
        """Within a replica, in a step: who wants to stop is known to all processes."""
        context = tf.distribute.get_replica_context()
        self._all.assign(context.all_reduce("SUM", tf.identity(self._mine)))

    def agreed(self) -> bool:
        """Whether all stop after the step that was just taken."""
        if not self._shared:
            return self._wanted
        if self._wanted:
            self._mine.assign(1.0)  # heard by all in the next step
        return float(self._all) > 0


@contextlib.contextmanager
def watching_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Within the block TensorFlow's errors of lost workers become `WorkerLost`."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        if not is_multi_worker(strategy):
            raise
        raise WorkerLost(
            "another worker stopped answering, so this one stopped; start all workers "
            "again with the same command: the run goes on from its last checkpoint"
        ) from error
