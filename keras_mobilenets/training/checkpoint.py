"""The whole state of a training run in one file.

Keras' `save_weights` leaves out the moving averages. A checkpoint holds every
variable of the model (seeds of its random layers included), the optimizer's slots
and step, and the averages, so that a restored model takes exactly the steps that
the saved one would have taken.
"""

from __future__ import annotations

import os
import pathlib
import zipfile

import keras
import numpy as np

from keras_mobilenets.training.averaging import get_average


def _state(model: keras.Model) -> dict[str, keras.Variable]:
    """Every variable of a compiled model, by a name that does not change."""
    average = get_average(model)
    metrics = {id(variable) for variable in model.metrics_variables}
    groups = {
        "model": [v for v in model.variables if id(v) not in metrics],
        "optimizer": model.optimizer.variables,
        "average": [average.flat] if average else [],
    }
    return {
        f"{group}/{index}": variable
        for group, variables in groups.items()
        for index, variable in enumerate(variables)
    }


def save_checkpoint(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Write the state of a compiled model to `path`, whole or not at all.

    Example:
        km.save_checkpoint(model, "run.npz")
    """
    path = pathlib.Path(path)
    beside = path.with_name(f".{path.name}.partial")
    arrays = {name: keras.ops.convert_to_numpy(v) for name, v in _state(model).items()}
    with open(beside, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def restore_checkpoint(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Bring a model back to the state in `path`, all or nothing.

    The model must be built and compiled as the saved one was.

    Raises:
        ValueError: no checkpoint there, or one of another network or recipe.

    Example:
        km.compile(model, "slim_v2", steps_per_epoch=n)
        km.restore_checkpoint(model, "run.npz")
    """
    state = _state(model)
    try:
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"path must be a checkpoint of save_checkpoint; got {str(path)!r} ({error})"
        ) from error
    for name in [*state, *arrays]:
        ours = tuple(state[name].shape) if name in state else None
        theirs = arrays[name].shape if name in arrays else None
        if ours != theirs:
            raise ValueError(
                f"checkpoint {str(path)!r} does not fit: {name} has shape {theirs} "
                f"there and {ours} here; build and compile the model as it was saved "
                "(network, optimizer and ema_decay)"
            )
    for name, variable in state.items():
        variable.assign(arrays[name])
