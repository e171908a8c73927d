"""Sources that are a list of files: a CSV file, or pairs of path and label."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_mobilenets.data.checking import ANSWERS, Broken, CheckedFiles
from keras_mobilenets.data.dividing import Note, divide
from keras_mobilenets.data.files import file_source, ungrouped
from keras_mobilenets.data.parts import PARTS, Source
from keras_mobilenets.data.table import HINT
from keras_mobilenets.errors import UsageError
from keras_mobilenets.given import Label, is_table, label_text

SHOWN = 3  # paths in a message

Rows = Mapping[str, Sequence[tuple[Label, str]]]  # split: (label, absolute path)


def listed_source(
    name: str,
    rows: Rows,
    answer: Callable[[Broken, str], None] = ANSWERS["skip"],
    note: Note = lambda sentence, loses_images: None,
    exif: bool = False,
) -> Source:
    """The source of these rows; `name` is what it is known by.

    A path that is repeated with the same label counts once, which `note` is told.
    Which images go where, if not all splits are there, and in which order,
    `dividing.divide` says: as in a folder of class folders, whose names are the labels.
    Files that cannot be read as images are handed to `answer`, as in a folder.

    UsageError if a file is missing, or is there twice, with different labels or in
    different splits.
    """
    unique = _unique(name, rows, note)
    paths = [path for some in unique.values() for _, path in some]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        first = missing[0] == paths[0]
        raise UsageError(_missing(name, missing, len(paths), first))
    where, checked = _folder(paths), CheckedFiles(_folder(paths))
    broken = checked.find_broken(paths)
    if broken:
        answer(broken, where)
    files = {
        split: [(label, path) for label, path in some if path not in broken]
        for split, some in unique.items()
    }
    divided = divide(files, os.path.basename, repr(name), note)
    described = {"kind": "files", "source": name}
    return file_source(described, *divided, checked, answer, where, exif)


def indexed_listed_source(
    name: str,
    index: dict[str, Any],
    answer: Callable[[Broken, str], None] = ANSWERS["skip"],
    exif: bool = False,
) -> Source:
    """The source that an index names: its files, as they were when it was written.

    The list itself is not needed. UsageError if the index is of another.
    """
    if index["source"] != name:
        raise UsageError(
            f"index {index['file']!r} is of {index['source']!r}; got {name!r}"
        )
    parts = {split: ungrouped(index["parts"][split]) for split in PARTS}
    where = _folder([path for files in parts.values() for _, path in files])
    described = {"kind": "files", "source": name}
    checked = CheckedFiles(where)
    divided = (index["classes"], parts, index.get("label_sets"))
    return file_source(described, *divided, checked, answer, where, exif)


def _unique(name: str, rows: Rows, note: Note) -> dict[str, list[tuple[Label, str]]]:
    """The rows without those that say the same again."""
    seen: dict[str, tuple[str, Label]] = {}
    again = []
    for split, some in rows.items():
        for label, path in some:
            before = seen.setdefault(path, (split, label))
            if before != (split, label):
                what, one, other = "labels", before[1], label
                fix = "keep one of the rows"
                if one == other:
                    what, one, other = "splits", before[0], split
                elif isinstance(one, tuple):
                    fix = "write all labels of an image in one row"
                raise UsageError(
                    f"source {name!r} has {path!r} with two {what}, {_said(one)!r} and "
                    f"{_said(other)!r}: {fix}"
                )
            again.append(path)
    repeated = len(again) - len(seen)
    if repeated:
        note(f"{repeated:,} row{'s' * (repeated != 1)} of {name!r} are repeated", False)
    unique: dict[str, list[tuple[Label, str]]] = {split: [] for split in rows}
    for path, (split, label) in seen.items():
        unique[split].append((label, path))
    return unique


def _said(label: Label) -> Label:
    return label_text(label) if isinstance(label, tuple) else label


def _missing(name: str, missing: list[str], count: int, first: bool) -> str:
    shown = ", ".join(map(repr, missing[:SHOWN])) + ", ..." * (len(missing) > SHOWN)
    if any("\\" in path for path in missing):
        hint = "paths have / between folders"
    elif is_table(name) and first and len(missing) == 1:
        hint = HINT
    elif len(missing) == count:
        hint = "relative paths are taken from the folder of the CSV file, or from here"
    else:
        hint = "remove these rows, or mend them"
    return (
        f"source {name!r} names {len(missing):,} of {count:,} files that are not "
        f"there: {shown}; {hint}"
    )


def _folder(paths: Sequence[str]) -> str:
    """The folder that all of these are in."""
    # The first and the last in alphabetical order have no more in common than all.
    ends = [os.path.dirname(path) for path in (min(paths), max(paths))]
    try:
        return os.path.commonpath(ends)
    except ValueError:  # several drives
        return ends[0]
