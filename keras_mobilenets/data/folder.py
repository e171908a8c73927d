"""Sources that are a folder of class folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_mobilenets.data.checking import ANSWERS, Broken, CheckedFiles
from keras_mobilenets.data.dividing import Note, divide
from keras_mobilenets.data.files import file_source, ungrouped
from keras_mobilenets.data.layout import (
    ACCEPTED,
    HARMLESS,
    Files,
    find_layout,
    sentence,
)
from keras_mobilenets.data.parts import PARTS, Source
from keras_mobilenets.errors import UsageError


def folder_root(path: str | os.PathLike) -> Path:
    """The absolute path of a source that is a folder. UsageError if there is none."""
    try:
        root = Path(os.path.abspath(Path(path).expanduser()))
        is_folder = root.is_dir()
    except (RuntimeError, ValueError, OSError) as error:  # ~nobody, a zero, too long
        raise UsageError(
            "source must be a folder of class folders; got "
            f"{os.fspath(path)!r} ({error})"
        ) from error
    if not is_folder:
        what = "is a file" if root.exists() else "does not exist"
        raise UsageError(
            f"source must be a folder of class folders, or a file named .csv; "
            f"{os.fspath(path)!r} {what} (looked for {os.fspath(root)!r})"
        )
    return root


def folder_source(
    path: str | os.PathLike,
    answer: Callable[[Broken, str], None] = ANSWERS["skip"],
    note: Note = lambda sentence, loses_images: None,
    exif: bool = False,
) -> Source:
    """The source in a folder: FOLDER/CLASS/IMAGE or FOLDER/SPLIT/CLASS/IMAGE.

    What counts as a split, a class and an image, `layout.find_layout` says; which
    images go where, if there are no folders for splits, and in which order,
    `dividing.divide`. The name of an image is that of its file.

    Files that are named as images and cannot be read, and class folders without an
    image, are handed to `answer` (with the folder, before anything else is judged) and
    left out; every file is decoded once to know. Those that break later are handed to
    it then, one by one, as `checking.read_by_number` says. `note` is told, in
    sentences, what else is passed over, with whether there are images in it. `exif`
    turns images as their EXIF orientation says.

    UsageError if the folder is missing, or has a layout that is not one of these.
    """
    root = folder_root(path)
    where = os.fspath(path)
    layout = find_layout(root)
    if layout.passed_over:
        harmful = set(layout.passed_over) - {HARMLESS}
        note(f"in {where!r} {sentence(layout.passed_over)}", bool(harmful))
    checked = CheckedFiles(root)
    listed = [file for images in layout.files.values() for _, file in images]
    broken = checked.find_broken(listed)
    files = {
        split: [(name, file) for name, file in images if file not in broken]
        for split, images in layout.files.items()
    }
    for split, images in files.items():
        broken |= _empty_classes(layout.folders[split], images, layout.broken)
    broken |= layout.broken
    if broken:
        answer(broken, where)
    divided = divide(
        files,
        os.path.basename,
        repr(where),
        note,
        places={split: repr(str(place)) for split, place in layout.folders.items()},
        fix=f"; {ACCEPTED}",
    )
    described = {"kind": "folder", "root": os.fspath(root)}
    return file_source(described, *divided, checked, answer, where, exif)


def indexed_folder_source(
    path: str | os.PathLike,
    index: dict[str, Any],
    answer: Callable[[Broken, str], None] = ANSWERS["skip"],
    exif: bool = False,
) -> Source:
    """The source that an index names: its files, as they were when it was written.

    The folder is not looked through. UsageError if the index is of another.
    """
    root = os.fspath(folder_root(path))
    if index["root"] != root:
        raise UsageError(
            f"index {index['file']!r} is of the folder {index['root']!r}; got "
            f"{os.fspath(path)!r}"
        )
    return file_source(
        {"kind": "folder", "root": root},
        index["classes"],
        {split: ungrouped(index["parts"][split], root) for split in PARTS},
        None,
        CheckedFiles(root),
        answer,
        os.fspath(path),
        exif,
    )


def _empty_classes(folder: Path, files: Files, known: Broken) -> Broken:
    """The class folders of a folder that none of its good files is in."""
    full = {name for name, _ in files}
    return {
        os.fspath(group): "a class folder without a readable image"
        for group in sorted(folder.iterdir())
        if group.is_dir()
        and not group.name.startswith(".")
        and group.name not in full
        and os.fspath(group) not in known
    }
