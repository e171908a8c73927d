import dataclasses
import itertools
import pickle

import keras_tuner
import pytest

import keras_mobilenets as km
from keras_mobilenets.architecture.published import published
from keras_mobilenets.tuning.points import key_of
from keras_mobilenets.tuning.space import ALPHAS, RESOLUTIONS, Space

V2_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)


def test_without_a_budget_every_combination_is_feasible_in_order():
    space = Space(("mobilenet_v2", "mobilenet_v1"), (1.0, 0.5), (128, 96))
    assert [point.key for point in space.feasible] == list(
        itertools.product(("mobilenet_v2", "mobilenet_v1"), (1.0, 0.5), (128, 96))
    )


def test_defaults_are_the_published_grid_of_v2():
    keys = [point.key for point in Space().feasible]
    assert keys == list(itertools.product(["mobilenet_v2"], ALPHAS, RESOLUTIONS))
    assert set(keys) <= {point[:3] for point in published()}


@pytest.mark.parametrize("classes", [10, 1000])
def test_costs_are_those_of_the_plan(classes):
    for point in Space(alphas=(0.35, 1.4), classes=classes).feasible:
        name, alpha, resolution = point.key
        cost = km.cost(name, alpha=alpha, resolution=resolution, classes=classes)
        assert point[3:6] == (cost.macs, cost.params, cost.peak_memory)
        assert point.rho == resolution / 224


def test_variations_of_the_network_count():
    space = Space(alphas=0.5, variant={"expansion": 4}, max_macs=60e6)
    for point in space.feasible:
        cost = km.cost(
            *point.key[:1], alpha=0.5, resolution=point.resolution, expansion=4
        )
        assert point[3:6] == (cost.macs, cost.params, cost.peak_memory)
        assert point.latency_ms is None  # the published ones are of another network
    assert len(space.feasible) > len(Space(alphas=0.5, max_macs=60e6).feasible)


@pytest.mark.parametrize(
    ("limit", "field", "value"),
    [
        ("max_macs", "macs", 50e6),
        ("max_macs", "macs", 50_184_000),  # exactly that of alpha 0.5 at 160 px
        ("max_params", "params", 2e6),
        ("max_memory", "peak_memory", 1_105_920),
        ("max_latency_ms", "latency_ms", 18),
    ],
)
def test_every_limit_keeps_what_is_within_and_nothing_else(limit, field, value):
    everything = Space(alphas=V2_ALPHAS).feasible
    expected = [
        point
        for point in everything
        if getattr(point, field) is not None and getattr(point, field) <= value
    ]
    assert 0 < len(expected) < len(everything)
    assert list(Space(alphas=V2_ALPHAS, **{limit: value}).feasible) == expected


def test_seventy_percent_excluded():
    space = Space(alphas=V2_ALPHAS, max_latency_ms=18)
    assert len(space.feasible) == 9  # of 30
    assert all(point.latency_ms <= 18 for point in space.feasible)


def test_rhos_are_resolutions():
    space = Space(rhos=(1, 0.857, 0.714, 0.571))
    assert space.resolutions == (224, 192, 160, 128)
    assert dataclasses.replace(space, max_macs=1e9).resolutions == space.resolutions
    with pytest.raises(ValueError, match="give rhos or resolutions, not both"):
        Space(rhos=(1,), resolutions=(224,))


def test_measured_latency_from_a_mapping_or_a_function():
    measured = {("mobilenet_v2", 0.35, 96): 3.0, ("mobilenet_v2", 0.5, 96): 5.0}
    by_mapping = Space(latency=measured, max_latency_ms=4)
    assert [(p.key, p.latency_ms) for p in by_mapping.feasible] == [
        (("mobilenet_v2", 0.35, 96), 3.0)
    ]
    asked = []

    def measure(name, alpha, resolution):
        asked.append((alpha, resolution))
        return alpha * resolution

    by_function = Space(latency=measure, max_latency_ms=60, max_macs=30e6)
    assert {p.key[1:] for p in by_function.feasible} == {
        (0.35, 96),
        (0.35, 128),
        (0.5, 96),
    }
    assert len(asked) == len(set(asked)) == 3  # nothing beyond the other limits
    assert pickle.loads(pickle.dumps(Space(latency=measured))) == Space(
        latency=measured
    )


@pytest.mark.parametrize(
    ("budget", "nearest", "fix"),
    [
        ({"max_macs": 5e6}, "alpha 0.35 at 96 px: 11,934,128 mult-adds", "64 px"),
        ({"max_params": 1.6e6}, "1,691,208 parameters", "alpha 0.25 at"),
        ({"max_memory": 3e5}, "552,960 bytes of activations", "at 64 px"),
        ({"max_latency_ms": 1}, "alpha 0.35 at 96 px: 4.5 ms", "raise the budget"),
        ({"max_macs": 1e3}, "11,934,128", "No smaller network"),
        ({"max_macs": 12e6, "max_params": 1e6}, "11,934,128 mult-adds, 1,691,208", ""),
    ],
)
def test_an_infeasible_space_names_the_nearest_points(budget, nearest, fix):
    with pytest.raises(ValueError, match="must leave at least one of the 20") as error:
        Space(**budget)
    assert nearest in str(error.value)
    assert fix in str(error.value)
    assert all(
        f"{limit}={value:g}" in str(error.value) for limit, value in budget.items()
    )


def test_the_points_named_as_feasible_are():
    with pytest.raises(ValueError, match="Within it would be") as error:
        Space(max_macs=5e6)
    named = str(error.value).partition("Within it would be ")[2].partition(": add")[0]
    for entry in named.split("; "):
        name, _, alpha, _, size, *_ = entry.split()
        Space((name,), (float(alpha),), (int(size),), max_macs=5e6)


def test_an_infeasible_space_is_measured_once():
    asked = []

    def measure(*key):
        asked.append(key)
        return 9.0

    with pytest.raises(ValueError, match=r"max_latency_ms=5 .*: 9 ms"):
        Space(latency=measure, max_latency_ms=5)
    assert len(asked) == len(set(asked)) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ()}, "names must hold at least one of mobilenet_v1"),
        ({"names": "mobilenet_v3"}, "name must be one of"),
        ({"alphas": ()}, "alphas must hold at least one number; got none"),
        ({"alphas": (0.5, -1)}, "alpha must be a finite number above 0"),
        ({"alphas": "0.5"}, "alpha must be a finite number"),
        ({"alphas": b"1"}, "alpha must be a finite number"),
        ({"resolutions": (16,)}, "resolution must be a whole number of at least 32"),
        ({"rhos": (0.1,)}, "rho must be at least"),
        ({"classes": 0}, "classes must be a whole number"),
        ({"max_macs": 0}, "max_macs must be a finite number above 0"),
        ({"max_memory": "1 MB"}, "max_memory must be a finite number"),
        ({"latency": 5}, "latency must be a mapping"),
        ({"latency": lambda *key: -1}, "latency of mobilenet_v2 alpha 0.35"),
        ({"learning_rate": 0.1}, r"learning_rate must be a range \(low, high\)"),
        ({"learning_rate": (0, 0.1)}, r"learning_rate\[0\] must be .* above 0"),
        ({"dropout": (0.2, 0.2)}, r"dropout\[1\] must be a finite number above 0.2"),
        ({"dropout": (0, 1)}, "at most 0.99"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        Space(**arguments)


def test_single_values_need_no_tuple_and_none_counts_twice():
    space = Space("mobilenet_v1", 0.5, [96, 96])
    assert [point.key for point in space.feasible] == [("mobilenet_v1", 0.5, 96)]


def test_declared_hyperparameters():
    space = Space(
        alphas=(1.4, 0.35, 0.5),
        resolutions=(224, 96),
        max_macs=60e6,
        learning_rate=(1e-3, 1e-1),
        dropout=(0, 0.5),
    )
    hp = keras_tuner.HyperParameters()
    values = space.declare(hp)
    # Alpha 1.4 has no feasible point; the defaults are one together.
    assert {h.name: getattr(h, "values", None) for h in hp.space[:3]} == {
        "name": ["mobilenet_v2"],
        "alpha": [0.35, 0.5],
        "resolution": [224, 96],
    }
    assert values == hp.values
    assert (values["alpha"], values["resolution"]) == space.feasible[0].key[1:]
    assert [(h.name, h.sampling) for h in hp.space[3:]] == [
        ("learning_rate", "log"),
        ("dropout", "linear"),
    ]
    hp.values["alpha"] = 0.5
    assert space.declare(hp)["alpha"] == 0.5  # declared again: the trial's value


PAIRS = Space(alphas=(0.35, 0.5), resolutions=(96, (96, 160), "160x96"), max_macs=45e6)


def test_resolutions_of_two_sides_are_counted_as_they_are():
    assert PAIRS.resolutions == (96, (96, 160), (160, 96))
    assert [point.key[1:] for point in PAIRS.feasible] == [
        (0.35, 96),
        (0.35, (96, 160)),
        (0.35, (160, 96)),
        (0.5, 96),
        (0.5, (96, 160)),
        (0.5, (160, 96)),
    ][: len(PAIRS.feasible)]
    for point in PAIRS.feasible:
        cost = km.cost(alpha=point.alpha, resolution=point.resolution)
        assert point[3:6] == (cost.macs, cost.params, cost.peak_memory)
        assert (point.rho is None) == (point.resolution != 96)
        assert (point.latency_ms is None) == (point.resolution != 96)
    assert "at 96x160 px" in str(PAIRS.feasible[1])


def test_hyperparameters_of_two_sides_are_text_of_one_type():
    hp = keras_tuner.HyperParameters()
    values = PAIRS.declare(hp)
    assert hp.space[2].values == ["96x96", "96x160", "160x96"]
    assert values["resolution"] == "96x96"
    for point in PAIRS.feasible:
        assert key_of(PAIRS.values(point)) == point.key
    assert Space().values(Space().feasible[0])["resolution"] == 96


def test_channels_count():
    space = Space(alphas=0.5, variant={"channels": 1})
    for point in space.feasible:
        cost = km.cost(alpha=0.5, resolution=point.resolution, channels=1)
        assert point[3:6] == (cost.macs, cost.params, cost.peak_memory)
        assert point.latency_ms is None  # the published ones are of RGB


def test_a_budget_that_leaves_nothing_of_two_sides():
    with pytest.raises(ValueError, match="alpha 0.35 at 96x160 px") as error:
        Space(alphas=(0.35, 0.5), resolutions=((96, 160),), max_macs=15e6)
    within = str(error.value).split("Within it would be")[1]
    assert "at 96x160 px" in within
    assert "at 96 px" not in within


def test_latency_of_two_sides():
    measured = {("mobilenet_v2", 0.35, (96, 160)): 3.0}
    space = Space(alphas=0.35, resolutions=((96, 160),), latency=measured)
    assert space.feasible[0].latency_ms == 3.0
