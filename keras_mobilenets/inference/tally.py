"""What the answers of a classifier add up to, image by image.

Nothing is kept of an image but a few numbers, so a split may be of any size: counts of
(true, predicted) pairs, bins of confidence, and the few worst mistakes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mobilenets.errors import UsageError

BINS = 15  # of equal width, as in Guo et al. 2017, "On Calibration of Modern Neural
# Networks" (arXiv:1706.04599), section 2 and their tables
MISTAKES = 25  # the worst, that are named

# What is known of an image: its number in the split, the class it has and the class it
# is said to have, the probability of the latter, the cross entropy, whether its class
# is among the five most probable, and its weight: 0 for filling.
COLUMNS = ("number", "label", "predicted", "confidence", "loss", "top5", "weight")


def counted(rows: np.ndarray, columns: Sequence[str]) -> np.ndarray:
    """The rows whose weight is not 0; the first column numbers the images.

    Raises:
        UsageError: scores that are no numbers.
    """
    rows = rows[rows[:, columns.index("weight")] > 0]
    wrong = rows[~np.isfinite(rows).all(axis=1)]
    if len(wrong):
        raise UsageError(
            "the model must give probabilities; it gave what is no number (NaN) "
            f"for image {int(wrong[0, 0])} of the split"
        )
    return rows


class Tally:
    """The sums over all rows of `COLUMNS` that were added, float64 [n, columns]."""

    def __init__(self) -> None:
        self.images = 0
        self.right = 0
        self.top5 = 0
        self.loss = 0.0
        self.pairs: Counter[tuple[int, int]] = Counter()  # (true, predicted): images
        self.bins = np.zeros([BINS, 3])  # images, those right, sum of confidence
        self.worst: list[tuple[float, int, int, int]] = []  # -confidence, number, ...

    def add(self, rows: np.ndarray) -> None:
        """Count some images; those of weight 0 are none.

        Raises:
            UsageError: scores that are no numbers.
        """
        rows = counted(rows, COLUMNS)
        number, label, predicted = rows[:, :3].astype(np.int64).T
        confidence, loss, top5 = rows[:, 3:6].T
        right = label == predicted
        self.images += len(rows)
        self.right += int(right.sum())
        self.top5 += int(top5.sum())
        self.loss += float(loss.sum())
        self.pairs.update(zip(label.tolist(), predicted.tolist(), strict=True))
        place = _bin_of(confidence)
        for column, values in enumerate((np.ones(len(rows)), right, confidence)):
            np.add.at(self.bins[:, column], place, values)
        mistakes = (-confidence, number, label, predicted)
        self.worst += zip(*(m[~right].tolist() for m in mistakes), strict=True)
        self.worst = sorted(self.worst)[:MISTAKES]

    def per_class(self, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Precision, recall, F1 and support of every class.

        None where it is a share of nothing: the precision of a class that is never
        predicted, the recall of one without images, F1 where both are so.
        """
        true: Counter[int] = Counter()
        said: Counter[int] = Counter()
        for (label, predicted), images in self.pairs.items():
            true[label] += images
            said[predicted] += images
        figures = {}
        for number, name in enumerate(_unique(classes)):
            hits, all_, named = self.pairs[number, number], true[number], said[number]
            figures[name] = {
                "precision": share(hits, named),
                "recall": share(hits, all_),
                "f1": share(2 * hits, all_ + named),
                "support": all_,
            }
        return figures

    def confusion(self, classes: Sequence[str]) -> dict[str, dict[str, int]]:
        """{true class: {predicted class: images}}, without what has no images."""
        names = _unique(classes)
        matrix: dict[str, dict[str, int]] = {}
        for (label, predicted), images in sorted(self.pairs.items()):
            matrix.setdefault(names[label], {})[names[predicted]] = images
        return matrix

    def reliability(self) -> list[dict[str, Any]]:
        """Of every bin of confidence (low, high]: images, confidence, accuracy."""
        edges = _edges().tolist()
        return [
            {
                "low": low,
                "high": high,
                "images": int(images),
                "confidence": share(confidence, images),
                "accuracy": share(right, images),
            }
            for low, high, (images, right, confidence) in zip(
                edges[:-1], edges[1:], self.bins.tolist(), strict=True
            )
        ]

    def calibration_error(self) -> float:
        """Expected calibration error: how far confidence is from accuracy, on average.

        The mean over images of |accuracy - confidence| of their bin: equation 3 of Guo
        et al. 2017.
        """
        _, right, confidence = self.bins.T
        return float(np.abs(right - confidence).sum() / self.images)


def _edges() -> np.ndarray:
    return np.linspace(0, 1, BINS + 1)


def _bin_of(confidence: np.ndarray) -> np.ndarray:
    """The number of the bin (low, high] of each; what rounding put above 1 is 1."""
    return np.searchsorted(_edges()[1:-1], confidence, side="left")


def share(part: float, whole: float) -> float | None:
    """None of nothing."""
    return part / whole if whole else None


def _unique(classes: Sequence[str]) -> list[str]:
    """Names as keys: a folder "background" beside a recipe's background class."""
    counts = Counter(classes)
    return [
        name if counts[name] == 1 else f"{name} (class {number})"
        for number, name in enumerate(classes)
    ]
