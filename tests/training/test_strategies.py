"""Which strategy a name means, and what it says where it cannot be made."""

import json
import os
import warnings

import pytest
import tensorflow as tf

from keras_mobilenets.cluster import Task
from keras_mobilenets.errors import UsageError
from keras_mobilenets.training import strategies
from keras_mobilenets.training.distribution import is_chief
from keras_mobilenets.training.strategies import make_strategy


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        ("mirored", {}, "strategy must be one of .*did you mean 'mirrored'"),
        (3, {}, "strategy must be one of .*got 3"),
        ("mirrored", {"cpu_replicas": 0}, "cpu_replicas must .* got 0"),
        ("none", {"cpu_replicas": 2}, "cpu_replicas are for strategy 'mirrored'"),
        ("mirrored", {"cpu_replicas": 64}, "has 2 CPU devices now; got 64"),
        ("mirrored", {"cpu_replicas": 10**23}, "cpu_replicas must .* at most 256"),
        (tf.distribute.get_strategy(), {"cpu_replicas": 2}, "strategy must be one of"),
        (tf.distribute.MirroredStrategy, {}, "strategy must be one of"),
        (None, {}, "strategy must be one of .*got None"),
        ("multi_worker", {}, "needs the addresses of all processes in TF_CONFIG"),
        ("parameter_server", {}, "needs the addresses of all processes"),
    ],
)
def test_impossible_strategies(strategy, options, message, monkeypatch):
    tf.config.list_logical_devices()  # TensorFlow has begun
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match=message):
        make_strategy(strategy, **options)


@pytest.mark.parametrize(
    ("strategy", "cluster", "message"),
    [
        ("multi_worker", {"worker": ["a:1"], "ps": ["b:1"]}, "no parameter servers"),
        ("parameter_server", {"worker": ["a:1"]}, "processes of the job 'ps'"),
        ("parameter_server", {"worker": ["a:1"], "ps": ["b:1"]}, "needs one 'chief'"),
        ("multi_worker", {"worker": ["a:1", "b:1"]}, "before TensorFlow is used"),
    ],
)
def test_clusters_that_do_not_fit(strategy, cluster, message, monkeypatch):
    tf.config.list_logical_devices()  # TensorFlow has begun
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    with pytest.raises(ValueError, match=message):
        make_strategy(strategy)


def test_automatic_choice(monkeypatch, two_replicas):
    monkeypatch.setenv("TF_CONFIG", "")  # as if there were none
    one = make_strategy()  # no GPUs here
    assert "TF_CONFIG" not in os.environ  # TensorFlow would read it as JSON
    assert one.num_replicas_in_sync == 1
    assert is_chief(one)
    assert make_strategy(two_replicas) is two_replicas


@pytest.mark.parametrize(
    ("cluster", "task", "chosen"),
    [
        ({"worker": ["a:1"]}, ("worker", 0), "none"),
        ({"chief": ["a:1"]}, ("chief", 0), "none"),
        ({"worker": ["a:1", "b:1"]}, ("worker", 1), "multi_worker"),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("chief", 0), "multi_worker"),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("worker", 0), "multi_worker"),
        (
            {"chief": ["a:1"], "worker": ["b:1"], "ps": ["c:1"]},
            ("ps", 0),
            "parameter_server",
        ),
    ],
)
def test_a_cluster_chooses_for_all_its_processes(cluster, task, chosen, monkeypatch):
    config = {"cluster": cluster, "task": dict(zip(("type", "index"), task))}  # noqa: B905
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert strategies._automatic(None) == chosen


def test_a_gpu_that_tensorflow_does_not_see(monkeypatch):
    monkeypatch.setattr(strategies, "has_nvidia", lambda: True)
    with pytest.warns(UserWarning, match="NVIDIA device and TensorFlow sees none"):
        make_strategy("none")
    with warnings.catch_warnings(action="error"):  # asked for
        make_strategy("mirrored", cpu_replicas=2)


def test_mirrored_without_gpus_says_so(monkeypatch):
    monkeypatch.setattr(strategies, "_MADE", {})
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda devices: devices)
    with pytest.warns(UserWarning, match="found no GPU, so there is one replica"):
        assert make_strategy("mirrored") is None


def test_a_port_that_is_taken_is_named():
    task = Task({"worker": ["a:1", "b:2"]}, "worker", 1)
    with pytest.raises(UsageError, match="address of worker 1 .*free.*'b:2'"):
        with strategies._listening_at(task):
            raise tf.errors.UnknownError(None, None, "Could not start gRPC server")
