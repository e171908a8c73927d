"""KerasTuner's chief and workers: real processes on loopback, some of them killed."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import keras_tuner
import pytest
from keras_tuner.engine.trial import TrialStatus

import keras_mobilenets as km
from keras_mobilenets import storage
from keras_mobilenets.errors import SearchStopped
from keras_mobilenets.tuning import protocol
from keras_mobilenets.tuning.local_cluster import serve
from keras_mobilenets.tuning.oracles import make_oracle
from keras_mobilenets.tuning.space import Space

SPACE = Space(
    names="mobilenet_v1",
    alphas=(0.1, 0.25, 0.35),
    resolutions=32,
    learning_rate=(0.01, 0.1),
)
OBJECTIVE = keras_tuner.Objective("val_accuracy", "max")


def make(kind="random", **settings):
    settings = {"max_trials": 3, "seed": 0, **settings}
    return make_oracle(kind, SPACE, objective=OBJECTIVE, **settings)


@pytest.fixture
def chief(tmp_path, monkeypatch):
    """A chief in a thread; gives (its oracle, the results it has told of)."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: start(tmp_path, monkeypatch, stack, **settings)


def start(tmp_path, monkeypatch, stack, **settings):
    oracle, results = make(**settings), []
    oracle.folder = tmp_path / "search"
    port = free_port()
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(port))
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker0")
    thread = threading.Thread(target=serve, args=(oracle, results.append), daemon=True)
    thread.start()
    stack.callback(lambda: thread.is_alive() and pytest.fail("the chief goes on"))
    stack.callback(thread.join, 300)
    return oracle, results


def free_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def client():
    return protocol.Client(make())


def finish(worker, trial, accuracy=0.5):
    worker.update_trial(trial.trial_id, {"val_accuracy": accuracy})
    trial.status = TrialStatus.COMPLETED
    worker.end_trial(trial)


def run_all(worker, tuner_id):
    while (trial := worker.create_trial(tuner_id)).status != TrialStatus.STOPPED:
        if trial.status == TrialStatus.RUNNING:
            finish(worker, trial)
        time.sleep(0.01)


def test_numbers_arrive_as_they_were(chief):
    oracle, results = chief()
    worker = client()
    trial = worker.create_trial("worker0")
    ours = oracle.trials[trial.trial_id].hyperparameters.values
    theirs = trial.hyperparameters.values
    rate = theirs.pop("learning_rate")
    assert rate == pytest.approx(ours["learning_rate"], rel=1e-6)
    assert theirs == {k: v for k, v in ours.items() if k != "learning_rate"}
    assert theirs["alpha"] in SPACE.alphas  # not 0.3499999940395355
    before = dict(ours)
    finish(worker, trial, accuracy=0.9)
    (ended,) = results
    assert ended.hyperparameters.values == before
    assert ended.score == 0.9
    run_all(worker, "worker0")


def test_message_of_a_failure_travels(chief):
    oracle, results = chief()
    worker = client()
    trial = worker.create_trial("worker0")
    trial.status, trial.message = TrialStatus.FAILED, "crashed – by µ\n" + "x" * 9000
    worker.end_trial(trial)
    assert results[0].status == TrialStatus.FAILED
    assert results[0].message.startswith("crashed – by µ\nxxx")
    run_all(worker, "worker0")
    assert len(oracle.end_order) == 3


def test_silent_worker_loses_its_trial_to_another(chief, monkeypatch):
    monkeypatch.setattr(protocol, "STALE", 3.0)
    monkeypatch.setattr(protocol, "HEARTBEAT", 0.1)
    oracle, results = chief(max_trials=2)
    worker = client()
    lost = worker.create_trial("dead")
    worker._running.clear()  # no more signs of life
    kept = worker.create_trial("worker0")
    while "dead" in oracle.ongoing_trials:
        time.sleep(0.02)
    again = worker.create_trial("other")
    assert again.trial_id == lost.trial_id
    assert again.hyperparameters.values == lost.hyperparameters.values
    assert oracle.ongoing_trials["worker0"].trial_id == kept.trial_id  # it did beat
    finish(worker, again, accuracy=0.7)
    finish(worker, lost, accuracy=0.1)  # too late: the first result counts
    finish(worker, kept)
    for tuner_id in ("other", "worker0"):
        run_all(worker, tuner_id)
    assert [trial.trial_id for trial in results] == [again.trial_id, kept.trial_id]
    assert oracle.trials[lost.trial_id].score == pytest.approx(0.7)


def test_worker_that_comes_back_keeps_its_trial(chief, monkeypatch):
    """As after a restart of the chief, which finds the trial among the interrupted."""
    monkeypatch.setattr(protocol, "HEARTBEAT", 0.05)
    oracle, results = chief(max_trials=1)
    worker = client()
    trial = worker.create_trial("worker0")
    oracle.ongoing_trials.clear()
    oracle.interrupted.append(trial.trial_id)
    while oracle.interrupted:
        time.sleep(0.02)
    assert oracle.ongoing_trials["worker0"].trial_id == trial.trial_id
    finish(worker, trial)
    run_all(worker, "worker0")
    assert len(results) == 1


def test_nobody_is_sent_away_while_a_trial_may_come_back(chief):
    oracle, _ = chief(max_trials=1)
    worker = client()
    trial = worker.create_trial("one")
    assert worker.create_trial("two").status == TrialStatus.IDLE
    finish(worker, trial)
    assert worker.create_trial("two").status == TrialStatus.STOPPED
    assert worker.create_trial("one").status == TrialStatus.STOPPED
    assert len(oracle.trials) == 1


def test_worker_ends_where_the_chief_is_gone(monkeypatch):
    monkeypatch.setattr(protocol, "FIRST_ANSWER", 0.3)
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(free_port()))
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker0")
    with pytest.raises(SearchStopped, match="chief of the search does not answer"):
        client().create_trial("worker0")


def test_address_in_use(monkeypatch):
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(listener.getsockname()[1]))
        oracle = make()
        with pytest.raises(ValueError, match="KERASTUNER_ORACLE_PORT must be a free"):
            serve(oracle, print)


def test_chief_that_cannot_write_stops(tmp_path, monkeypatch):
    """Instead of waiting for workers, whom it cannot answer."""
    oracle, outcome = make(), []
    oracle.folder = tmp_path / "search"
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(free_port()))
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker0")

    def run():
        with pytest.raises(OSError, match="No space"):
            serve(oracle, print)
        outcome.append("stopped")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    worker = client()

    def full(path, state):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "write_json", full)
    with pytest.raises(SearchStopped):
        worker.create_trial("worker0")
    thread.join(300)
    assert outcome == ["stopped"]


# Whole searches.

POINTS = {"names": "mobilenet_v1", "alphas": (0.1, 0.25), "resolutions": (32, 40)}
TINY = {"shallow": True, "epochs": 1, "warmup_epochs": 0, "verbose": False}


def workers_of(directory):
    """Process ids of the workers of a local cluster, by their logs."""
    found = {}
    for link in pathlib.Path("/proc").glob("[0-9]*/fd/1"):
        with contextlib.suppress(OSError):
            path = pathlib.Path(os.readlink(link))
            if path.parent == directory and path.suffix == ".log":
                found[path.stem] = int(link.parts[2])
    return found


@pytest.mark.slow
def test_local_cluster_loses_nothing_with_a_worker(tmp_path):
    """One of two is killed in the middle of a trial."""
    directory = tmp_path / "search"
    killed = []

    def kill_one():
        while not (logs := list(directory.glob("trials/*.log"))):
            time.sleep(0.05)
        worker, pid = sorted(workers_of(directory).items())[0]
        killed.append((worker, logs))
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill_one)
    thread.start()
    result = km.search(
        "digits", directory=directory, data_dir=tmp_path / "data", cluster=2,
        **POINTS, **TINY,
    )  # fmt: skip
    thread.join()
    assert killed
    assert [row["status"] for row in result.table] == ["COMPLETED"] * 4
    assert [(r["alpha"], r["resolution"]) for r in result.table] == [
        (0.1, 32), (0.1, 40), (0.25, 32), (0.25, 40),
    ]  # fmt: skip
    deadline = time.monotonic() + 300
    while workers_of(directory) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not workers_of(directory)  # workers end by themselves


@pytest.mark.slow
def test_by_the_environment_as_kerastuner_does(tmp_path):
    """Chief and two workers are the same command, as on many machines."""
    command = [sys.executable, "-m", "keras_mobilenets", "search", "mobilenet_v1"]
    options = "--alphas 0.1 0.25 --resolutions 32 --directory search"
    options = [*options.split(), "--shallow"]
    options += "--objective int8_accuracy --latency litert --max-latency-ms 1e6".split()
    options += ["--set", "epochs=1", "--set", "warmup_epochs=0"]
    options += ["--data-dir", str(tmp_path / "data")]
    root = pathlib.Path(__file__).parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(free_port()),
    }
    processes = [
        subprocess.Popen(
            [*command, *options],
            env={**environment, "KERASTUNER_TUNER_ID": name},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("chief", "machine1", "machine2")
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    result = km.SearchResult.read(tmp_path / "search" / "results.json")
    assert [row["status"] for row in result.table] == ["COMPLETED"] * 2
    said = "measuring the latency of 2 points"
    assert [said in out for out, _ in outputs] == [True, False, False]
    for row in result.table:
        assert row["latency_ms"] > 0
        assert row["int8_accuracy"] * 180 == pytest.approx(
            round(row["int8_accuracy"] * 180)
        )
