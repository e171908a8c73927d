import pytest

from keras_mobilenets.architecture import recommend
from keras_mobilenets.architecture.published import published
from tests.data import read

SLIM = read("slim_checkpoints")
COSTS = read("recomputed_costs")


def point(name, alpha, resolution):
    (found,) = (p for p in published() if p[:3] == (name, alpha, resolution))
    return found


def test_all_points_once():
    assert len({p[:3] for p in published()}) == len(published()) == 38


@pytest.mark.parametrize(
    ("name", "row"),
    [
        (name, row)
        for name in ("mobilenet_v1", "mobilenet_v2")
        for row in SLIM[name]["rows"]
    ],
    ids=str,
)
def test_results_are_slims(name, row):
    alpha, resolution, _, _, top1, top5, *latency = row
    found = point(name, alpha, resolution)
    assert (found.top1, found.top5) == (top1, top5)
    if latency:
        assert [found.latency_ms] == latency


@pytest.mark.parametrize(
    ("name", "row"),
    [
        (name, row)
        for name in ("mobilenet_v1", "mobilenet_v2")
        for row in COSTS[name]["rows"]
    ],
    ids=str,
)
def test_costs_are_recomputed(name, row):
    alpha, resolution, macs, _, _, total = row
    found = point(name, alpha, resolution)
    assert (found.macs, found.params) == (macs, total)


def test_slims_v2_mult_adds_are_ours_truncated():
    for alpha, resolution, macs_m, *_ in SLIM["mobilenet_v2"]["rows"]:
        assert point("mobilenet_v2", alpha, resolution).macs // 10**6 == macs_m


def test_papers_accuracies():
    printed = {p[:3]: p.paper_top1 for p in published() if p.paper_top1}
    assert printed == {
        ("mobilenet_v1", 1.0, 224): 70.6,  # V1 Tables 6 and 7
        ("mobilenet_v1", 0.75, 224): 68.4,
        ("mobilenet_v1", 0.5, 224): 63.7,
        ("mobilenet_v1", 0.25, 224): 50.6,
        ("mobilenet_v1", 1.0, 192): 69.1,
        ("mobilenet_v1", 1.0, 160): 67.2,
        ("mobilenet_v1", 1.0, 128): 64.4,
        ("mobilenet_v1", 0.5, 160): 60.2,  # V1 Table 9
        ("mobilenet_v2", 1.0, 224): 72.0,  # V2 Table 4
        ("mobilenet_v2", 1.4, 224): 74.7,
    }


def test_v1_has_one_latency():
    timed = [p[:3] for p in published() if p.name == "mobilenet_v1" and p.latency_ms]
    assert timed == [("mobilenet_v1", 1.0, 224)]


@pytest.mark.parametrize(
    ("limits", "best"),
    [
        ({}, ("mobilenet_v2", 1.4, 224)),
        ({"max_macs": 100e6}, ("mobilenet_v2", 0.5, 224)),
        ({"max_macs": 300e6}, ("mobilenet_v2", 1.0, 192)),  # 1.0-224 has 300.8 M
        ({"max_params": 1e6}, ("mobilenet_v1", 0.25, 224)),
        ({"max_latency_ms": 10}, ("mobilenet_v2", 0.5, 128)),
        ({"name": "mobilenet_v1"}, ("mobilenet_v1", 1.0, 224)),
        ({"max_macs": 50e6, "max_params": 1.9e6}, ("mobilenet_v2", 0.35, 192)),
    ],
)
def test_recommended_first(limits, best):
    assert recommend(**limits)[0][:3] == best


def test_limits_hold_and_nothing_is_left_out():
    chosen = recommend(max_macs=200e6, max_params=3e6, min_top1=60)
    fitting = {
        p for p in published() if p.macs <= 200e6 and p.params <= 3e6 and p.top1 >= 60
    }
    assert len(fitting) > 3
    assert set(chosen) == fitting
    assert len(chosen) == len(fitting)


def test_limits_are_inclusive():
    macs = point("mobilenet_v2", 0.5, 224).macs
    assert recommend(max_macs=macs)[0].macs == macs
    assert recommend(max_macs=macs - 1)[0].macs < macs


def test_most_accurate_first_then_cheapest():
    chosen = recommend()
    keys = [(-p.top1, p.macs) for p in chosen]
    assert len(chosen) == 38
    assert keys == sorted(keys)
    assert len({p.top1 for p in chosen}) < 38  # there are ties to order


def test_unknown_latency_never_fits_a_latency_limit():
    assert all(p.latency_ms <= 200 for p in recommend(max_latency_ms=200))
    assert len(recommend(max_latency_ms=200)) == 23  # 22 of V2 and one of V1


def test_nothing_fits():
    assert recommend(max_macs=1e6) == []
    assert recommend(min_top1=99) == []


@pytest.mark.parametrize(
    "argument", ["max_macs", "max_params", "max_latency_ms", "min_top1"]
)
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "150e6", True, [1]])
def test_bad_limits(argument, value):
    with pytest.raises(ValueError, match=argument) as error:
        recommend(**{argument: value})
    assert repr(value) in str(error.value)


def test_unknown_name():
    with pytest.raises(ValueError, match="did you mean 'mobilenet_v2'"):
        recommend(name="mobilenetv2")


@pytest.mark.parametrize("fraction", [0, 0.7, 100.1])
def test_accuracy_is_in_percent(fraction):
    with pytest.raises(ValueError, match="min_top1 must .*in percent, such as 70"):
        recommend(min_top1=fraction)
