"""Files that are named as images and are none: found before a run, and in it."""

from __future__ import annotations

import hashlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_mobilenets.data.images import BMP, JPEG, decode
from keras_mobilenets.errors import UsageError

Broken = dict[str, str]  # path: what is wrong with it

CHUNK = 64  # files a thread takes at a time
KEEP_AFTER = 1.0  # seconds; a quicker check is not worth remembering
TELL_FROM = 20_000  # files; so many take a minute, so say what is going on
SHOWN = 5  # of the broken files, in a message
LOST = 100  # files in a row that break during a run; then the disk is gone


def stamps(paths: Iterable[str]) -> np.ndarray:
    """A number for each file, uint64, that changes when the file does."""
    return np.array([_key(path) for path in paths], np.uint64)


def find_broken(
    paths: Sequence[str], root: str | os.PathLike, keys: np.ndarray | None = None
) -> Broken:
    """Those of the files that cannot be read as images, each with the reason.

    Every file is decoded, as only that tells; several at a time. What was found good
    is remembered, by path, size and time of change, in $XDG_CACHE_HOME (default
    ~/.cache), one file for each `root`, so that the next call is quick. `keys` are
    the files' `stamps`, where they are known.

    >>> find_broken(["photos/cat.jpg", "photos/notes.jpg"], "photos")
    {'photos/notes.jpg': 'not a JPEG, PNG, BMP or GIF image'}
    """
    memory = _memory_of(root)
    known = _recall(memory)
    keys = stamps(paths) if keys is None else keys
    fresh = np.flatnonzero(~np.isin(keys, known))
    if len(fresh) >= TELL_FROM:
        print(f"checking {len(fresh):,} image files, once", file=sys.stderr)
    started = time.perf_counter()
    chunks = [fresh[i : i + CHUNK] for i in range(0, len(fresh), CHUNK)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(lambda chunk: [_reason(paths[i]) for i in chunk], chunks)
        reasons = [reason for chunk in found for reason in chunk]
    broken = {
        paths[i]: reason for i, reason in zip(fresh, reasons, strict=True) if reason
    }
    if time.perf_counter() - started > KEEP_AFTER:
        good = [reason is None for reason in reasons]
        _remember(memory, np.union1d(keys[np.isin(keys, known)], keys[fresh[good]]))
    return broken


def _reason(path: str) -> str | None:
    """What is wrong with a file; None if it is an image."""
    try:
        encoded = Path(path).read_bytes()
    except OSError as error:
        return error.strerror.lower() if error.strerror else str(error)
    if not encoded:
        return "empty"
    if encoded.startswith(BMP) and not path.lower().endswith(".bmp"):
        return "a BMP image, but not named .bmp"
    try:
        if encoded.startswith(JPEG):
            # An eighth of the size takes half the time, and reads as many bytes.
            tf.io.decode_jpeg(encoded, channels=3, ratio=8)
        else:
            decode(tf.constant(encoded))
    except Exception as error:  # of TensorFlow, NumPy or Pillow, as the damage has it
        if "Unknown image file format" in str(error):
            return "not a JPEG, PNG, BMP or GIF image"
        return "damaged or cut off"
    return None


def _key(path: str) -> int:
    """A file's content, without looking at it."""
    try:
        file = os.stat(path)
        stamp = "\0".join(
            map(str, (file.st_size, file.st_mtime_ns, file.st_mode))
        ) + os.path.abspath(path)
    except OSError:
        stamp = path  # is found broken, and so never remembered
    digest = hashlib.blake2b(os.fsencode(stamp), digest_size=8).digest()
    return int.from_bytes(digest)


def watch(
    paths: Sequence[str],
    labels: Sequence[int],
    keys: np.ndarray,
    answer: Callable[[Broken, str], None],
    where: str,
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A check of good files again, just before they are decoded.

    Gives a function from numbers of files to paths, labels, and whether each is the
    file asked for. A file whose stamp is no longer that in `keys` is read; if it has
    broken, `answer` is told of it, once, and the next good file stands in. ValueError
    if `LOST` files in a row have broken. The price is the time of a stat a file; what
    breaks without a trace in the directory still ends a run.

    >>> watch(paths, labels, stamps(paths), ANSWERS["skip"], "photos")(np.array([0]))
    (array([b'photos/cat/0.jpg'], dtype=object), array([0]), array([ True]))
    """
    keys = keys.copy()
    found: Broken = {}

    def good(number: int) -> bool:
        path, key = paths[number], _key(paths[number])
        if key == keys[number]:
            return True
        reason = _reason(path)
        if reason is None:  # another image by now
            keys[number] = key
        elif path not in found:
            answer({path: reason, **found}, where)
            found[path] = reason
        return reason is None

    def stand_in(number: int) -> int:
        row = min(LOST, len(paths))
        for other in range(number, number + row):
            if good(other % len(paths)):
                return other % len(paths)
        raise UsageError(
            f"source has lost {row} files in a row, {paths[number]!r} the first "
            f"({found[paths[number]]}); is {where!r} still there?"
        )

    def check(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chosen = [stand_in(number) for number in numbers.tolist()]
        return (
            np.array([os.fsencode(paths[number]) for number in chosen], object),
            np.array([labels[number] for number in chosen], np.int64),
            numbers == chosen,
        )

    return check


def _memory_of(root: str | os.PathLike) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    name = hashlib.sha256(os.fsencode(os.path.abspath(root))).hexdigest()[:16]
    return cache / "keras_mobilenets" / f"checked-{name}.npy"


def _recall(memory: Path) -> np.ndarray:
    try:
        return np.load(memory).astype(np.uint64)
    except (OSError, ValueError, EOFError):  # not there yet, or no longer whole
        return np.array([], np.uint64)


def _remember(memory: Path, keys: np.ndarray) -> None:
    beside = memory.with_name(f"{memory.name}.{os.getpid()}")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            np.save(file, keys)
        os.replace(beside, memory)
    except OSError:
        pass  # nowhere to write: the next check takes as long as this one


def _listing(broken: Broken, where: str) -> str:
    shown = [f"{path!r} ({reason})" for path, reason in list(broken.items())[:SHOWN]]
    more = len(broken) - len(shown)
    return (
        f"{len(broken):,} file{'s' * (len(broken) != 1)} or folder"
        f"{'s' * (len(broken) != 1)} in {where!r} cannot be read as images: "
        + ", ".join(shown)
        + (f" and {more:,} more" if more else "")
    )


def _skip(broken: Broken, where: str) -> None:
    warnings.warn(
        f"{_listing(broken, where)}; passed over. `keras-mobilenets doctor --data "
        f"{where}` lists all; broken='fail' stops here instead",
        stacklevel=5,  # of load_data
    )


def _fail(broken: Broken, where: str) -> None:
    raise UsageError(
        f"source must hold no broken files with broken='fail'; "
        f"{_listing(broken, where)}; mend or remove them, or pass broken='skip'"
    )


# What `load_data(broken=...)` may be: done with what is broken, if anything is.
ANSWERS: dict[str, Callable[[Broken, str], None]] = {"skip": _skip, "fail": _fail}


def without(files: Iterable[tuple[str, str]], broken: Broken) -> list[tuple[str, str]]:
    """The (class, path) pairs whose file is not broken."""
    return [(name, path) for name, path in files if path not in broken]
