"""The work directory of a run: what lies where, who uses it, and which one to take.

A run leaves, in this order:

    settings.json    what decides it, written at the beginning
    data.json        the index of its data: which images it is about
    checkpoints/     states to go on from, while it lasts
    history.csv      one row an epoch; curves.png shows it
    tensorboard/     the same for TensorBoard
    model.keras      the trained network, plain Keras layers
    model_card.md    what it is, how good, on what, and how to make it again
    samples/         a few test images, to try `predict` on
    timing.json      how long it took
    report.json      accuracy, cost, settings, versions: the run is finished

Files appear whole or not at all. What a run that was killed has left half done is
nobody's, and is cleared away by the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from keras_mobilenets import storage
from keras_mobilenets.errors import UsageError
from keras_mobilenets.settings import Settings, make_settings
from keras_mobilenets.storage import check_path
from keras_mobilenets.weight_files import RUN_MODEL, RUN_REPORT, RUN_SETTINGS

MODEL, REPORT, SETTINGS = RUN_MODEL, RUN_REPORT, RUN_SETTINGS
TIMING = "timing.json"
HISTORY = "history.csv"
CURVES = "curves.png"
TENSORBOARD = "tensorboard"
CARD = "model_card.md"
SAMPLES = "samples"
CHECKPOINTS = "checkpoints"
INDEX = "data.json"
LOCK = ".lock"

RUNS = "runs"  # parent of the work directories that nobody named


def is_unfinished(path: pathlib.Path) -> bool:
    """Whether a run was begun there that has not come to its end."""
    return (path / SETTINGS).is_file() and not (path / REPORT).is_file()


def is_finished(path: pathlib.Path) -> bool:
    """Whether a run has come to its end there."""
    return (path / SETTINGS).is_file() and (path / REPORT).is_file()


def _is_leftover(path: pathlib.Path) -> bool:
    """Whether a command that was killed while it began has left it."""
    return path.name == LOCK or path.name.startswith(storage.PARTIAL)


def check_unused(path: pathlib.Path, argument: str = "workdir") -> None:
    """Nothing of the user's lies where a run is to be, unless a run to go on with.

    Raises:
        UsageError: the directory asked for exists and holds something else.
    """
    if not is_unfinished(path):
        check_new(path, argument)


def check_new(path: pathlib.Path, argument: str) -> None:
    """A folder of that name can be made: nothing lies there, or an empty one does.

    Raises:
        UsageError: something does, or it would lie in what cannot be written.
    """
    used = path.exists() or path.is_symlink()
    if path.is_dir():
        used = not all(map(_is_leftover, path.iterdir()))
    if used:
        raise UsageError(
            f"{argument} {str(path)!r} exists and is not empty; give the name of a new "
            "directory (nothing is overwritten)"
        )
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not os.access(above, os.W_OK) or not above.is_dir():
        reason = "cannot be written" if above.is_dir() else "is a file"
        raise UsageError(
            f"{argument} must be a directory that can be made and written; got "
            f"{str(path)!r} ({str(above)!r} {reason})"
        )


def find_unfinished(workdir: str | os.PathLike[str] | None) -> pathlib.Path:
    """The directory of the run to go on with: that asked for, or the newest in `runs`.

    Raises:
        UsageError: there is none.
    """
    if workdir is not None:
        path = pathlib.Path(workdir)
        if not (path / SETTINGS).is_file():
            raise UsageError(
                f"workdir must hold a run to resume; got {str(path)!r}, which has no "
                f"{SETTINGS}: leave resume out to begin one"
            )
        return path
    unfinished = [path for path in _runs_with(SETTINGS) if is_unfinished(path)]
    if not unfinished:
        raise UsageError(
            f"resume needs a run that is not finished; got none in {RUNS}/: name its "
            "workdir, or leave resume out to begin one"
        )
    return unfinished[-1]


def find_finished(workdir: str | os.PathLike[str] | None) -> pathlib.Path:
    """The directory of a finished run: the one asked for, or the newest in `runs`.

    Raises:
        UsageError: there is none, or it holds no finished run.
    """
    if workdir is None:
        finished = _runs_with(REPORT)
        if not finished:
            raise UsageError(
                f"workdir must be given where {RUNS}/ holds no finished run; got none: "
                "run 'keras-mobilenets train' first"
            )
        return finished[-1]
    check_path("workdir", workdir)
    path = pathlib.Path(workdir).expanduser()
    missing = [name for name in (REPORT, MODEL) if not (path / name).is_file()]
    if missing:
        raise UsageError(
            f"workdir must hold a finished run; got {str(path)!r}, which has no "
            f"{' and no '.join(missing)}"
        )
    return path


def _runs_with(name: str) -> list[pathlib.Path]:
    """The directories in `runs` that have such a file, the newest file last."""
    dated = []
    for file in pathlib.Path(RUNS).glob(f"*/{name}"):
        with contextlib.suppress(OSError):  # gone since
            dated.append((file.stat().st_mtime_ns, file.parent))
    return [path for _, path in sorted(dated)]


@contextlib.contextmanager
def claim(
    workdir: str | os.PathLike[str] | None,
    label: str,
    *,
    mark: str = SETTINGS,
    argument: str = "workdir",
) -> Iterator[pathlib.Path]:
    """The directory asked for, or the next free `runs/<label>-<number>`, locked.

    Nobody else's until the end of the block. Where the block ends before the file
    `mark` is written, nothing is left of what was made for it. `argument` is what the
    directory is called.

    Raises:
        UsageError: it is in use, holds something else, or cannot be made.
    """
    if workdir is None:
        path = _next_free(label)
    else:
        path = pathlib.Path(workdir)
        if not (path / mark).is_file():
            check_unused(path, argument)
    made = [parent for parent in (path, *path.parents) if not parent.exists()]
    if workdir is None:
        made = [path]
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = storage.lock(path / LOCK)
    except OSError as error:
        _remove_empty(made)
        raise UsageError(
            f"{argument} must be a directory that can be made and written; got "
            f"{str(path)!r} ({error.strerror})"
        ) from error
    try:
        with file:
            clear_leftovers(path)
            yield path
    finally:
        with contextlib.suppress(OSError):
            (path / LOCK).unlink(missing_ok=True)
        if not (path / mark).exists():
            clear_leftovers(path)
            with contextlib.suppress(OSError):
                (path / INDEX).unlink(missing_ok=True)
            _remove_empty(made)


def _next_free(label: str) -> pathlib.Path:
    parent = pathlib.Path(RUNS)
    label = label[:100]  # a file name may have 255 bytes
    try:
        parent.mkdir(exist_ok=True)
        for number in itertools.count(1):
            path = parent / f"{label}-{number}"
            try:  # making is claiming: a run that starts now gets the next number
                path.mkdir()
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise UsageError(
            f"workdir must be given where {RUNS}/ cannot be made or written "
            f"({error.strerror})"
        ) from error
    raise AssertionError("unreachable")


def _remove_empty(folders: list[pathlib.Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # something else is in it by now
            folder.rmdir()
    if folders and folders[-1].parent == pathlib.Path(RUNS):
        with contextlib.suppress(OSError):
            pathlib.Path(RUNS).rmdir()


def clear_leftovers(path: pathlib.Path) -> None:
    """Remove what a process that was killed has left half written, if any."""
    for file in path.glob(f"{storage.PARTIAL}*"):
        with contextlib.suppress(OSError):
            file.unlink()
    if is_finished(path):  # killed between its report and tidying up
        shutil.rmtree(path / CHECKPOINTS, ignore_errors=True)


def read_settings(workdir: pathlib.Path) -> tuple[Settings, dict[str, Any]]:
    """What decides the run in a directory, and all that was written down with it.

    Raises:
        UsageError: it is not what `train` writes.
    """
    return _settings_in(workdir / SETTINGS, required=())


def read_report(workdir: pathlib.Path) -> tuple[Settings, dict[str, Any]]:
    """The settings and the report of a finished run.

    Raises:
        UsageError: it is not what `train` writes.
    """
    return _settings_in(workdir / REPORT, required=("classes", "epochs"))


def _settings_in(
    path: pathlib.Path, required: tuple[str, ...]
) -> tuple[Settings, dict[str, Any]]:
    stored = storage.read_json(path)
    try:
        if not isinstance(stored, Mapping):
            raise UsageError("it holds no mapping")
        stored = {"name": None, "recipe": None, **stored}
        # A report's "weights" are those of its model.
        initial = stored.get("initial_weights", stored.get("weights"))
        settings = make_settings({}, stored | {"weights": initial})
        missing = [field for field in required if field not in stored]
        if missing:
            raise UsageError(f"it has no {missing[0]}")
        classes = stored.get("classes", [])
        if not isinstance(classes, list) or not all(
            isinstance(name, str) for name in classes
        ):
            raise UsageError("its classes must be a list of names")
    except UsageError as error:
        raise UsageError(
            f"{str(path)!r} is not of this package, or damaged: {error}"
        ) from error
    return settings, dict(stored)
