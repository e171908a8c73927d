"""Trials: one's failure is its own; rungs continue; what hits all stops the search."""

import dataclasses
import errno
import json
import os
import pathlib
import pickle
import subprocess
import sys
import threading

import keras_tuner
import pytest
import tensorflow as tf

from keras_mobilenets import storage
from keras_mobilenets.errors import SearchStopped, TrainingInterrupted
from keras_mobilenets.settings import make_settings
from keras_mobilenets.tuning.isolation import Server
from keras_mobilenets.tuning.litert import FILE
from keras_mobilenets.tuning.options import read_options
from keras_mobilenets.tuning.oracles import make_oracle
from keras_mobilenets.tuning.results import SearchResult
from keras_mobilenets.tuning.runner import Plan, Runner
from keras_mobilenets.tuning.trial import Task, run_trial, share_machine
from tests.tuning.misbehaving import (
    CRASH,
    EAT,
    GOOD,
    HANG,
    RAISE,
    run_trial_misbehaving,
    score_without_training,
)

TINY = {
    "data": "digits",
    "names": "mobilenet_v1",
    "resolutions": 32,
    "shallow": True,
    "epochs": 1,
    "warmup_epochs": 0,
}
OBJECTIVE = keras_tuner.Objective("val_accuracy", "max")


class Search:
    """An oracle and the runner of its trials."""

    def __init__(self, path, kind="grid", oracle=None, run=run_trial, **options):
        asked = read_options({**TINY, **options})
        self.space = dataclasses.replace(asked.space, classes=10, **asked.budget)
        self.plan = Plan(path / "search", self.space, asked.arguments, asked.options)
        self.oracle = make_oracle(
            kind, self.space, objective=OBJECTIVE, seed=0, **(oracle or {})
        )
        self.oracle.folder = self.plan.path
        self.run_trial, self.ended = run, []

    def run(self, server=None):
        runner = Runner(
            self.plan, self.oracle, server, self.ended.append, self.run_trial
        )
        runner.run()
        return self.table()

    def table(self):
        return SearchResult.from_oracle(self.oracle, self.space).table


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.mark.parametrize(
    "workers", [1, pytest.param(2, marks=pytest.mark.slow, id="2 at a time")]
)
def test_a_failed_trial_costs_only_itself(server, workers, tmp_path):
    wrong = {
        CRASH: "crashed by signal 11 (Segmentation fault)",
        EAT: "stopped for memory: ",
        RAISE: "ValueError: no such luck",
    }
    search = Search(
        tmp_path,
        run=run_trial_misbehaving,
        alphas=(*wrong, GOOD),
        workers=workers,
        memory_limit=2 << 30,
    )
    rows = {row["alpha"]: row for row in search.run(server)}
    assert rows[GOOD]["status"] == "COMPLETED", rows[GOOD]["message"]
    assert rows[GOOD]["accuracy"] > 0
    for alpha, message in wrong.items():
        assert rows[alpha]["status"] == "FAILED"
        assert rows[alpha]["message"].startswith(message)
        assert rows[alpha]["accuracy"] is None
    assert len(search.ended) == len(rows) == 4
    log = tmp_path / "search" / "trials" / f"{rows[RAISE]['trial']}.log"
    assert "Traceback" in log.read_text()


@pytest.mark.slow
def test_a_trial_that_hangs_is_ended(server, tmp_path):
    search = Search(
        tmp_path, run=run_trial_misbehaving, alphas=(HANG, RAISE), time_limit=5
    )
    assert [row["message"] for row in search.run(server)] == [
        "stopped after the time limit of 5 s",
        "ValueError: no such luck",
    ]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left"), TrainingInterrupted("asked to stop")],
    ids=["disk full", "stopped"],
)
def test_what_every_trial_would_meet_stops_the_search(error, tmp_path):
    def meet(task):
        raise error

    search = Search(tmp_path, run=meet, alphas=(0.1, 0.25))
    with pytest.raises(SearchStopped, match="give the same command to resume"):
        search.run()
    again = Search(tmp_path, run=score_without_training, alphas=(0.1, 0.25))
    assert [row["status"] for row in again.run()] == ["COMPLETED"] * 2


def test_disk_that_is_full_for_the_state_ends_all_slots(server, tmp_path, monkeypatch):
    search = Search(tmp_path, run=score_without_training, alphas=(0.1, 0.25), workers=2)
    whole, count = storage.write_json, 0

    def full(path, state):
        nonlocal count
        count += 1
        if count > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, state)

    monkeypatch.setattr(storage, "write_json", full)
    outcome = []

    def run():
        with pytest.raises(OSError, match="No space left"):
            with Server() as server:
                search.run(server)
        outcome.append("ended")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(600)
    assert outcome == ["ended"]  # no thread waits for KerasTuner's lock


@pytest.mark.slow
def test_the_searching_process_never_starts_tensorflow(tmp_path):
    """It would take a GPU's memory. The oracle's guesses at metrics would start it."""
    code = f"""
import keras_mobilenets as km
from tensorflow.python.eager import context
km.search(names="mobilenet_v1", alphas=0.1, resolutions=32, shallow=True, epochs=1,
          directory={str(tmp_path / "search")!r})
assert not context.context()._initialized
"""
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_what_travels_to_workers_holds_no_function_of_the_chief(tmp_path):
    search = Search(
        tmp_path,
        prior=lambda *key: 1.0,
        latency=lambda *key: 1.0,
        max_latency_ms=5,
        learning_rate=(0.01, 0.1),
        oracle={"max_trials": 1},
    )
    plan = pickle.loads(pickle.dumps(search.plan.for_workers()))
    values = {"name": "mobilenet_v1", "alpha": 0.5, "resolution": 32}
    values["learning_rate"] = 0.05
    assert plan.settings_of(values) == search.plan.settings_of(values)
    assert plan.settings_of(values).recipe.learning_rate == 0.05


def settings(**options):
    return make_settings(
        {
            "name": "mobilenet_v1", "alpha": 0.1, "resolution": 32, "shallow": True,
            "epochs": 2, "warmup_epochs": 0, "decay_epochs": 1.0, **options,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    "objective", ["accuracy", pytest.param("int8_accuracy", marks=pytest.mark.slow)]
)
def test_a_rung_continues_as_if_it_had_not_been_left(server, objective, tmp_path):
    """Weights, slots, averages, place in the schedule, and the data's epoch."""
    one = settings(deterministic=True)

    def run(name, until=None):
        task = Task(one, tmp_path / name, {}, until=until, objective=objective)
        return server.call(run_trial, task)

    def report_on_file(name):
        return json.loads((tmp_path / name / f"{FILE}.json").read_text())["proof"]

    whole = run("whole")
    lower = run("parts", until=1)
    assert lower["epochs"] == 1
    assert ("int8_accuracy" in whole) == (objective == "int8_accuracy")
    if objective == "int8_accuracy":
        proof = report_on_file("parts")
        assert lower["int8_accuracy"] == proof["accuracy"]
        assert lower["val_accuracy"] == pytest.approx(proof["keras_accuracy"])
    assert run("parts", until=2) == whole
    assert run("parts") == whole  # it is finished
    if objective == "int8_accuracy":  # the file is that of the highest rung
        assert report_on_file("parts")["accuracy"] == whole["int8_accuracy"]
        files = [(tmp_path / name / FILE).read_bytes() for name in ("whole", "parts")]
        assert files[0] == files[1]


def share_without_affinity(slots):
    del os.sched_getaffinity
    share_machine(1, slots)
    return tf.config.threading.get_intra_op_parallelism_threads()


def test_machine_is_shared_where_affinity_is_not_known(server):
    """As on macOS."""
    cores = os.cpu_count() or 1
    assert server.call(share_without_affinity, 2) == max(1, cores // 2)


def test_a_run_that_another_process_is_in_is_waited_for(tmp_path):
    """As where a worker was silent for long, and its trial was handed out again."""
    task = Task(settings(epochs=1), tmp_path / "run", {})
    (tmp_path / "run").mkdir()
    held = storage.lock(tmp_path / "run" / ".lock")
    threading.Timer(1, held.close).start()
    assert run_trial(task)["epochs"] == 1


@pytest.mark.slow
def test_hyperband_promotes_and_continues_in_the_same_run(server, tmp_path):
    search = Search(
        tmp_path,
        "hyperband",
        alphas=(0.1, 0.25),
        resolutions=(32, 40),
        epochs=3,
        oracle={"max_epochs": 3, "hyperband_iterations": 1},
    )
    rows = search.run(server)
    assert {row["status"] for row in rows} == {"COMPLETED"}
    promoted = [row for row in rows if row["tuner/round"] == 1]
    assert promoted
    trials = tmp_path / "search" / "trials"
    for row in promoted:
        assert row["epochs"] == row["tuner/epochs"] == 3
        history = (trials / row["tuner/first_trial"] / "history.csv").read_text()
        assert len(history.splitlines()) == 1 + 3
        assert not (trials / row["trial"]).exists()


def two_logical_replicas():
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])


@pytest.mark.slow
def test_a_strategy_in_every_trial(server, tmp_path):
    (row,) = Search(tmp_path, alphas=0.25, strategy=two_logical_replicas).run(server)
    assert row["status"] == "COMPLETED", row["message"]
    assert row["accuracy"] * 180 == pytest.approx(round(row["accuracy"] * 180))


def resident(pid):
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_memory_stays_flat(server, tmp_path):
    memory = []
    search = Search(
        tmp_path,
        run=score_without_training,
        alphas=tuple(n / 100 for n in range(10, 30)),
    )

    class Look(list):
        def append(self, trial):
            memory.append(resident(os.getpid()) + resident(server.process.pid))

    search.ended = Look()
    assert [row["status"] for row in search.run(server)] == ["COMPLETED"] * 20
    # KerasTuner's own grows by 75 MB a trial.
    assert memory[-1] - memory[2] < 10 << 20
