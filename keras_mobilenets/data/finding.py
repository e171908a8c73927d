"""From what a user names or gives to the source that it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow_datasets as tfds

from keras_mobilenets.architecture.arguments import check_known
from keras_mobilenets.data.checking import ANSWERS, Broken
from keras_mobilenets.data.digits import prepared_digits
from keras_mobilenets.data.dividing import Note
from keras_mobilenets.data.features import Chosen
from keras_mobilenets.data.folder import folder_source, indexed_folder_source
from keras_mobilenets.data.index import read_index
from keras_mobilenets.data.listed import indexed_listed_source, listed_source
from keras_mobilenets.data.memory import indexed_memory_source, memory_source
from keras_mobilenets.data.parts import MEMORY_BUDGET, PARTS, Source
from keras_mobilenets.data.prepared import (
    builder_source,
    find_builder,
    indexed_builder_source,
)
from keras_mobilenets.data.table import read_table
from keras_mobilenets.errors import UsageError
from keras_mobilenets.given import AGAIN, Given, is_table, parts_of, reference


def find_source(
    source: str | os.PathLike | Given,
    data_dir: str | os.PathLike | None,
    splits: Mapping[str, str] | None,
    memory: int = MEMORY_BUDGET,
    answer: Callable[[Broken, str], None] = ANSWERS["skip"],
    note: Note = lambda sentence, loses_images: None,
    exif: bool = False,
    index: str | os.PathLike | None = None,
    label: str | None = None,
    image: str | None = None,
    multi_label: bool | None = None,
) -> Source:
    """The source of that name, at that path or given, or what an index names of it.

    `answer` is told of broken files, `note` of what else is passed over.
    """
    if splits is not None:
        _check_splits(splits)
    before = None if index is None else read_index(index)
    kind = kind_of(source)
    _check_meant(source, kind, {"splits": splits, "label": label, "image": image})
    _check_several(source, kind, multi_label)
    if before and before["kind"] != kind:
        of = next(before[k] for k in ("root", "source", "name") if k in before)
        raise UsageError(
            f"index {os.fspath(index or '')!r} is of another source than "
            f"{str(source)!r}: of {of!r}"
        )
    name = name_of(source)
    if isinstance(source, Given) and kind == "memory":
        if before:
            return indexed_memory_source(source, before)
        return memory_source(source, note)
    if kind == "files" and before:
        return indexed_listed_source(name, before, answer, exif)
    if isinstance(source, Given):
        rows: Any = {
            split: list(zip(source.labels[split], source.items[split], strict=True))
            for split in source.labels
        }
        return listed_source(name, rows, answer, note, exif)
    if (lost := reference(name)) is not None:
        raise UsageError(
            f"source {name!r} was given as objects, of which only a digest was written "
            f"down: pass it again, {AGAIN[lost]}"
        )
    if kind == "files":
        rows = read_table(source, label, image, multi_label)
        return listed_source(name, rows, answer, note, exif)
    if kind == "folder":
        if before:
            return indexed_folder_source(source, before, answer, exif)
        return folder_source(source, answer, note, exif)
    if before and data_dir is None:
        data_dir = before["data_dir"]
    if source == "digits":
        builder = prepared_digits(data_dir)
    else:
        builder = find_builder(os.fspath(source), data_dir)
    chosen = Chosen(label, image)
    if before:
        return indexed_builder_source(builder, before, splits, memory, exif, chosen)
    return builder_source(builder, splits, memory, exif, chosen)


def kind_of(source: str | os.PathLike | Given) -> str:
    """The kind that the index of such a source has."""
    of_objects = {"list": "files", "arrays": "memory", "dataset": "memory"}
    if isinstance(source, Given):
        return of_objects[source.kind]
    written = reference(os.fspath(source))
    if written is not None:
        return of_objects[written]
    if is_table(source) and not os.path.isdir(source):
        return "files"
    return "folder" if source != "digits" and _is_folder(source) else "tfds"


def _check_meant(
    source: str | os.PathLike | Given, kind: str, options: Mapping[str, Any]
) -> None:
    """Options that only some kinds of source have."""
    for option, value in options.items():
        if value is None or kind == "tfds":
            continue
        if option == "splits":
            raise UsageError(
                f"splits are for TFDS names; got {dict(value)!r} for "
                f"{str(source)!r}: give it train, validation and test folders, or a "
                "column of splits"
            )
        if kind != "files" or isinstance(source, Given):
            raise UsageError(
                f"{option} is for TFDS names and CSV files; got {value!r} for "
                f"{str(source)!r}"
            )


def _check_several(
    source: str | os.PathLike | Given, kind: str, multi_label: bool | None
) -> None:
    """Whether images have several labels is said, or cannot be mistaken."""
    if not isinstance(source, Given):
        if multi_label and kind in ("folder", "tfds"):
            raise UsageError(
                "multi_label is for CSV files, lists, arrays and datasets; got "
                f"{str(source)!r}, where an image has the one label that its "
                f"{'folder' if kind == 'folder' else 'feature'} says"
            )
        return
    labels = [label for some in source.labels.values() for label in some]
    if not source.multi_label:
        if multi_label:
            raise UsageError(
                "multi_label needs a list of labels for each image, or rows of 0 and "
                f"1; got one label each, such as {labels[0]!r}"
            )
    elif multi_label is False:
        raise UsageError(
            "multi_label=False needs one label for each image; got lists of labels, or "
            "rows of 0 and 1: labels.argmax(axis=1) if they are one-hot"
        )
    elif multi_label is None and {len(parts_of(label)) for label in labels} == {1}:
        raise UsageError(
            "labels are rows or lists with one label for each image: give one label "
            "each, labels.argmax(axis=1) if they are one-hot, or multi_label=True if "
            "an image may have several"
        )


def name_of(source: str | os.PathLike | Given) -> str:
    """The absolute path of a folder or a file, the name, or what objects have."""
    if isinstance(source, Given):
        return str(source)
    if kind_of(source) in ("memory", "tfds") or reference(os.fspath(source)):
        return os.fspath(source)
    return os.path.abspath(os.path.expanduser(source))


def _check_splits(splits: Mapping[str, str]) -> None:
    if not isinstance(splits, Mapping) or not all(
        isinstance(split, str) for split in splits.values()
    ):
        raise UsageError(
            "splits must name splits of a TFDS dataset, such as "
            f"{{'train': 'train[:50%]'}}; got {splits!r}"
        )
    check_known("splits", splits, PARTS)


def _is_folder(source: str | os.PathLike) -> bool:
    if isinstance(source, os.PathLike):
        return True
    if os.path.isabs(source) or source.startswith((".", "~")):
        return True
    return os.path.isdir(source) and source.split("/")[0] not in tfds.list_builders(
        with_community_datasets=False
    )
