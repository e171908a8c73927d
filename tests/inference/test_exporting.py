"""`export` of a finished run, and its file in the place of its model."""

import json
import shutil

import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.deploy import read_classifier


@pytest.fixture(scope="module")
def exported(run):
    """The run, and the report on its model as int8."""
    return run, km.export(run.workdir, quantization="int8")


def test_a_run_calibrates_with_its_own_data(exported):
    run, report = exported
    assert report["path"] == str(run.workdir / "model_int8.tflite")
    assert report["classes"] == run.report["classes"]
    assert report["calibration"]["images"] == 128
    assert report["proof"]["source"] == "digits (test split)"
    measured = run.report["test"]["accuracy"]
    assert report["proof"]["keras_accuracy"] == pytest.approx(measured)
    assert report["proof"]["accuracy"] == pytest.approx(measured, abs=0.02)


def test_evaluate_a_file(exported):
    run, report = exported
    result = km.evaluate(run.workdir, model=report["path"], verbose=False)
    assert result["images"] == 180
    assert result["model"] == report["path"]
    assert result["accuracy"] == pytest.approx(report["proof"]["accuracy"])
    keras = km.evaluate(run.workdir, verbose=False)
    assert result["loss"] == pytest.approx(keras["loss"], abs=0.05)
    assert result["loss"] != keras["loss"]
    assert "model" not in keras


def test_predict_by_a_file_alone(exported, tmp_path):
    run, report = exported
    path = shutil.copy(report["path"], tmp_path)
    samples = run.workdir / "samples"
    alone = km.predict(samples, model=path, top=10)
    assert alone == km.predict(samples, run.workdir, model=path, top=10)
    theirs = km.predict(samples, run.workdir, top=10)
    assert alone != theirs
    for ours, other in zip(alone, theirs, strict=True):
        shares = dict(zip(other["classes"], other["probabilities"], strict=True))
        expected = [shares[name] for name in ours["classes"]]
        assert ours["probabilities"] == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("name", ["model.onnx", "model"])
def test_other_formats_answer_for_a_run(run, tmp_path, name):
    path = tmp_path / name
    report = km.export(run.workdir, path)
    assert report["proof"]["accuracy"] == report["proof"]["keras_accuracy"]
    result = km.evaluate(run.workdir, model=path, verbose=False)
    keras = km.evaluate(run.workdir, verbose=False)
    assert result["accuracy"] == keras["accuracy"]
    assert result["loss"] == pytest.approx(keras["loss"], abs=1e-5)
    samples = run.workdir / "samples"
    alone = km.predict(samples, model=path)
    for ours, theirs in zip(alone, km.predict(samples, run.workdir), strict=True):
        assert ours["classes"] == theirs["classes"]
        assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)


def test_a_run_or_its_own_file_is_not_what_was_exported(run):
    samples = run.workdir / "samples"
    for model, fix in ((run.workdir, "give a run"), ("model.keras", "give the run")):
        with pytest.raises(km.UsageError, match=f"{fix}.* as workdir"):
            km.predict(samples, model=run.workdir / model)


def test_a_file_that_does_not_say_how(exported, tmp_path):
    """Of a model without its data: a run says how images are prepared."""
    run, _ = exported
    path = tmp_path / "file.tflite"
    km.export(run.model, path, labels=run.report["classes"])
    assert read_classifier(path).recipe is None
    samples = run.workdir / "samples"
    with pytest.raises(km.UsageError, match="workdir must be given"):
        km.predict(samples, model=path)
    answers = km.predict(samples, run.workdir, model=path)
    expected = km.predict(samples, run.workdir)
    for ours, theirs in zip(answers, expected, strict=True):
        assert ours["classes"] == theirs["classes"]
        assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)


def test_a_file_of_other_classes(exported, tmp_path):
    run, _ = exported
    path = tmp_path / "file.tflite"
    km.export(run.model, path, labels=list("abcdefghij"))
    for use in (
        lambda: km.evaluate(run.workdir, model=path, verbose=False),
        lambda: km.predict(run.workdir / "samples", run.workdir, model=path),
    ):
        with pytest.raises(km.UsageError, match="10: 0, 1, 2, 3, .* 10: a, b, c, d"):
            use()


def test_other_data(exported, tmp_path):
    """They calibrate; whether answers are right cannot be said of other classes."""
    run, _ = exported
    images = np.random.default_rng(0).integers(0, 256, (40, 9, 9)).astype("uint8")
    labels = np.arange(40) % 2
    data = {"train": (images, labels), "test": (images, labels)}
    splits = km.load_data(data, resolution=32)
    report = km.export(run.workdir, tmp_path / "a.tflite", calibration=splits)
    assert report["proof"]["images"] == 40
    assert "accuracy" not in report["proof"]
    assert report["classes"] == run.report["classes"]
    report = km.export(run.workdir, tmp_path / "b.tflite", calibration="digits")
    assert report["proof"]["accuracy"] == pytest.approx(run.report["test"]["accuracy"])


def test_a_run_whose_data_are_gone(exported, tmp_path):
    run, _ = exported
    workdir = shutil.copytree(run.workdir, tmp_path / "run")
    for name in ("report.json", "settings.json"):
        stored = json.loads((workdir / name).read_text())
        (workdir / name).write_text(json.dumps(stored | {"data": "./gone"}))
    (workdir / "data.json").unlink()
    with pytest.raises(km.UsageError, match="calibration must be given where.*gone"):
        km.export(workdir, tmp_path / "a.tflite", quantization="int8")
    with pytest.warns(UserWarning, match="proven on pictures made up.*gone"):
        report = km.export(workdir, tmp_path / "a.tflite")
    assert report["proof"]["source"] == "32 made up"
    assert read_classifier(tmp_path / "a.tflite").recipe is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": 3}, "model must be a Keras model or the directory of a run"),
        ({"model": "nowhere"}, "workdir must hold a finished run"),
        ({"calibration": "./nowhere"}, "nowhere"),
        ({"quantization": "int4"}, "quantization must be"),
        ({"path": "report.json"}, "path must be that of a new file, a .tflite file"),
    ],
)
def test_what_cannot_be_exported(run, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(km.UsageError, match=message):
        km.export(**{"model": run.workdir, "path": "a.tflite", **options})
    assert list(tmp_path.iterdir()) == []


def test_a_file_runs_on_one_device(exported):
    run, report = exported
    with pytest.raises(km.UsageError, match="strategy is for Keras models"):
        km.evaluate(run.workdir, model=report["path"], strategy="mirrored")
