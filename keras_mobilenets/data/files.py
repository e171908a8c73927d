"""Sources whose images are files, however these were found."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mobilenets.data.checking import (
    BMP_SUFFIXES,
    Broken,
    CheckedFiles,
    read_by_number,
)
from keras_mobilenets.data.decoding import read_image
from keras_mobilenets.data.parts import PARTS, Part, Source

Files = list[tuple[int, str]]  # (number of the class or label set, absolute path)


def file_source(
    described: Mapping[str, Any],
    classes: Sequence[str],
    parts: Mapping[str, Files],
    label_sets: Sequence[Sequence[int]] | None,
    checked: CheckedFiles,
    answer: Callable[[Broken, str], None],
    where: str,
    exif: bool,
) -> Source:
    """The source of these files, which are good, or were when they were listed.

    `described` is its index, but for classes and parts; paths below its "root" are
    relative to that. What breaks later is handed to `answer`, as
    `checking.read_by_number` says. `exif` turns images as their EXIF orientation says.
    """
    root = described.get("root", "")
    sets = None if label_sets is None else tuple(map(tuple, label_sets))

    def part(files: Files) -> Part:
        paths = [path for _, path in files]
        labels = np.array([label for label, _ in files], np.int64)
        # A BMP that is named otherwise counts as broken.
        bmp = any(path.lower().endswith(BMP_SUFFIXES) for path in paths)
        return Part(
            examples=lambda: tf.data.Dataset.from_tensor_slices(
                ([os.fsencode(path) for path in paths], labels)
            ),
            count=len(paths),
            decode=functools.partial(read_image, bmp=bmp, exif=exif),
            fetch=read_by_number(paths, labels, checked, answer, where),
            of_files=True,
            labels=labels,
        )

    def describe() -> dict[str, Any]:
        return {
            **described,
            "classes": list(classes),
            **({"label_sets": list(map(list, sets))} if sets is not None else {}),
            "parts": {split: grouped(parts[split], root) for split in PARTS},
        }

    return Source(
        **{split: part(parts[split]) for split in PARTS},
        classes=tuple(classes),
        describe=describe,
        label_sets=sets,
    )


def grouped(files: Files, root: str = "") -> list[list[Any]]:
    """[label, folder, [names]] of files, in their order; folders are below the root.

    >>> grouped([(0, "/a/cat/1.png"), (0, "/a/cat/2.png")], "/a")
    [[0, 'cat', ['1.png', '2.png']]]
    """
    groups: list[list[Any]] = []
    start = len(os.path.join(root, ""))
    for label, path in files:
        folder, name = os.path.split(path[start:])
        if not groups or groups[-1][:2] != [label, folder]:
            groups.append([label, folder, []])
        groups[-1][2].append(name)
    return groups


def ungrouped(groups: Sequence[Sequence[Any]], root: str = "") -> Files:
    """The files again."""
    return [
        (label, os.path.join(root, folder, "") + name)
        for label, folder, names in groups
        for name in names
    ]
