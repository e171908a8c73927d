"""Sources that are a folder of class folders."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_mobilenets.data.broken import (
    ANSWERS,
    Broken,
    find_broken,
    stamps,
    watch,
    without,
)
from keras_mobilenets.data.images import SUFFIXES, read_image
from keras_mobilenets.data.pipeline import Check, Part, Source
from keras_mobilenets.errors import UsageError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
HELD_OUT = 0.1  # the share of the images that each split cut from train takes
PATH_BYTES = 256  # of a stored path, roughly

Files = list[tuple[str, str]]  # (class name, path), sorted


def folder_source(
    path: str | os.PathLike, answer: Callable[[Broken, str], None] = ANSWERS["skip"]
) -> Source:
    """The source in a folder: FOLDER/CLASS/IMAGE or FOLDER/SPLIT/CLASS/IMAGE.

    Splits are subfolders train, validation (or val, valid) and test. Without them,
    or without some of them:

    - no validation and no test: each takes a tenth of the images;
    - no validation: it takes a tenth of train;
    - no test: the validation images are the test images.

    Which image is in which tenth is decided by a hash of its class and file name, so
    it stays where it is when images are added or the folder moves.

    Classes are sorted by name. Files other than .jpg, .jpeg, .png, .bmp and .gif
    are passed over; so are names that begin with a dot. Files that have such a name
    and cannot be read, and class folders without an image, are handed to `answer`
    (with the folder, before anything else is judged) and left out; every file is
    decoded once to know, as `broken.find_broken` says. Those that break later are
    handed to it then, one by one, as `broken.watch` says. ValueError if the folder is
    missing, holds no images or fewer than two classes, or has a class in validation
    or test that train has not.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise UsageError(
            f"source must be a folder of class folders; {str(path)!r} {what} "
            f"(looked for {root.absolute()})"
        )
    found = {
        split: next((root / n for n in names if (root / n).is_dir()), None)
        for split, names in SPLIT_NAMES.items()
    }
    if found["train"] is None:
        found = {"train": root}
    root_of_train = found["train"]
    listed = {split: _files(folder) for split, folder in found.items() if folder}
    paths = [file for images in listed.values() for _, file in images]
    keys = stamps(paths)
    broken = find_broken(paths, root, keys)
    files = {split: without(images, broken) for split, images in listed.items()}
    for split, images in files.items():
        broken |= _hollow(found[split], images)
    if broken:
        answer(broken, os.fspath(path))

    classes = sorted({name for name, _ in files["train"]})
    if len(classes) < 2:
        raise UsageError(
            "source must hold at least two classes, one folder of images each; "
            f"{str(root_of_train)!r} holds {len(classes)} "
            f"({', '.join(classes) or 'no image'}); expected FOLDER/CLASS/IMAGE or "
            "FOLDER/train/CLASS/IMAGE"
        )
    for split, images in files.items():
        unknown = sorted({name for name, _ in images} - set(classes))
        if unknown:
            raise UsageError(
                f"source has the class {unknown[0]!r} in {str(found[split])!r} but "
                f"not in {str(root_of_train)!r}; remove it there or add it to train"
            )

    if "test" not in files and "validation" in files:
        files["test"] = files["validation"]
    wanted = [split for split in ("validation", "test") if split not in files]
    train = files["train"]
    files |= {split: [] for split in ("train", *wanted)}
    for name, file in train:
        place = _place(f"{name}/{Path(file).name}") / HELD_OUT
        files[wanted[int(place)] if place < len(wanted) else "train"].append(
            (name, file)
        )
    for split, images in files.items():
        if not images:
            raise UsageError(
                f"source {str(path)!r} has no image for {split}: {len(train)} images "
                f"are too few to cut a tenth from; add a {split} folder of class "
                "folders, or more images"
            )
    key_of = dict(zip(paths, keys, strict=True))
    label_of = {name: label for label, name in enumerate(classes)}
    parts = {}
    for split, images in files.items():
        names, kept = zip(*images, strict=True)
        labels = [label_of[name] for name in names]
        mine = np.array([key_of[path] for path in kept])
        parts[split] = _part(kept, labels, watch(kept, labels, mine, answer, str(path)))
    return Source(**parts, classes=tuple(classes))


def _files(folder: Path) -> Files:
    """What is named as an image in each class folder of a folder."""
    files: Files = []
    for group in _classes(folder):
        members = []
        # A folder, or a link to nowhere, may have such a name as well.
        for place, folders, names in os.walk(group):
            folders[:] = [name for name in folders if not name.startswith(".")]
            members += [
                os.path.join(place, name)
                for name in (*folders, *names)
                if name.lower().endswith(SUFFIXES) and not name.startswith(".")
            ]
        files += [(group.name, file) for file in sorted(members)]
    return files


def _classes(folder: Path) -> list[Path]:
    return sorted(
        group
        for group in folder.iterdir()
        if group.is_dir() and not group.name.startswith(".")
    )


def _hollow(folder: Path, files: Files) -> Broken:
    """The class folders of a folder that none of its good files is in."""
    full = {name for name, _ in files}
    return {
        str(group): "a class folder without a readable image"
        for group in _classes(folder)
        if group.name not in full
    }


def _place(name: str) -> float:
    """Where in [0, 1) a name falls, the same everywhere and always."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48


def _part(paths: Sequence[str], labels: Sequence[int], check: Check) -> Part:
    examples = tf.data.Dataset.from_tensor_slices(
        (list(paths), tf.constant(labels, tf.int64))
    )
    # find_broken lets no BMP pass that is named otherwise.
    bmp = any(path.lower().endswith(".bmp") for path in paths)
    read = functools.partial(read_image, bmp=bmp)
    return Part(examples, len(paths), PATH_BYTES, read, named=True, check=check)
