"""The command line."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.__main__ import main

TINY = (
    "mobilenet_v1", "--alpha", "0.25", "--resolution", "32", "--set", "shallow=True",
    "--epochs", "1",
)  # fmt: skip
ROOT = Path(km.__file__).parent.parent


def command(*arguments, cwd=None):
    """The command in a process of its own, as from a terminal."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def status_of(arguments):
    """The exit status, also where argparse exits by itself."""
    try:
        return main(list(arguments))
    except SystemExit as stop:
        return stop.code


def one_line(text):
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert text.startswith("keras-mobilenets")
    assert "Traceback" not in text
    return text


def contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# Without TensorFlow


@pytest.mark.parametrize(
    "arguments",
    [["cost", "--help"], ["cost", "--layers"], ["recommend"], ["recipes"]],
    ids=" ".join,
)
def test_verbs_without_tensorflow(arguments):
    done = command("-X", "importtime", "-m", "keras_mobilenets", *arguments)
    assert done.returncode == 0
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"tensorflow", "keras", "numpy", "matplotlib"}


def test_cost_prints_the_papers_numbers():
    done = command("-m", "keras_mobilenets", "cost")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert "300,774,272" in rows["mult-adds"]
    assert "3,538,984" in rows["parameters"]
    assert "3,504,872" in rows["trainable"]


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ([], {}),
        (["mobilenet_v1", "--alpha", "0.5", "--rho", "0.714"],
         {"name": "mobilenet_v1", "alpha": 0.5, "rho": 0.714}),
        (["--resolution", "96", "--classes", "10", "--bytes-per-element", "1"],
         {"resolution": 96, "classes": 10, "bytes_per_element": 1}),
        (["--splits", "3", "--bytes-per-element", "2"],
         {"splits": 3, "bytes_per_element": 2}),
        (["--resolution", "96x160", "--channels", "1"],
         {"resolution": (96, 160), "channels": 1}),
        (["--no-top", "--set", "expansion=4", "--set", "output_stride=16"],
         {"include_top": False, "expansion": 4, "output_stride": 16}),
        (["--set", "shortcut=none", "--set", "linear_bottleneck=false"],
         {"shortcut": "none", "linear_bottleneck": False}),
    ],
)  # fmt: skip
def test_cost_json_is_the_functions(capsys, options, arguments):
    assert main(["cost", *options, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == km.cost(**arguments).as_dict()
    assert not printed.err


def test_cost_layers_has_a_row_for_every_layer(capsys):
    assert main(["cost", "--layers"]) == 0
    first_words = [line.split(" ")[0] for line in capsys.readouterr().out.splitlines()]
    names = [row.name for row in km.cost().layers]
    assert first_words[2 : 2 + len(names)] == names


def test_cost_layers_shows_both_sides(capsys):
    assert main(["cost", "--layers", "--resolution", "96x160", "--channels", "1"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[2] for row in rows[2:4]] == ["48x80x32", "48x80x32"]


def test_recommend(capsys):
    limits = {"max_macs": 150e6, "min_top1": 60}
    assert main(["recommend", "--max-macs", "150e6", "--min-top1", "60", "--json"]) == 0
    expected = [point._asdict() for point in km.recommend(**limits)]
    assert json.loads(capsys.readouterr().out) == expected
    assert main(["recommend", "--max-macs", "150e6", "--min-top1", "60"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == len(expected)
    assert rows[0].split()[0] == expected[0]["name"]


def test_recommend_nothing_fits(capsys):
    assert main(["recommend", "--max-macs", "1"]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.count("\n") == 1


def test_recipes_listed_shown_and_compared(capsys):
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in km.recipes)
    assert main(["recipes", "slim_v2"]) == 0
    shown = capsys.readouterr().out
    assert "label_smoothing" in shown
    assert km.recipes["slim_v2"].sources["epsilon"] in shown
    assert f"measured here: {km.recipes['slim_v2'].measured}" in shown
    assert main(["recipes", "slim_v2", "paper_v2"]) == 0
    compared = capsys.readouterr().out
    assert "slim_v2: 2.5" in compared
    assert "paper_v2: 1.0" in compared
    assert "4 fields differ" in compared


@pytest.mark.parametrize("names", [[], ["quick"], ["quick", "flowers"]])
def test_recipes_json(capsys, names):
    assert main(["recipes", *names, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    if not names:
        assert list(value) == list(km.recipes)
    elif len(names) == 1:
        assert value["epochs"]["value"] == km.recipes["quick"].epochs
    else:
        rows = {row["field"]: row for row in value}
        assert rows["epochs"]["flowers"] == km.recipes["flowers"].epochs


def test_version(capsys):
    assert status_of(["--version"]) == 0
    assert capsys.readouterr().out == f"{km.__version__}\n"


def test_a_reader_that_stops_early():
    """As `keras-mobilenets cost --layers | head -1`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_mobilenets", "cost", "--layers"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


# Mistakes: status 2, one line that names the argument and the way out

MISTAKES = {
    "cost mobilnet_v2": ("name", "did you mean 'mobilenet_v2'"),
    "cost --alpha 0": ("alpha", "got 0", "above 0"),
    "cost --alpha -1": ("alpha", "got -1", "above 0"),
    "cost --alpha nan": ("alpha", "got nan", "above 0"),
    "cost --alpha wide": ("alpha", "got 'wide'", "above 0"),
    "cost --rho 0.5 --resolution 112": ("rho", "resolution", "not both"),
    "cost --rho 0": ("rho", "got 0", "above 0"),
    "cost --rho -0.5": ("rho", "got -0.5", "above 0"),
    "cost --rho nan": ("rho", "got nan", "above 0"),
    "cost --resolution 16": ("resolution", "got 16", "at least 32"),
    "cost --resolution 100.5": ("resolution", "got 100.5", "whole number"),
    "cost --resolution big": ("resolution", "got 'big'", "whole number"),
    "cost --classes 0": ("classes", "got 0", "at least 1"),
    "cost --classes -3": ("classes", "got -3", "at least 1"),
    "cost --set depth_multiplier=1": ("depth_multiplier", "use alpha", "rho"),
    "cost --set width_mult=1": ("width_mult", "use alpha"),
    "cost --set input_shape=(96,96,3)": ("input_shape", "use resolution", "channels=3"),
    "cost --resolution 96x": ("resolution", "got '96x'", "whole number"),
    "cost --resolution 96x160x3": ("resolution", "got '96x160x3'", "(height, width)"),
    "cost --resolution 96,160,3": ("resolution", "got (96, 160, 3)", "channels"),
    "cost --resolution 16x160": ("resolution", "got 16;", "at least 32"),
    "cost --splits 0": ("splits", "got 0", "at least 1"),
    "cost mobilenet_v1 --splits 2": ("splits", "got 2", "mobilenet_v2"),
    "cost --channels 2": ("channels", "got 2", "1, 3, 4"),
    "cost --channels rgb": ("channels", "got 'rgb'", "1, 3, 4"),
    "cost --rho 96x160": ("rho", "got '96x160'"),
    "train --channels 2": ("channels", "got 2", "1, 3, 4"),
    "train --resolution 96x16": ("resolution", "got 16;", "at least 32"),
    "search --channels 2": ("channels", "got 2", "1, 3, 4"),
    "search --latency pixel": ("latency", "got 'pixel'", '"litert"'),
    "search --objective int4": ("objective", "got 'int4'", "int8_accuracy"),
    "search --resolutions 96x": ("resolution", "got '96x'", "whole number"),
    "search --resolutions 96,160": ("resolutions", "got 96,160", "96x160"),
    "doctor --channels 2": ("channels", "got 2", "1, 3, 4"),
    "doctor --resolution 96x16": ("resolution", "got 16;", "at least 32"),
    "cost --set expnsion=4": ("expnsion", "did you mean 'expansion'"),
    "cost --set expansion": ("--set", "FIELD=VALUE", "'expansion'"),
    "cost --alpha 1 --set alpha=0.5": ("alpha", "once", "alpha=0.5"),
    "cost mobilenet_v1 --set name=mobilenet_v2": ("name", "once"),
    "cost --set self=1": ("self", "no argument"),
    "cost --batch-norm-epsilon 0.1": ("--batch-norm-epsilon", "--help"),
    "cost --set expansion=4 --set expansion=5": ("expansion", "once"),
    "cost --widht 1": ("--widht", "--help"),
    "cots": ("cots", "choose from", "cost"),
    "": ("VERB", "--help"),
    "recipes slim_v3": ("recipe", "slim_v3", "did you mean 'slim_v2'"),
    "recipes quick slim_v1 slim_v2": ("recipes", "one or two", "got 3"),
    "recommend --max-macs much": ("max_macs", "got 'much'", "number"),
    "recommend --min-top1 nan": ("min_top1", "got nan"),
    "recommend --name mobilenet": ("name", "did you mean"),
    "predict": ("IMAGE", "--help"),
    "train mobilenet_v3": ("name", "did you mean 'mobilenet_v"),
    "train --alpha 0": ("alpha", "got 0"),
    "train --resolution 16": ("resolution", "got 16"),
    "train --set classes=10": ("classes", "accepted"),
    "train --set depth_multiplier=1": ("depth_multiplier", "use alpha"),
    "train --set expansion=0": ("expansion", "got 0", "at least 1"),
    "train --epochs 0": ("epochs", "got 0", "at least 1"),
    "train --learning-rate fast": ("learning_rate", "got 'fast'"),
    "train --seed -1": ("seed", "got -1"),
    "train --recipe quik": ("recipe", "did you mean 'quick'"),
    "train --data digit": ("source", "'digit'", "did you mean"),
    "train --data ./no-folder": ("source", "no-folder", "does not exist"),
    "train --data ~no-such-user/x": ("data", "no-such-user", "no such user"),
    "train --data ./" + "x" * 300: ("data", "255 bytes"),
    "train --workdir " + "x" * 300: ("workdir", "255 bytes"),
    "train --set self=1": ("self", "no argument"),
    "train --set verbose=7": ("verbose", "True or False", "got 7"),
    "train --set expansion={[]:1}": ("expansion", "got '{[]:1}'"),
    "train --cpu-replicas 99999999999999999999999": ("cpu_replicas", "at most 1024"),
    "train --epochs 99999999999999999999999": ("epochs", "at most"),
    "train --batch-size 99999999999999999999999": ("batch_size", "at most"),
    "train --epochs 3 --set epochs=4": ("epochs", "once"),
    "train --weights none.weights.h5": ("weights", "none.weights.h5", "not a file"),
    "train --weights none.pth": ("weights", "none.pth", "pickle", "safetensors"),
    "train --weights .": ("weights", "a directory without model.keras"),
    "train --weights imagenet --alpha 0.6": ("weights", "imagenet", "exist at alpha"),
    "train --strategy mirored": ("strategy", "did you mean 'mirrored'"),
    "train --strategy multi_worker": ("TF_CONFIG", "keras-mobilenets launch"),
    "train --strategy tpu": ("tpu", "no TPU"),
    "train --cpu-replicas 0": ("cpu_replicas", "got 0", "at least 1"),
    "train --cpu-replicas 64": ("cpu_replicas", "got 64", "before TensorFlow"),
    "train --strategy none --cpu-replicas 2": ("cpu_replicas", "mirrored"),
    "train --checkpoint-steps 0": ("checkpoint_steps", "got 0", "at least 1"),
    "train --resume": ("resume", "runs/", "leave resume out"),
    "train --resume --workdir none": ("workdir", "none", "settings.json"),
    "evaluate --strategy mirored": ("workdir", "runs"),
    "launch": ("launch", "train or evaluate", "--"),
    "launch -n 2 -- cost": ("launch", "got 'cost'"),
    "launch -n 0 -- train": ("workers", "got 0", "at least 1"),
    "launch --servers -1 -- train": ("servers", "got -1"),
    "doctor --strategy mirored": ("strategy", "did you mean 'mirrored'"),
    "doctor --data digit": ("source", "'digit'", "did you mean"),
    "doctor --data ./no-folder": ("source", "./no-folder", "does not exist"),
    "doctor --resolution 16": ("resolution", "got 16"),
    "doctor --recipe quik": ("recipe", "did you mean 'quick'"),
    "doctor --sheet .": ("sheet", "got '.'"),
    "doctor --sheet x.txt": ("sheet", "PNG", "'x.txt'"),
    "evaluate": ("workdir", "runs", "keras-mobilenets train"),
    "evaluate .": ("workdir", "'.'", "report.json"),
    "evaluate --split testing": ("split", "testing", "did you mean 'test'"),
    "benchmark mobilnet_v2": ("model", "got 'mobilnet_v2'", "did you mean"),
    "benchmark --alpha 0": ("alpha", "got 0"),
    "benchmark --batches 0": ("batches", "got 0"),
    "benchmark --forms int4": ("forms", "'int4'", "int8"),
    "benchmark --threads 0": ("threads", "got 0"),
    "benchmark --seconds no": ("seconds", "got 'no'"),
    "benchmark --set width_mult=1": ("width_mult", "use alpha"),
    "benchmark . --alpha 0.5": ("alpha", "by its name", "'.'"),
    "benchmark .": ("workdir", "'.'", "report.json"),
    "predict some.png": ("images", "some.png", "does not exist"),
    "predict some.png --top 0": ("top", "got 0", "at least 1"),
}


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """In an empty directory; TFDS prepares its data in another."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_one_line(line, empty, capsys):
    arguments = line.split()
    assert status_of(arguments) == 2
    printed = capsys.readouterr()
    message = one_line(printed.err)
    assert not printed.out
    for part in MISTAKES[line]:
        assert part in message
    assert not list(empty.iterdir()), "a mistake leaves nothing behind"


def test_mistakes_in_a_process(tmp_path):
    """TensorFlow's own notices do not come between, nor a traceback."""
    done = command("-m", "keras_mobilenets", "evaluate", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert not done.stdout
    assert "'nowhere'" in one_line(done.stderr)


# A run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(directory, process): a small run on digits in its default work directory."""
    folder = tmp_path_factory.mktemp("command")
    done = command(
        "-m", "keras_mobilenets", "train", *TINY, "--data-dir", "data", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def inside(trained, monkeypatch):
    monkeypatch.chdir(trained[0])
    return trained[0]


def read_report(workdir):
    return json.loads((workdir / "report.json").read_text())


def test_train_tells_what_it_does(trained):
    _, done = trained
    assert not done.stderr
    first, *_, before_last, last = done.stdout.splitlines()
    assert "mobilenet_v1, alpha 0.25, 32 px" in first
    assert "1,437 training images of 10 classes" in first
    assert "test accuracy" in before_last
    assert "runs/digits-1" in last


def test_work_directory(inside):
    run = inside / "runs" / "digits-1"
    expected = {
        "model.keras", "report.json", "history.csv", "curves.png", "tensorboard",
        "samples", "settings.json", "timing.json", "data.json", "model_card.md",
    }  # fmt: skip
    assert {path.name for path in run.iterdir()} == expected
    for part in ("train", "validation"):
        (events,) = (run / "tensorboard" / part).iterdir()
        assert events.stat().st_size > 0
    with Image.open(run / "curves.png") as curves:
        curves.load()
        assert curves.format == "PNG"
        assert min(curves.size) > 400
    with open(run / "history.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert set(row) == {
        "epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate",
    }  # fmt: skip
    assert 0 <= float(row["accuracy"]) <= 1
    assert 0 < float(row["learning_rate"]) < 0.045
    samples = sorted((run / "samples").iterdir())
    assert len(samples) == 10
    for sample in samples:
        with Image.open(sample) as image:
            assert image.size == (32, 32)


def test_report(inside):
    report = read_report(inside / "runs" / "digits-1")
    network = {"alpha": 0.25, "resolution": 32, "shallow": True, "classes": 10}
    price = km.cost("mobilenet_v1", **network)
    assert report["name"] == "mobilenet_v1"
    assert (report["alpha"], report["resolution"], report["rho"]) == (0.25, 32, 1 / 7)
    assert report["variant"] == {"shallow": True}
    assert report["classes"] == [str(digit) for digit in range(10)]
    assert report["images"] == {"train": 1437, "validation": 180, "test": 180}
    assert (report["data"], report["seed"], report["epochs"]) == ("digits", 0, 1)
    assert (report["steps_per_epoch"], report["weights"]) == (44, "averaged")
    assert report["recipe"]["name"] == "quick"
    assert report["recipe"]["epochs"] == 1
    assert report["cost"]["params"] == price.params
    assert report["cost"]["macs"] == price.macs
    assert report["cost"]["peak_memory"] == price.peak_memory
    assert set(report["versions"]) == {
        "python", "tensorflow", "keras", "numpy", "keras_mobilenets",
    }  # fmt: skip
    for split in ("validation", "test"):
        assert 0 <= report[split]["accuracy"] <= 1
        assert report[split]["loss"] > 0
    assert report["devices"]
    timing = json.loads((inside / "runs" / "digits-1" / "timing.json").read_text())
    assert timing["training"] > 0


def test_model_is_plain_keras(inside):
    """Without this package; and it says what the report says it says."""
    code = """
import sys, keras, numpy as np
from PIL import Image
model = keras.saving.load_model("runs/digits-1/model.keras")
pixels = np.asarray(Image.open(sys.argv[1]), "float32")
print(model.predict(pixels[None] / 127.5 - 1, verbose=0)[0].tolist())
assert not [m for m in sys.modules if m.startswith("keras_mobilenets")]
"""
    sample = str(sorted((inside / "runs/digits-1/samples").iterdir())[0])
    done = command("-c", code, sample, cwd=inside)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    (expected,) = km.predict(sample, top=10)
    best = np.argsort(scores)[::-1]
    assert expected["classes"] == [str(digit) for digit in best]
    np.testing.assert_allclose(
        expected["probabilities"], np.sort(scores)[::-1], atol=1e-5
    )


def test_evaluate_agrees_with_the_report(inside, capsys):
    report = read_report(inside / "runs" / "digits-1")
    assert main(["evaluate", "runs/digits-1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["accuracy"] == pytest.approx(report["test"]["accuracy"], abs=1e-6)
    assert (result["split"], result["images"]) == ("test", 180)
    assert result["data"] == "digits"
    assert main(["evaluate", "--split", "validation"]) == 0  # the newest run
    last = capsys.readouterr().out.splitlines()[-1]
    assert f"validation accuracy {report['validation']['accuracy']:.2%}" in last
    assert "180 images of digits, by runs/digits-1" in last


def test_predict_its_samples(inside, capsys):
    samples = sorted(str(p) for p in (inside / "runs/digits-1/samples").iterdir())
    assert main(["predict", *samples, "--top", "2", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [result["image"] for result in results] == samples
    for result in results:
        assert len(result["classes"]) == 2
        first, second = result["probabilities"]
        assert 1 >= first >= second >= 0
    assert main(["predict", *samples]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["image", "1.", "2.", "3."]
    assert [row.split()[0] for row in rows] == samples
    assert [row.split()[1] for row in rows] == [r["classes"][0] for r in results]


def test_export_and_its_file_in_evaluate_and_predict(inside, tmp_path, capfd):
    file = str(tmp_path / "pixels.tflite")
    options = ["--quantization", "int8", "--input", "uint8", "--bias-correction", "no"]
    assert main(["export", "--path", file, "--json", *options[:4]]) == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert (report["input"], report["quantization"]) == ("uint8", "int8")
    assert report["path"] == file
    assert "XNNPACK" not in err  # nor what else the runtime says of itself
    assert "deprecated" not in err
    assert main(["export", "--path", file, *options[:4]]) == 2
    assert "new file" in one_line(capfd.readouterr().err)
    assert main(["export", "--path", f"{tmp_path}/new.tflite", *options]) == 2
    assert "bias_correction must be" in one_line(capfd.readouterr().err)
    assert main(["evaluate", "--model", file, "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["accuracy"] == pytest.approx(report["proof"]["accuracy"])
    assert main(["predict", "--model", file, "runs/digits-1/samples"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 12


@pytest.mark.parametrize("name", ["model.onnx", "model"])
def test_export_of_other_formats(inside, tmp_path, capfd, name):
    path = str(tmp_path / name)
    assert main(["export", "--path", path]) == 0
    out, err = capfd.readouterr()
    assert "100.00%" in out
    assert out.splitlines()[-1] == f"{path}, and {path}.json"
    assert err == ""
    assert main(["evaluate", "--model", path, "--json"]) == 0
    accuracy = json.loads(capfd.readouterr().out)["accuracy"]
    assert f"{accuracy:.2%}" in out
    assert main(["predict", "--model", path, "runs/digits-1/samples"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 12
    options = ["--quantization", "int8", "--path", f"{tmp_path}/8{name}"]
    assert main(["export", *options]) == 2
    assert "quantization is for .tflite files" in one_line(capfd.readouterr().err)


def test_export_shows_what_a_file_is_worth(inside, tmp_path, capsys):
    file = tmp_path / "model.tflite"
    assert main(["export", "runs/digits-1", "--path", str(file)]) == 0
    *rows, _, last = capsys.readouterr().out.splitlines()
    assert [row.split("  ")[0] for row in rows[2:]] == [
        "size", "agreement with Keras", "where it is sure", "accuracy",
        "error of logits", "latency",
    ]  # fmt: skip
    assert f"{file.stat().st_size:,} bytes" in rows[2]
    assert "100.00%" in rows[3]
    assert last == f"{file}, and {file}.json"


def test_benchmark(capsys):
    forms = ("keras", "float32")
    arguments = ["benchmark", *TINY[:7], "--forms", *forms, "--batches", "1"]
    assert main([*arguments, "--seconds", "0.01"]) == 0
    printed = capsys.readouterr()
    header, _, *rows, _, last = printed.out.splitlines()
    assert header.startswith("batch 1 ")
    assert tuple(row.split()[0] for row in rows) == forms
    assert "images 32x32x3; threads: 1, on " in last
    assert "measuring batches of 1" in printed.err
    assert main([*arguments, "--seconds", "0.01", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert tuple(row["form"] for row in result["rows"]) == forms
    assert result["network"]["shallow"] is True


def test_evaluate_writes_a_report(inside, tmp_path, capsys):
    report = tmp_path / "report"
    assert main(["evaluate", "runs/digits-1", "--report", str(report)]) == 0
    printed = capsys.readouterr().out
    figures = json.loads((report / "evaluation.json").read_text())
    *shares, support = figures["per_class"]["3"].values()
    shown = ["-" if share is None else f"{share:.1%}" for share in shares]
    lines = [line.split() for line in printed.splitlines()]
    assert ["class", "precision", "recall", "F1", "images"] in lines
    assert ["3", *shown, str(support)] in lines
    assert f"report: {report}" in printed
    assert f"calibration error {figures['calibration_error']:.2%}" in printed
    assert main(["evaluate", "runs/digits-1", "--report", str(report)]) == 2
    assert f"report '{report}' exists" in one_line(capsys.readouterr().err)


def test_predict_a_folder_into_a_table(inside, tmp_path, capsys):
    folder = tmp_path / "photos"
    shutil.copytree(inside / "runs" / "digits-1" / "samples", folder)
    count = len(list(folder.iterdir()))
    assert main(["predict", str(folder), "--csv", str(tmp_path / "a.csv")]) == 0
    printed = capsys.readouterr()
    assert f"{count:,} images: {tmp_path / 'a.csv'}" in printed.out
    assert len((tmp_path / "a.csv").read_text().splitlines()) == count + 1
    (folder / "x.png").write_text("none")
    assert main(["predict", str(folder)]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == count + 2
    assert "x.png" in one_line(printed.err)


def test_again_with_the_same_seed(inside, capsys):
    """In the next directory, in another process, with the same numbers."""
    assert main(["train", *TINY, "--data-dir", "data", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    first, second = inside / "runs" / "digits-1", inside / "runs" / "digits-2"
    assert printed == read_report(second)
    for split in ("validation", "test"):
        assert read_report(first)[split] == printed[split]
    assert (first / "history.csv").read_text() == (second / "history.csv").read_text()
    shutil.rmtree(second)


@pytest.mark.parametrize("occupied", ["runs/digits-1", "a file"])
def test_a_work_directory_in_use_is_left_alone(inside, capsys, occupied):
    (inside / "a file").write_text("of the user")
    before = contents(inside)
    options = ["--seed", "1", "--data-dir", "data", "--workdir", occupied]
    assert main(["train", *TINY, *options]) == 2
    printed = capsys.readouterr()
    message = one_line(printed.err)
    assert "workdir" in message
    assert occupied in message
    assert "new directory" in message
    assert not printed.out
    assert contents(inside) == before


def test_the_same_run_again_is_given_back(inside, capsys):
    before = contents(inside)
    options = ["--data-dir", "data", "--workdir", "runs/digits-1"]
    assert main(["train", *TINY, *options]) == 0
    assert "this run is finished: runs/digits-1" in capsys.readouterr().out
    assert contents(inside) == before


def test_weights_of_another_architecture(inside, capsys):
    before = contents(inside)
    options = ["--alpha", "0.35", "--resolution", "32", "--data-dir", "data"]
    weights = ["--weights", "runs/digits-1/model.keras"]
    assert main(["train", "mobilenet_v2", *options, *weights]) == 2
    printed = capsys.readouterr()
    message = one_line(printed.err)
    assert "weights" in message
    assert "runs/digits-1/model.keras" in message
    assert "it holds MobileNetV1" in message
    assert "asked for MobileNetV2" in message
    assert not printed.out
    assert contents(inside) == before


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing.png", "does not exist"),
        ("notes.png", "cannot be read"),
        ("empty", "holds none: it is empty"),
    ],
)
def test_predict_what_is_no_image(inside, capsys, name, expected):
    (inside / "notes.png").write_text("not an image\n")
    (inside / "empty").mkdir(exist_ok=True)
    assert main(["predict", name]) == 2
    printed = capsys.readouterr()
    message = one_line(printed.err)
    assert name in message
    assert expected in message
    assert not printed.out


def test_a_damaged_run_is_named(inside, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(inside / "runs" / "digits-1", copy)
    (copy / "model.keras").write_bytes(b"not a zip file")
    sample = str(next((copy / "samples").iterdir()))
    assert main(["predict", sample, "--workdir", str(copy)]) == 2
    assert "model.keras" in one_line(capsys.readouterr().err)
    (copy / "report.json").write_text("{}")
    assert main(["evaluate", str(copy)]) == 2
    assert "report.json" in one_line(capsys.readouterr().err)


def test_divergence_is_one_line_and_status_3(empty, capsys):
    options = ["--learning-rate", "1e30", "--json", "--workdir", "run"]
    assert main(["train", *TINY, *options]) == 3
    printed = capsys.readouterr()
    assert "learning rate" in one_line(printed.err)
    assert not printed.out
