"""The directory of a search: whose it is, what it was started with, who is in it.

search.json      what it was started with; `finished` once nothing is left to do;
                 `measured`, the latencies, where it was asked to measure them
data.npz         the index of its data: which images its trials are about
oracle.json, trials/    see stored_oracle.py
results.json, results.csv, search.png   what it found
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from keras_mobilenets import storage
from keras_mobilenets.errors import UsageError
from keras_mobilenets.training import workdir

SEARCH = "search.json"
INDEX = workdir.INDEX


@contextlib.contextmanager
def claim(
    directory: str | os.PathLike[str] | None, label: str, identity: dict[str, Any]
) -> Iterator[pathlib.Path]:
    """The directory of a search, nobody else's until the end of the block.

    By default that of the unfinished search of the same identity, or a new one. Of a
    new one nothing is left where the block ends before `begin`.

    Raises:
        UsageError: it holds something else or another search, or is in use.
    """
    with contextlib.ExitStack() as stack:
        path = None
        if directory is None:
            for found in _unfinished(label, identity):
                with contextlib.suppress(storage.InUse):
                    path = stack.enter_context(_claim(found, label))
                    break
        if path is None:
            path = stack.enter_context(_claim(directory, label))
        if (path / SEARCH).is_file():
            _check_same(path, identity)
        yield path


def _claim(directory: Any, label: str) -> contextlib.AbstractContextManager:
    return workdir.claim(
        directory, f"search-{label}", mark=SEARCH, argument="directory"
    )


def _unfinished(label: str, identity: dict[str, Any]) -> list[pathlib.Path]:
    """Searches of this identity that were not finished, the newest first."""
    dated = []
    for file in pathlib.Path(workdir.RUNS).glob(f"search-{label}-*/{SEARCH}"):
        try:
            kept = read(file.parent)
        except UsageError as error:
            warnings.warn(f"this search is passed over: {error}", stacklevel=2)
            continue
        if (kept.get("finished"), kept["settings"]) == (False, identity):
            dated.append((file.stat().st_mtime_ns, file.parent))
    return [path for _, path in sorted(dated, reverse=True)]


def _check_same(path: pathlib.Path, identity: dict[str, Any]) -> None:
    kept = read(path)["settings"]
    for name in {**kept, **identity}:
        if kept.get(name) != identity.get(name):
            raise UsageError(
                f"directory {str(path)!r} holds a search with {name}="
                f"{kept.get(name)!r}, not {identity.get(name)!r}; give it what it was "
                "started with, or name another directory"
            )


def read(path: pathlib.Path) -> dict[str, Any]:
    """What a search was started with, whether it is finished, and what it measured."""
    kept = storage.read_json(path / SEARCH)
    if not isinstance(kept, Mapping) or not isinstance(kept.get("settings"), Mapping):
        raise UsageError(f"{str(path / SEARCH)!r} is not that of a search, or damaged")
    return dict(kept)


def begin(
    path: pathlib.Path,
    identity: dict[str, Any],
    index: pathlib.Path,
    measured: Any = None,
) -> None:
    """Write down which images the search is about, what it is, and what it measured.

    `index` is copied, unless the search has one.
    """
    state = {"finished": False, "settings": identity}
    if measured is not None:
        state["measured"] = measured
    try:
        if index.is_file() and not (path / INDEX).is_file():
            with storage.replacing(path / INDEX) as beside:
                shutil.copyfile(index, beside)
        storage.write_json(path / SEARCH, state)
    except OSError as error:
        raise UsageError(
            f"directory must be one that can be written; got {str(path)!r} "
            f"({error.strerror})"
        ) from error


def finish(path: pathlib.Path) -> None:
    """Write that nothing is left to do, so that no other search takes it up."""
    storage.write_json(path / SEARCH, {**read(path), "finished": True})
