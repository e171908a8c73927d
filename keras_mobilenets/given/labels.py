"""Labels: text, or whole numbers from 0."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_mobilenets.architecture.arguments import check_number, shown
from keras_mobilenets.errors import UsageError

if TYPE_CHECKING:  # NumPy takes a tenth of a second, and `cost` does without
    import numpy as np

Label = str | int  # all of a source are of one kind

FIXES = {
    "f": "labels.astype(int)",
    "b": "labels.astype(int)",
    "S": "labels.astype(str)",
}


def check_label(value: Any, where: str) -> Label:
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


def check_labels(values: Any, where: str) -> list[Label]:
    """The labels of an array, or of a list."""
    import numpy as np

    labels = values if isinstance(values, np.ndarray) else _as_array(values, where)
    if labels.ndim == 2 and labels.shape[1] == 1:  # as keras.datasets has cifar's
        labels = labels[:, 0]
    if labels.ndim != 1:
        fix = ": labels.argmax(axis=1) if they are one-hot" * (labels.ndim == 2)
        raise UsageError(
            f"labels of {where} must be one number or text for each image, [n]; got "
            f"the shape {labels.shape}{fix}"
        )
    if labels.dtype.kind not in "iuUO":
        raise UsageError(
            f"labels of {where} must be whole numbers or text; got {labels.dtype}: "
            f"give {FIXES.get(labels.dtype.kind, 'these')}"
        )
    return [
        check_label(label, f"image {number} of {where}")
        for number, label in enumerate(labels.tolist())
    ]


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
