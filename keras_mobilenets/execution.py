"""How a run is carried out: the options of `train` that its result does not depend on.

One field each, as in settings.py. No TensorFlow here.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from keras_mobilenets.architecture.arguments import check_flag
from keras_mobilenets.options import none_or, option, whole
from keras_mobilenets.storage import check_path


def _as_typed(name: str, value: Any) -> str:
    """A path as it was given, which is how it is spoken of."""
    check_path(name, value)
    return os.path.expanduser(os.fspath(value))


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a run is carried out; its result does not depend on it, but for rounding."""

    workdir: str | None = option(
        none_or(_as_typed),
        "a directory that is new or empty, or that of a run to go on with (default "
        "the next free runs/DATA-NUMBER)",
        None,
        text=True,
    )
    strategy: Any = option(
        lambda _, value: value,  # `make_strategy` says what it is not
        "auto (default: TF_CONFIG's cluster, else all GPUs, else one device), none, "
        "mirrored, multi_worker, parameter_server, tpu, or a tf.distribute.Strategy",
        "auto",
        text=True,
    )
    cpu_replicas: int | None = option(
        none_or(whole(1, 1024)),
        "replicas on the CPU, to try mirrored without GPUs",
        None,
    )
    checkpoint_steps: int = option(
        whole(1),
        "steps between checkpoints inside an epoch (default 1000); there is one after "
        "every epoch too",
        1000,
    )
    resume: bool | None = option(
        none_or(check_flag),
        "go on with the run in workdir, or the newest that is not finished, with its "
        "own settings; no refuses to (default: where the settings are the same)",
        None,
    )
    verbose: bool = option(check_flag, "show progress (default)", True)
