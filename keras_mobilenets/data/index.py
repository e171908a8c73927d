"""The index: which examples a run trains on, written down when it begins.

A run resumes on what it began with, whatever has been added to its data, removed or
broken since.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from keras_mobilenets.errors import UsageError
from keras_mobilenets.storage import read_json, write_text

FORMAT = "keras_mobilenets data index 1"


class Index:
    """Which examples are in which split of some data, and with which labels.

    Of a folder: its path and the files, relative to it; of a list or a CSV file, the
    files. Of a TFDS dataset: name and version, where it lies, the splits as TFDS reads
    them, and how many examples are in each of their files. Of arrays and what else is
    in memory: a digest, by which the same images are known. All paths are absolute.

    Example:
        data = km.load_data("photos/", resolution=96)
        data.index.save("runs/photos-1/data.json")
        again = km.load_data("photos/", resolution=96, index="runs/photos-1/data.json")
    """

    def __init__(self, describe: Callable[[], dict[str, Any]]) -> None:
        self._describe = describe

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"format": FORMAT, **self._describe()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all; 1.3 million files take 30 MB."""
        write_text(path, json.dumps(self.as_dict(), separators=(",", ":")) + "\n")


def read_index(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `Index.save` wrote, and "file", its path.

    Checked for its shape, not against the data. UsageError, naming the file, if it is
    no index.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise UsageError(f"index must be the path of a file; got {path!r}")
    value = read_json(path)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise UsageError(f"index {os.fspath(path)!r} is no index of data ({FORMAT})")
    try:
        classes = value["classes"]
        if not isinstance(classes, list) or not classes:
            raise ValueError("classes")
        if not all(isinstance(name, str) for name in classes):
            raise ValueError("classes")
        CHECKS[value["kind"]](value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"index {os.fspath(path)!r} is damaged ({type(error).__name__}: {error})"
        ) from error
    return {**value, "file": os.fspath(path)}


def _check_folder(value: dict[str, Any]) -> None:
    if not os.path.isabs(value["root"]):
        raise ValueError("root")
    _check_files(value)


def _check_list(value: dict[str, Any]) -> None:
    if not isinstance(value["source"], str):
        raise ValueError("source")
    known = range(len(value["classes"]))
    for label_set in value.get("label_sets", []):
        if not all(type(label) is int and label in known for label in label_set):
            raise ValueError("a label")
    _check_files(value)
    for split in ("train", "validation", "test"):
        if not all(os.path.isabs(folder) for _, folder, _ in value["parts"][split]):
            raise ValueError("a folder")


def _check_files(value: dict[str, Any]) -> None:
    known = range(len(value.get("label_sets", value["classes"])))
    for split in ("train", "validation", "test"):
        for label, folder, names in value["parts"][split]:
            if type(label) is not int or label not in known:
                raise ValueError("a label")
            if not isinstance(names, list) or not isinstance(folder, str):
                raise ValueError("names of files")
            if not all(isinstance(name, str) and name for name in names):
                raise ValueError("names of files")
        if not any(names for *_, names in value["parts"][split]):
            raise ValueError(f"no file for {split}")


def _check_tfds(value: dict[str, Any]) -> None:
    for key in ("name", "data_dir"):
        if not isinstance(value[key], str):
            raise ValueError(key)
    for split in ("train", "validation", "test"):
        if not isinstance(value["parts"][split]["split"], str):
            raise ValueError("a split")


def _check_memory(value: dict[str, Any]) -> None:
    if not isinstance(value["source"], str):
        raise ValueError("source")
    for split in ("train", "validation", "test"):
        if type(value["parts"][split]["examples"]) is not int:
            raise ValueError("examples")


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "folder": _check_folder,
    "files": _check_list,
    "tfds": _check_tfds,
    "memory": _check_memory,
}
