"""Files that appear whole or not at all, and JSON that is not trusted.

Everything that this package writes goes through `replacing`; everything that it reads
back as JSON through `read_json`, for a file of ours may be damaged, or another's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import shutil
import sys
import warnings
from collections.abc import Iterator
from typing import IO, Any

from keras_mobilenets.errors import UsageError

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class InUse(UsageError):
    """Another process has it; it may be free later."""


LOCKED = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # what says that another has it
LONGEST_NAME = 255  # bytes of a part of a path, on every common file system
PARTIAL = ".partial-"  # begins the name of a file that is being written


def check_path(name: str, value: Any) -> str:
    """A path, absolute, its `~` expanded; it need not exist."""
    if not isinstance(value, (str, os.PathLike)):
        raise UsageError(f"{name} must be a path; got {value!r}")
    path = os.fspath(value)
    if not path or not isinstance(path, str) or "\0" in path:
        raise UsageError(f"{name} must be a path of at least one letter; got {path!r}")
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.split(os.sep)):
        raise UsageError(
            f"{name} must be a path whose names have at most {LONGEST_NAME} bytes; "
            f"got {path!r}"
        )
    expanded = os.path.expanduser(path)
    if expanded.startswith("~") and not os.path.exists(path):
        raise UsageError(f"{name} must be a path; got {path!r}: there is no such user")
    return os.path.abspath(expanded)


def check_new_file(name: str, value: Any, suffix: str) -> pathlib.Path:
    """Where a file of this suffix can be written, before the work for it is done."""
    file = pathlib.Path(check_path(name, value))
    if file.suffix.lower() != suffix:
        raise UsageError(
            f"{name} must be a {suffix[1:].upper()} file, such as 'this{suffix}'; got "
            f"{os.fspath(value)!r}"
        )
    if os.path.lexists(file):
        raise UsageError(f"{name} must be a new file; {os.fspath(value)!r} exists")
    if not os.access(file.parent, os.W_OK):
        raise UsageError(
            f"{name} must be in a folder that can be written; got {os.fspath(value)!r}"
        )
    return file


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A path to write to; at the end of the block that file becomes `path`.

    Where the block raises, `path` is what it was before, and nothing is left beside
    it. Processes may write the same path at once: the last to end wins.

    Raises:
        UsageError: `path` is no file's, or that of a device, a pipe or a folder: a
            rename would put a file in the place of /dev/null.

    Example:
        with replacing("report.json") as beside:
            beside.write_text("{}")
    """
    given = path
    wrong = not isinstance(path, (str, os.PathLike)) or "\0" in str(path)
    path = pathlib.Path("" if wrong else path)
    if not path.name or (path.exists() and not path.is_file()):
        raise UsageError(f"path must be that of a file to write; got {given!r}")
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


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A folder to fill with files; at the end of the block it becomes `path`.

    `path` is not there yet, or an empty folder. Where the block raises, nothing is left
    of what was made.

    Example:
        with new_folder("report") as beside:
            write_json(beside / "report.json", {})
    """
    path = pathlib.Path(os.path.realpath(path))
    beside = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    made = [parent for parent in (beside, *beside.parents) if not parent.exists()]
    try:
        beside.mkdir(parents=True)
        yield beside
        if path.is_dir():
            path.rmdir()  # Windows renames to nothing that exists
        os.rename(beside, path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        for folder in made[1:]:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def lock(path: str | os.PathLike[str]) -> IO[str]:
    """Keep other processes out of what `path` stands for, until the file is closed.

    Raises:
        InUse: another process has it.
    """
    while True:
        file = open(path, "a")
        try:
            _lock(file)
        except OSError as error:
            if error.errno in LOCKED:
                file.close()
                raise InUse(
                    f"{os.fspath(pathlib.Path(path).parent)!r} is in use by a run that "
                    "is going on; wait for its end, or give another directory"
                ) from error
            warnings.warn(  # a file system without locks
                f"{os.fspath(path)!r} cannot be locked ({error.strerror}): see to it "
                "that no other process uses its directory",
                stacklevel=2,
            )
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                return file
        file.close()  # its owner removed it when we had just opened it


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, whole or not at all, in UTF-8 whatever the locale."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def json_value(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds.

    Raises:
        UsageError: it cannot be read, or is not JSON.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("not a file")  # a pipe would wait, /dev/zero not end
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        shown = os.fspath(path) if isinstance(path, os.PathLike) else path
        raise UsageError(f"{shown!r} cannot be read as JSON ({reason})") from error
