"""What an image counts in the training loss, by its class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mobilenets.architecture.arguments import suggest
from keras_mobilenets.data.parts import Part
from keras_mobilenets.errors import UsageError
from keras_mobilenets.given import check_class_weight


def class_weights(asked: Any, classes: Sequence[str], part: Part) -> tuple[float, ...]:
    """The weight of each class, from the images of a split to train on.

    "balanced" is images / (classes * images of the class), whose mean over the images
    is 1, as in scikit-learn. A mapping has names of classes, or their numbers where no
    class has a number for a name; what it leaves out has 1.

    UsageError if it names a class that is not there.

    >>> class_weights({"cat": 2}, ("cat", "dog"), part)
    (2.0, 1.0)
    """
    asked = check_class_weight("class_weight", asked)
    if isinstance(asked, str):
        counts = np.bincount(_labels(part), minlength=len(classes))
        there = np.count_nonzero(counts)  # of a class without images none is weighed
        balanced = part.count / (there * np.maximum(counts, 1))
        return tuple(np.where(counts, balanced, 1.0).tolist())
    numbered = not any(name.isdecimal() for name in classes)
    numbers = {str(n): n for n in range(len(classes))} if numbered else {}
    known = numbers | {name: number for number, name in enumerate(classes)}
    weights = [1.0] * len(classes)
    for name, weight in asked.items():
        if name not in known:
            shown = ", ".join(classes[:5]) + ", ..." * (len(classes) > 5)
            raise UsageError(
                f"class_weight must name classes of the data, {shown}; got {name!r}"
                f"{suggest(name, classes)}"
            )
        weights[known[name]] = weight
    return tuple(weights)


def _labels(part: Part) -> np.ndarray:
    if part.labels is not None:
        return part.labels
    labels = part.examples().map(lambda _, label: label)
    return np.array(list(labels.as_numpy_iterator()), np.int64)
