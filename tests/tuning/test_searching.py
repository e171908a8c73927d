"""`km.search` and its verb: tables, resuming after kill -9, directories, mistakes."""

import contextlib
import csv
import errno
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

import keras_mobilenets as km
from keras_mobilenets import storage
from keras_mobilenets.errors import SearchStopped, UsageError
from keras_mobilenets.tuning import litert, runner
from keras_mobilenets.tuning import trial as trials

ROOT = pathlib.Path(__file__).parents[2]
POINTS = {"names": "mobilenet_v1", "alphas": (0.1, 0.25), "resolutions": (32, 40)}
TINY = {"shallow": True, "epochs": 1, "warmup_epochs": 0}
SEEN = (np.zeros((20, 8, 8), "uint8"), np.arange(20) % 2)
FEW = {split: SEEN for split in ("train", "validation", "test")}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def search(data_dir, tmp_path):
    def search(**settings):
        settings = {"directory": tmp_path / "search", "verbose": False, **settings}
        return km.search("digits", data_dir=data_dir, **{**POINTS, **TINY, **settings})

    return search


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def found(data_dir, tmp_path_factory):
    """A finished search with one point of four outside of its budget."""
    directory = tmp_path_factory.mktemp("found")
    result = km.search(
        "digits",
        data_dir=data_dir,
        directory=directory,
        max_macs=600_000,
        workers=2,
        verbose=False,
        **POINTS,
        **TINY,
    )
    return result, directory


def test_every_point_of_the_budget_is_in_the_table(found):
    result, _ = found
    assert [(row["alpha"], row["resolution"]) for row in result.table] == [
        (0.1, 32),
        (0.1, 40),
        (0.25, 32),
    ]
    for row in result.table:
        assert row["status"] == "COMPLETED"
        assert row["epochs"] == 1
        assert 0 < row["accuracy"] <= 1
        assert row["seconds"] > 0
        point = {key: row[key] for key in ("alpha", "resolution")}
        cost = km.cost("mobilenet_v1", classes=10, shallow=True, **point)
        assert (row["macs"], row["params"]) == (cost.macs, cost.params)
        assert row["macs"] <= 600_000
    assert result.best(max_macs=200_000)["trial"] == result.table[0]["trial"]


def test_accuracy_is_of_the_validation_images(found):
    result, _ = found
    for row in result.table:
        assert row["accuracy"] * 180 == pytest.approx(round(row["accuracy"] * 180))


def test_what_a_search_leaves(found):
    result, directory = found
    assert km.SearchResult.read(directory / "results.json") == result
    rows = read_csv(directory / "results.csv")
    assert [row["trial"] for row in rows] == [row["trial"] for row in result.table]
    assert (directory / "search.png").stat().st_size > 10_000
    assert not list(directory.rglob("*partial*"))
    for row in result.table:  # a run, as `train` leaves it
        run = directory / "trials" / row["trial"]
        report = json.loads((run / "report.json").read_text())
        assert report["validation"]["accuracy"] == row["accuracy"]
        assert (run / "model.keras").exists()


def test_tensorboard_has_curves_and_hyperparameters(found):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result, directory = found
    for row in result.table:
        events = EventAccumulator(
            str(directory / "trials" / row["trial"] / "tensorboard")
        )
        events.Reload()
        (curve,) = events.Tensors("val_accuracy")
        value = tf.make_ndarray(curve.tensor_proto)
        assert value == pytest.approx(row["accuracy"])
        metadata = events.SummaryMetadata("_hparams_/session_start_info")
        assert b"resolution" in metadata.plugin_data.content


def test_finished_search_is_given_back(found, data_dir):
    result, directory = found
    before = (directory / "results.json").stat().st_mtime_ns
    trials = {p: p.read_bytes() for p in directory.glob("trials/*.json")}
    assert len(trials) == len(result.table)
    again = km.search(
        "digits",
        data_dir=data_dir,
        directory=directory,
        max_macs=600_000,
        isolate=False,
        verbose=False,
        **POINTS,
        **TINY,
    )
    assert again == result
    assert (directory / "results.json").stat().st_mtime_ns >= before
    assert trials == {p: p.read_bytes() for p in directory.glob("trials/*.json")}


def test_other_settings_do_not_fit_into_a_directory(found, data_dir):
    _, directory = found
    with pytest.raises(ValueError, match="holds a search with oracle='grid', not"):
        km.search(
            "digits",
            data_dir=data_dir,
            directory=directory,
            max_macs=600_000,
            oracle="random",
            isolate=False,
            verbose=False,
            **POINTS,
            **TINY,
        )


def test_in_this_process(search):
    result = search(alphas=0.1, resolutions=32, isolate=False)
    assert [row["status"] for row in result.table] == ["COMPLETED"]


def test_directory_of_something_else_is_left_alone(search, tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="^directory .* is not empty"):
        search(isolate=False)
    assert [p.name for p in (tmp_path / "search").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_macs": 1000}, "it leaves none. Nearest to it are mobilenet_v1 alpha"),
        ({"alphas": (0.1, "x")}, "alpha must be a finite number"),
        ({"rhos": 0.5}, "rhos or resolutions, not both"),
        ({"oracle": "annealing"}, "oracle must be one of"),
        ({"oracle": "random", "learning_rate": (0.01, 0.1)}, "max_trials must be"),
        ({"workers": 0}, "workers must be a whole number"),
        ({"workers": 2}, "isolate=False runs one trial at a time"),
        ({"prior": "public"}, 'prior must be "published"'),
        ({"time_limit": -1}, "time_limit must be a finite number"),
        ({"strategy": "two"}, "strategy must be one of"),
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"alpha": 0.5}, "did you mean 'alphas'"),
        ({"data_dir": "/proc/no"}, "data_dir"),
        ({"splits": {"tran": "train"}}, "did you mean 'train'"),
        ({"weights": "/nonexistent.keras"}, "got '/nonexistent.keras': not a file"),
        ({"recipe": "slim"}, "recipe must be one of"),
        ({"expansion": 4}, "variation of mobilenet_v2"),
        ({"epochs": 10**23}, "epochs must be a whole number"),
        ({"max_trials": 10**23}, "max_trials must be a whole number"),
        ({"workers": 10**23, "isolate": True}, "workers must be a whole number"),
        ({"cluster": -1}, "cluster must be a whole number"),
        ({"memory_limit": "4 GB"}, "memory_limit must be a finite number"),
        ({"directory": "x" * 300}, "names have at most 255 bytes"),
        ({"latency": 7}, "latency must be a mapping"),
        ({"latency": "pixel"}, 'or "litert"; got .pixel'),
        ({"latency": "litert", "max_macs": 1000}, "max_macs=1000 must leave"),
        ({"objective": "int4_accuracy"}, "objective must be one of 'accuracy', 'int8"),
        ({"objective": None}, "objective must be one of"),
        ({"objective": "int8_accuracy", "data": FEW, "batch_size": 8}, "at least 32"),
        ({"isolate": "no"}, "isolate must be True or False"),
        ({"data": 5}, "source must be"),
        ({"strategy": lambda: None, "isolate": True}, "other processes can import"),
        ({"strategy": dict, "isolate": True}, "which made {}"),
        ({"resolutions": b"x"}, "resolution must be a whole number"),
        ({"resolutions": [32, None]}, "resolutions must hold at least one number"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(
    settings, message, tmp_path, monkeypatch, data_dir
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        km.search(
            verbose=False,
            **{"data_dir": data_dir, "isolate": False, **POINTS, **TINY, **settings},
        )
    assert not list(tmp_path.iterdir())


def test_weights_that_do_not_fit_are_found_before_anything_is_written(search, tmp_path):
    km.build("mobilenet_v1", alpha=0.1, resolution=32, classes=10, shallow=True).save(
        tmp_path / "weights.keras"
    )
    with pytest.raises(UsageError, match="does not fit mobilenet_v1"):
        search(weights=tmp_path / "weights.keras", isolate=False)
    assert [p.name for p in tmp_path.iterdir()] == ["weights.keras"]


# Directories: taken up, or refused by name.


@pytest.fixture
def quick(monkeypatch):
    """A search whose trials train nothing, here or in `runs` of this directory."""
    monkeypatch.setattr(trials, "prepare", lambda *arguments: trials.Prepared(10, []))
    monkeypatch.setattr(
        runner.Runner,
        "run_trial",
        lambda self, trial, slot: {"val_accuracy": 0.5, "seconds": 0.1},
    )

    def quick(**settings):
        settings = {**POINTS, **TINY, "isolate": False, "verbose": False, **settings}
        return km.search("digits", **settings)

    return quick


def test_functions_are_part_of_what_a_search_is(quick, tmp_path):
    directory = tmp_path / "search"
    quick(directory=directory, prior=lambda n, a, r: a)
    with pytest.raises(UsageError, match="holds a search with prior='.*, not '"):
        quick(directory=directory, prior=lambda n, a, r: -a)
    quick(directory=directory, prior=lambda n, a, r: a)
    with pytest.raises(
        UsageError, match=r"holds a search with latency=None, not \['partial"
    ):
        quick(
            directory=directory,
            prior=lambda n, a, r: a,
            latency=functools.partial(max, 1),
        )
    quick(directory=tmp_path / "b", prior=functools.partial(lambda n, a, r: a))


def test_objective_is_part_of_what_a_search_is(quick, tmp_path):
    quick(directory=tmp_path / "search")
    with pytest.raises(UsageError, match="objective='accuracy', not 'int8_accuracy'"):
        quick(directory=tmp_path / "search", objective="int8_accuracy")
    with pytest.raises(UsageError, match="latency=None, not 'litert'"):
        quick(directory=tmp_path / "search", latency="litert")


@pytest.fixture
def slower(monkeypatch):
    """Each measure of a latency is a millisecond more than the one before."""
    measured = []

    def measure(key, classes, variant, quantization):
        measured.append((key, classes, variant, quantization))
        return float(len(measured))

    monkeypatch.setattr(litert, "measure_latency", measure)
    return measured


def test_latency_is_measured_once(quick, slower, tmp_path, monkeypatch, capsys):
    limits = {"latency": "litert", "max_latency_ms": 2.5, "max_macs": 600_000}
    asked = {"directory": tmp_path / "search", **limits}
    with monkeypatch.context() as patch:
        patch.setattr(runner.Runner, "run_trial", stop)
        with pytest.raises(SearchStopped):
            quick(**asked, verbose=True)
    points = [(0.1, 32), (0.1, 40), (0.25, 32)]  # the fourth is beyond max_macs
    keys = [("mobilenet_v1", *point) for point in points]
    assert slower == [(key, 10, {"shallow": True}, None) for key in keys]
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "measuring the latency of 3 points"
    assert out[1].startswith("networks within the budget: 2 of 4")
    result = quick(**asked)
    assert len(slower) == 3
    assert [row["latency_ms"] for row in result.table] == [1, 2]
    assert result.cost == "latency_ms"
    assert result == quick(**asked)  # it is finished
    assert len(slower) == 3


def test_latency_is_of_the_file_that_is_the_objective(quick, slower, tmp_path):
    def run(self, trial, slot):
        return {"val_accuracy": 0.5, "int8_accuracy": 0.25, "seconds": 0.1}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.Runner, "run_trial", run)
        result = quick(
            directory=tmp_path / "search", latency="litert", objective="int8_accuracy"
        )
    assert {quantization for *_, quantization in slower} == {"int8"}
    assert [row["int8_accuracy"] for row in result.pareto()] == [0.25]


def test_a_latency_that_no_point_keeps_leaves_nothing(quick, slower, tmp_path):
    with pytest.raises(UsageError, match=r"max_latency_ms=0.5 .*32 px: 1 ms.*Raise"):
        quick(directory=tmp_path / "search", latency="litert", max_latency_ms=0.5)
    assert len(slower) == 4
    assert not list(tmp_path.iterdir())


def test_measures_that_are_gone_are_named(quick, slower, tmp_path):
    directory = tmp_path / "search"
    quick(directory=directory, latency="litert")
    state = json.loads((directory / "search.json").read_text())
    assert len(state.pop("measured")) == 4
    (directory / "search.json").write_text(json.dumps(state))
    with pytest.raises(UsageError, match=r"search.json' must hold the measured lat"):
        quick(directory=directory, latency="litert")


def test_stopped_search_with_measures_is_found_again(
    quick, slower, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(runner.Runner, "run_trial", stop)
        with pytest.raises(SearchStopped):
            quick(latency="litert")
    quick(latency="litert")
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["search-digits-1"]
    assert len(slower) == 4


def test_what_a_default_says_may_be_said(quick, tmp_path):
    quick(directory=tmp_path / "search")
    quick(directory=tmp_path / "search", oracle="grid", seed=0, recipe="quick")


def stop(*_):
    raise KeyboardInterrupt


def test_stopped_search_is_found_again(quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(runner.Runner, "run_trial", stop)
        with pytest.raises(SearchStopped, match="give the same command to go on"):
            quick()
        with pytest.raises(SearchStopped):
            quick(seed=1)
    runs = tmp_path / "runs"
    damaged = runs / "search-digits-2" / "search.json"
    damaged.write_text("{")
    with pytest.warns(UserWarning, match="passed over: .*search-digits-2/search.json"):
        quick()
    assert sorted(p.name for p in runs.iterdir()) == [
        "search-digits-1",
        "search-digits-2",
    ]
    with pytest.raises(UsageError, match="search-digits-2/search.json"):
        quick(directory=damaged.parent, seed=1)
    monkeypatch.setattr(runner.Runner, "run_trial", stop)
    damaged.unlink()
    with pytest.raises(SearchStopped):
        quick()  # the first is finished: a new one
    assert (runs / "search-digits-3" / "search.json").exists()


def test_two_searches_at_a_time_are_two(quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = []

    def meanwhile(self, trial, slot):
        if not found:
            found.append(None)
            found.append(quick())
        return {"val_accuracy": 0.5, "seconds": 0.1}

    monkeypatch.setattr(runner.Runner, "run_trial", meanwhile)
    quick()
    assert len(list((tmp_path / "runs").iterdir())) == 2
    first = tmp_path / "runs" / "search-digits-1"
    with storage.lock(first / ".lock"), pytest.raises(UsageError, match="in use"):
        quick(directory=first)


@pytest.mark.parametrize("files", [1, 2, 3, 5, 8])
def test_full_disk_leaves_what_the_same_command_goes_on_with(
    quick, files, tmp_path, monkeypatch
):
    directory, count = tmp_path / "search", 0

    @contextlib.contextmanager
    def full(path):
        nonlocal count
        count += 1
        if count > files - 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        with whole(path) as beside:
            yield beside

    whole = storage.replacing
    with monkeypatch.context() as patch:
        patch.setattr(storage, "replacing", full)
        with pytest.raises((UsageError, SearchStopped), match="No space left"):
            quick(directory=directory)
    assert directory.exists() == (files > 1)
    assert len(quick(directory=directory).finished) == 4


def test_leftovers_of_a_killed_start_are_nobodys(quick, tmp_path):
    directory = tmp_path / "search"
    directory.mkdir()
    (directory / ".lock").touch()
    (directory / ".partial-7-search.json").touch()
    assert quick(directory=directory)
    assert not list(directory.glob(".*"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": 7}', "[" * 100_000])
def test_damaged_search_json_is_named(quick, text, tmp_path):
    quick(directory=tmp_path / "search")
    (tmp_path / "search" / "search.json").write_text(text)
    with pytest.raises(UsageError, match="search/search.json'"):
        quick(directory=tmp_path / "search")


def test_lost_search_json_is_not_a_new_search(quick, tmp_path):
    quick(directory=tmp_path / "search")
    (tmp_path / "search" / "search.json").unlink()
    with pytest.raises(UsageError, match="^directory .* is not empty"):
        quick(directory=tmp_path / "search")


def test_cluster_needs_all_of_its_variables(quick, tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with pytest.raises(UsageError, match="must be set together"):
        quick(directory=tmp_path / "search")


# The verb, in processes that are killed.


def start(cwd, data_dir, *arguments):
    command = [sys.executable, "-m", "keras_mobilenets", "search", "mobilenet_v1"]
    options = "--alphas 0.1 0.25 --resolutions 32 40 --max-macs 600000 --shallow"
    options = [*options.split(), "--set", "warmup_epochs=0"]
    if "--epochs" not in arguments:
        options += ["--epochs", "1"]
    options += ["--data-dir", str(data_dir)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL")  # of the tests; it lets all notices through
    return subprocess.Popen(
        [*command, *options, *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def trial_states(directory):
    found = directory.glob("trials/[!.]*.json")
    states = [json.loads(path.read_text()) for path in found]
    return {state["trial_id"]: state for state in states}


@pytest.mark.slow
@pytest.mark.parametrize("oracle", ["grid", "random", "bayesian", "hyperband"])
def test_killed_search_goes_on(oracle, tmp_path, data_dir):
    arguments = ["--oracle", oracle]
    if oracle == "hyperband":
        arguments = [*arguments, "--epochs", "3", "--max-trials", "4"]
    process = start(tmp_path, data_dir, *arguments)
    directory = tmp_path / "runs" / "search-digits-1"

    def in_the_middle_of_the_second_trial():
        trials = directory / "trials"
        return (trials / "0001.log").exists() or (trials / "1.log").exists()

    wait_for(in_the_middle_of_the_second_trial, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = trial_states(directory)
    ended = {i: s for i, s in before.items() if s["status"] == "COMPLETED"}
    (interrupted,) = before.keys() - ended.keys()
    assert len(ended) == 1
    files = {
        path: path.read_bytes()
        for i in ended
        for path in directory.glob(f"trials/{i}.json")
    }

    process = start(tmp_path, data_dir, *arguments, "--json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["search-digits-1"]
    table = json.loads(out)["table"]
    assert {row["status"] for row in table} == {"COMPLETED"}
    assert len(table) == (4 if oracle == "hyperband" else 3)
    keys = [(r["alpha"], r["resolution"], r.get("tuner/round")) for r in table]
    assert len(set(keys)) == len(keys)
    assert files == {path: path.read_bytes() for path in files}
    after = trial_states(directory)
    for i, state in after.items():
        # One observation each: none ran twice.
        (seen,) = state["metrics"]["metrics"]["val_accuracy"]["observations"]
        assert len(seen["value"]) == 1
        if i in ended:
            assert state == ended[i]
    values = [s[interrupted]["hyperparameters"]["values"] for s in (before, after)]
    assert values[0] == values[1]


@pytest.mark.slow
def test_killed_search_for_a_phone_goes_on(tmp_path, data_dir):
    """What was measured stays as it was: latencies, and accuracies of files."""
    arguments = "--objective int8_accuracy --latency litert --max-latency-ms 1e6"
    process = start(tmp_path, data_dir, *arguments.split())
    directory = tmp_path / "runs" / "search-digits-1"
    trials = directory / "trials"
    files = ("0000/model_int8.tflite", "0/model_int8.tflite")
    wait_for(lambda: len(list(trials.glob("*.log"))) == 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (first,) = [path for name in files if (path := trials / name).exists()]
    content = first.read_bytes()
    ended = trial_states(directory)
    measured = json.loads((directory / "search.json").read_text())["measured"]
    assert len(measured) == 3

    process = start(tmp_path, data_dir, *arguments.split(), "--json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert first.read_bytes() == content
    result = json.loads(out)
    assert (result["objective"], result["cost"]) == ("int8_accuracy", "latency_ms")
    table = result["table"]
    assert [row["latency_ms"] for row in table] == [m["latency_ms"] for m in measured]
    for row in table:
        assert row["status"] == "COMPLETED"
        run = trials / row["trial"]
        proof = json.loads((run / "model_int8.tflite.json").read_text())["proof"]
        assert row["int8_accuracy"] == proof["accuracy"]
        assert abs(row["accuracy"] - proof["keras_accuracy"]) < 1e-6
        state = ended.get(row["trial"])
        if state is not None and state["status"] == "COMPLETED":
            assert state["score"] == row["int8_accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_asked_to_stop(name, tmp_path, data_dir):
    process = start(tmp_path, data_dir, "--epochs", "200", "--max-trials", "1")
    directory = tmp_path / "runs" / "search-digits-1"
    checkpoints = directory / "trials" / "0" / "checkpoints"
    wait_for(lambda: list(checkpoints.glob("step-*.npz")), process)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 4, err
    assert err.splitlines()[-1].startswith("keras-mobilenets: error: asked to stop")
    lock = storage.lock(directory / "trials" / "0" / ".lock")  # the trial has ended
    lock.close()
    assert list(checkpoints.glob("step-*.npz"))


@pytest.mark.slow
def test_verb(tmp_path, data_dir):
    process = start(tmp_path, data_dir, "--max-macs", "200000", "--time-limit", "300")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == (
        "networks within the budget: 1 of 4; trials: 1; directory: runs/search-digits-1"
    )
    assert "[1/1] mobilenet_v1, alpha 0.1, 32 px: accuracy " in lines[1]
    assert lines[-1] == "plot: runs/search-digits-1/search.png"
    assert (tmp_path / "runs/search-digits-1/search.png").exists()

    process = start(tmp_path, data_dir, "--max-macs", "10")
    out, err = process.communicate()
    assert process.returncode == 2
    assert out == ""
    assert err.startswith("keras-mobilenets: error: max_macs=10 must leave")
    assert err.count("\n") == 1
