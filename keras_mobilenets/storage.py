"""Files that appear whole or not at all, and JSON that is not trusted.

Everything that this package writes goes through `replacing`; everything that it reads
back as JSON through `read_json`, for a file of ours may be damaged, or another's.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from keras_mobilenets.errors import UsageError

PARTIAL = ".partial-"  # begins the name of a file that is being written


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A path to write to; at the end of the block that file becomes `path`.

    Where the block raises, `path` is what it was before, and nothing is left beside
    it. Processes may write the same path at once: the last to end wins.

    Example:
        with replacing("report.json") as beside:
            beside.write_text("{}")
    """
    path = pathlib.Path(path)
    # The suffix stays: Keras and Pillow go by it.
    beside = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield beside
        with open(beside, "rb+") as file:  # on the disk before it is named so
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds.

    Raises:
        UsageError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise UsageError(
            f"{os.fspath(path)!r} cannot be read as JSON ({reason})"
        ) from error
