"""A run that ends early: all its processes asked to stop, or one left by another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from keras_mobilenets.errors import WorkerLost
from keras_mobilenets.stopping import StopRequest
from keras_mobilenets.training.distribution import is_asynchronous, is_multi_worker


class SharedStop:
    """Whether the processes of a run stop after a step: the same answer in all.

    A step needs every process: one that stopped alone would leave the others waiting.
    So each step carries the wishes of all, `tell_all`, and what was wished during one
    is `agreed` after the next.
    """

    def __init__(self, request: StopRequest, strategy: tf.distribute.Strategy) -> None:
        self._request = request
        self._together = is_multi_worker(strategy)
        if self._together:
            with tf.init_scope():  # outside any scope: each process has its own
                self._mine = tf.Variable(0.0, trainable=False)
                self._all = tf.Variable(0.0, trainable=False)

    def tell_all(self) -> None:
        """To be called in the replica context of every training step."""
        if self._together:
            context = tf.distribute.get_replica_context()
            self._all.assign(context.all_reduce("SUM", tf.identity(self._mine)))

    def agreed(self) -> bool:
        """Whether all stop after the step that was just taken."""
        if not self._together:
            return self._request.wanted
        if self._request.wanted:
            self._mine.assign(1.0)  # heard by all in the next step
        return float(self._all) > 0


@contextlib.contextmanager
def watching_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Within the block TensorFlow's errors of lost processes become `WorkerLost`."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        if is_multi_worker(strategy):
            lost = "another worker stopped answering"
        elif is_asynchronous(strategy):
            lost = "a parameter server, or every worker, stopped answering"
        else:
            raise
        raise WorkerLost(
            f"{lost}, so this process stopped; start all again with the same command: "
            "the run goes on from its last checkpoint"
        ) from error
