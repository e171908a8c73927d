"""Images and labels that are given as objects: pairs, arrays, datasets.

What `train`, `search`, `evaluate`, `check_data` and `load_data` take for data is a
name, a path, or the data itself. That is turned into `Given`, once: an iterator or a
`tf.data.Dataset` is read to its end. TensorFlow is not imported here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from keras_mobilenets.architecture.arguments import shown
from keras_mobilenets.errors import UsageError
from keras_mobilenets.given.images import read_arrays, read_dataset
from keras_mobilenets.given.labels import (
    Label,
    check_columns,
    check_kinds,
    check_label,
    check_label_set,
    is_label_set,
)

PARTS = ("train", "validation", "test")
MEMORY_BUDGET = 256 * 2**20  # bytes that a split may take, where nothing is said
MOST_PAIRS = 2**26  # of a list; an iterator may have no end

FORMS = (
    "'digits', a TFDS name or a folder of class folders, a CSV file of path and "
    "label, a list of (path, label), arrays (images, labels) or a tf.data.Dataset of "
    "(image, label)"
)
AGAIN = {  # what to pass for a kind, once more
    "list": "data=[(path, label), ...]",
    "arrays": "data=(images, labels)",
    "dataset": "data=the tf.data.Dataset",
}


@dataclasses.dataclass(frozen=True)
class Given:
    """Examples that were given as objects, by split; equal if their content is.

    `kind` is "list", whose items are absolute paths, or "arrays" or "dataset", whose
    items are uint8 images [h, w] or [h, w, 1, 3 or 4], kept as they were given. Labels
    are tuples where an image may have several.

    >>> str(take([("cat/1.png", "cat"), ("dog/1.png", "dog")]))
    'list:4f0c...'
    """

    kind: str
    digest: str
    labels: Mapping[str, Sequence[Label]] = dataclasses.field(compare=False, repr=False)
    items: Mapping[str, Sequence[Any]] = dataclasses.field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.kind}:{self.digest}"

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels."""
        return isinstance(self.labels["train"][0], tuple)


def reference(source: str) -> str | None:
    """The kind, if `source` is what a run has written down of data of that kind.

    >>> reference("arrays:0123456789abcdef"), reference("digits")
    ('arrays', None)
    """
    kind, colon, digest = source.partition(":")
    return kind if colon and kind in AGAIN and len(digest) == 16 else None


def is_table(source: str | os.PathLike) -> bool:
    """Whether a path is named as a CSV file."""
    return os.fspath(source).lower().endswith(".csv")


def take(value: Any, memory_budget: int = MEMORY_BUDGET) -> str | os.PathLike | Given:
    """Data as given: a name or a path as it is, objects as `Given`.

    {"train": data, "validation": data, "test": data} has the splits apart, each as one
    of the forms.

    UsageError if it is none of `FORMS`. A dataset of more than `memory_budget` bytes
    of pixels is not kept.
    """
    if isinstance(value, Given):
        return value
    if isinstance(value, (str, os.PathLike)):
        if not os.fspath(value) or not isinstance(os.fspath(value), str):
            raise UsageError(f"source must be {FORMS}; got {shown(value)}")
        return value
    parts = _split(value)
    read = {
        split: _read(one, f"source[{split!r}]" if len(parts) > 1 else "source",
                     memory_budget)
        for split, one in parts.items()
    }  # fmt: skip
    kinds = sorted({one.kind for one in read.values()})
    if len(kinds) > 1:
        raise UsageError(
            f"source must have the same form in every split; got {' and '.join(kinds)}"
        )
    labels = {split: one.labels for split, one in read.items()}
    items = {split: one.items for split, one in read.items()}
    check_kinds([label for some in labels.values() for label in some])
    columns = {s: one.columns for s, one in read.items() if one.columns is not None}
    check_columns(columns, labels["train"])
    return Given(kinds[0], _digest(kinds[0], labels, items), labels, items)


def _split(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {"train": value}
    if "train" not in value or not set(value) <= set(PARTS):
        raise UsageError(
            f"source must be {FORMS}, or such data by split, {{'train': ..., "
            f"'validation': ..., 'test': ...}}; got a mapping of {shown(list(value))}"
        )
    return {split: value[split] for split in PARTS if split in value}


class _Read(NamedTuple):
    """One split."""

    kind: str
    labels: list[Label]
    items: Any
    columns: int | None = None  # of labels that were rows of 0 and 1


def _read(value: Any, where: str, memory_budget: int) -> _Read:
    import numpy as np

    if _is_dataset(value):
        return _Read("dataset", *read_dataset(value, where, memory_budget))
    first = value[0] if isinstance(value, (tuple, list)) and value else None
    inner = first[0] if isinstance(first, (tuple, list)) and first else None
    for condition, text in (
        (
            isinstance(value, (str, os.PathLike)),
            f"got {shown(value)} for a split: a folder has folders for its splits, a "
            "CSV file a column",
        ),
        (
            hasattr(value, "columns") and hasattr(value, "shape"),
            "got a table: give list(zip(table['path'], table['label'])), or save it as "
            "a CSV file",
        ),
        (_is_array(value), "got images without labels: give (images, labels)"),
        (
            isinstance(inner, np.ndarray),
            "got arrays inside pairs: give (images, labels), each one array, or "
            "{'train': (images, labels), 'test': (images, labels)}",
        ),
        (
            _is_array(first) and not isinstance(first, np.ndarray),
            f"got a {type(first).__name__}: give NumPy arrays, (np.asarray(images), "
            "np.asarray(labels))",
        ),
        (
            _kind(first) in "US",
            "got an array of text: give list(zip(paths.tolist(), labels.tolist()))",
        ),
        (
            _kind(first) == "O",
            "got an array of objects: images must be one uint8 array; images of "
            "several sizes go as files, or as a tf.data.Dataset",
        ),
        (
            isinstance(value, tuple) and isinstance(first, (str, os.PathLike)),
            f"got {shown(value)}: one pair goes in a list, [(path, label)]; paths "
            "without labels are no data",
        ),
        (
            isinstance(value, tuple) and len(value) == 2 and isinstance(first, list),
            "got a tuple of two lists: give list(zip(paths, labels))",
        ),
    ):  # fmt: skip
        if condition:
            raise UsageError(f"{where} must be {FORMS}; {text}")
    if isinstance(first, np.ndarray):
        return _Read("arrays", *read_arrays(value, where))
    return _Read("list", *_read_pairs(value, where))


def _is_array(value: Any) -> bool:
    """Whether it is one of NumPy's, TensorFlow's, PyTorch's, ..."""
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _kind(value: Any) -> str:
    """The letter that NumPy has for what is in an array; "-" if it is none."""
    import numpy as np

    return value.dtype.kind if isinstance(value, np.ndarray) else "-"


def _is_dataset(value: Any) -> bool:
    tf = sys.modules.get("tensorflow")  # whoever has a dataset has imported it
    return tf is not None and isinstance(value, tf.data.Dataset)


def _digest(
    kind: str,
    labels: Mapping[str, Sequence[Label]],
    items: Mapping[str, Sequence[Any]],
) -> str:
    """16 hexadecimal digits: of a list, whatever its order, or of images in theirs."""
    import numpy as np  # takes a tenth of a second, and `cost` does without

    whole = hashlib.sha256()
    for split in labels:
        pairs: Iterable[tuple[Label, Any]]
        pairs = zip(labels[split], items[split], strict=True)
        if kind == "list":
            pairs = sorted(pairs)
        whole.update(f"{split} {len(labels[split])}".encode())
        for label, item in pairs:
            whole.update(repr(label).encode() + b"\0")
            if kind == "list":
                whole.update(os.fsencode(item) + b"\0")
            else:
                whole.update(repr(item.shape).encode())
                whole.update(np.ascontiguousarray(item).data)
    return whole.hexdigest()[:16]


# Pairs


def _read_pairs(value: Any, where: str) -> tuple[list[Label], list[str]]:
    try:
        rows = list(itertools.islice(iter(value), MOST_PAIRS + 1))
    except TypeError:
        raise UsageError(f"source must be {FORMS}; got {shown(value)}") from None
    if len(rows) > MOST_PAIRS:
        raise UsageError(f"{where} must end; got more than {MOST_PAIRS:,} pairs")
    if not rows:
        raise UsageError(f"{where} must have at least one (path, label); got none")
    labels: list[Label] = []
    paths: list[str] = []
    for number, row in enumerate(rows):
        if not isinstance(row, (tuple, list)) or len(row) != 2:
            raise UsageError(
                f"{where}[{number}] must be a pair (path, label); got {shown(row)}"
            )
        path, label = row
        plain = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
        if not plain or not isinstance(plain, str):
            raise UsageError(
                f"{where}[{number}] must be a pair (path, label), with the path of an "
                f"image file; got {shown(row)}"
            )
        check: Callable[..., Label] = check_label
        if is_label_set(label):
            check = check_label_set
        labels.append(check(label, f"{where}[{number}]"))
        paths.append(os.path.abspath(os.path.expanduser(plain)))
    return labels, paths
