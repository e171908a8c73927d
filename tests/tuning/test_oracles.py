import collections
import json

import keras_tuner
import numpy as np
import pytest
from keras_tuner.engine.base_tuner import BaseTuner

import keras_mobilenets as km
from keras_mobilenets import storage
from keras_mobilenets.architecture.published import published
from keras_mobilenets.errors import UsageError
from keras_mobilenets.tuning.oracles import make_oracle
from keras_mobilenets.tuning.prior import published_prior
from keras_mobilenets.tuning.progress import summary
from keras_mobilenets.tuning.results import SearchResult
from keras_mobilenets.tuning.space import Space
from tests.tuning.searches import (
    KINDS,
    SEVENTY_PERCENT,
    Recorder,
    accuracy,
    finish,
    oracle_in,
    point_of,
    search,
    table,
)

SMALL = Space(alphas=(0.35, 0.5), resolutions=(96, 128, 160), max_macs=40e6)
SIDES = Space(alphas=(0.35, 0.5), resolutions=(96, (64, 160)), max_macs=30e6)
FAILS = (("mobilenet_v2", 0.35, 128),)

each_kind = pytest.mark.parametrize("kind", KINDS)


def keys(space):
    return [point.key for point in space.feasible]


# Within the budget


@each_kind
@pytest.mark.parametrize("space", SEVENTY_PERCENT, ids=lambda s: " ".join(s.limits))
def test_every_feasible_point_is_tried_and_no_other(kind, space, tmp_path):
    assert len(space.feasible) <= 9  # of 30
    trials = search(oracle_in(tmp_path, kind, space))
    first = [t for t in trials if "tuner/trial_id" not in t.hyperparameters.values]
    assert sorted(map(point_of, first)) == sorted(keys(space))
    assert {point_of(t) for t in trials} == set(keys(space))
    best = max(trials, key=lambda trial: trial.score)
    assert point_of(best) == max(keys(space), key=lambda key: published_prior(*key))


@each_kind
def test_points_of_two_sides_are_tried_and_resumed(kind, tmp_path):
    oracle = oracle_in(tmp_path, kind, SIDES, prior="published")
    finish(oracle, oracle.create_trial("tuner0"))
    oracle.save()
    resumed = oracle_in(tmp_path, kind, SIDES, prior="published")
    resumed.take_up()
    trials = search(resumed)
    assert {point_of(trial) for trial in trials} == set(keys(SIDES))
    sizes = {trial.hyperparameters.values["resolution"] for trial in trials}
    assert sizes == {"96x96", "64x160"}
    table = SearchResult.from_oracle(resumed, SIDES).write(tmp_path / "table.json")
    rows = SearchResult.read(table).table
    assert {(row["resolution"], row["rho"]) for row in rows} == {
        (96, 96 / 224),
        ("64x160", None),
    }
    for row in rows:
        cost = km.cost(alpha=row["alpha"], resolution=row["resolution"])
        assert (row["macs"], row["params"]) == (cost.macs, cost.params)
    SearchResult.read(table).plot(tmp_path / "plot.png")
    assert "  64x160  " in summary(SearchResult.read(table))


@each_kind
@pytest.mark.parametrize("max_trials", [1, 3, 1000])
@pytest.mark.parametrize("points", [1, 5])
def test_any_number_of_trials_and_points(kind, max_trials, points, tmp_path):
    space = Space(alphas=(0.1, 0.25, 0.35, 0.5, 0.75)[:points], resolutions=(96,))
    trials = search(oracle_in(tmp_path, kind, space, max_trials=max_trials))
    wanted = min(points, max_trials)
    assert len(trials) == wanted or (kind == "hyperband" and len(trials) <= max_trials)
    assert len({point_of(trial) for trial in trials}) == wanted


@pytest.mark.parametrize("kind", ["random", "bayesian", "hyperband"])
def test_ranges_are_sampled_within_their_bounds(kind, tmp_path):
    space = Space(max_macs=40e6, learning_rate=(1e-4, 1e-1), dropout=(0.1, 0.4))
    trials = search(oracle_in(tmp_path, kind, space, max_trials=12))
    assert len(trials) == 12
    assert {point_of(trial) for trial in trials} <= set(keys(space))
    values = [trial.hyperparameters.values for trial in trials]
    first = [v for v in values if "tuner/trial_id" not in v]
    for name, (low, high) in space.ranges.items():
        assert all(low <= v[name] <= high for v in values)
        assert len({v[name] for v in first}) == len(first)


def test_the_grid_takes_ten_values_of_a_range(tmp_path):
    space = Space(alphas=(0.35, 0.5), resolutions=(96,), learning_rate=(1e-4, 1e-1))
    trials = search(oracle_in(tmp_path, "grid", space))
    assert [point_of(t)[1] for t in trials] == [0.35] * 10 + [0.5] * 10
    rates = [trial.hyperparameters.values["learning_rate"] for trial in trials]
    assert rates[:10] == rates[10:] == sorted(set(rates))


@pytest.mark.parametrize("objective", ["val_loss", keras_tuner.Objective("x", "min")])
@each_kind
def test_objectives_to_minimise(kind, objective, tmp_path):
    oracle = oracle_in(tmp_path, kind, SMALL, objective=objective)
    search(oracle)
    best = oracle.get_best_trials()[0]
    assert point_of(best) == max(keys(SMALL), key=lambda key: published_prior(*key))


# Seeds


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
@pytest.mark.parametrize("fails", [(), FAILS, keys(SMALL)], ids=["", "one", "all"])
@each_kind
def test_the_same_seed_gives_the_same_search(kind, seed, fails, tmp_path):
    tables = []
    for folder in ("a", "b"):
        oracle = oracle_in(tmp_path / folder, kind, SMALL, seed=seed)
        search(oracle, fails)
        assert oracle.seed == seed
        tables.append(table(oracle))
    assert tables[0] == tables[1]


@pytest.mark.parametrize("kind", ["random", "bayesian", "hyperband"])
def test_other_seeds_give_other_searches(kind, tmp_path):
    orders = set()
    for seed in range(3):
        oracle = oracle_in(tmp_path / str(seed), kind, SMALL, seed=seed)
        orders.add(tuple(map(point_of, search(oracle))))
    assert len(orders) == 3


def test_the_first_draw_is_uniform(tmp_path):
    counts = collections.Counter(
        point_of(
            oracle_in(tmp_path / str(i), "random", SMALL, seed=i).create_trial("t")
        )
        for i in range(200)
    )
    expected = 200 / len(SMALL.feasible)
    assert set(counts) == set(keys(SMALL))
    assert all(abs(n - expected) < 4 * expected**0.5 for n in counts.values())


# Failures


@each_kind
@pytest.mark.parametrize("fails", [FAILS, keys(SMALL)], ids=["one", "all"])
def test_failures_neither_end_the_search_nor_come_again(kind, fails, tmp_path):
    oracle = oracle_in(tmp_path, kind, SMALL)
    trials = search(oracle, fails)
    failed = [trial for trial in trials if trial.status == "FAILED"]
    assert sorted(map(point_of, failed)) == sorted(fails)
    assert {t.message for t in failed} == {"out of memory"}
    assert {point_of(trial) for trial in trials} == set(keys(SMALL))


@pytest.mark.filterwarnings("ignore:All-NaN")  # KerasTuner's own
@each_kind
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_a_failure(kind, value, tmp_path):
    oracle = oracle_in(tmp_path, kind, SMALL, objective="val_loss")
    trial = oracle.create_trial("t")
    oracle.update_trial(trial.trial_id, {"val_loss": value})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)
    search(oracle)
    assert oracle.trials[trial.trial_id].status == "FAILED"
    assert "val_loss is" in oracle.trials[trial.trial_id].message
    assert np.isfinite(oracle.get_best_trials()[0].score)


def test_a_trial_that_reports_nothing_is_a_failure(tmp_path):
    oracle = oracle_in(tmp_path, "grid", SMALL)
    trial = oracle.create_trial("t")
    trial.status = "COMPLETED"
    oracle.end_trial(trial)
    assert oracle.trials[trial.trial_id].status == "FAILED"
    assert oracle.trials[trial.trial_id].message == "val_accuracy is None"
    search(oracle)


# Killed and taken up again


class Killed(BaseException):
    """Not to be caught, like the signal."""


def search_until_killed(monkeypatch, oracle, write, moment, fails):
    """Search up to the given write to disk; True if it came to that.

    `moment` is "before" it, "in" it (the file beside is half written) or "after" it.
    """
    count = 0
    whole = storage.write_json

    def kill_at(path, state):
        nonlocal count
        count += 1
        if count == write and moment == "in":
            beside = path.with_name(f"{storage.PARTIAL}1-{path.name}")
            beside.write_text(json.dumps(state)[:9])
        if count == write and moment != "after":
            raise Killed
        whole(path, state)
        if count == write:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_json", kill_at)
        try:
            search(oracle, fails)
        except Killed:
            return True
    return False


def ended_files(folder):
    return {
        path.name: path.read_bytes()
        for path in folder.glob("search/trials/[!.]*.json")
        if json.loads(path.read_text())["status"] in ("COMPLETED", "FAILED")
    }


@each_kind
@pytest.mark.parametrize("moment", ["before", "in", "after"])
def test_killed_at_any_write_a_search_goes_on_as_it_would_have(
    kind, moment, tmp_path, monkeypatch
):
    whole = oracle_in(tmp_path / "whole", kind, SMALL)
    search(whole, FAILS)
    write = 0
    while True:
        write += 1
        folder = tmp_path / str(write)
        oracle = oracle_in(folder, kind, SMALL)
        if not search_until_killed(monkeypatch, oracle, write, moment, FAILS):
            break
        ended = ended_files(folder)
        resumed = oracle_in(folder, kind, SMALL)
        ran = []
        search(resumed, FAILS, ran)
        assert table(resumed) == table(whole)
        assert len(ran) == len(set(ran)) == len(whole.trials) - len(ended)
        after = ended_files(folder)
        assert {name: after[name] for name in ended} == ended
        assert sorted(resumed.end_order) == sorted(whole.end_order)
    assert write > 4 * len(whole.trials)  # and all of them were killed at


@each_kind
def test_killed_with_several_trials_running(kind, tmp_path):
    oracle = oracle_in(tmp_path, kind, SMALL)
    running = [oracle.create_trial(f"tuner{i}") for i in range(3)]
    finish(oracle, running[1])
    resumed = oracle_in(tmp_path, kind, SMALL)
    again = [resumed.create_trial(f"other{i}") for i in range(2)]
    assert [trial.trial_id for trial in again] == [
        running[0].trial_id,
        running[2].trial_id,
    ]
    assert [t.hyperparameters.values for t in again] == [
        running[0].hyperparameters.values,
        running[2].hyperparameters.values,
    ]
    assert resumed.trials[running[1].trial_id].score == accuracy(running[1])
    for trial in again:
        finish(resumed, trial)
    search(resumed)
    assert {point_of(t) for t in resumed.trials.values()} == set(keys(SMALL))


@each_kind
def test_killed_before_the_first_trial_nothing_declared_is_forgotten(kind, tmp_path):
    oracle_in(tmp_path, kind, SMALL).save()
    oracle = oracle_in(tmp_path, kind, SMALL)
    more = oracle.get_space()
    more.Choice("optimizer", ["rmsprop", "sgd"])
    oracle.update_space(more)
    assert "optimizer" in oracle.create_trial("t").hyperparameters.values


def test_a_finished_search_stays_finished_and_can_be_extended(tmp_path):
    search(oracle_in(tmp_path, "random", SMALL, max_trials=2))
    again = oracle_in(tmp_path, "random", SMALL, max_trials=2)
    assert again.create_trial("t").status == "STOPPED"
    ran = []
    search(oracle_in(tmp_path, "random", SMALL, max_trials=4), ran=ran)
    assert len(ran) == 2


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"kind": "random"}, r"another oracle \(GridOracle\); got RandomOracle"),
        ({"objective": "val_loss"}, "another objective"),
        ({"space": Space(max_macs=20e6)}, r"another points \(5 of them\); got 2"),
    ],
)
def test_another_search_is_not_taken_up(other, message, tmp_path):
    search(oracle_in(tmp_path, "grid", SMALL))
    arguments = {"kind": "grid", "space": SMALL, **other}
    with pytest.raises(ValueError, match=message):
        oracle_in(tmp_path, **arguments).create_trial("t")
    assert len(ended_files(tmp_path)) == len(SMALL.feasible)


# Files that are damaged or gone


def empty(path):
    path.write_text("")


def make_a_list(path):
    path.write_text("[1, 2]")


def nest_deeply(path):
    path.write_text("[" * 100_000)


def unlink(path):
    path.unlink()


def change(*keys, to):
    """Give what lies under `keys` another value."""

    def changed(path):
        state = place = json.loads(path.read_text())
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to
        path.write_text(json.dumps(state))

    return changed


@each_kind
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("oracle.json", unlink),
        ("oracle.json", empty),
        ("oracle.json", make_a_list),
        ("oracle.json", nest_deeply),
        ("oracle.json", change("identity", to=7)),
        ("oracle.json", change("start_order", to=["x/../../y"])),
        ("oracle.json", change("hyperparameters", to=None)),
        ("trials/0001.json", unlink),
        ("trials/0001.json", empty),
        ("trials/0001.json", make_a_list),
        ("trials/0001.json", change("status", to="DONE")),
        ("trials/0001.json", change("score", to=None)),
        ("trials/0001.json", change("trial_id", to="0")),
        ("trials/0001.json", change("metrics", to={"metrics": {"x": 1}})),
        ("trials/0001.json", change("hyperparameters", "values", "alpha", to=2)),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_damaged_state_is_named_and_not_searched_anew(kind, name, damage, tmp_path):
    search(oracle_in(tmp_path, kind, SMALL))
    damage(tmp_path / "search" / name)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.json")}
    with pytest.raises(UsageError, match=f"search/{name}'"):
        oracle_in(tmp_path, kind, SMALL).create_trial("t")
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*.json")}


def test_damaged_brackets_are_named(tmp_path):
    search(oracle_in(tmp_path, "hyperband", SMALL))
    path = tmp_path / "search" / "oracle.json"
    change("brackets", 0, "rounds", 0, 0, "id", to="gone")(path)
    with pytest.raises(UsageError, match="oracle.json' is damaged"):
        oracle_in(tmp_path, "hyperband", SMALL).create_trial("t")


# Several tuners


@each_kind
@pytest.mark.parametrize("tuners", [2, 4])
def test_several_tuners_share_a_search(kind, tuners, tmp_path):
    oracle = oracle_in(tmp_path, kind, SEVENTY_PERCENT[0])
    running, stopped, turns = {}, set(), 0
    while len(stopped) < tuners:
        turns += 1
        assert turns < 500
        tuner = (
            f"tuner{turns * 7 % 5 % tuners}" if turns % 3 else f"tuner{turns % tuners}"
        )
        if tuner in running:
            finish(oracle, running.pop(tuner), FAILS)
        elif tuner not in stopped:
            trial = oracle.create_trial(tuner)
            if trial.status == "RUNNING":
                assert oracle.create_trial(tuner) is trial  # asked again: the same
                running[tuner] = trial
            elif trial.status == "STOPPED":
                stopped.add(tuner)
            else:
                assert (trial.status, kind) == ("IDLE", "hyperband")
                assert running
    first = [
        point_of(trial)
        for trial in oracle.trials.values()
        if "tuner/trial_id" not in trial.hyperparameters.values
    ]
    assert sorted(first) == sorted(keys(SEVENTY_PERCENT[0]))
    assert not oracle.ongoing_trials
    assert not oracle.tuner_ids


# Hyperband


def rungs(oracle):
    """(bracket, round) -> the points there, best first."""
    found = collections.defaultdict(list)
    for trial in oracle.trials.values():
        values = trial.hyperparameters.values
        found[values["tuner/bracket"], values["tuner/round"]].append(trial)
    return {
        rung: [point_of(t) for t in sorted(trials, key=lambda t: -(t.score or 0))]
        for rung, trials in found.items()
    }


def test_hyperband_promotes_the_best_of_finitely_many(tmp_path):
    space = SEVENTY_PERCENT[0]
    oracle = oracle_in(tmp_path, "hyperband", space, max_epochs=9, factor=3)
    trials = search(oracle)
    found = rungs(oracle)
    # Nine points, though the bracket would hold more.
    assert {rung: len(points) for rung, points in found.items()} == {
        (2, 0): 9,
        (2, 1): 3,
        (2, 2): 1,
    }
    assert found[2, 1] == found[2, 0][:3]
    assert found[2, 2] == found[2, 0][:1]
    epochs = {0: (0, 1), 1: (1, 3), 2: (3, 9)}
    for trial in trials:
        values = trial.hyperparameters.values
        assert epochs[values["tuner/round"]] == (
            values["tuner/initial_epoch"],
            values["tuner/epochs"],
        )
        if values["tuner/round"]:
            parent = oracle.trials[values["tuner/trial_id"]]
            assert point_of(parent) == point_of(trial)
            assert (
                parent.hyperparameters.values["tuner/epochs"]
                == values["tuner/initial_epoch"]
            )


def test_hyperband_starts_brackets_until_all_points_are_tried(tmp_path):
    oracle = oracle_in(tmp_path, "hyperband", Space(), max_epochs=3, factor=3)
    search(oracle)
    sizes = {rung: len(points) for rung, points in rungs(oracle).items()}
    assert sum(n for (_, level), n in sizes.items() if level == 0) == 20
    assert {bracket for bracket, _ in sizes} == {0, 1}
    once = oracle_in(
        tmp_path / "once",
        "hyperband",
        Space(),
        max_epochs=3,
        factor=3,
        hyperband_iterations=1,
    )
    search(once)
    assert {rung: len(points) for rung, points in rungs(once).items()} == {
        (1, 0): 3,
        (1, 1): 1,
        (0, 0): 2,
    }


def test_hyperband_fills_a_rung_although_trials_fail(tmp_path):
    oracle = oracle_in(tmp_path, "hyperband", SMALL, max_epochs=9, factor=3)
    worst_first = sorted(keys(SMALL), key=lambda key: published_prior(*key))
    search(oracle, fails=worst_first[2:])
    found = rungs(oracle)
    assert len(found[2, 0]) == 5
    assert found[2, 1] == worst_first[1::-1]
    assert found[2, 2] == worst_first[1:2]


# Bayesian, prior


def trials_to_best(oracle):
    points = [point_of(trial) for trial in search(oracle)]
    best = max(points, key=lambda key: published_prior(*key))
    return points.index(best) + 1


def test_bayesian_needs_fewer_trials_than_random(tmp_path):
    medians = {
        kind: np.median(
            [
                trials_to_best(
                    oracle_in(tmp_path / f"{kind}{i}", kind, Space(), seed=i)
                )
                for i in range(9)
            ]
        )
        for kind in ("random", "bayesian")
    }
    assert medians["bayesian"] < medians["random"]


def test_the_prior_meets_what_is_published_and_rises_with_both():
    errors = {"mobilenet_v1": 0.004, "mobilenet_v2": 0.013}
    for point in published():
        error = published_prior(*point[:3]) - point.top1 / 100
        assert abs(error) < errors[point.name]
    for name in errors:
        grid = [
            [published_prior(name, a, r) for r in (32, 64, 128, 224, 320)]
            for a in (0.1, 0.25, 0.5, 1.0, 2.0)
        ]
        assert np.all(np.diff(grid, axis=0) > 0)
        assert np.all(np.diff(grid, axis=1) > 0)


@pytest.mark.parametrize("kind", ["random", "bayesian", "hyperband"])
def test_a_prior_favours_what_it_promises(kind, tmp_path):
    def firsts(prior):
        return [
            published_prior(
                *point_of(
                    oracle_in(
                        tmp_path / f"{prior}{seed}",
                        kind,
                        Space(),
                        seed=seed,
                        prior=prior,
                    ).create_trial("t")
                )
            )
            for seed in range(40)
        ]

    assert np.mean(firsts("published")) > np.mean(firsts(None)) + 0.03


def test_with_a_prior_the_grid_starts_with_the_best(tmp_path):
    oracle = oracle_in(tmp_path, "grid", Space(), prior="published")
    expected = [published_prior(*point_of(trial)) for trial in search(oracle)]
    assert expected == sorted(expected, reverse=True)


def test_bayesian_learns_that_a_prior_misleads(tmp_path):
    def misleading(name, alpha, resolution):
        return -published_prior(name, alpha, resolution)

    needed = [
        trials_to_best(
            oracle_in(tmp_path / str(i), "bayesian", Space(), seed=i, prior=misleading)
        )
        for i in range(5)
    ]
    assert np.median(needed) < 10  # of 20, the best promised last


# With a tuner of KerasTuner


class Tuner(BaseTuner):
    def run_trial(self, trial, **_):
        self.hypermodel.build(trial.hyperparameters)
        return {self.oracle.objective.name: accuracy(trial)}


@each_kind
def test_a_hypermodel_may_declare_the_space_again_and_more(kind, tmp_path, capsys):
    hypermodel = Recorder(SMALL)
    oracle = oracle_in(tmp_path, kind, SMALL)
    tuner = Tuner(oracle, hypermodel, directory=tmp_path, project_name="search")
    tuner.search(verbose=1)
    trials = oracle.trials.values()
    assert all(trial.status == "COMPLETED" for trial in trials)
    assert set(hypermodel.built) == set(keys(SMALL))
    tried = [
        (
            *point_of(trial),
            trial.hyperparameters.values["optimizer"],
            trial.hyperparameters.values.get("nesterov"),
        )
        for trial in trials
        if "tuner/trial_id" not in trial.hyperparameters.values
    ]
    assert len(tried) == len(set(tried)) == 3 * len(SMALL.feasible)
    again = Tuner(
        oracle_in(tmp_path, kind, SMALL),
        Recorder(SMALL),
        directory=tmp_path,
        project_name="search",
    )
    again.search()
    assert table(again.oracle) == table(oracle)


def test_only_points_within_the_budget_are_built_to_explore_the_space(tmp_path):
    """KerasTuner builds the defaults before the first trial."""
    space = Space(alphas=(1.4, 0.35), resolutions=(224, 96), max_macs=20e6)
    hypermodel = Recorder(space)
    oracle = oracle_in(tmp_path, "random", space, max_trials=1)
    Tuner(oracle, hypermodel, directory=tmp_path, project_name="search")
    assert set(hypermodel.built) == {("mobilenet_v2", 0.35, 96)}


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "grit"}, "oracle must be one of .* did you mean 'grid'"),
        ({"objective": ["val_accuracy", "val_loss"]}, "objective must be one"),
        ({"objective": None}, "objective must be one"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"seed": 2**32}, "seed must be a whole number"),
        ({"max_trials": 0}, "max_trials must be a whole number of at least 1"),
        ({"prior": "imagenet"}, 'prior must be "published", None, or a function'),
        ({"prior": lambda *key: None}, "prior of mobilenet_v2 alpha 0.35"),
        ({"kind": "hyperband"}, "max_epochs must be .* hyperband needs it"),
        ({"kind": "hyperband", "max_epochs": 9, "factor": 1}, "factor must be"),
        ({"kind": "bayesian", "num_initial_points": 0}, "num_initial_points must be"),
        ({"kind": "bayesian", "beta": -1}, "beta must be"),
        (
            {"kind": "random", "space": Space(dropout=(0, 0.5))},
            "max_trials must be given where dropout may be any number",
        ),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_oracle(**{"kind": "grid", "space": SMALL, **arguments})
