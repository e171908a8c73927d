"""What a run does under its strategy: its data shared out, its processes told apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_mobilenets import cluster
from keras_mobilenets.cluster import Task
from keras_mobilenets.data import Splits

LONGEST_TEXT = 2**15  # bytes that the processes of a run can tell each other


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
