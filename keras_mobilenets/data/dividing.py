"""Classes, and splits where there are none: the same for every form of data."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from keras_mobilenets.data.parts import PARTS
from keras_mobilenets.errors import UsageError
from keras_mobilenets.given import Label, One, label_text, parts_of

# Told a sentence about data, and whether images are lost.
Note = Callable[[str, bool], None]

HELD_OUT = 0.1  # the share of the images that each split cut from train takes

Labelled = Sequence[tuple[Any, Any]]  # (label, item)


LabelSets = tuple[tuple[int, ...], ...]  # the classes that each number stands for


class Divided(NamedTuple):
    """The names of the classes, and (number, item) of each split.

    The number is that of a class, or of one of `label_sets`, where an item may have
    several labels, or none.
    """

    classes: tuple[str, ...]
    parts: dict[str, list[tuple[int, Any]]]
    label_sets: LabelSets | None


def divide(
    labelled: Mapping[str, Labelled],
    name_of: Callable[[Any], str],
    where: str,
    note: Note,
    *,
    places: Mapping[str, str] | None = None,
    fix: str = "",
) -> Divided:
    """Number the classes of (label, item)s, and cut the splits that are not there.

    Classes are sorted: text as text, whole numbers as numbers; a split is sorted by
    class, then item. Without splits, or without some of them:

    - no validation and no test: each takes a tenth of the images;
    - no validation: it takes a tenth of train;
    - no test: the validation images are the test images.

    Which image is in which tenth is decided by a hash of its class and `name_of` it,
    so it stays where it is when images are added; but at least half of the images of a
    class, rounded up, stay in train. Where images have several labels, all of them
    count as its class, joined, and half of the images of each label stay.

    `note` is told, in sentences, which classes have fewer than two images to train
    on. `where` is the source for a message, `places` where each split of it lies, and
    `fix` what it should look like.

    UsageError if there are fewer than two classes, a class in validation or test that
    train has not, or too few images.
    """
    places = places or {}
    files = {split: sorted(items) for split, items in labelled.items()}
    in_train = places.get("train", where)
    labels = _all_labels(files["train"])
    if len(labels) < 2:
        raise UsageError(
            f"source must hold at least two classes; {in_train} holds {len(labels)} "
            f"({', '.join(map(repr, labels)) or 'no image'}){fix}"
        )
    if len({label for label, _ in files["train"]}) < 2:
        raise UsageError(
            f"source must hold images that differ in their labels; all of {in_train} "
            f"have {label_text(files['train'][0][0])!r}{fix}"
        )
    for split, items in files.items():
        unknown = [label for label in _all_labels(items) if label not in labels]
        if unknown:
            raise UsageError(
                f"source has the class {unknown[0]!r} in {places.get(split, split)} "
                f"but not in {places.get('train', 'train')}; remove it there or add "
                "it to train"
            )
    # A split without an image counts as none: that has been answered for.
    files = {split: items for split, items in files.items() if items}
    if "test" not in files and "validation" in files:
        files["test"] = files["validation"]
    total = len(files["train"])
    files |= _cut([split for split in PARTS if split not in files], files, name_of)
    for split, items in files.items():
        if not items:
            raise UsageError(
                f"source {where} has no image for {split}: {total} images are too few "
                f"to cut a tenth from; add a {split} split, or more images"
            )
    _note_classes([one for la, _ in files["train"] for one in parts_of(la)], note)
    several = isinstance(files["train"][0][0], tuple)
    found = sorted({label for items in files.values() for label, _ in items})
    place = {label: number for number, label in enumerate(labels)}
    number_of = {label: n for n, label in enumerate(found)} if several else place
    parts = {
        split: [(number_of[label], item) for label, item in items]
        for split, items in files.items()
    }
    sets = tuple(tuple(place[one] for one in parts_of(label)) for label in found)
    return Divided(tuple(map(str, labels)), parts, sets if several else None)


def _all_labels(items: Labelled) -> list[One]:
    return sorted({one for label, _ in items for one in parts_of(label)})


def _cut(
    wanted: Sequence[str],
    files: Mapping[str, list[tuple[Label, Any]]],
    name_of: Callable[[Any], str],
) -> dict[str, list[tuple[Label, Any]]]:
    """The splits that are wanted, cut from train, and what stays there."""
    if not wanted:
        return {}
    cut: dict[str, list[tuple[Label, Any]]]
    cut = {split: [] for split in ("train", *wanted)}
    train = files["train"]
    places = [_place(f"{label_text(label)}/{name_of(item)}") for label, item in train]
    of_class: dict[Any, list[float]] = defaultdict(list)
    for (label, _), place in zip(train, places, strict=True):
        for one in parts_of(label) or [None]:
            of_class[one].append(place)
    stays_from = {one: sorted(some)[len(some) // 2] for one, some in of_class.items()}
    for (label, item), place in zip(train, places, strict=True):
        tenth = int(place / HELD_OUT)
        may = all(place < stays_from[one] for one in parts_of(label) or [None])
        held_out = tenth < len(wanted) and may
        cut[wanted[tenth] if held_out else "train"].append((label, item))
    return cut


def _place(name: str) -> float:
    """Where in [0, 1) a name falls, the same everywhere and always."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:6]) / 2**48


def _note_classes(train: Sequence[One], note: Note) -> None:
    counts = Counter(map(str, train))
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
