"""Labels: text, or whole numbers from 0; one an image, or several."""

from __future__ import annotations

import numbers
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_mobilenets.architecture.arguments import check_number, shown
from keras_mobilenets.errors import UsageError

if TYPE_CHECKING:  # NumPy takes a tenth of a second, and `cost` does without
    import numpy as np

One = str | int  # all of a source are of one kind
Label = One | tuple[One, ...]  # a tuple: all that an image has, sorted; maybe none

JOINT = "|"  # between the labels of an image, where they are one text

FIXES = {
    "f": "labels.astype(int)",
    "b": "labels.astype(int)",
    "S": "labels.astype(str)",
}


def check_label(value: Any, where: str) -> One:
    """The label of one example, plain."""
    import numpy as np

    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str) and value.strip():
        return str(value)
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if whole and value >= 0:
        return int(value)
    fix = "str(label)" if isinstance(value, bool) else "an int or a str"
    raise UsageError(
        f"the label of {where} must be text, or a whole number of at least 0; got "
        f"{shown(value)}: give {fix}"
    )


def check_label_set(values: Iterable[Any], where: str) -> tuple[One, ...]:
    """The labels of one example that may have several."""
    labels = [check_label(value, where) for value in values]
    twice = [label for label, times in Counter(labels).items() if times > 1]
    if twice:
        hint = ": vectors of 0 and 1 go as arrays" * all(n in (0, 1) for n in twice)
        raise UsageError(
            f"the labels of {where} must differ; got {twice[0]!r} more than once{hint}"
        )
    if any(isinstance(label, str) and JOINT in label for label in labels):
        raise UsageError(
            f"labels of which an image may have several must not hold {JOINT!r}, which "
            f"joins them in files; got {shown(labels)} for {where}"
        )
    if len({isinstance(label, str) for label in labels}) > 1:
        raise UsageError(
            f"the labels of {where} must be all text or all whole numbers; got "
            f"{shown(labels)}"
        )
    return tuple(sorted(labels))


def is_label_set(value: Any) -> bool:
    """Whether it is given as the labels of an image, not as its label."""
    import numpy as np

    several = isinstance(value, (list, tuple, set, frozenset))
    return several or (isinstance(value, np.ndarray) and value.ndim > 0)


def parts_of(label: Label) -> tuple[One, ...]:
    """The label of an image as a tuple of all its labels."""
    return label if isinstance(label, tuple) else (label,)


def label_text(label: Label) -> str:
    """The label or labels of an image in one text, as in a file.

    >>> label_text(("cat", "dog")), label_text(3)
    ('cat|dog', '3')
    """
    return JOINT.join(map(str, parts_of(label)))


def check_kinds(labels: Sequence[Label], where: str = "labels") -> None:
    """Refuse labels that are not all of one kind."""
    if len({isinstance(label, tuple) for label in labels}) > 1:
        raise UsageError(
            f"{where} must be one for each image, or a list for each; got both: give "
            "[label] for one, and [] for none"
        )
    if len({isinstance(one, str) for label in labels for one in parts_of(label)}) > 1:
        raise UsageError(
            f"{where} must be all text or all whole numbers; got both: turn numbers "
            "into text with str(label)"
        )


def check_multi_hot(values: np.ndarray, where: str) -> list[tuple[One, ...]]:
    """The labels in a matrix of 0 and 1, [images, classes]: numbers of its columns."""
    import numpy as np

    if values.dtype.kind not in "biu":
        fix = ""
        if values.dtype.kind == "f":
            fix = ": labels.astype(int) where they are 0 and 1, (labels > 0.5) if not"
        raise UsageError(
            f"labels of {where} must be whole numbers 0 and 1, or bool, where they are "
            f"a row for each image; got {values.dtype}{fix}"
        )
    wrong = values[(values != 0) & (values != 1)]
    if wrong.size:
        raise UsageError(
            f"labels of {where} must be 0 or 1 where they are a row for each image; "
            f"got {wrong[0]} among the shape {values.shape}"
        )
    return [tuple(np.flatnonzero(row).tolist()) for row in values]


def check_columns(columns: Mapping[str, int], train: Sequence[Label]) -> None:
    """Refuse splits of other columns, and columns that no image to train on has."""
    if len(set(columns.values())) > 1:
        raise UsageError(
            "labels must have as many columns in every split; got "
            + ", ".join(f"{count} in {split}" for split, count in columns.items())
        )
    has = {one for label in train for one in parts_of(label)}
    empty = [n for n in range(max(columns.values(), default=0)) if n not in has]
    if empty:
        more = f" and {len(empty) - 1} more" * (len(empty) > 1)
        raise UsageError(
            "labels must have an image to train on for every column; got none for "
            f"column {empty[0]}{more}: leave it out, labels[:, labels.any(axis=0)]"
        )


def check_labels(values: Any, where: str) -> tuple[list[Label], int | None]:
    """The labels of an array, or of a list; and how many columns they had, if any."""
    import numpy as np

    if isinstance(values, (list, tuple)) and any(map(is_label_set, values)):
        found: list[Label] = [
            check_label_set(value, f"image {number} of {where}")
            if is_label_set(value)
            else check_label(value, f"image {number} of {where}")
            for number, value in enumerate(values)
        ]
        return found, None
    labels = values if isinstance(values, np.ndarray) else _as_array(values, where)
    if labels.ndim == 2 and labels.shape[1] == 1:  # as keras.datasets has cifar's
        labels = labels[:, 0]
    if labels.ndim == 2:
        return list(check_multi_hot(labels, where)), labels.shape[1]
    if labels.ndim != 1:
        raise UsageError(
            f"labels of {where} must be one number or text for each image, [n], or "
            f"rows of 0 and 1, [n, classes]; got the shape {labels.shape}"
        )
    if labels.dtype.kind not in "iuUO":
        raise UsageError(
            f"labels of {where} must be whole numbers or text; got {labels.dtype}: "
            f"give {FIXES.get(labels.dtype.kind, 'these')}"
        )
    plain = labels.tolist()
    return [check_label(x, f"image {n} of {where}") for n, x in enumerate(plain)], None


def _as_array(values: Any, where: str) -> np.ndarray:
    import numpy as np

    try:
        return np.array(list(values), object)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"labels of {where} must be an array or a list, [n]; got {shown(values)}"
        ) from error


def check_class_weight(name: str, value: Any) -> str | dict[str, float]:
    """ "balanced", or what each image of a class counts in the training loss.

    Names of classes, or numbers, as text, which they are in JSON anyway.
    """
    if isinstance(value, str) and value == "balanced":
        return value
    if not isinstance(value, Mapping) or not value:
        raise UsageError(
            f"{name} must be 'balanced' or a mapping, such as {{'cat': 2, 'dog': 1}}; "
            f"got {shown(value)}"
        )
    weights = {}
    for label, weight in value.items():
        key = str(check_label(label, name))
        if key in weights:
            raise UsageError(f"{name} must name a class once; got {label!r} twice")
        weights[key] = check_number(f"{name}[{label!r}]", weight, low=0)
    return weights
