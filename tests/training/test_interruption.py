"""Stopping and lost processes, in one process; several are in test_distribution."""

import pytest
import tensorflow as tf

from keras_mobilenets.errors import WorkerLost
from keras_mobilenets.stopping import StopRequest
from keras_mobilenets.training import interruption
from keras_mobilenets.training.interruption import SharedStop, watching_workers


def test_a_process_alone_agrees_with_itself():
    request = StopRequest()
    stop = SharedStop(request, tf.distribute.get_strategy())
    stop.tell_all()  # part of every step
    assert not stop.agreed()
    request.wanted = True
    assert stop.agreed()


def test_all_agree_after_the_step_that_tells_them(two_replicas, monkeypatch):
    """Replicas stand for the processes: what one wishes is agreed a step later."""
    monkeypatch.setattr(interruption, "is_multi_worker", lambda strategy: True)
    request = StopRequest()
    stop = SharedStop(request, two_replicas)

    @tf.function(autograph=False)
    def step():
        two_replicas.run(stop.tell_all)

    step()
    assert not stop.agreed()
    request.wanted = True
    assert not stop.agreed()  # the others do not know yet
    step()
    assert stop.agreed()


@pytest.mark.parametrize("error", [tf.errors.UnavailableError, tf.errors.AbortedError])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("is_multi_worker", "another worker stopped answering"),
        ("is_asynchronous", "a parameter server, or every worker, stopped answering"),
    ],
)
def test_a_lost_process_is_one_line(kind, message, error, monkeypatch):
    monkeypatch.setattr(interruption, kind, lambda strategy: True)
    with pytest.raises(WorkerLost, match=message):
        with watching_workers(tf.distribute.get_strategy()):
            raise error(None, None, "Socket closed")


def test_alone_nobody_is_lost():
    with pytest.raises(tf.errors.UnavailableError):
        with watching_workers(tf.distribute.get_strategy()):
            raise tf.errors.UnavailableError(None, None, "of a file system")
