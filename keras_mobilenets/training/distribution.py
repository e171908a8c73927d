"""Which devices a run trains on, and what its processes say to each other."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

import numpy as np
import tensorflow as tf

from keras_mobilenets import cluster
from keras_mobilenets.architecture.arguments import check_choice, check_integer
from keras_mobilenets.cluster import EXAMPLE, VARIABLE, Task, read_task
from keras_mobilenets.data import Splits
from keras_mobilenets.errors import UsageError
from keras_mobilenets.recipe import Recipe
from keras_mobilenets.startup import has_nvidia
from keras_mobilenets.stopping import keeping_handlers, stop_requests

# Strategies that exist already: two MirroredStrategy objects in one process number
# their CPU collectives alike, and the second fails on the shapes of the first.
_MADE: dict[tuple[str, int | None], tf.distribute.Strategy] = {}

MAX_CPU_REPLICAS = 256  # each is a copy of the model, in turns on the same cores

CHIEF_GONE = 30.0  # seconds after which a worker or server takes the chief for ended

LONGEST_TEXT = 2**15  # bytes that the processes of a run can tell each other

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


def describe_devices(strategy: tf.distribute.Strategy) -> str:
    """What a run under `strategy` computes on, in words.

    Such as "1 CPU", "4 GPUs (NVIDIA H100 80GB HBM3)", or "1 GPU (Tesla T4) in each of 2
    processes". Not verified on GPUs.
    """
    if is_asynchronous(strategy):
        return f"{strategy.extended._num_workers} workers, each with devices of its own"
    try:
        names = strategy.extended.worker_devices
    except RuntimeError:  # the default strategy, whose operations go where they can
        found = tf.config.list_logical_devices("GPU")
        names = [(found or tf.config.list_logical_devices("CPU"))[0].name]
    kind = tf.DeviceSpec.from_string(names[0]).device_type
    models = sorted(
        {
            tf.config.experimental.get_device_details(device).get("device_name", "")
            for device in tf.config.list_physical_devices(kind)
        }
        - {""}
    )
    text = f"{len(names)} {kind}{'s' * (len(names) > 1)}"
    text += f" ({', '.join(models)})" * bool(models)
    if is_multi_worker(strategy):
        text += f" in each of {strategy.num_replicas_in_sync // len(names)} processes"
    return text


def is_multi_worker(strategy: tf.distribute.Strategy) -> bool:
    """Whether several processes run the same program in step."""
    multi = tf.distribute.MultiWorkerMirroredStrategy
    # As Keras asks: its `fit` needs mending where this is so.
    return isinstance(strategy, multi) and strategy.extended._in_multi_worker_mode()


def is_asynchronous(strategy: tf.distribute.Strategy) -> bool:
    """Whether workers train each at its own pace."""
    return isinstance(strategy, tf.distribute.ParameterServerStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files and shows progress."""
    if not is_multi_worker(strategy):
        return True
    resolver = strategy.cluster_resolver
    spec = resolver.cluster_spec().as_dict()
    return cluster.is_chief(Task(spec, resolver.task_type, resolver.task_id))


def make_gather(
    strategy: tf.distribute.Strategy, value: Callable[[], tf.Tensor]
) -> Callable[[], np.ndarray]:
    """A function that collects `value()` of every replica of every process.

    `value` is called in each replica and gives a float64 vector of one length; they
    are stacked in the order of replicas. Every process must call at the same point.
    """
    together = is_multi_worker(strategy)

    def row() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        number = tf.cast(context.replica_id_in_sync_group, tf.float64)
        own = tf.concat([tf.reshape(number, [1]), value()], axis=0)[tf.newaxis]
        return context.all_gather(own, axis=0) if together else own

    def all_rows() -> tuple[tf.Tensor, ...]:
        return strategy.experimental_local_results(strategy.run(row))

    if together:  # the collective would be traced at every call
        all_rows = tf.function(all_rows, autograph=False)

    def gather() -> np.ndarray:
        found = all_rows()
        rows = np.array(found[0]) if together else np.concatenate(found)
        return rows[np.argsort(rows[:, 0])][:, 1:]

    return gather


def gather_text(strategy: tf.distribute.Strategy, text: str) -> list[str]:
    """The `text` of every replica of every process; one point for all to call it."""
    if not is_multi_worker(strategy):
        return [text]
    data = np.frombuffer(text.encode()[:LONGEST_TEXT], np.uint8)
    padded = np.zeros(LONGEST_TEXT)
    padded[: len(data)] = data
    rows = make_gather(strategy, lambda: tf.constant(padded))()
    return [
        bytes(row.astype(np.uint8)).rstrip(b"\0").decode(errors="replace")
        for row in rows
    ]


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


def distribute(
    strategy: tf.distribute.Strategy,
    splits: Splits,
    part: str | Callable[[Splits], tf.data.Dataset],
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """One of `splits` as the replicas of `strategy` take it, or "endless".

    Or what a function makes of the splits of a worker.

    One device gets the dataset itself; replicas get their shares of every batch.
    """
    if strategy.num_replicas_in_sync == 1 and not is_multi_worker(strategy):
        return _part(splits, part)
    return strategy.distribute_datasets_from_function(
        lambda context: _part(splits.for_worker(context), part)
    )


def _part(
    splits: Splits, part: str | Callable[[Splits], tf.data.Dataset]
) -> tf.data.Dataset:
    if callable(part):
        return part(splits)
    return splits.endless() if part == "endless" else getattr(splits, part)
