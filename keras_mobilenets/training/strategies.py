"""Which devices a run trains on: the strategy of a name, made where it can be."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn

import tensorflow as tf

from keras_mobilenets.architecture.arguments import check_choice, check_integer
from keras_mobilenets.cluster import EXAMPLE, VARIABLE, Task, read_task
from keras_mobilenets.errors import UsageError
from keras_mobilenets.startup import has_nvidia
from keras_mobilenets.stopping import keeping_handlers, stop_requests

# Strategies that exist already: two MirroredStrategy objects in one process number
# their CPU collectives alike, and the second fails on the shapes of the first.
_MADE: dict[tuple[str, int | None], tf.distribute.Strategy] = {}

MAX_CPU_REPLICAS = 256  # each is a copy of the model, in turns on the same cores

CHIEF_GONE = 30.0  # seconds after which a worker or server takes the chief for ended

DESCRIPTIONS = {
    "auto": "TF_CONFIG's cluster where there is one, else all GPUs, else one device",
    "none": "one device",
    "mirrored": "all GPUs of this machine, in step",
    "multi_worker": "the workers of TF_CONFIG, in step",
    "parameter_server": "the workers of TF_CONFIG, asynchronously, as the papers did",
    "tpu": "the TPU that TPU_NAME or the machine offers",
}


def _mirrored(cpus: int | None) -> tf.distribute.Strategy:
    if not cpus and not tf.config.list_physical_devices("GPU"):
        warnings.warn(
            "strategy 'mirrored' found no GPU, so there is one replica, on the CPU",
            stacklevel=3,
        )
    devices = [f"/cpu:{index}" for index in range(cpus)] if cpus else None
    return tf.distribute.MirroredStrategy(devices)


def _task_for(strategy: str) -> Task:
    task = read_task()
    if task is None:
        raise UsageError(
            f"strategy {strategy!r} needs the addresses of all processes in "
            f"{VARIABLE}, such as {EXAMPLE}; got nothing there: set it, or try it on "
            "one machine with 'keras-mobilenets launch -n 2 -- train ...'"
        )
    needed = "ps" if strategy == "parameter_server" else "worker"
    if needed not in task.cluster:
        raise UsageError(
            f"strategy {strategy!r} needs processes of the job {needed!r} in "
            f"{VARIABLE}; got {', '.join(task.cluster)}"
        )
    return task


def _say_who_is_awaited(task: Task) -> None:
    """TensorFlow waits for all processes without a word, and lets no thread speak."""
    others = [
        f"{job} {index} at {address}"
        for job, addresses in task.cluster.items()
        for index, address in enumerate(addresses)
        if (job, index) != (task.job, task.index)
    ]
    if others:
        print(
            f"{task.job} {task.index} waits until all have started: "
            f"{', '.join(others)}",
            file=sys.stderr,
            flush=True,
        )


def _multi_worker(_: int | None) -> tf.distribute.Strategy:
    task = _task_for("multi_worker")
    if task.asynchronous:
        raise UsageError(
            "strategy 'multi_worker' has no parameter servers; got a job 'ps' in "
            f"{VARIABLE}: take it out, or give strategy='parameter_server'"
        )
    _say_who_is_awaited(task)
    try:
        with _listening_at(task):
            return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise UsageError(
            "strategy 'multi_worker' must be made before TensorFlow is used in a "
            f"process; got {error}: call train first, or use the command line"
        ) from error


@contextlib.contextmanager
def _listening_at(task: Task) -> Iterator[None]:
    """Within the block TensorFlow starts to listen at this task's port."""
    try:
        with keeping_handlers():
            yield
    except tf.errors.UnknownError as error:  # TensorFlow has no kind for it
        raise UsageError(
            f"{VARIABLE}'s address of {task.job} {task.index} must have a port that is "
            f"free on its machine; got {task.cluster[task.job][task.index]!r}, where "
            f"TensorFlow cannot listen ({error.message}): end the process that uses "
            "the port, or give another port to all"
        ) from error


def serve(task: Task) -> NoReturn:
    """Be a worker or a parameter server of a chief until that is gone; then exit."""
    with _listening_at(task):
        server = tf.distribute.Server(  # kept: it ends with its object
            tf.train.ClusterSpec(task.cluster),
            job_name=task.job,
            task_index=task.index,
            protocol="grpc",
        )
    host, _, port = task.cluster["chief"][0].rpartition(":")
    seen = None
    with stop_requests() as request, request.deferred():
        # The chief needs its servers to save its state: they stop after it.
        while seen is None or time.monotonic() - seen < CHIEF_GONE:
            try:
                address = (host.strip("[]"), int(port))
                socket.create_connection(address, timeout=5).close()
                seen = time.monotonic()
            except OSError:
                if request.wanted:
                    break
            time.sleep(1)
    del server
    sys.exit(0)


def _parameter_server(_: int | None) -> tf.distribute.Strategy:
    task = _task_for("parameter_server")
    if len(task.cluster.get("chief", ())) != 1 or not task.cluster.get("worker"):
        raise UsageError(
            "strategy 'parameter_server' needs one 'chief', and 'worker's and 'ps' "
            f"beside it, in {VARIABLE}; got {', '.join(task.cluster)}"
        )
    if task.job != "chief":
        serve(task)
    _say_who_is_awaited(task)
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    with _listening_at(task):
        return tf.distribute.ParameterServerStrategy(resolver)


def _tpu(_: int | None) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
    except (ValueError, tf.errors.OpError) as error:
        raise UsageError(f"strategy 'tpu' found no TPU here ({error})") from error
    return tf.distribute.TPUStrategy(resolver)


_MAKERS: dict[str, Callable[[int | None], tf.distribute.Strategy]] = {
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
    "parameter_server": _parameter_server,
    "tpu": _tpu,
}


def _automatic(cpu_replicas: int | None) -> str:
    task = read_task()
    if task is not None and task.asynchronous:
        return "parameter_server"
    if task is not None and task.trainers > 1:
        return "multi_worker"
    several = len(tf.config.list_physical_devices("GPU")) > 1
    return "mirrored" if several or cpu_replicas else "none"


def _split_cpu(count: int) -> None:
    """Make the CPU look like `count` devices."""
    try:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * count,
        )
    except (RuntimeError, ValueError):  # TensorFlow has begun
        pass
    found = len(tf.config.list_logical_devices("CPU"))
    if found < count:
        raise UsageError(
            f"cpu_replicas must be set before TensorFlow is used in a process, which "
            f"has {found} CPU devices now; got {count}"
        )


def _warn_of_unused_gpus() -> None:
    if has_nvidia() and not tf.config.list_physical_devices("GPU"):
        warnings.warn(
            "this machine has an NVIDIA device and TensorFlow sees none, so everything "
            "runs on the CPU: install its libraries (pip install "
            "'tensorflow[and-cuda]') and see what TF_CPP_MIN_LOG_LEVEL=0 shows; "
            "CUDA_VISIBLE_DEVICES=-1 ends this warning",
            stacklevel=3,
        )


def make_strategy(
    strategy: str | tf.distribute.Strategy = "auto",
    cpu_replicas: int | None = None,
) -> tf.distribute.Strategy:
    """The `tf.distribute.Strategy` of that name; one that exists is kept.

    Args:
        strategy: "auto", "none", "mirrored", "multi_worker", "parameter_server",
            "tpu", or a strategy of your own.
        cpu_replicas: replicas on logical CPU devices, to try "mirrored" without GPUs.

    Warns where this machine has an NVIDIA device that TensorFlow does not see.

    Raises:
        UsageError: an unknown name, or one that this machine cannot follow.

    Example:
        with make_strategy("mirrored").scope():
            model = km.build()
    """
    if cpu_replicas is not None:
        cpu_replicas = check_integer(
            "cpu_replicas", cpu_replicas, low=1, high=MAX_CPU_REPLICAS
        )
    else:
        _warn_of_unused_gpus()
    if isinstance(strategy, tf.distribute.Strategy) and cpu_replicas is None:
        return strategy
    check_choice("strategy", strategy, DESCRIPTIONS)
    if cpu_replicas is not None:
        if strategy not in ("auto", "mirrored"):
            raise UsageError(
                "cpu_replicas are for strategy 'mirrored'; got "
                f"cpu_replicas={cpu_replicas} with strategy={strategy!r}"
            )
    if read_task() is None:  # TensorFlow would read an empty text as JSON
        os.environ.pop(VARIABLE, None)
    if strategy == "auto":
        strategy = _automatic(cpu_replicas)
    if cpu_replicas is not None and strategy != "mirrored":
        raise UsageError(
            f"cpu_replicas are for one process; got {cpu_replicas} in a cluster "
            f"({VARIABLE} is set)"
        )
    if strategy == "none":
        return tf.distribute.get_strategy()
    key = (strategy, cpu_replicas)
    if key not in _MADE:
        if cpu_replicas:
            _split_cpu(cpu_replicas)
        _MADE[key] = _MAKERS[strategy](cpu_replicas)
    return _MADE[key]
