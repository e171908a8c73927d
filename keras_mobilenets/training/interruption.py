"""A run that ends early: all its processes asked to stop, or one left by another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_mobilenets.errors import WorkerLost
from keras_mobilenets.stopping import StopRequest as Request
from keras_mobilenets.stopping import stop_requests as stop_requests
from keras_mobilenets.training.distribution import is_asynchronous, is_multi_worker


class SharedStop:
    """Whether the processes of a run stop after a step: the same answer in all.

    A step needs every process: one that stopped alone would leave the others waiting.
    So each step carries the wishes of all, `tell_all`, and what was wished during one
    is `agreed` after the next.
    """

    def __init__(self, request: Request, strategy: tf.distribute.Strategy) -> None:
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


class StopRequest:
    """As `stop_requests` and `SharedStop`, for callers of their older form."""

    def __init__(self) -> None:
        self._request = Request()
        self._shared: SharedStop | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        with stop_requests() as request, request.deferred():
            if self._shared:
                self._shared._request = request
            self._request = request
            yield self

    def share(self, model: keras.Model) -> None:
        shared = self._shared = SharedStop(self._request, model.distribute_strategy)
        step = model.train_step

        def train_step(data: Any) -> dict[str, tf.Tensor]:
            logs = step(data)
            shared.tell_all()
            return logs

        model.train_step = train_step

    def agreed(self) -> bool:
        return self._shared.agreed() if self._shared else self._request.wanted


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
