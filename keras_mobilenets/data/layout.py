"""What lies where in a folder of images: splits, classes, files, and what is left.

A layout is recognised or refused, never guessed: every folder that holds images is
a split, a class, part of a class, or named as passed over.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from keras_mobilenets.data.checking import Broken
from keras_mobilenets.errors import UsageError

# The names that images have, with or without capitals.
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp",
)  # fmt: skip

# What the folder of a split may be called, with or without capitals.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing"),
}
SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}

# What else is an image: to pass it over loses data.
NOT_READ = (
    ".heic", ".heif", ".avif", ".tif", ".tiff", ".jxl", ".jp2", ".psd", ".tga", ".ppm",
    ".pgm", ".svg", ".raw", ".dng", ".cr2", ".nef", ".arw",
)  # fmt: skip
HARMLESS = "other files"
LITTER = ("thumbs.db", "desktop.ini")  # of file managers; names with a dot, too
SHOWN = 3  # of the files that are passed over for a reason, in a message
ACCEPTED = (
    "expected FOLDER/CLASS/IMAGE or FOLDER/train/CLASS/IMAGE (and the same under "
    "val and test)"
)

Files = list[tuple[str, str]]  # (class name, path), sorted
PassedOver = dict[str, list[str]]  # reason: paths


class Layout(NamedTuple):
    """The images of each split and what is wrong with the folder.

    `files` has "train", and "validation" and "test" where there are folders for
    them; `folders` are the splits' own. `broken` names what can be no class;
    `passed_over` what is not read, by reason.
    """

    files: dict[str, Files]
    folders: dict[str, Path]
    broken: Broken
    passed_over: PassedOver


def find_layout(root: Path) -> Layout:
    """The splits and classes of a folder: FOLDER/CLASS/IMAGE, or with splits above.

    Folders are splits if their names are in `SPLIT_NAMES`. Images may lie deeper
    inside a class folder; folders that are links are followed, unless they lead to a
    folder above or into another class. A folder called train that holds images itself,
    beside other class folders, is a class (a railway's).

    UsageError if this is no such layout, or could be two.
    """
    passed: PassedOver = defaultdict(list)
    children = _folders(root, passed)
    folders = _split_folders(root, children, passed)
    for folder in dict.fromkeys((root, *folders.values())):
        passed["not in a class folder"] += [
            entry.path
            for entry in _entries(folder)
            if _is_image(entry.name) and not entry.is_dir()
        ]
    files: dict[str, list[tuple[str, str]]] = {}
    broken: dict[str, str] = {}
    for split, folder in folders.items():
        groups = children if folder == root else _folders(folder, passed)
        _check_classes(folder, groups)
        files[split] = []
        real: dict[str, Path] = {}
        for group in groups:
            same = real.setdefault(os.path.realpath(group), group)
            if same != group:
                broken[str(group)] = f"a link to the class folder {same.name!r}"
                continue
            images = _images(group, root, passed)
            files[split] += [(group.name, path) for path in images]
    found = {reason: paths for reason, paths in passed.items() if paths}
    return Layout(files, folders, broken, found)


def find_images(folder: Path) -> tuple[list[str], PassedOver]:
    """The images of a folder and of those in it, sorted, and what is passed over."""
    passed: PassedOver = defaultdict(list)
    found = _images(folder, folder, passed)
    return found, {reason: paths for reason, paths in passed.items() if paths}


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name, except names that begin with a dot."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(
            f"source must be a folder that can be read; {os.fspath(folder)!r}: "
            f"{error.strerror}"
        ) from error
    return [entry for entry in entries if not entry.name.startswith(".")]


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _folders(folder: Path, passed: PassedOver) -> list[Path]:
    """The folders in a folder, without those that hold the folder itself."""
    real = Path(os.path.realpath(folder))
    found = []
    for entry in _entries(folder):
        if not entry.is_dir():
            continue
        if entry.is_symlink():
            leads_to = Path(os.path.realpath(entry.path))
            if leads_to == real or leads_to in real.parents:
                passed["a link to a folder above it"].append(entry.path)
                continue
        found.append(Path(entry.path))
    return found


def _has_images(folder: Path) -> bool:
    """Whether there are images in a folder itself."""
    try:
        with os.scandir(folder) as found:
            return any(
                _is_image(entry.name) and not entry.name.startswith(".")
                for entry in found
            )
    except OSError:
        return False  # `_entries` will say so


def _has_classes(folder: Path) -> bool:
    """Whether there are images in the folders of a folder, at any depth."""
    return any(
        _is_image(name) and not name.startswith(".")
        for group in _folders(folder, defaultdict(list))
        for *_, names in os.walk(group)
        for name in names
    )


def _split_folders(
    root: Path, children: list[Path], passed: PassedOver
) -> dict[str, Path]:
    """The folder of each split; the root is train's where there are no splits."""
    named: dict[str, list[Path]] = defaultdict(list)
    others: list[Path] = []
    for child in children:
        if _has_images(child) or _has_classes(child):
            split = SPLIT_OF.get(child.name.lower())
            (named[split] if split else others).append(child)
    for split, folders in named.items():
        if len(folders) > 1:
            raise UsageError(
                f"source must have one folder for {split}; {os.fspath(root)!r} has "
                f"{_names(folders)}: merge or rename them"
            )
    if not named:
        return {"train": root}
    found = {split: folders[0] for split, folders in named.items()}
    labelled = {split: path for split, path in found.items() if _has_classes(path)}
    if "train" in labelled:
        if others and len(labelled) == 1:
            raise UsageError(
                f"source {os.fspath(root)!r} has {_names([found['train']])} with "
                f"folders of images beside {_names(others)}, which could be splits or "
                f"classes; {ACCEPTED}: move away what is neither"
            )
        for other in others:
            passed["beside the split folders"].append(os.fspath(other))
        for path in set(found.values()) - set(labelled.values()):
            passed["images without class folders, so without labels"].append(
                os.fspath(path)
            )
        return labelled
    if list(found) == ["train"] and others:
        return {"train": root}  # a class of that name
    if "train" in found:
        raise UsageError(
            f"source {os.fspath(root)!r} has images without labels: "
            f"{_names(found.values())} must hold a folder for each class; {ACCEPTED}"
        )
    raise UsageError(
        f"source {os.fspath(root)!r} has {_names(found.values())} but no train folder "
        f"(and {_names(others) if others else 'no other folder of images'}); "
        f"{ACCEPTED}: rename what is meant otherwise"
    )


def _names(folders: Iterable[Path]) -> str:
    names = [repr(folder.name) for folder in folders]
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if names[5:] else "")


def _check_classes(folder: Path, groups: list[Path]) -> None:
    """The folders are not splits, or something else, under names of their own."""
    inner = {}
    for group in groups:
        if _has_images(group):
            return
        names = {path.name for path in _folders(group, defaultdict(list))}
        if names:
            inner[group] = names
    common = set.intersection(*inner.values()) if len(inner) > 1 else set()
    if common:
        raise UsageError(
            f"source {os.fspath(folder)!r} has folders without images of their own "
            f"({_names(list(inner))}) that all hold the folders "
            f"{', '.join(map(repr, sorted(common)[:5]))}: splits, or classes of "
            f"splits? {ACCEPTED}; names of splits are "
            + "; ".join(", ".join(names) for names in SPLIT_NAMES.values())
        )


def _images(group: Path, root: Path, passed: PassedOver) -> list[str]:
    """The paths of what is named as an image in a class folder, sorted."""
    seen = {os.path.realpath(group)}
    inside, everything = os.path.realpath(group), os.path.realpath(root)
    found = []

    def unreadable(error: OSError) -> None:
        passed["cannot be read"].append(os.fspath(error.filename))

    for place, folders, names in os.walk(group, onerror=unreadable, followlinks=True):
        kept = []
        for name in sorted(folders):
            path = os.path.join(place, name)
            real = os.path.realpath(path)
            if name.startswith("."):
                passed["hidden"].append(path)
            elif real in seen or _is_in(os.path.realpath(place), real):
                passed["a link to a folder that is read already"].append(path)
            elif _is_in(real, everything) and not _is_in(real, inside):
                passed["a link into another class"].append(path)
            else:
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        for name in (*folders, *names):
            path = os.path.join(place, name)
            if name.startswith("."):
                if _is_image(name):
                    passed["hidden"].append(path)
            elif _is_image(name):
                found.append(path)
            elif name not in folders and name.lower() not in LITTER:
                suffix = os.path.splitext(name)[1].lower()
                reason = f"named {suffix}" if suffix in NOT_READ else HARMLESS
                passed[reason].append(path)
    return sorted(found)


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def sentence(passed: PassedOver) -> str:
    """What is passed over and why, in one line.

    >>> sentence({"named .heic": ["photos/cat/1.heic"]})
    "1 file or folder passed over: 1 named .heic ('photos/cat/1.heic')"
    """
    count = sum(map(len, passed.values()))
    parts = []
    for reason, paths in sorted(passed.items(), key=lambda item: -len(item[1])):
        shown = ", ".join(map(repr, paths[:SHOWN])) + ", ..." * (len(paths) > SHOWN)
        parts.append(f"{len(paths):,} {reason} ({shown})")
    plural = "s" * (count != 1)
    return f"{count:,} file{plural} or folder{plural} passed over: {'; '.join(parts)}"
