"""What of KerasTuner is not public, all of it: nothing else here may use more.

KerasTuner is the engine of a search: its oracles, trials, chief and workers. Some of
what that takes has no public name. It is listed in `PRIVATE`, and given a name of ours
here; a version of KerasTuner that lacks some of it is refused with the names.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer as OracleServicer
from keras_tuner.src.distribute.oracle_client import OracleClient as OracleClient

from keras_mobilenets.errors import UsageError

# Class, and members of it that are used or overridden here.
PRIVATE: tuple[tuple[type, tuple[str, ...]], ...] = (
    (keras_tuner.Oracle, ("_save_trial", "_set_project_dir")),
    (
        keras_tuner.oracles.HyperbandOracle,
        ("_get_epochs", "_get_size", "_increment_bracket_num", "_start_new_bracket"),
    ),
    (OracleServicer, ("CreateTrial", "EndTrial", "GetTrial", "UpdateTrial")),
    (OracleClient, ("create_trial", "end_trial", "update_trial")),
)
# The same of objects, which have them only once they are made.
PRIVATE_OF_OBJECTS: tuple[tuple[Callable[[], Any], tuple[str, ...]], ...] = (
    (
        lambda: keras_tuner.oracles.HyperbandOracle(
            keras_tuner.Objective("val_accuracy", "max")
        ),
        ("_brackets", "_current_bracket", "_current_iteration"),
    ),
)


def missing_members() -> list[str]:
    """What this KerasTuner lacks of all that is used: 'HyperbandOracle._get_size'."""
    objects = [(make(), names) for make, names in PRIVATE_OF_OBJECTS]
    return [
        f"{owner.__name__}.{name}"
        for owner, names in PRIVATE
        for name in names
        if not hasattr(owner, name)
    ] + [
        f"{type(made).__name__}().{name}"
        for made, names in objects
        for name in names
        if not hasattr(made, name)
    ]


if _missing := missing_members():
    raise ImportError(
        f"KerasTuner {keras_tuner.__version__} lacks {', '.join(_missing)}, which a "
        "search uses: install a version that this package declares"
    )


class Oracle(keras_tuner.Oracle):
    """An oracle that says where it is kept and how a trial is."""

    folder: pathlib.Path | None = None  # None: it is not kept

    def save_trial(self, trial: Trial) -> None:
        """Called whenever something about a trial is new."""
        raise NotImplementedError

    def _set_project_dir(self, directory: Any, project_name: str) -> None:
        super()._set_project_dir(directory, project_name)
        self.folder = pathlib.Path(directory, project_name)

    def _save_trial(self, trial: Trial) -> None:
        self.save_trial(trial)


class Hyperband(keras_tuner.oracles.HyperbandOracle):
    """KerasTuner's hyperband: its brackets, their sizes and their epochs."""

    @property
    def brackets(self) -> list[dict[str, Any]]:
        """Each with its number and its rungs, of entries "past_id" and "id"."""
        return self._brackets

    @property
    def in_last_bracket(self) -> bool:
        return (
            self._current_bracket == 0
            and self._current_iteration + 1 == self.hyperband_iterations
        )

    def start_next_bracket(self) -> None:
        self._increment_bracket_num()
        self._start_new_bracket()

    def size_of(self, bracket: int, level: int) -> int:
        """How many trials a rung holds."""
        return self._get_size(bracket, level)

    def epochs_of(self, bracket: int, level: int) -> int:
        """After how many epochs a trial of a rung is judged."""
        return self._get_epochs(bracket, level)


def messages() -> Any:
    """The messages of KerasTuner's protocol."""
    return protos.get_service()


def add_to_server(servicer: OracleServicer, server: Any) -> None:
    """Let a gRPC server answer by a servicer."""
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)


VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


def role() -> str | None:
    """What this process is in KerasTuner's cluster: "chief", "worker", or None.

    Raises:
        UsageError: of the environment variables that say so, some are missing.
    """
    name, address, port = map(os.environ.get, VARIABLES)
    if not address:
        return None
    if not name or not port:
        raise UsageError(
            f"{', '.join(VARIABLES)} must be set together; got "
            f"{', '.join(f'{v}={os.environ.get(v)!r}' for v in VARIABLES)}"
        )
    return "chief" if "chief" in name else "worker"
