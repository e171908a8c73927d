"""Figures of an evaluation against scikit-learn's, and calibration by hand."""

import json
import tracemalloc

import numpy as np
import pytest
from sklearn import metrics

from keras_mobilenets.errors import UsageError
from keras_mobilenets.inference.tally import BINS, COLUMNS, MISTAKES, Tally


def rows_for(labels, scores, weights=None, first=0):
    """What the pass over a split gives for these probabilities."""
    labels = np.asarray(labels)
    own = scores[np.arange(len(labels)), labels]
    of = {
        "number": first + np.arange(len(labels)),
        "label": labels,
        "predicted": scores.argmax(axis=1),
        "confidence": scores.max(axis=1),
        "loss": -np.log(own),
        "top5": (scores > own[:, None]).sum(axis=1) < 5,
        "weight": np.ones(len(labels)) if weights is None else weights,
    }
    return np.stack([np.asarray(of[name], np.float64) for name in COLUMNS], axis=1)


def draw(images, classes, seed=0, sharpness=1.0):
    """Labels and probabilities that are right more often than by chance."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    logits = random.normal(size=(images, classes)) * sharpness
    logits[np.arange(images), labels] += 2
    scores = np.exp(logits)
    return labels, scores / scores.sum(axis=1, keepdims=True)


def tally_of(*rows):
    tally = Tally()
    for some in rows:
        tally.add(some)
    return tally


def matrix(tally, names):
    confusion = tally.confusion(names)
    return [[confusion.get(t, {}).get(p, 0) for p in names] for t in names]


@pytest.mark.parametrize("classes", [2, 10, 101])
def test_figures_are_scikit_learns(classes):
    labels, scores = draw(1000, classes)
    names = [f"class {number}" for number in range(classes)]
    tally = tally_of(*(rows_for(labels[i : i + 96], scores[i : i + 96], first=i)
                       for i in range(0, 1000, 96)))  # fmt: skip
    said = scores.argmax(axis=1)
    numbers = range(classes)
    expected = metrics.confusion_matrix(labels, said, labels=numbers)
    assert matrix(tally, names) == expected.tolist()
    columns = metrics.precision_recall_fscore_support(
        labels, said, labels=numbers, zero_division=np.nan
    )
    for name, *figures in zip(names, *columns, strict=True):
        ours = list(tally.per_class(names)[name].values())
        given = [np.nan if value is None else value for value in ours]
        np.testing.assert_allclose(given, figures, rtol=1e-12)
    assert tally.right / tally.images == metrics.accuracy_score(labels, said)
    top5 = metrics.top_k_accuracy_score(labels, scores, k=5, labels=numbers) if (
        classes > 5
    ) else 1  # fmt: skip
    assert tally.top5 / tally.images == pytest.approx(top5)
    assert tally.loss / tally.images == pytest.approx(metrics.log_loss(labels, scores))


def test_shares_of_nothing_are_none():
    """Class 2 has no images, class 3 is never predicted, class 4 is neither."""
    scores = np.full((4, 5), 0.05)
    scores[range(4), [0, 1, 2, 2]] = 0.8
    tally = tally_of(rows_for([0, 0, 3, 3], scores))
    figures = tally.per_class("abcde")
    assert figures["a"] == {"precision": 1, "recall": 0.5, "f1": 2 / 3, "support": 2}
    assert figures["c"] == {"precision": 0, "recall": None, "f1": 0, "support": 0}
    assert figures["d"] == {"precision": None, "recall": 0, "f1": 0, "support": 2}
    assert figures["e"] == dict(precision=None, recall=None, f1=None, support=0)
    json.dumps([figures, tally.reliability()], allow_nan=False)


@pytest.mark.parametrize("sharpness", [0.3, 1, 3])
def test_calibration_by_hand(sharpness):
    labels, scores = draw(2000, 10, sharpness=sharpness)
    tally = tally_of(rows_for(labels, scores))
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    error = 0
    for number, row in enumerate(tally.reliability()):
        inside = (confidence > number / BINS) & (confidence <= (number + 1) / BINS)
        assert row["images"] == inside.sum()
        assert (row["low"], row["high"]) == pytest.approx(
            (number / BINS, (number + 1) / BINS)
        )
        if not inside.any():
            assert row["accuracy"] is row["confidence"] is None
            continue
        assert row["accuracy"] == pytest.approx(right[inside].mean())
        assert row["confidence"] == pytest.approx(confidence[inside].mean())
        gap = abs(right[inside].mean() - confidence[inside].mean())
        error += inside.mean() * gap
    assert tally.calibration_error() == pytest.approx(error)
    assert error > 0.02


def test_certainty_is_in_the_last_bin_and_edges_in_the_lower():
    scores = np.array([[1.0, 0], [1 + 1e-7, 0], [0.6, 0.4]])
    counts = [row["images"] for row in tally_of(
        np.nan_to_num(rows_for([0, 0, 0], scores))).reliability()]  # fmt: skip
    assert counts[-1] == 2
    assert counts[8] == 1  # (8/15, 9/15]


def test_filling_and_what_has_broken_do_not_count():
    labels, scores = draw(50, 3)
    weights = np.arange(50) % 3 > 0
    some = tally_of(rows_for(labels, scores, weights))
    expected = tally_of(rows_for(labels[weights], scores[weights]))
    assert some.images == weights.sum()
    assert some.pairs == expected.pairs
    assert some.calibration_error() == pytest.approx(expected.calibration_error())
    assert {n for _, n, *_ in some.worst} <= set(np.flatnonzero(weights))


def test_the_surest_mistakes_come_first_whatever_the_batches():
    labels, scores = draw(500, 5)
    rows = rows_for(labels, scores)
    tally = tally_of(*np.array_split(rows[::-1], 7))
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    worst = wrong[np.argsort(-scores[wrong].max(axis=1), kind="stable")][:MISTAKES]
    assert [number for _, number, *_ in tally.worst] == worst.tolist()
    for confidence, number, label, predicted in tally.worst:
        assert -confidence == scores[number].max()
        assert (label, predicted) == (labels[number], scores[number].argmax())


def test_no_mistake_at_all():
    tally = tally_of(rows_for([0, 1], np.array([[0.75, 0.25], [0.25, 0.75]])))
    assert not tally.worst
    assert tally.calibration_error() == pytest.approx(0.25)


@pytest.mark.parametrize("column", ["confidence", "loss"])
def test_what_is_no_number_is_refused(column):
    labels, scores = draw(10, 3)
    rows = rows_for(labels, scores)
    rows[7, COLUMNS.index(column)] = np.nan
    with pytest.raises(UsageError, match=r"no number \(NaN\) for image 7"):
        tally_of(rows)
    rows[7, COLUMNS.index("weight")] = 0
    assert tally_of(rows).images == 9


def test_two_classes_of_one_name_stay_two():
    """A folder of that name, and the background class of a recipe."""
    scores = np.array([[0.75, 0.25], [0.25, 0.75]])
    tally = tally_of(rows_for([1, 1], scores))
    names = ["background (class 0)", "background (class 1)"]
    assert list(tally.per_class(["background"] * 2)) == names
    assert tally.confusion(["background"] * 2) == {names[1]: dict.fromkeys(names, 1)}


def test_memory_at_the_size_of_imagenet():
    """50,000 images of 1,000 classes: their scores alone would take 200 MB."""
    random = np.random.default_rng(0)
    names = [f"n{number:08}" for number in range(1000)]
    tracemalloc.start()
    tally = Tally()
    for start in range(0, 50_000, 500):
        rows = random.random((500, len(COLUMNS)))
        rows[:, 0] = start + np.arange(500)
        rows[:, 1:3] = random.integers(0, 1000, (500, 2))
        tally.add(rows)
    tally.per_class(names), tally.confusion(names)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tally.images == 50_000
    assert peak < 50e6
