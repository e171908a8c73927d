"""Class weights: what they are, and where they come in a batch."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

import keras_mobilenets as km
from keras_mobilenets.data.digits import prepared_digits
from keras_mobilenets.errors import UsageError
from keras_mobilenets.recipe import recipes

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 9, 9)).astype(np.uint8)
LABELS = np.array(["cat"] * 40 + ["dog"] * 15 + ["fox"] * 5)


def load(labels=LABELS, source=None, **options):
    data = (IMAGES, labels) if source is None else source
    return km.load_data(data, **{"resolution": 32, "batch_size": 4, **options})


def labels_of(data):
    return np.concatenate([labels for _, labels in data.train_once.as_numpy_iterator()])


def assert_weighs(data, weights):
    """Every image of a training batch has the weight of its class."""
    for _, labels, found in data.train.as_numpy_iterator():
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, np.array(weights)[labels], rtol=1e-6)
    assert len(next(data.validation.as_numpy_iterator())) == 2


def test_balanced_is_scikit_learns():
    data = load(class_weight="balanced")
    expected = compute_class_weight(
        "balanced", classes=np.arange(3), y=labels_of(load())
    )
    np.testing.assert_allclose(data.class_weights, expected)
    assert_weighs(data, expected)


def test_balanced_counts_what_tfds_has(tmp_path):
    prepared_digits(tmp_path)
    options = dict(source="digits", data_dir=tmp_path, splits={"train": "train[:60]"})
    labels = labels_of(load(**options))
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    data = load(**options, class_weight="balanced")
    np.testing.assert_allclose(
        np.array(data.class_weights)[np.unique(labels)], expected
    )
    assert_weighs(data, data.class_weights)


@pytest.mark.parametrize(
    ("asked", "labels", "expected"),
    [
        ({"cat": 3}, LABELS, (3, 1, 1)),
        ({1: 3, "fox": 0.5}, LABELS, (1, 3, 0.5)),
        ({"2": 0}, LABELS, (1, 1, 0)),
        ({3: 2.5}, np.repeat([3, 4, 5], 20), (2.5, 1, 1)),
    ],
    ids=["name", "number", "number as text", "numbers as names"],
)
def test_a_mapping(asked, labels, expected):
    data = load(labels, class_weight=asked)
    assert data.class_weights == expected
    assert_weighs(data, expected)


def test_a_background_class_has_none():
    recipe = recipes["quick"].replace(background_class=True)
    data = load(class_weight={"cat": 3}, recipe=recipe)
    assert data.class_weights == (3, 1, 1)
    assert_weighs(data, (np.nan, 3, 1, 1))


def test_images_and_order_are_those_without():
    plain, weighed = (
        load(recipe="slim_v2"),
        load(recipe="slim_v2", class_weight="balanced"),
    )
    for one, other in zip(
        plain.train.as_numpy_iterator(), weighed.train.as_numpy_iterator(), strict=True
    ):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("balance", "must be 'balanced' or a mapping.*got 'balance'"),
        (2, "must be 'balanced' or a mapping"),
        ({}, "must be 'balanced' or a mapping"),
        (
            {"cta": 2},
            "of the data, cat, dog, fox; got 'cta'; did you mean",
        ),
        ({3: 2}, "classes of the data.*got '3'"),
        ({"cat": -1}, r"class_weight\['cat'\] must be a finite number of at least 0"),
        ({"cat": float("nan")}, r"class_weight\['cat'\] must be a finite number"),
        ({"cat": "2"}, r"class_weight\['cat'\] must be a finite number"),
        ({1: 2, "1": 3}, "must name a class once; got '1' twice"),
        ({1.5: 2}, "the label of class_weight must be text"),
    ],
)
def test_what_is_refused(asked, message):
    with pytest.raises(UsageError, match=message):
        load(class_weight=asked)
    if asked not in ({"cta": 2}, {3: 2}):  # before there is any data
        with pytest.raises(UsageError, match=message):
            km.train(data="nowhere", class_weight=asked)


def test_numbers_are_names_where_a_class_has_one():
    with pytest.raises(UsageError, match="classes of the data, 3, 4, 5; got '0'"):
        load(np.repeat([3, 4, 5], 20), class_weight={0: 2})
