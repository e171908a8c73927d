"""The directory of a search: whose it is, what it was started with, who is in it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from typing import Any

from keras_mobilenets.errors import UsageError
from keras_mobilenets.training.workdir import RUNS, lock, make_workdir, write_json
from keras_mobilenets.tuning.hypermodel import HyperMobileNet

SETTINGS = "search.json"


def identify(hypermodel: HyperMobileNet, more: dict[str, Any]) -> dict[str, Any]:
    """The settings that make a search the same one, as JSON keeps them."""
    arguments = {k: v for k, v in hypermodel.arguments.items() if k != "recipe"}
    recipes = {n: r.as_dict() for n, r in hypermodel.recipes.items()}
    identity = {**arguments, "recipes": recipes, **more}
    return json.loads(json.dumps(identity, default=_plain))


def _plain(value: Any) -> str:
    return value.__qualname__ if callable(value) else os.fspath(value)


def claim(
    stack: contextlib.ExitStack,
    directory: str | os.PathLike[str] | None,
    label: str,
    identity: dict[str, Any],
) -> pathlib.Path:
    """The directory of a search, new or to go on in, and nobody else's until it ends.

    Raises:
        ValueError: it holds something else, or is in use.
    """
    if directory is None:
        found = pathlib.Path(RUNS).glob(f"search-{label}-*/{SETTINGS}")
        for file in sorted(found, key=lambda p: p.stat().st_mtime, reverse=True):
            with contextlib.suppress(ValueError):  # damaged, or another one is in it
                kept = _read_settings(file.parent)
                if kept == {"finished": False, "settings": identity}:
                    stack.enter_context(lock(file.parent))
                    return file.parent
        path = make_workdir(None, f"search-{label}")
    else:
        path = pathlib.Path(directory)
        if not (path / SETTINGS).is_file():
            try:
                path = make_workdir(path, label)
            except ValueError as error:  # `train` has another word for it
                raise UsageError(
                    str(error).replace("workdir", "directory", 1)
                ) from None
    stack.enter_context(lock(path))
    if (path / SETTINGS).is_file():
        kept = _read_settings(path).get("settings", {})
        for name in {**kept, **identity}:
            if kept.get(name) != identity.get(name):
                raise UsageError(
                    f"directory {str(path)!r} holds a search with {name}="
                    f"{kept.get(name)!r}, not {identity.get(name)!r}; give it what it "
                    "was started with, or name another directory"
                )
    write_json(path / SETTINGS, {"finished": False, "settings": identity})
    return path


def _read_settings(path: pathlib.Path) -> dict[str, Any]:
    """What a search was started with, and whether it is finished."""
    try:
        return dict(json.loads((path / SETTINGS).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{str(path / SETTINGS)!r} is not that of a search ({error})"
        ) from error


def finish(path: pathlib.Path) -> None:
    """Write that nothing is left to do, so that no other search takes it up."""
    write_json(path / SETTINGS, {**_read_settings(path), "finished": True})
