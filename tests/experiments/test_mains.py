"""Every experiment runs to its end, with tiny settings, in this process."""

import functools
import json
import os
import types

import keras
import numpy as np
import pytest

from experiments import finetuning, report, rounding, search_oracles, shuffling
from experiments.benchmarks import (
    contenders,
    deploy,
    features,
    pipeline,
    search,
    training,
)
from keras_mobilenets.tuning import isolation, runner, searching
from tests.tuning.misbehaving import score_without_training

pytestmark = pytest.mark.usefixtures("few_blocks", "here")

SMALL = {"name": "mobilenet_v1", "alpha": 0.25, "resolution": 32}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """What is prepared, and what is remembered of it, in a folder of the test's own."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`main` with these arguments and constants; what it writes down."""

    def run(module, *arguments, **constants):
        for name, value in {"RESULT": tmp_path / "result.json", **constants}.items():
            assert hasattr(module, name)
            monkeypatch.setattr(module, name, value)
        monkeypatch.setattr("sys.argv", [module.__name__, *arguments])
        module.main()
        return json.loads((tmp_path / "result.json").read_text())

    return run


def in_this_process(commands):
    """In the place of a contender's process: the same questions and answers."""

    class Contender(contenders.Contender):
        def __init__(self, module, arguments, python=""):
            self.commands = commands(*arguments)

        def ask(self, command):
            return json.loads(json.dumps(self.commands[command]()))

        def close(self):
            pass

    return Contender


def network(input_shape, alpha, weights=None, classes=1000):
    """For keras.applications': with a million parameters or so at alpha 1."""
    layers = keras.layers
    parts = [keras.Input(input_shape), layers.GlobalAveragePooling2D()]
    parts.append(layers.Dense(int(alpha * 1e6 / classes) + 1))
    return keras.Sequential([*parts, layers.Dense(classes, "softmax")])


def test_a_search_beside_plain_kerastuner(run, monkeypatch):
    # Imported before: it would keep what takes the server's place for later tests.
    assert searching.Server is isolation.Server
    monkeypatch.setattr(isolation, "Server", lambda: None)
    scored = functools.partial(runner.Runner, run_trial=score_without_training)
    monkeypatch.setattr(runner, "Runner", scored)
    monkeypatch.setattr(keras.applications, "MobileNetV2", network)

    def commands(which, epochs):
        return search._commands(which, int(epochs))

    found = run(
        search, "--epochs", "1",
        ALPHAS=(0.1, 1.0), RESOLUTIONS=(32, 40), MAX_PARAMS=900_000,
        Memory=lambda: types.SimpleNamespace(now=1.0, peak=2.0),
        Contender=in_this_process(commands),
    )  # fmt: skip
    ours, plain = (found["1 epochs"][which] for which in ("ours", "plain"))
    for figures in (ours, plain):
        of = [(t["alpha"], t["resolution"]) for t in figures["trials"]]
        assert of[:2] == [(0.1, 32), (0.1, 40)]
        assert figures["finished"] == 2
        assert figures["ended_by"] is None
        assert (figures["memory_mb"], figures["peak_memory_mb"]) == (1, 2)
    assert (ours["wasted"], plain["wasted"]) == (0, 2)
    assert [trial["accuracy"] for trial in ours["trials"]] == [0.1, 0.1]


def test_memory_is_of_a_process_and_its_own():
    own = search._share(os.getpid())
    assert 1000 < own < 64e6  # kB
    assert search._family(os.getpid())[0] == os.getpid()
    assert os.getpid() in search._family(os.getppid())


def test_training_speed(run, monkeypatch):
    monkeypatch.setattr(keras.applications, "MobileNet", network)

    def commands(which, name, *numbers):
        alpha, size, batch = map(float, numbers)
        return training._keras_commands(which, name, alpha, int(size), int(batch))

    found = run(
        training, "--rounds", "1", "--starts", "2",
        CASES=[(*SMALL.values(), 4)], STEPS=1, Contender=in_this_process(commands),
    )  # fmt: skip
    (case,) = (found[key] for key in found if key != "machine")
    assert list(case) == ["ours", "ours_without_average", "stock"]
    for figures in case.values():
        assert figures["steps"] == 1
        assert figures["first_step_s"] > figures["step_s"] > 0


def test_forms_of_a_network(run):
    network = {"model": "mobilenet_v1", "alpha": 0.25, "resolution": 32}
    forms = ("keras", "fused", "float32", "int8")
    found = run(
        deploy, "--seconds", "0.01", "--batches", "1",
        CASES=[network | {"shallow": True, "forms": forms}],
    )  # fmt: skip
    (case,) = found.values()
    assert tuple(row["form"] for row in case["rows"]) == forms
    assert [bar["ratio"] for bar in case["bars"]] == [
        "int8 / float32",
        "float32 / keras",
        "fused / keras",
    ]
    times = {row["form"]: row["least_ms"] for row in case["rows"]}
    expected = pytest.approx(times["int8"] / times["float32"], abs=1e-3)
    assert case["bars"][0]["by_least"] == expected


def test_an_epoch_on_features(run):
    sizes = {"train": 8, "validation": 4, "test": 4}
    found = run(features, NETWORK=SMALL, SIZES=sizes, EPOCHS=2)
    assert list(found["runs"]) == list(features.CONTENDERS)
    assert found["images"] == {"train": 40, "validation": 20, "test": 20}
    assert found["largest_difference_of_weights"] < 1e-4


@pytest.mark.slow
def test_finetuning(run):
    def examples(files):
        rng = np.random.default_rng(0)
        for number in range(400):
            image = rng.integers(0, 256, (28, 28, 1), np.uint8)
            yield number, {"image": image, "label": number % 10}

    quick = {"epochs": 1, "decay_epochs": 1, "head_epochs": 0}
    quick["exif_orientation"] = False
    label = "finetune: batch norm frozen"
    found = run(
        finetuning,
        NETWORK=SMALL, SEEDS=(0,), examples=examples,
        MANY={"train": 20, "validation": 4, "test": 4},
        FEW={"train": 10, "validation": 4, "test": 4},
        DONOR=finetuning.DONOR | quick | {"batch_size": 20},
        FROM_SCRATCH={"from scratch": finetuning.SCRATCH | quick},
        FINE_TUNED={label: finetuning.BASE | quick},
    )  # fmt: skip
    assert len(found["rows"]) == 3
    assert len(found["gains"]["from scratch"]) == 1


def test_oracles(run):
    found = run(
        search_oracles, "--seeds", "1",
        PROBLEMS={"V1 4x4": search_oracles.PROBLEMS["V1 4x4"]},
        ORACLES={kind: search_oracles.ORACLES[kind] for kind in ("grid", "random")},
    )  # fmt: skip
    assert [row["oracle"] for row in found["rows"]] == ["grid", "random"]


def test_shuffling(run):
    kept, measure = json.loads(shuffling.RESULT.read_text()), shuffling.measure
    found = run(
        shuffling, IMAGENET=6400, SHARDS=8, IMAGENET_BUFFER=800,
        measure=lambda *given, epochs: measure(*given, epochs=2),
    )  # fmt: skip
    assert list(found) == list(kept)
    assert found["8 shards, no buffer"].keys() == kept["8 shards, no buffer"].keys()


@pytest.mark.slow
def test_rounding(run):
    found = run(
        rounding, NETWORKS={"mobilenet_v1": rounding.NETWORKS["mobilenet_v1"]},
        DTYPES=("float64",), RATES=(1e-5,), STEPS=2, SHOWN=(1, 2),
    )  # fmt: skip
    assert len(found["rows"]) == 2
    assert max(found["rows"][0]["losses"]) < 1e-5


@pytest.mark.slow
def test_pipelines(run):
    found = run(
        pipeline, "--rounds", "1", "--count", "40",
        WARM_UP=1, Contender=in_this_process(pipeline._commands),
    )  # fmt: skip
    assert set(found) == {"ours", "keras", "slim", "about"}
    assert found["ours"]["ours_is_faster"] == {"train": 1, "eval": 1}


def test_a_report_of_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    rows = [report.compare("a", "M", "569", 568.74)]
    report.report("v9_table_9.py", "A table.\n\nMore.", rows)
    kept = json.loads((tmp_path / "results" / "v9_table_9.json").read_text())
    assert kept["rows"] == rows
    assert "569" in capsys.readouterr().out
