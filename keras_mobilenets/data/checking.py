"""Files that are named as images and are none: found before a run, and in it."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_mobilenets.data.decoding import decode
from keras_mobilenets.data.headers import (
    MAX_DECODED_BYTES,
    MAX_FILE_BYTES,
    read_header,
)
from keras_mobilenets.errors import UsageError
from keras_mobilenets.storage import replacing

Broken = dict[str, str]  # path: what is wrong with it

BMP_SUFFIXES = (".bmp", ".dib")
DARK = 4095  # the most, in 16 bits, of an image that is too dark in 8
CHUNK = 64  # files a thread takes at a time
KEEP_AFTER = 1.0  # seconds; a quicker check is not worth remembering
TELL_FROM = 20_000  # files; so many take a minute, so say what is going on
SHOWN = 5  # of the broken files, in a message
MAX_LOST = 100  # files in a row that break during a run; then the disk is gone


def read_regular(path: str) -> bytes:
    """The bytes of a regular file; nothing else is opened.

    A pipe would be waited for, and some devices have no end. OSError as `open`;
    ValueError, in words that fit behind the path, if it is of another kind or larger
    than `MAX_FILE_BYTES`.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        raise ValueError(f"{status.st_size:,} bytes, more than {MAX_FILE_BYTES:,}")
    return Path(path).read_bytes()


def problem(encoded: bytes, suffix: str = ".bmp") -> str | None:
    """Why encoded bytes cannot be used as an image; None if they can.

    The size that they claim is looked at first: more than `MAX_DECODED_BYTES` are not
    decoded. `suffix` is that of the file's name.

    >>> problem(b"text")
    'not a JPEG, PNG, BMP, GIF or WebP image'
    """
    if not encoded:
        return "empty"
    try:
        header = read_header(encoded)
    except ValueError as error:
        return str(error)
    if header.kind == "BMP" and suffix not in BMP_SUFFIXES:
        return "a BMP image, but not named .bmp"
    if header.kind == "WebP" and header.frames > 1:
        return "an animated WebP image"
    if header.decoded_bytes > MAX_DECODED_BYTES:
        many = f"{header.frames:,} frames of " if header.frames > 1 else ""
        return (
            f"{many}{header.width:,} x {header.height:,} pixels are more than "
            f"{MAX_DECODED_BYTES // 3:,}: make it smaller"
        )
    try:
        if header.kind == "JPEG":
            # An eighth of the size takes half the time, and reads as many bytes.
            tf.io.decode_jpeg(encoded, channels=3, ratio=8)
        else:
            decode(tf.constant(encoded))
            if header.bits == 16:
                return _dark(encoded)
    except Exception:  # of TensorFlow, NumPy or Pillow, as the damage has it
        return "damaged or cut off"
    return None


def _dark(encoded: bytes) -> str | None:
    """Of a PNG of 16 bits the upper 8 are used: something must be left in them.

    Cameras' 12 bits, up to 4,095, would leave 16 levels.
    """
    values = tf.io.decode_png(encoded, dtype=tf.uint16).numpy()
    if values.shape[-1] in (2, 4):
        values = values[..., :-1]  # without alpha
    if 0 < values.max() <= DARK:
        return (
            f"16 bits whose values reach {values.max()} of 65,535, all but black in 8 "
            "bits: save it with 8 bits"
        )
    return None


def _problem_of_file(path: str) -> str | None:
    try:
        encoded = read_regular(path)
    except OSError as error:
        return error.strerror.lower() if error.strerror else str(error)
    except ValueError as error:
        return str(error)
    return problem(encoded, os.path.splitext(path)[1].lower())


def fingerprint(path: str) -> int:
    """A number, uint64, that changes when the file does, without looking into it.

    Of path, size, time of change and permissions; of the path alone where there is no
    such file.
    """
    stamp = b""
    try:
        file = os.stat(path)
        stamp = b"%d\0%d\0%d" % (file.st_size, file.st_mtime_ns, file.st_mode)
    except (OSError, ValueError):
        pass  # is found broken, and so never remembered
    name = os.fsencode(os.path.abspath(path))
    return int.from_bytes(hashlib.blake2b(stamp + name, digest_size=8).digest())


class CheckedFiles:
    """The files of a folder that are known to be good images, by their fingerprints.

    Kept in $XDG_CACHE_HOME (default ~/.cache), one file for each `root`, if finding
    out took more than a second, so that the next run is quick.
    """

    def __init__(self, root: str | os.PathLike) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        name = hashlib.sha256(os.fsencode(os.path.abspath(root))).hexdigest()[:16]
        self._memory = cache / "keras_mobilenets" / f"checked-{name}.npy"
        self._before = self._recall()  # sorted
        self._now: set[int] = set()

    def find_broken(self, paths: Sequence[str]) -> Broken:
        """Those of the files that cannot be used as images, each with the reason.

        Those that are not known to be good are decoded, as only that tells, several
        at a time.
        """
        keys = np.array([fingerprint(path) for path in paths], np.uint64)
        fresh = np.flatnonzero(~self._known(keys))
        if not len(fresh):
            return {}
        if len(fresh) >= TELL_FROM:
            print(f"checking {len(fresh):,} image files, once", file=sys.stderr)
        started = time.perf_counter()
        chunks = [fresh[i : i + CHUNK] for i in range(0, len(fresh), CHUNK)]
        if len(fresh) < CHUNK:  # in a run: a file a thread
            chunks = list(fresh[:, np.newaxis])

        def look(chunk: np.ndarray) -> list[str | None]:
            return [_problem_of_file(paths[number]) for number in chunk]

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            reasons = [reason for some in threads.map(look, chunks) for reason in some]
        found = list(zip(fresh, reasons, strict=True))
        self._now.update(int(keys[number]) for number, reason in found if not reason)
        if time.perf_counter() - started > KEEP_AFTER:
            now = np.array(list(self._now), np.uint64)
            self._remember(np.union1d(self._before, now))
        return {paths[int(number)]: reason for number, reason in found if reason}

    def _known(self, keys: np.ndarray) -> np.ndarray:
        known = np.array([key in self._now for key in keys.tolist()], bool)
        if len(self._before):
            places = np.searchsorted(self._before, keys)
            known |= self._before[np.minimum(places, len(self._before) - 1)] == keys
        return known

    def _recall(self) -> np.ndarray:
        try:
            return np.unique(np.load(self._memory).astype(np.uint64))
        except (OSError, ValueError, EOFError):  # not there yet, or no longer whole
            return np.array([], np.uint64)

    def _remember(self, keys: np.ndarray) -> None:
        try:
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._memory) as beside:
                np.save(beside, keys)
        except OSError:
            pass  # nowhere to write: the next check takes as long as this one


def read_by_number(
    paths: Sequence[str],
    labels: np.ndarray,
    checked: CheckedFiles,
    answer: Callable[[Broken, str], None],
    where: str,
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A function from numbers of files to paths, labels, and whether each is itself.

    Each file is checked again just before it is decoded, at the price of a stat; one
    that has changed is read. If it has broken, `answer` is told of it, once, and the
    next good file stands in. UsageError if `MAX_LOST` files in a row have broken.

    >>> read_by_number(paths, labels, CheckedFiles("photos"), warn, "photos")(
    ...     np.array([0])
    ... )
    (array([b'photos/cat/0.jpg'], dtype=object), array([0]), array([ True]))
    """
    told: Broken = {}

    def broken_among(numbers: Sequence[int] | np.ndarray) -> Broken:
        broken = checked.find_broken([paths[number] for number in numbers])
        for path, reason in broken.items():
            if path not in told:
                answer({path: reason, **told}, where)
                told[path] = reason
        return broken

    def stand_in(number: int) -> int:
        row = min(MAX_LOST, len(paths))
        for other in range(number + 1, number + row):
            if not broken_among([other % len(paths)]):
                return other % len(paths)
        raise UsageError(
            f"source has lost {row} files in a row, {paths[number]!r} the first "
            f"({told[paths[number]]}); is {where!r} still there?"
        )

    def fetch(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        broken = broken_among(numbers)
        chosen = np.array(
            [stand_in(n) if paths[n] in broken else n for n in numbers.tolist()]
            if broken
            else numbers,
            np.int64,
        )
        found = np.array([os.fsencode(paths[number]) for number in chosen], object)
        return found, labels[chosen], numbers == chosen

    return fetch


def listing(broken: Broken, where: str) -> str:
    """How many files of a folder are broken, and what is wrong with the first."""
    shown = [f"{path!r} ({reason})" for path, reason in list(broken.items())[:SHOWN]]
    more = len(broken) - len(shown)
    plural = "s" * (len(broken) != 1)
    return (
        f"{len(broken):,} file{plural} or folder{plural} in {where!r} cannot be read "
        "as images: " + ", ".join(shown) + (f" and {more:,} more" if more else "")
    )


def _skip(broken: Broken, where: str) -> None:
    warnings.warn(
        f"{listing(broken, where)}; passed over. `keras-mobilenets doctor` and "
        "`check_data` list all; broken='fail' stops here instead",
        stacklevel=5,  # of load_data
    )


def _fail(broken: Broken, where: str) -> None:
    raise UsageError(
        f"source must hold no broken files with broken='fail'; "
        f"{listing(broken, where)}; mend or remove them, or pass broken='skip'"
    )


# What `load_data(broken=...)` may be: done with what is broken, if anything is.
ANSWERS: dict[str, Callable[[Broken, str], None]] = {"skip": _skip, "fail": _fail}
