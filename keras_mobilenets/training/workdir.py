"""The work directory: what a run leaves, and how it is found again.

    model.keras      the trained network, plain Keras layers
    report.json      accuracy, cost, settings, versions
    history.csv      one row an epoch; curves.png shows it
    tensorboard/     the same for TensorBoard
    samples/         a few test images, to try `predict` on

Files appear whole or not at all: written beside, then renamed.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
from typing import Any

MODEL = "model.keras"
REPORT = "report.json"
HISTORY = "history.csv"
CURVES = "curves.png"
TENSORBOARD = "tensorboard"
SAMPLES = "samples"
CHECKPOINT = "checkpoint.weights.h5"

RUNS = "runs"  # parent of the work directories that nobody named


def check_unused(workdir: str | os.PathLike[str] | None) -> None:
    """Nothing of the user's lies where a run is to be.

    Raises:
        ValueError: the directory asked for exists and is not empty.
    """
    if workdir is None:
        return
    path = pathlib.Path(workdir)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise ValueError(
            f"workdir {str(path)!r} exists and is not empty; give the name of a new "
            "directory (nothing is overwritten)"
        )


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
        raise ValueError(
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
            raise ValueError(
                f"workdir must be given where {RUNS}/ holds no finished run; got none: "
                "run 'keras-mobilenets train' first"
            )
        return reports[-1].parent
    path = pathlib.Path(workdir)
    missing = [name for name in (REPORT, MODEL) if not (path / name).is_file()]
    if missing:
        raise ValueError(
            f"workdir must hold a finished run; got {str(path)!r}, which has no "
            f"{' and no '.join(missing)}"
        )
    return path


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write `value` as JSON, whole or not at all."""
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(beside, path)


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
        raise ValueError(
            f"{str(workdir / REPORT)!r} is not a report of this package: {error!r}"
        ) from error
    return report
