"""The benchmark of strategies and checkpoints runs, and its results are whole."""

import json

import pytest

from experiments.benchmarks import distribution
from keras_mobilenets.training.strategies import DESCRIPTIONS

TINY = ("mobilenet_v1", 0.25, 32, 4)


def test_results_are_of_all_cases_and_contenders():
    kept = json.loads(distribution.RESULT.read_text())
    cases = [" ".join(map(str, case)) for case in distribution.CASES]
    assert list(kept["steps"]) == cases
    for figures in kept["steps"].values():
        assert list(figures) == list(distribution.STRATEGIES)
        assert figures["device"]["of_device"] == 1
        for which in ("replicas", "workers"):
            sizes = [str(4 * numbers) for numbers in distribution.MESSAGES]
            assert list(figures[which]["all_reduce_s"]) == sizes
    large = " ".join(map(str, distribution.LARGE))
    assert list(kept["checkpoints"]) == ["quick start", large]


def test_contenders_have_strategies_that_exist():
    assert {name for name, _ in distribution.STRATEGIES.values()} <= set(DESCRIPTIONS)
    assert set(distribution.HALVES) < set(distribution.STRATEGIES)


@pytest.mark.slow
def test_steps_of_one_process_and_of_two():
    figures = distribution.measure_steps(TINY, ["device", "workers"], turns=1)
    assert figures["device"]["of_device"] == figures["device"]["cpu_of_device"] == 1
    for row in figures.values():
        assert row["step_s"] > 0
        assert row["cpu_s"] > 0
    assert len(figures["workers"]["all_reduce_s"]) == len(distribution.MESSAGES)


@pytest.mark.slow
def test_checkpoints_of_a_run_and_of_a_large_network(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    measured = distribution.measure_checkpoints(
        TINY, turns=1, name="mobilenet_v1", alpha=0.25, resolution=32, epochs=2
    )
    run, large = measured.values()
    assert run["saves"] == 2  # one after every epoch
    assert run["share"] == pytest.approx(
        run["saves"] * run["save_s"] / run["run_s"], rel=0.01
    )
    assert 0 < large["share"] < 1
    # Weights, moving averages and two slots, in float32.
    assert large["file_mb"] > 4 * 0.4
