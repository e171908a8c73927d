"""The rounding experiment runs, and what it kept says what the README says."""

import json

import numpy as np
import pytest

from experiments import rounding


@pytest.fixture(scope="module")
def rows():
    return json.loads(rounding.RESULT.read_text())["rows"]


def test_every_case_is_kept(rows):
    cases = {(row["name"], row["dtype"], row["learning_rate"]) for row in rows}
    networks, rates = rounding.NETWORKS, rounding.RATES
    assert len(cases) == len(networks) * len(rounding.DTYPES) * len(rates)
    assert len(rows) == 2 * len(cases)
    assert all(len(row["losses"]) == rounding.STEPS for row in rows)


def test_replicas_are_as_equal_as_the_arithmetic_lets_them_be(rows):
    for row in rows:
        if (row["dtype"], row["learning_rate"]) == ("float64", 1e-5):
            assert max(*row["losses"], row["weights"]) < 1e-5


def test_a_unit_in_the_last_place():
    weights = [np.ones((2, 3), "float32"), np.zeros(2, "float32")]
    one, zero = rounding.moved(weights)
    assert one.dtype == "float32"
    np.testing.assert_allclose(np.abs(one - 1), np.finfo("float32").eps)
    np.testing.assert_array_equal(zero, 0)


def test_comparison():
    one = rounding.Trajectory(np.array([1.0, 2.0]), [np.zeros(2), np.ones(1)])
    other = rounding.Trajectory(np.array([1.0, 1.0]), [np.full(2, -3.0), np.ones(1)])
    assert rounding.compare(one, other) == {"losses": [0.0, 1.0], "weights": 3.0}
