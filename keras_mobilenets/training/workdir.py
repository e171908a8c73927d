"""The work directory: what a run leaves, and how it is found again.

    settings.json    what decides the run, from its beginning
    checkpoints/     states to go on from, while it lasts
    history.csv      one row an epoch; curves.png shows it
    tensorboard/     the same for TensorBoard
    model.keras      the trained network, plain Keras layers
    samples/         a few test images, to try `predict` on
    report.json      accuracy, cost, settings, versions: the run is finished
    timing.json      how long it took

Files appear whole or not at all: written beside, then renamed.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pathlib
from typing import IO, Any

from keras_mobilenets.errors import UsageError

MODEL = "model.keras"
REPORT = "report.json"
SETTINGS = "settings.json"
TIMING = "timing.json"
HISTORY = "history.csv"
CURVES = "curves.png"
TENSORBOARD = "tensorboard"
SAMPLES = "samples"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"

RUNS = "runs"  # parent of the work directories that nobody named


def is_unfinished(path: pathlib.Path) -> bool:
    """Whether a run was begun there that has not come to its end."""
    return (path / SETTINGS).is_file() and not (path / REPORT).is_file()


def is_finished(path: str | os.PathLike[str] | None) -> bool:
    """Whether a run has come to its end there."""
    return path is not None and all(
        (pathlib.Path(path) / name).is_file() for name in (SETTINGS, REPORT)
    )


def check_unused(workdir: str | os.PathLike[str] | None) -> None:
    """Nothing of the user's lies where a run is to be, unless a run to go on with.

    Raises:
        ValueError: the directory asked for exists and holds something else.
    """
    if workdir is None:
        return
    path = pathlib.Path(workdir)
    if is_unfinished(path):
        return
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise UsageError(
            f"workdir {str(path)!r} exists and is not empty; give the name of a new "
            "directory (nothing is overwritten)"
        )


def find_unfinished(workdir: str | os.PathLike[str] | None) -> pathlib.Path:
    """The directory of the run to go on with: that asked for, or the newest in `runs`.

    Raises:
        ValueError: there is none.
    """
    if workdir is not None:
        path = pathlib.Path(workdir)
        if not (path / SETTINGS).is_file():
            raise UsageError(
                f"workdir must hold a run to resume; got {str(path)!r}, which has no "
                f"{SETTINGS}: leave resume out to begin one"
            )
        return path
    begun = sorted(
        pathlib.Path(RUNS).glob(f"*/{SETTINGS}"), key=lambda p: p.stat().st_mtime
    )
    unfinished = [p.parent for p in begun if is_unfinished(p.parent)]
    if not unfinished:
        raise UsageError(
            f"resume needs a run that is not finished; got none in {RUNS}/: name its "
            "workdir, or leave resume out to begin one"
        )
    return unfinished[-1]


def lock(path: pathlib.Path) -> IO[str]:
    """Keep other processes out of a run until the file returned is closed.

    Raises:
        ValueError: another process is in it.
    """
    file = open(path / LOCK, "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise UsageError(
            f"workdir {str(path)!r} is in use by a run that is going on; wait for its "
            "end, or give another directory"
        ) from error
    return file


def make_workdir(workdir: str | os.PathLike[str] | None, label: str) -> pathlib.Path:
    """Make the directory asked for, or the next free `runs/<label>-<number>`.

    Raises:
        ValueError: it is in use, or cannot be made.
    """
    check_unused(workdir)
    path = pathlib.Path(RUNS if workdir is None else workdir)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if workdir is not None:
            return path
        for number in itertools.count(1):
            try:  # making is claiming: a run that starts now gets the next number
                (path / f"{label}-{number}").mkdir()
            except FileExistsError:
                continue
            return path / f"{label}-{number}"
    except OSError as error:
        raise UsageError(
            f"workdir must be a directory that can be made; got {str(path)!r} "
            f"({error.strerror})"
        ) from error


def find_workdir(workdir: str | os.PathLike[str] | None) -> pathlib.Path:
    """The directory of a finished run: the one asked for, or the newest in `runs`.

    Raises:
        ValueError: there is none, or it holds no finished run.
    """
    if workdir is None:
        reports = sorted(
            pathlib.Path(RUNS).glob(f"*/{REPORT}"), key=lambda p: p.stat().st_mtime
        )
        if not reports:
            raise UsageError(
                f"workdir must be given where {RUNS}/ holds no finished run; got none: "
                "run 'keras-mobilenets train' first"
            )
        return reports[-1].parent
    path = pathlib.Path(workdir)
    missing = [name for name in (REPORT, MODEL) if not (path / name).is_file()]
    if missing:
        raise UsageError(
            f"workdir must hold a finished run; got {str(path)!r}, which has no "
            f"{' and no '.join(missing)}"
        )
    return path


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a file, whole or not at all."""
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(text)
    os.replace(beside, path)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write `value` as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_settings(workdir: pathlib.Path) -> dict[str, Any]:
    """What decides the run in a directory.

    Raises:
        ValueError: it is not the JSON that `train` writes.
    """
    try:
        return dict(json.loads((workdir / SETTINGS).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{str(workdir / SETTINGS)!r} is not of this package: {error!r}"
        ) from error


def read_report(workdir: pathlib.Path) -> dict[str, Any]:
    """The report of a finished run.

    Raises:
        ValueError: it is not the JSON that `train` writes.
    """
    try:
        report = json.loads((workdir / REPORT).read_text())
        for field in ("resolution", "recipe", "classes", "data", "data_dir", "seed"):
            report[field]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{str(workdir / REPORT)!r} is not a report of this package: {error!r}"
        ) from error
    return report
