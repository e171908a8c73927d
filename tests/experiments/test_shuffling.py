"""The model of the shuffle, and its figures; see tests/data_package/test_order.py."""

import json

import numpy as np
import pytest
import tensorflow as tf

from experiments import shuffling
from keras_mobilenets.data.order import permutation


@pytest.mark.parametrize("at_once", [1, 2, 3, 5])
def test_interleave_is_tf_datas(at_once):
    rows = np.array([[4, 0, 3], [1, 2, 1], [0, 5, 6], [2, 0, 2], [3, 1, 4]])
    expected = (
        tf.data.Dataset.from_tensor_slices(rows)
        .interleave(
            lambda row: tf.data.Dataset.range(row[1], row[1] + row[2]).map(
                lambda number: tf.stack([row[0], number])
            ),
            cycle_length=at_once,
        )
        .as_numpy_iterator()
    )
    np.testing.assert_array_equal(shuffling.interleave(rows, at_once), list(expected))


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_a_buffer_loses_nothing(size):
    left = shuffling.pass_buffer(np.arange(100), size, np.random.default_rng(0))
    assert sorted(left.tolist()) == list(range(100))
    earliest = np.arange(100) - shuffling.places(left)
    assert earliest.max() < size, "none leaves before it is in"


def test_figures_of_orders_that_are_known():
    lying = np.arange(1000)
    group = lying // 100
    assert shuffling.moved(lying, lying) == 0
    assert shuffling.moved(lying, lying[::-1]) == 0.5
    assert shuffling.together(lying, lying, 100) == 1
    assert shuffling.tenths(lying, group) == pytest.approx(9000 / 81)
    first, second = permutation(100_000, 0, 0), permutation(100_000, 0, 1)
    assert shuffling.moved(first, second) == pytest.approx(1 / 3, abs=0.005)
    assert shuffling.together(first, second, 100) == pytest.approx(1e-3, rel=0.2)


def test_the_figures_that_are_written():
    figures = json.loads(shuffling.RESULT.read_text())
    for of in figures.values():
        true, ours = of["true shuffle"], of["ours"]
        assert abs(true["moved"] - 1 / 3) < 0.002
        assert ours["moved"] == pytest.approx(1 / 3, abs=0.01)
        assert 0.9 < ours["classes"] < 1.1
