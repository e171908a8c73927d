"""The whole state of a training run in one file, and which of them to keep.

Keras' `save_weights` leaves out what metrics have counted, and does not write whole or
not at all. A checkpoint holds every variable of the model (seeds of its random layers
included), the optimizer's slots, step and averages, the metrics of every replica and a
note in JSON, so that a restored run takes exactly the steps that the saved one would
have taken, and logs what it would have logged.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.errors import UsageError
from keras_mobilenets.storage import check_path, replacing
from keras_mobilenets.training import values
from keras_mobilenets.training.distribution import (
    is_asynchronous,
    is_chief,
    make_gather,
)
from keras_mobilenets.training.step import check_compiled

METRICS, NOTE = "metrics", "note"
_NONE = np.zeros((1, 0))  # metrics that nobody counted


def _state(model: keras.Model) -> dict[str, keras.Variable]:
    """Every variable of a compiled model, by a name that does not change."""
    check_compiled(model)
    metrics = {id(variable) for variable in model.metrics_variables}
    groups = {
        "model": [v for v in model.variables if id(v) not in metrics],
        "optimizer": model.optimizer.variables,
    }
    return {
        f"{group}/{index}": variable
        for group, variables in groups.items()
        for index, variable in enumerate(variables)
    }


# One trace a model; recompiling gives it other metrics.
_GATHERS: weakref.WeakKeyDictionary[keras.Model, tuple[list[int], Any]] = (
    weakref.WeakKeyDictionary()
)


def count_metrics(model: keras.Model) -> np.ndarray:
    """What the metrics of every replica have counted: [replicas, numbers]."""
    if is_asynchronous(model.distribute_strategy):
        return _NONE  # it does without: see step.py
    variables = model.metrics_variables
    ids = [id(variable) for variable in variables]

    def counted() -> tf.Tensor:
        parts = [tf.reshape(tf.cast(v.value, tf.float64), [-1]) for v in variables]
        return tf.concat([tf.zeros([0], tf.float64), *parts], axis=0)

    if _GATHERS.get(model, (None,))[0] != ids:
        _GATHERS[model] = ids, make_gather(model.distribute_strategy, counted)
    return _GATHERS[model][1]()


def restore_metrics(model: keras.Model, counted: np.ndarray) -> None:
    """Give every replica what its metrics had counted.

    Replicas that no longer exist leave theirs to the others.
    """
    strategy, variables = model.distribute_strategy, model.metrics_variables
    replicas = strategy.num_replicas_in_sync
    rows = np.zeros((replicas, counted.shape[1]))
    for number, row in enumerate(counted):
        rows[number % replicas] += row
    ends = np.cumsum([int(np.prod(v.shape)) for v in variables])

    def assign() -> None:
        context = tf.distribute.get_replica_context()
        row = tf.gather(tf.constant(rows), context.replica_id_in_sync_group)
        for variable, end in zip(variables, ends, strict=True):
            part = row[end - int(np.prod(variable.shape)) : end]
            variable.assign(tf.cast(tf.reshape(part, variable.shape), variable.dtype))

    if variables:
        tf.function(lambda: strategy.run(assign), autograph=False)()


def save_checkpoint(
    model: keras.Model,
    path: str | os.PathLike[str],
    note: Mapping[str, Any] | None = None,
) -> None:
    """Write the state of a compiled model to `path`, whole or not at all.

    `note` is anything JSON can hold; `restore_checkpoint` gives it back. Where
    several processes train in step all call this, and the chief writes.

    Raises:
        UsageError: the model is not compiled; `path` cannot be a file's; `note` is no
            mapping.

    Example:
        km.save_checkpoint(model, "run.npz")
    """
    check_compiled(model)
    if note is not None and not isinstance(note, Mapping):
        raise UsageError(f"note must be a mapping, such as a dict; got {note!r}")
    path = check_path("path", path)
    # The chief alone writes; others may be here before it has made the folder.
    writes = is_chief(model.distribute_strategy)
    if writes and not os.path.isdir(os.path.dirname(path)):
        raise UsageError(f"path must be in a folder that exists; got {path!r}")
    counted = count_metrics(model)
    if not writes:
        return
    arrays: dict[str, Any] = {
        name: _value(variable) for name, variable in _state(model).items()
    }
    arrays[METRICS] = counted
    arrays[NOTE] = np.frombuffer(json.dumps(dict(note or {})).encode(), np.uint8)
    with replacing(path) as beside, open(beside, "wb") as file:
        np.savez(file, **arrays)


def _value(variable: keras.Variable) -> np.ndarray:
    array = values.read(variable)
    # A file of NumPy cannot hold bfloat16, whose values float32 has all.
    return array.astype("float32") if variable.dtype == "bfloat16" else array


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a checkpoint and its note."""
    try:
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        note = json.loads(arrays.pop(NOTE, np.frombuffer(b"{}", np.uint8)).tobytes())
        if any(a.dtype.kind not in "fiub" for a in arrays.values()):
            raise ValueError("it holds other things than numbers")
        if not isinstance(note, dict) or arrays.setdefault(METRICS, _NONE).ndim != 2:
            raise ValueError("its note or its metrics are of another kind")
        return arrays, note
    except Exception as error:  # of zip, NumPy or JSON, as the damage has it
        raise UsageError(
            f"path must be a checkpoint of save_checkpoint; got {str(path)!r} ({error})"
        ) from error


def restore_checkpoint(
    model: keras.Model, path: str | os.PathLike[str]
) -> dict[str, Any]:
    """Bring a model back to the state in `path`, all or nothing.

    The model must be built and compiled as the saved one was; the number of replicas
    may be another.

    Returns:
        The note that was saved with it.

    Raises:
        UsageError: no checkpoint there, or one of another network or recipe; the model
            is not compiled.

    Example:
        km.compile(model, "slim_v2", steps_per_epoch=n)
        km.restore_checkpoint(model, "run.npz")
    """
    state = _state(model)
    path = check_path("path", path)
    arrays, note = _read(path)
    counted = arrays.pop(METRICS)
    for name in [*state, *arrays]:
        ours = tuple(state[name].shape) if name in state else None
        theirs = arrays[name].shape if name in arrays else None
        if ours != theirs:
            raise UsageError(
                f"checkpoint {str(path)!r} does not fit: {name} has shape {theirs} "
                f"there and {ours} here; build and compile the model as it was saved "
                "(network, optimizer and ema_decay)"
            )
    for name, variable in state.items():
        values.write(variable, arrays[name])
    numbers = sum(int(np.prod(v.shape)) for v in model.metrics_variables)
    if counted.shape[1] == numbers:  # metrics of one's own may be others
        restore_metrics(model, counted)
    return note
