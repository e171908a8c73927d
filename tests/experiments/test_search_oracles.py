"""The offline benchmark of the oracles, and what is kept of it."""

import json
import statistics

import pytest

from experiments import search_oracles
from experiments.search_oracles import ORACLES, PROBLEMS, RESULT, SEEDS, optimum, row
from keras_mobilenets.architecture import recommend
from keras_mobilenets.architecture.published import published

KEPT = {(r["problem"], r["oracle"]): r for r in json.loads(RESULT.read_text())["rows"]}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_all_feasible_points_are_published_and_the_best_is_what_is_recommended(problem):
    space = PROBLEMS[problem]
    assert {p.key for p in space.feasible} <= {p[:3] for p in published()}
    limits = dict(space.limits)
    allowed = {p.key for p in space.feasible}
    best = next(p for p in recommend(**limits) if p[:3] in allowed)
    assert optimum(space) == best[:3]


def test_the_first_problem_excludes_seventy_percent():
    kept = KEPT[next(iter(PROBLEMS)), "grid"]
    assert (kept["feasible"], kept["of"]) == (9, 30)


def test_nothing_is_left_out_of_the_kept_results():
    assert set(KEPT) == {
        (problem, oracle) for problem in PROBLEMS for oracle in ORACLES
    }
    for (_, oracle), kept in KEPT.items():
        assert len(kept["trials"]) == (1 if oracle == "grid" else SEEDS)


def test_every_search_found_the_optimum():
    assert all(kept["found"] == len(kept["trials"]) for kept in KEPT.values())
    assert all(None not in kept["trials"] for kept in KEPT.values())


@pytest.mark.parametrize("prior", ["", ", prior"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_bayesian_was_no_worse_than_random(problem, prior):
    bayesian, random = (KEPT[problem, kind + prior] for kind in ("bayesian", "random"))
    assert bayesian["median"] <= random["median"]
    assert bayesian["median"] == statistics.median(bayesian["trials"])


@pytest.mark.parametrize("oracle", ["grid", "random", "hyperband, prior"])
@pytest.mark.parametrize("problem", list(PROBLEMS)[::3])
def test_the_kept_results_are_current(problem, oracle):
    """Of all oracles but the Bayesian, whose arithmetic is the machine's."""
    again = row(problem, oracle, seeds=3)
    kept = KEPT[problem, oracle]
    assert again["trials"] == kept["trials"][:3]
    same = ("feasible", "of", "optimum")
    assert {k: again[k] for k in same} == {k: kept[k] for k in same}


def test_bayesian_finds_the_optimum_here_too():
    assert row("V2 6x5, 18 ms", "bayesian", seeds=3)["found"] == 3


def test_a_search_that_misses_the_optimum_is_told(monkeypatch):
    monkeypatch.setitem(
        search_oracles.ORACLES, "short", {"kind": "grid", "max_trials": 2}
    )
    space = PROBLEMS["V1 4x4"]
    assert (
        search_oracles.trials_to_optimum(space, 0, **search_oracles.ORACLES["short"])
        is None
    )
