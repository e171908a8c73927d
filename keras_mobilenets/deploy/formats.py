"""The formats that are written and run, by the suffix of a path."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from keras_mobilenets.architecture.arguments import check_choice, shown
from keras_mobilenets.deploy import litert, onnx, saved_model
from keras_mobilenets.deploy.classifier import Classifier
from keras_mobilenets.deploy.conversion import KINDS, Kind
from keras_mobilenets.deploy.network import Network
from keras_mobilenets.errors import UsageError
from keras_mobilenets.storage import check_path

FOLDER = ""  # has no suffix
LARGEST = 2**30  # bytes of a file that is read: no MobileNet has a tenth of it


class Format(NamedTuple):
    """One format: `quantization` -> Kind, and what writes and runs it.

    `write` takes a new path, a network, what is said of it and images for calibration;
    `read` a path and a number of threads. `mark` are bytes that every such file has,
    and where; a folder has none.
    """

    text: str
    kinds: Mapping[str | None, Kind]
    write: Callable[[pathlib.Path, Network, dict[str, Any], np.ndarray], None]
    read: Callable[[pathlib.Path, int], Classifier]
    mark: tuple[int, bytes] | None
    modules: tuple[str, ...] = ()  # of the optional extra of this name
    extra: str = ""

    def check_modules(self) -> None:
        """Raises UsageError where a module is missing, with the command that helps."""
        missing = [name for name in self.modules if find_spec(name) is None]
        if missing:
            raise UsageError(
                f"{self.text} needs {' and '.join(missing)}, which cannot be found: "
                f"pip install 'keras_mobilenets[{self.extra}]'"
            )


FLOAT32: dict[str | None, Kind] = {None: KINDS[None]}
FORMATS = {
    ".tflite": Format(
        "a .tflite file", KINDS, litert.write, litert.read, mark=(4, b"TFL3")
    ),
    ".onnx": Format(
        "an .onnx file",
        FLOAT32,
        onnx.write,
        onnx.read,
        mark=(0, b"\x08"),  # the field of the version, which is the first
        modules=onnx.MODULES,
        extra="onnx",
    ),
    FOLDER: Format(
        "a SavedModel folder", FLOAT32, saved_model.write, saved_model.read, mark=None
    ),
}
# Files of Keras, which are given otherwise.
OF_KERAS = ((0, b"PK\x03\x04"), (0, b"\x89HDF"))
WRITTEN = "a .tflite file, an .onnx file or a SavedModel folder"


def format_of(path: pathlib.Path) -> Format:
    """The format of a path that `check_new_file` let pass."""
    return FORMATS[path.suffix.lower()]


def check_new_file(path: Any, quantization: Any = None) -> pathlib.Path:
    """Where a file of this kind, and the report on it, can be written.

    Raises:
        UsageError: something lies there, or it cannot be written, or is called wrongly;
            its format has no such kind, or needs what is not installed.
    """
    check_choice("quantization", quantization, tuple(KINDS))
    what = f"path must be that of a new file, {WRITTEN}"
    wrong = not isinstance(path, (str, os.PathLike)) or not os.fspath(path)
    if wrong or b"\0" in os.fsencode(path):
        raise UsageError(f"{what}; got {shown(path)}")
    file = pathlib.Path(os.fsdecode(path)).expanduser()
    suffix = file.suffix.lower()
    # ".onnx" has no suffix, and is meant to be no folder.
    if suffix not in FORMATS or (suffix == FOLDER and "." in file.name):
        raise UsageError(
            f"{what}, by its suffix: .tflite, .onnx, or none and no dot at all; got "
            f"{shown(path)}"
        )
    check_path("path", file)
    for new in (file, report_of(file)):
        if os.path.lexists(new):
            raise UsageError(f"path must be a new file; {str(new)!r} exists")
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        raise UsageError(
            f"path must be in a folder that can be written; got {str(file)!r}"
        )
    of = format_of(file)
    if quantization not in of.kinds:
        raise UsageError(
            f"quantization is for .tflite files; got {quantization!r} for {of.text}, "
            f"{str(file)!r}: leave it out, or give a path that ends in .tflite"
        )
    of.check_modules()
    return file


def report_of(file: pathlib.Path) -> pathlib.Path:
    """Where the report on a file is: beside it."""
    return file.with_name(f"{file.name}.json")


def read_classifier(path: str | os.PathLike[str], threads: int = 1) -> Classifier:
    """A file that `export` wrote, ready to run, by what it is, whatever its name.

    No code that comes with it is run.

    Raises:
        UsageError: it is none, or damaged.
    """
    path = check_path("model", path)
    of = FORMATS[format_in(path)]
    of.check_modules()
    try:
        return of.read(pathlib.Path(path), threads)
    except Exception as error:  # of the runtime, zip, JSON, as the damage has it
        raise UsageError(
            f"model must be {of.text}, as km.export writes; {path!r} cannot "
            f"be used: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error


def format_in(path: str) -> str:
    """Of which format a file is by what it is, as a key of FORMATS.

    Raises:
        UsageError: of none.
    """
    what, given = f"model must be {WRITTEN}, as km.export writes", repr(path)
    folder = os.path.isdir(path)
    first = os.path.join(path, saved_model.GRAPH) if folder else path
    if not os.path.isfile(first):
        problem = "not a file"
        if folder:
            problem = f"a folder without {saved_model.GRAPH}; give a run as workdir"
        raise UsageError(f"{what}; got {given}: {problem}")
    if os.path.getsize(first) > LARGEST:
        raise UsageError(f"{what}, of at most {LARGEST:,} bytes; {given} is larger")
    if folder:
        return FOLDER
    with open(path, "rb") as file:
        head = file.read(8)
    for suffix, of in FORMATS.items():
        if of.mark and _has(head, of.mark):
            return suffix
    if any(_has(head, mark) for mark in OF_KERAS):
        raise UsageError(
            f"{what}; got {given}, a file of Keras: give the run that it is of as "
            "workdir, or what km.export makes of it"
        )
    raise UsageError(f"{what}; got {given}, which is none")


def _has(head: bytes, mark: tuple[int, bytes]) -> bool:
    at, text = mark
    return head[at : at + len(text)] == text
