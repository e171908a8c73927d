import csv
import json

import keras_tuner
import pytest

from keras_mobilenets.errors import UsageError
from keras_mobilenets.tuning.progress import summary
from keras_mobilenets.tuning.results import SearchResult
from keras_mobilenets.tuning.space import Space
from tests.tuning.searches import accuracy, finish, oracle_in, point_of, search


def row(trial, accuracy, macs, params=1, alpha=0.5, status="COMPLETED", **others):
    return {
        "trial": str(trial),
        "status": status,
        "name": "mobilenet_v2",
        "alpha": alpha,
        "rho": 1.0,
        "resolution": 224,
        "macs": macs,
        "params": params,
        "peak_memory": 7,
        "latency_ms": None,
        "epochs": None,
        "accuracy": accuracy,
        "seconds": 1.5,
        "message": None,
        **others,
    }


ROWS = [
    row(0, 0.5, 10, params=9),
    row(1, 0.4, 20, params=5),  # dominated in mult-adds, not in parameters
    row(2, 0.8, 30, params=6),
    row(3, 0.8, 40, params=7),  # no better than the cheaper one
    row(4, None, 5, status="FAILED", message="first line\nsecond, line"),
    row(5, 0.9, 1, status="RUNNING"),  # not finished
    row(6, 0.5, 10, params=8),  # equal to the first
]
RESULT = SearchResult(ROWS, reference={"macs": 50})


def trials(rows):
    return [row["trial"] for row in rows]


def test_front():
    assert trials(RESULT.pareto()) == ["0", "2"]
    assert trials(RESULT.pareto("params")) == ["1", "2"]
    assert RESULT.pareto("latency_ms") == []
    with pytest.raises(ValueError, match="cost must be one of 'macs', 'params'"):
        RESULT.pareto("flops")


@pytest.mark.parametrize(
    ("limits", "trial"),
    [
        ({}, "2"),
        ({"max_macs": 30}, "2"),
        ({"max_macs": 29}, "0"),
        ({"max_params": 5}, "1"),
        ({"max_macs": 30, "max_params": 8, "max_memory": 7}, "2"),
        ({"max_macs": 10, "max_params": 8}, "6"),
    ],
)
def test_best_within_a_budget(limits, trial):
    assert RESULT.best(**limits)["trial"] == trial


def test_nothing_within_a_budget():
    with pytest.raises(
        ValueError, match=r"within max_macs=9; the least of the 5 .* 10"
    ):
        RESULT.best(max_macs=9)
    with pytest.raises(ValueError, match="no known latency"):
        RESULT.best(max_latency_ms=100)
    with pytest.raises(ValueError, match="no trial has finished"):
        SearchResult(ROWS[4:6]).best()
    with pytest.raises(ValueError, match="max_macs must be a finite number"):
        RESULT.best(max_macs="10")


def test_best_by_another_objective():
    rows = [row(0, 0.5, 10, val_loss=2.0), row(1, 0.4, 10, val_loss=1.0)]
    assert SearchResult(rows).best()["trial"] == "0"
    assert SearchResult(rows, "val_loss", "min").best()["trial"] == "1"


def test_hypervolume():
    # 0.5 from 10 to 30, 0.8 from 30 to 50, of an area of 50 x 1.
    assert RESULT.hypervolume() == pytest.approx((0.5 * 20 + 0.8 * 20) / 50)
    assert RESULT.hypervolume(reference=20) == pytest.approx(0.5 * 10 / 20)
    assert RESULT.hypervolume(reference=10) == 0
    assert RESULT.hypervolume(reference=9) == 0
    assert SearchResult([]).hypervolume() == 0
    # Without a space, the dearest trial is the reference.
    assert SearchResult(ROWS).hypervolume() == pytest.approx((10 + 0.8 * 10) / 40)
    with pytest.raises(ValueError, match="reference must be a finite number above 0"):
        RESULT.hypervolume(reference=0)


def test_what_is_dominated_does_not_change_it_and_what_is_not_adds_to_it():
    volume = RESULT.hypervolume()
    more = {"reference": RESULT.reference}
    assert SearchResult([*ROWS, row(7, 0.7, 45)], **more).hypervolume() == volume
    assert SearchResult([*ROWS, row(7, 0.9, 45)], **more).hypervolume() > volume
    assert SearchResult([*ROWS, row(7, 0.1, 5)], **more).hypervolume() > volume


def test_front_of_what_the_phone_runs(tmp_path):
    """The best in int8 is not the best, nor is the fastest the cheapest."""
    rows = [
        row(0, 0.9, 10, int8_accuracy=0.5, latency_ms=3.0),
        row(1, 0.8, 20, int8_accuracy=0.7, latency_ms=2.0),
        row(2, 0.7, 30, int8_accuracy=0.6, latency_ms=1.0),
        row(3, 0.6, 5, int8_accuracy=0.7, latency_ms=4.0),
        row(4, None, 5, int8_accuracy=None, latency_ms=0.1, status="FAILED"),
    ]
    result = SearchResult(rows, "int8_accuracy", cost="latency_ms")
    assert trials(result.pareto()) == ["2", "1"]
    assert trials(result.pareto("macs")) == ["3"]
    assert result.best()["trial"] == "1"  # of equals the faster
    assert result.best(max_latency_ms=1)["trial"] == "2"
    assert result.hypervolume(reference=4) == pytest.approx((0.6 + 0.7 * 2) / 4)
    axes = result.plot().axes[0]
    assert axes.get_ylabel() == "validation accuracy in int8 (%)"
    assert axes.get_xlabel() == "latency (ms)"
    drawn = {x: y for line in axes.lines for x, y in line.get_xydata()}
    assert drawn[3.0] == pytest.approx(50)
    path = result.write(tmp_path / "results.json")
    assert SearchResult.read(path) == result
    stored = json.loads(path.read_text())
    del stored["cost"]  # of a table that was written before there was one
    path.write_text(json.dumps(stored))
    assert SearchResult.read(path).cost == "macs"
    for wrong in ({"cost": "flops"}, {"objective": "int8_accuracy", "table": ROWS}):
        path.write_text(json.dumps({**stored, **wrong}))
        with pytest.raises(UsageError, match=r"results.json' is not a table"):
            SearchResult.read(path)


def test_the_table_of_a_search_for_a_phone(tmp_path):
    space = Space(alphas=(0.35, 0.5), resolutions=96, latency=lambda n, a, r: 10 * a)
    objective = keras_tuner.Objective("int8_accuracy", "max")
    oracle = oracle_in(tmp_path, "grid", space, objective=objective)
    for accuracy_, int8 in ((0.5, 0.75), (0.75, 0.25)):
        trial = oracle.create_trial("t")
        metrics = {"val_loss": 1.0, "val_accuracy": accuracy_, "int8_accuracy": int8}
        oracle.update_trial(trial.trial_id, metrics)
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    result = SearchResult.from_oracle(oracle, space)
    assert (result.objective, result.direction) == ("int8_accuracy", "max")
    assert result.cost == "latency_ms"
    columns = list(result.table[0])
    assert columns[columns.index("accuracy") + 1] == "int8_accuracy"
    assert result.best()["alpha"] == 0.35
    assert [row["latency_ms"] for row in result.table] == [3.5, 5]
    shown = summary(result).splitlines()
    assert "ms" in shown[0].split()
    assert "int8 accuracy" in shown[0]
    assert "75.00%" in shown[2]
    assert shown[2].endswith("*")
    assert shown[-1] == "* none is more accurate at the same latency or less"


def test_a_latency_that_not_all_points_have_is_not_what_the_front_is_over(tmp_path):
    known = {("mobilenet_v2", 0.35, 96): 3.0}
    space = Space(alphas=(0.35, 0.5), resolutions=96, latency=known)
    oracle = oracle_in(tmp_path, "grid", space)
    search(oracle)
    result = SearchResult.from_oracle(oracle, space)
    assert result.cost == "macs"
    assert len(result.pareto()) == 2


def test_written_and_read_again(tmp_path):
    path = RESULT.write(tmp_path / "new folder" / "results.json")
    assert SearchResult.read(path) == RESULT
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    RESULT.write(path)


def test_csv_has_a_line_a_trial(tmp_path):
    with open(RESULT.write(tmp_path / "results.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == trials(RESULT.table)
    assert rows[0].keys() == RESULT.table[0].keys()
    assert (rows[4]["accuracy"], rows[4]["message"]) == ("", "first line\nsecond, line")
    with pytest.raises(ValueError, match="suffix of path must be one of '.json'"):
        RESULT.write(tmp_path / "results.txt")


def test_written_whole_or_not_at_all(tmp_path):
    path = RESULT.write(tmp_path / "results.json")
    before = path.read_text()
    with pytest.raises(TypeError):
        SearchResult([row(0, object(), 1)]).write(path)
    assert path.read_text() == before


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"rows": []}',
        '{"table": 7}',
        '{"table": [{}]}',
        '{"table": [], "reference": {"macs": "x"}}',
        "[" * 100_000,
    ],
    ids=["cut", "list", "rows", "number", "columns", "reference", "deep"],
)
def test_not_a_table(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UsageError, match="a.json'"):
        SearchResult.read(tmp_path / "a.json")
    with pytest.raises(UsageError, match="none.json'"):
        SearchResult.read(tmp_path / "none.json")


def test_an_empty_table(tmp_path):
    path = SearchResult([]).write(tmp_path / "results.json")
    assert SearchResult.read(path).table == []
    SearchResult([]).write(tmp_path / "results.csv")


@pytest.mark.filterwarnings("ignore:All-NaN")  # KerasTuner's own
def test_the_table_of_an_oracle(tmp_path):
    space = Space(alphas=(0.35, 0.5), resolutions=(96, 128), dropout=(0.0, 0.5))
    oracle = oracle_in(tmp_path, "random", space, max_trials=4)
    for number in range(3):
        trial = oracle.create_trial("t")
        if number == 1:
            trial.status, trial.message = "FAILED", "out of memory"
        else:
            metrics = {"val_accuracy": accuracy(trial), "val_loss": float("nan")}
            metrics |= {"accuracy": 0.999, "epochs": 5, "seconds": 2.5}
            oracle.update_trial(trial.trial_id, metrics)
            trial.status = "COMPLETED"
        oracle.end_trial(trial)
    oracle.create_trial("t")
    result = SearchResult.from_oracle(oracle, space)

    assert [list(row) for row in result.table] == 4 * [
        [
            "trial", "status", "name", "alpha", "rho", "resolution", "dropout",
            "macs", "params", "peak_memory", "latency_ms", "epochs", "accuracy",
            "val_loss", "train_accuracy", "seconds", "message",
        ]
    ]  # fmt: skip
    assert [row["status"] for row in result.table] == [
        "COMPLETED",
        "FAILED",
        "COMPLETED",
        "RUNNING",
    ]
    points = {point.key: point for point in space.feasible}
    for row, trial in zip(result.table, oracle.trials.values(), strict=True):
        point = points[point_of(trial)]
        assert all(row[field] == value for field, value in point._asdict().items())
        assert row["rho"] == row["resolution"] / 224
        assert row["dropout"] == trial.hyperparameters.values["dropout"]
    done, failed, _, running = result.table
    assert done["accuracy"] == accuracy(oracle.trials["0"])
    assert done["train_accuracy"] == 0.999
    assert (done["epochs"], done["seconds"], done["val_loss"]) == (5, 2.5, None)
    assert (failed["seconds"], failed["message"]) == (None, "out of memory")
    assert running["accuracy"] is running["seconds"] is None
    assert result.reference["macs"] == max(p.macs for p in space.feasible)
    assert trials(result.finished) == ["0", "2"]
    path = result.write(tmp_path / "results.json")
    assert SearchResult.read(path).table == result.table
    assert "NaN" not in (tmp_path / "results.json").read_text()
    json.loads((tmp_path / "results.json").read_text())


def test_the_table_of_hyperband_and_of_another_objective(tmp_path):
    space = Space(alphas=(0.35, 0.5), resolutions=(96, 128))
    oracle = oracle_in(tmp_path, "hyperband", space, objective="val_loss")
    search(oracle)
    result = SearchResult.from_oracle(oracle, space)
    assert (result.objective, result.direction) == ("val_loss", "min")
    assert [row["epochs"] for row in result.table] == [
        trial.hyperparameters.values["tuner/epochs"] for trial in oracle.trials.values()
    ]
    best = oracle.get_best_trials()[0]
    assert result.best()["trial"] == best.trial_id
    assert result.pareto() == []  # there is no accuracy
    path = result.write(tmp_path / "results.json")
    assert SearchResult.read(path) == result


def test_training_accuracy_as_the_objective(tmp_path):
    objective = keras_tuner.Objective("accuracy", "max")
    oracle = oracle_in(tmp_path, "grid", Space(), objective=objective)
    for value in (0.5, 0.75):
        trial = oracle.create_trial("t")
        oracle.update_trial(trial.trial_id, {"accuracy": value, "val_accuracy": 0.25})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    result = SearchResult.from_oracle(oracle, Space())
    assert result.objective == "train_accuracy"
    assert result.best()["train_accuracy"] == 0.75
    assert result.best()["accuracy"] == 0.25


def test_trials_stay_in_order_when_their_ids_grow(tmp_path):
    space = Space(alphas=(0.1, 0.2, 0.35), resolutions=(32, 64, 96, 128))
    search(oracle_in(tmp_path, "grid", space, max_trials=9))
    oracle = oracle_in(tmp_path, "grid", space, max_trials=12)
    search(oracle)
    result = SearchResult.from_oracle(oracle, space)
    assert [int(trial) for trial in trials(result.table)] == list(range(12))
    assert trials(result.table)[-1] == "11"


def test_plot(tmp_path):
    oracle = oracle_in(tmp_path, "grid", Space())
    finish(oracle, oracle.create_trial("t"))
    result = SearchResult.from_oracle(oracle, Space())
    result.plot(tmp_path / "plot.png", cost="params")
    assert (tmp_path / "plot.png").stat().st_size > 1000
