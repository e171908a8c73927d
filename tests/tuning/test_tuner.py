"""The tuner: one trial's failure is its own; rungs continue; memory stays flat."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from keras_mobilenets.tuning import trial as trials
from keras_mobilenets.tuning.hypermodel import HyperMobileNet
from keras_mobilenets.tuning.oracles import make_oracle
from keras_mobilenets.tuning.results import SearchResult
from keras_mobilenets.tuning.tuner import Tuner
from tests.tuning.hypermodels import (
    CRASH,
    EAT,
    GOOD,
    HANG,
    RAISE,
    Misbehaving,
    Smallest,
)

TINY = {
    "names": "mobilenet_v1",
    "resolutions": 32,
    "shallow": True,
    "epochs": 1,
    "warmup_epochs": 0,
}
OBJECTIVE = keras_tuner.Objective("val_accuracy", "max")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def make(data_dir, tmp_path):
    def make(kind="grid", model=HyperMobileNet, oracle=None, settings=None, **options):
        hypermodel = model("digits", data_dir=data_dir, **{**TINY, **(settings or {})})
        space = dataclasses.replace(hypermodel.space, classes=10)
        return Tuner(
            make_oracle(kind, space, objective=OBJECTIVE, seed=0, **(oracle or {})),
            hypermodel,
            directory=tmp_path,
            project_name="search",
            **options,
        )

    return make


def table(tuner):
    space = dataclasses.replace(tuner.hypermodel.space, classes=10)
    return SearchResult.from_oracle(tuner.oracle, space).table


@pytest.mark.parametrize(
    "workers", [1, pytest.param(2, marks=pytest.mark.slow, id="2 at a time")]
)
def test_a_failed_trial_costs_only_itself(make, workers):
    wrong = {
        CRASH: "crashed by signal 11 (Segmentation fault)",
        EAT: "stopped for memory: ",
        RAISE: "ValueError: no such luck",
    }
    ended = []
    tuner = make(
        model=Misbehaving,
        settings={"alphas": (*wrong, GOOD)},
        workers=workers,
        memory_limit=2 << 30,
        on_result=ended.append,
    )
    tuner.search()
    rows = {row["alpha"]: row for row in table(tuner)}
    assert rows[GOOD]["status"] == "COMPLETED"
    assert rows[GOOD]["accuracy"] > 0
    for alpha, message in wrong.items():
        assert rows[alpha]["status"] == "FAILED"
        assert rows[alpha]["message"].startswith(message)
        assert rows[alpha]["accuracy"] is None
    assert len(ended) == len(rows) == 4
    log = pathlib.Path(tuner.get_trial_dir(rows[RAISE]["trial"]), "log.txt")
    assert "Traceback" in log.read_text()


@pytest.mark.slow
def test_a_trial_that_hangs_is_ended(make):
    settings = {"alphas": (HANG, RAISE)}
    tuner = make(model=Misbehaving, settings=settings, time_limit=5)
    tuner.search()
    assert [row["message"] for row in table(tuner)] == [
        "stopped after the time limit of 5 s",
        "ValueError: no such luck",
    ]


@pytest.mark.slow
def test_the_searching_process_never_starts_tensorflow(data_dir, tmp_path):
    """It would take a GPU's memory. The oracle's guesses at metrics would start it."""
    code = f"""
import keras_mobilenets as km
from tensorflow.python.eager import context
km.search(names="mobilenet_v1", alphas=0.1, resolutions=32, shallow=True, epochs=1,
          data_dir={str(data_dir)!r}, directory={str(tmp_path / "search")!r})
assert not context.context()._initialized
"""
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_best_model_is_the_one_that_was_scored(make):
    tuner = make(settings={"alphas": 0.25, "epochs": 2, "ema_decay": 0.9})
    tuner.search()
    (model,) = tuner.get_best_models()
    (hp,) = tuner.get_best_hyperparameters()
    splits = tuner.hypermodel.load(tuner.hypermodel.recipe(hp), 32)
    accuracy = model.evaluate(splits.validation, verbose=0, return_dict=True)
    (row,) = table(tuner)
    assert accuracy["accuracy"] == pytest.approx(row["accuracy"], abs=1e-6)


def order(tmp_path, hypermodel, name, **settings):
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    return trials.Order(
        hp,
        weights=tmp_path / f"{name}.weights.h5",
        state=tmp_path / f"{name}.npz",
        **settings,
    )


def test_a_rung_continues_as_if_it_had_not_been_left(data_dir, tmp_path):
    """Weights, slots, averages, place in the schedule, and the data's epoch."""
    hypermodel = HyperMobileNet(
        "digits", data_dir=data_dir, alphas=0.25, **{**TINY, "decay_epochs": 1.0}
    )
    trials.run(hypermodel, order(tmp_path, hypermodel, "whole", epochs=2))
    trials.run(hypermodel, order(tmp_path, hypermodel, "first", epochs=1))
    second = order(
        tmp_path,
        hypermodel,
        "second",
        past=tmp_path / "first.npz",
        epochs=2,
        initial_epoch=1,
    )
    metrics = trials.run(hypermodel, second)
    assert metrics["epochs"] == 2
    with np.load(tmp_path / "whole.npz") as whole:
        with np.load(tmp_path / "second.npz") as second:
            assert whole.files == second.files
            for name in whole.files:
                one, other = whole[name], second[name]
                np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_hyperband_promotes_and_continues(make, tmp_path):
    tuner = make(
        "hyperband",
        settings={"alphas": (0.1, 0.25), "resolutions": (32, 40), "epochs": 3},
        oracle={"max_epochs": 3, "hyperband_iterations": 1},
    )
    tuner.search()
    rows = table(tuner)
    assert {row["status"] for row in rows} == {"COMPLETED"}
    promoted = [row for row in rows if row["tuner/round"] == 1]
    assert promoted
    for row in promoted:
        path = tmp_path / "search"
        states = []
        for trial in (row["tuner/trial_id"], row["trial"]):
            with np.load(path / f"trial_{trial}" / trials.STATE) as state:
                states.append(int(state["optimizer/0"]))  # the step
        assert states == [44 * row["tuner/initial_epoch"], 44 * row["tuner/epochs"]]


def two_logical_replicas():
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])


@pytest.mark.slow
def test_a_strategy_in_every_trial(make):
    tuner = make(settings={"alphas": 0.25}, strategy=two_logical_replicas)
    tuner.search()
    (row,) = table(tuner)
    assert row["status"] == "COMPLETED", row["message"]
    assert row["accuracy"] * 180 == pytest.approx(round(row["accuracy"] * 180))


def resident(pid):
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_memory_stays_flat(make):
    tuner = make(
        model=Smallest,
        settings={
            "alphas": tuple(n / 100 for n in range(10, 20)),
            "splits": {"train": "train[:3%]"},
        },
        on_result=lambda trial: memory.append(
            resident(os.getpid()) + resident(tuner.server.process.pid)
        ),
    )
    memory = []
    tuner.search()
    assert [row["status"] for row in table(tuner)] == ["COMPLETED"] * 10
    # KerasTuner's own grows by 75 MB a trial.
    assert memory[-1] - memory[2] < 10 << 20
