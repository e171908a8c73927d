"""Sources that are a folder of class folders."""

from __future__ import annotations

import functools
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mobilenets.data.checking import (
    ANSWERS,
    BMP_SUFFIXES,
    Broken,
    CheckedFiles,
    read_by_number,
)
from keras_mobilenets.data.decoding import read_image
from keras_mobilenets.data.layout import (
    ACCEPTED,
    HARMLESS,
    Files,
    find_layout,
    sentence,
)
from keras_mobilenets.data.parts import PARTS, Part, Source
from keras_mobilenets.errors import UsageError

# Told a sentence about a folder, and whether images are lost.
Note = Callable[[str, bool], None]

HELD_OUT = 0.1  # the share of the images that each split cut from train takes


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
            f"source must be a folder of class folders; {os.fspath(path)!r} {what} "
            f"(looked for {os.fspath(root)!r})"
        )
    return root


def folder_source(
    path: str | os.PathLike,
    answer: Callable[[Broken, str], None] = ANSWERS["skip"],
    note: Note = lambda sentence, loses_images: None,
    exif: bool = False,
) -> Source:
    """The source in a folder: FOLDER/CLASS/IMAGE or FOLDER/SPLIT/CLASS/IMAGE.

    What counts as a split, a class and an image, `layout.find_layout` says. Without
    split folders, or without some of them:

    - no validation and no test: each takes a tenth of the images;
    - no validation: it takes a tenth of train;
    - no test: the validation images are the test images.

    Which image is in which tenth is decided by a hash of its class and file name, so
    it stays where it is when images are added or the folder moves; but at least half
    of the images of a class, rounded up, stay in train.

    Classes are sorted by name, as text. Files that are named as images and cannot be
    read, and class folders without an image, are handed to `answer` (with the folder,
    before anything else is judged) and left out; every file is decoded once to know.
    Those that break later are handed to it then, one by one, as
    `checking.read_by_number` says. `note` is told, in sentences, what else is passed
    over, with whether there are images in it, and which classes have fewer than two
    images to train on. `exif` turns images
    as their EXIF orientation says.

    UsageError if the folder is missing, holds no images or fewer than two classes, has
    a class in validation or test that train has not, or a layout that is not one of
    these.
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

    root_of_train = os.fspath(layout.folders["train"])
    classes = sorted({name for name, _ in files["train"]})
    if len(classes) < 2:
        raise UsageError(
            "source must hold at least two classes, one folder of images each; "
            f"{root_of_train!r} holds {len(classes)} "
            f"({', '.join(map(repr, classes)) or 'no image'}); {ACCEPTED}"
        )
    for split, images in files.items():
        unknown = sorted({name for name, _ in images} - set(classes))
        if unknown:
            raise UsageError(
                f"source has the class {unknown[0]!r} in "
                f"{os.fspath(layout.folders[split])!r} but not in {root_of_train!r}; "
                "remove it there or add it to train"
            )

    # A split folder without an image counts as none: it has been answered for.
    files = {split: images for split, images in files.items() if images}
    if "test" not in files and "validation" in files:
        files["test"] = files["validation"]
    total = len(files["train"])
    files = _cut([split for split in PARTS if split not in files], files)
    for split, images in files.items():
        if not images:
            raise UsageError(
                f"source {where!r} has no image for {split}: {total} images are too "
                f"few to cut a tenth from; add a {split} folder of class folders, or "
                "more images"
            )
    _note_classes(files["train"], note)
    number_of = {name: number for number, name in enumerate(classes)}
    listed_parts = {
        split: [(number_of[name], file) for name, file in images]
        for split, images in files.items()
    }
    return _source(root, classes, listed_parts, checked, answer, where, exif)


def indexed_folder_source(
    path: str | os.PathLike,
    index: dict[str, Any],
    answer: Callable[[Broken, str], None] = ANSWERS["skip"],
    exif: bool = False,
) -> Source:
    """The source that an index names: its files, as they were when it was written.

    The folder is not looked through. UsageError if the index is of another.
    """
    root = folder_root(path)
    if index["root"] != os.fspath(root):
        raise UsageError(
            f"index {index['file']!r} is of the folder {index['root']!r}; got "
            f"{os.fspath(path)!r}"
        )
    classes = index["classes"]
    parts: dict[str, list[tuple[int, str]]] = {}
    for split in PARTS:
        parts[split] = []
        for label, folder, names in index["parts"][split]:
            start = os.path.join(root, folder, "")
            parts[split] += [(label, start + name) for name in names]
    checked = CheckedFiles(root)
    return _source(root, classes, parts, checked, answer, os.fspath(path), exif)


def _source(
    root: Path,
    classes: Sequence[str],
    parts: dict[str, list[tuple[int, str]]],
    checked: CheckedFiles,
    answer: Callable[[Broken, str], None],
    where: str,
    exif: bool,
) -> Source:
    """The source of these (label, path)s."""

    def part(files: list[tuple[int, str]]) -> Part:
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
        )

    def describe() -> dict[str, Any]:
        return {
            "kind": "folder",
            "root": os.fspath(root),
            "classes": list(classes),
            "parts": {split: _grouped(files, root) for split, files in parts.items()},
        }

    return Source(
        **{split: part(files) for split, files in parts.items()},
        classes=tuple(classes),
        describe=describe,
    )


def _grouped(files: list[tuple[int, str]], root: Path) -> list[list[Any]]:
    """[label, folder below the root, [names]] of files, in their order."""
    groups: list[list[Any]] = []
    start = len(os.path.join(root, ""))
    for label, path in files:
        folder, name = os.path.split(path[start:])
        if not groups or groups[-1][:2] != [label, folder]:
            groups.append([label, folder, []])
        groups[-1][2].append(name)
    return groups


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


def _cut(wanted: Sequence[str], files: dict[str, Files]) -> dict[str, Files]:
    """The splits that are wanted, cut from train."""
    if not wanted:
        return files
    cut: dict[str, Files] = {split: [] for split in ("train", *wanted)}
    by_class: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for name, file in files["train"]:
        by_class[name].append((_place(f"{name}/{Path(file).name}"), file))
    for name, placed in by_class.items():
        stays_from = sorted(place for place, _ in placed)[len(placed) // 2]
        for place, file in placed:
            tenth = int(place / HELD_OUT)
            held_out = tenth < len(wanted) and place < stays_from
            cut[wanted[tenth] if held_out else "train"].append((name, file))
    return {**files, **cut}


def _place(name: str) -> float:
    """Where in [0, 1) a name falls, the same everywhere and always."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:6]) / 2**48


def _note_classes(train: Files, note: Note) -> None:
    counts = Counter(name for name, _ in train)
    single = [name for name, count in counts.items() if count < 2]
    if single:
        note(
            f"{len(single):,} class{'es' * (len(single) != 1)} of {len(counts):,} "
            f"{'have' if len(single) != 1 else 'has'} a single image to train on: "
            + ", ".join(map(repr, single[:5]))
            + ", ..." * (len(single) > 5),
            False,
        )
    lower = Counter(name.lower() for name in counts)
    twins = [name for name in counts if lower[name.lower()] > 1]
    if twins:
        shown = ", ".join(map(repr, twins[:6]))
        note(f"classes differ by capitals only: {shown}", False)
