"""`benchmark` of what can be timed; what measures is tested in tests/deploy."""

import json
from pathlib import Path

import pytest

import keras_mobilenets as km
from keras_mobilenets.deploy import timing
from keras_mobilenets.inference import benchmarking

QUICK = {"seconds": 0.01, "batches": [1], "verbose": False}
NETWORK = {"alpha": 0.25, "resolution": 32, "classes": 7}
FIGURES = ("median_ms", "p10_ms", "p90_ms", "least_ms", "cpu_ms")


@pytest.fixture
def timed(monkeypatch):
    """The files that would be timed, and how; each takes longer than the last."""
    seen = []

    def time_files(files, images, *, batches, **how):
        for runtime, path in files.values():  # each can be run
            timing.RUNTIMES[runtime](str(path), images[:1], 1)()
        seen.append((files, images, how))
        calls = timing.figures([(0.001, 0.001)])
        return {
            name: {batch: calls | {"median_ms": n + 1.0} for batch in batches}
            for n, name in enumerate(files)
        }

    monkeypatch.setattr(benchmarking, "time_files", time_files)
    return seen


def test_a_network_by_its_name(few_blocks, capsys):
    """By a real process, in all forms."""
    options = {"seconds": 0.01, "batches": [1, 2], "activation": "relu"}
    result = km.benchmark("mobilenet_v1", **NETWORK, **options)
    expected = {"name": "mobilenet_v1", **NETWORK, "activation": "relu"}
    assert result["network"] == expected
    assert (result["image"], result["threads"]) == ([32, 32, 3], 1)
    forms = [row["form"] for row in result["rows"] if row["batch"] == 1]
    assert forms[:4] == ["keras", "fused", "float32", "float16"]
    assert [row["batch"] for row in result["rows"]] == len(forms) * [1] + len(forms) * [
        2
    ]
    for row in result["rows"]:
        assert min(row[figure] for figure in FIGURES) > 0
        assert row["calls"] >= timing.FEWEST
    assert result["rows"][0]["relative"] == 1
    sizes = {row["form"]: row["bytes"] for row in result["rows"]}
    assert sizes["int8"] < sizes["float16"] < sizes["float32"]
    assert json.loads(json.dumps(result)) == result
    assert str(Path.home()) not in json.dumps(result)
    printed = capsys.readouterr()
    assert not printed.out
    assert "making LiteRT, int8 ...\n" in printed.err
    assert "measuring batches of 2" in printed.err


def test_rows_are_relative_to_the_first(timed):
    forms = ["fused", "float32"]
    result = km.benchmark("mobilenet_v1", **NETWORK, forms=forms, **QUICK)
    rows = [(row["form"], row["relative"]) for row in result["rows"]]
    assert rows == [("fused", 1.0), ("float32", 2.0)]
    assert [row["text"] for row in result["rows"]][1] == "LiteRT, float32"
    (_, images, how) = timed[0]
    assert images.shape[1:] == (32, 32, 3)
    assert -1 <= images.min() < images.max() <= 1
    assert (how["threads"], how["seconds"]) == (1, 0.01)


def test_a_model(timed):
    """Of any shape, and under mixed precision, of which files have nothing."""
    model = km.build("mobilenet_v2", alpha=0.1, resolution=(32, 64), channels=1)
    result = km.benchmark(model, forms=["keras", "float32"], **QUICK)
    assert result["network"] == {"model": "mobilenet_v2"}
    assert result["image"] == [32, 64, 1]
    with pytest.raises(km.UsageError, match="keras.applications has a network without"):
        km.benchmark(model, forms=["keras.applications"], **QUICK)


def test_a_run(run, timed):
    """With a variation, so that there is no other network like it."""
    forms = ["keras", "int8"]
    result = km.benchmark(run.workdir, forms=forms, **QUICK)
    assert result["network"] == {"run": "run"}
    assert [row["form"] for row in result["rows"]] == forms
    with pytest.raises(km.UsageError, match="keras.applications has a network without"):
        km.benchmark(str(run.workdir), forms=["keras.applications"], **QUICK)


@pytest.mark.parametrize("name", ["file.tflite", "folder"])
def test_a_file_of_export(run, timed, tmp_path, name):
    km.export(run.model, tmp_path / name)
    result = km.benchmark(tmp_path / name, **QUICK)
    assert result["network"] == {"file": name}
    (row,) = result["rows"]
    assert (row["form"], row["batch"]) == (name, 1)
    assert row["bytes"] > 1e5
    with pytest.raises(km.UsageError, match="forms are of a network or a run"):
        km.benchmark(tmp_path / name, forms=["int8"], **QUICK)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("mobilnet_v2", {}, "model must be 'mobilenet_v1' or .* did you mean 'mobil"),
        (3, {}, "model must be .* got 3"),
        ("", {}, "model must be .* got ''"),
        (b"a\0b", {}, "model must be"),
        (__file__, {}, "model must be a .tflite file"),
        (Path(__file__).parent, {}, "workdir must hold a finished run"),
        (
            __file__,
            {"alpha": 0.5},
            "alpha is of a network by its name .* got alpha=0.5",
        ),
        ("mobilenet_v1", {"alpha": -1}, "alpha must be"),
        ("mobilenet_v1", {"resolution": 8}, "resolution must be"),
        ("mobilenet_v1", {"expansion": 6}, "expansion"),
        ("mobilenet_v1", {"depth": 6}, r"benchmark\(\) has no argument 'depth'"),
        ("mobilenet_v1", {"weights": "imagenet"}, "has no argument 'weights'"),
        ("mobilenet_v1", {"width_mult": 1}, "has no argument .* use alpha"),
        ("mobilenet_v1", {"forms": ["int4"]}, "forms must be one of .* got 'int4'"),
        ("mobilenet_v1", {"forms": "int8"}, "forms must be a list of at least one"),
        ("mobilenet_v1", {"forms": []}, "forms must be a list of at least one"),
        ("mobilenet_v1", {"batches": [0]}, "batches must be .* got 0"),
        ("mobilenet_v1", {"batches": [1, 1]}, "batches must differ"),
        ("mobilenet_v1", {"batches": 8}, "batches must be a list of at least one"),
        ("mobilenet_v1", {"batches": [10**6]}, "batches must be .* at most 1024"),
        ("mobilenet_v1", {"threads": 0}, "threads must be .* got 0"),
        ("mobilenet_v1", {"threads": 5000}, "threads must be .* has cores"),
        ("mobilenet_v1", {"seconds": 0}, "seconds must be .* above 0"),
        ("mobilenet_v1", {"verbose": 1}, "verbose must be True or False"),
    ],
)
def test_what_cannot_be_timed(timed, model, options, message):
    with pytest.raises(km.UsageError, match=message):
        km.benchmark(model, **{**QUICK, **options})
    assert not timed
