"""What is measured of a space, and what is made of it when a search goes on."""

import json

import pytest

from keras_mobilenets.errors import UsageError
from keras_mobilenets.tuning.latency import as_function, measure
from keras_mobilenets.tuning.space import Space

SPACE = Space(alphas=(0.35, 1.0), resolutions=(96, (96, 160)))


def test_only_points_within_the_rest_of_the_budget_are_measured():
    asked, said = [], []

    def measure_point(point):
        asked.append(point.key)
        return 1.5 * len(asked)

    budget = {"max_macs": 20e6, "max_latency_ms": 2, "latency": "litert"}
    rows = measure(SPACE, budget, measure_point, said.append)
    assert asked == [
        ("mobilenet_v2", 0.35, 96),
        ("mobilenet_v2", 0.35, (96, 160)),
    ]
    assert said == ["measuring the latency of 2 points"]
    known = as_function(json.loads(json.dumps(rows)), "search.json")
    assert known(*asked[0]) == 1.5
    assert known(*asked[1]) == 3
    assert known("mobilenet_v2", 1.0, 96) is None
    within = Space(
        alphas=(0.35, 1.0),
        resolutions=(96, (96, 160)),
        **{**budget, "latency": known},
    )
    assert [point.key for point in within.feasible] == asked[:1]


def test_a_budget_that_no_point_keeps_is_not_measured():
    with pytest.raises(UsageError, match="max_macs=1000 must leave at least one"):
        measure(SPACE, {"max_macs": 1000}, pytest.fail, print)


@pytest.mark.parametrize(
    "rows",
    [
        None,
        7,
        [7],
        [{"name": "mobilenet_v2", "alpha": 0.35, "resolution": 96}],
        [{"name": "mobilenet_v2", "alpha": 0.35, "resolution": 96, "latency_ms": "x"}],
        [{"name": "mobilenet_v2", "alpha": 0.35, "resolution": "x", "latency_ms": 1}],
    ],
    ids=["none", "number", "numbers", "unmeasured", "text", "resolution"],
)
def test_what_cannot_have_been_measured_is_named(rows):
    with pytest.raises(UsageError, match="'a/search.json' must hold the measured"):
        as_function(rows, "a/search.json")


def test_a_space_by_itself_measures_nothing():
    with pytest.raises(UsageError, match="latency='litert' is measured by search"):
        Space(latency="litert")
