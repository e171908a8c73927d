"""What the answers of a network add up to where an image may have several labels.

Average precision needs the order of all images by their probability of a label, so
these are kept: 5 bytes an image and label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_mobilenets.inference.tally import MISTAKES, counted, share
from keras_mobilenets.training.counting import THRESHOLD, mean_f1

# What is known of an image, before what it has and what it is said to have: its number
# in the split, the binary cross entropy, and its weight: 0 for filling.
COLUMNS = ("number", "loss", "weight")


class Mistake(NamedTuple):
    """A label that an image is wrongly said to have, or not to have."""

    number: int  # of the image
    label: int
    confidence: float  # probability of what was said
    has: np.ndarray  # bool [classes]: all that it has


class LabelTally:
    """All rows of `COLUMNS`, labels and probabilities that were added.

    They are float64 [n, 3 + 2 * classes].
    """

    def __init__(self) -> None:
        self.images = 0
        self.loss = 0.0
        self._numbers: list[np.ndarray] = []
        self._has: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        """Count some images; those of weight 0 are none.

        Raises:
            UsageError: scores that are no numbers.
        """
        rows = counted(rows, COLUMNS)
        has, scores = np.split(rows[:, len(COLUMNS) :], 2, axis=1)
        self.images += len(rows)
        self.loss += float(rows[:, COLUMNS.index("loss")].sum())
        self._numbers.append(rows[:, 0].astype(np.int64))
        self._has.append(has > 0.5)
        self._scores.append(scores.astype(np.float32))

    @property
    def _all(self) -> tuple[np.ndarray, np.ndarray]:
        """What images have, bool, and the probabilities, both [images, classes]."""
        return np.concatenate(self._has), np.concatenate(self._scores)

    def figures(self) -> dict[str, float | None]:
        """The means over images and labels."""
        has, scores = self._all
        said = scores > THRESHOLD
        right = (said & has).sum(axis=0)
        precisions = [p for p in self._average_precisions() if p is not None]
        return {
            "loss": self.loss / self.images,
            "binary_accuracy": float((said == has).mean()),
            "f1_score": mean_f1(right, said.sum(axis=0), has.sum(axis=0)),
            "mean_average_precision": share(sum(precisions), len(precisions)),
        }

    def _average_precisions(self) -> list[float | None]:
        from sklearn.metrics import average_precision_score  # takes a second

        return [
            float(average_precision_score(having, score)) if having.any() else None
            for having, score in zip(*(part.T for part in self._all), strict=True)
        ]

    def per_class(self, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Precision, recall, F1, average precision and support of every label.

        None where it is a share of nothing: see `Tally.per_class`.
        """
        has, scores = self._all
        said = scores > THRESHOLD
        counts = zip(
            *((part.sum(axis=0).tolist()) for part in (said & has, said, has)),
            strict=True,
        )
        return {
            name: {
                "precision": share(right, named),
                "recall": share(right, all_),
                "f1": share(2 * right, all_ + named),
                "average_precision": average,
                "support": all_,
            }
            for name, (right, named, all_), average in zip(
                classes, counts, self._average_precisions(), strict=True
            )
        }

    def worst(self) -> list[Mistake]:
        """The most confident mistakes, one of an image at most, the surest first."""
        has, scores = self._all
        wrong = (scores > THRESHOLD) != has
        confidence = np.where(wrong, np.where(has, 1 - scores, scores), -1)
        label = confidence.argmax(axis=1)
        surest = confidence.max(axis=1)
        numbers = np.concatenate(self._numbers)
        order = np.lexsort([numbers, -surest])[:MISTAKES]
        return [
            Mistake(int(numbers[n]), int(label[n]), float(surest[n]), has[n])
            for n in order
            if surest[n] >= 0
        ]
