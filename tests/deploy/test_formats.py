"""Which format a path is, and what is done where it is none."""

import json
import re

import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.deploy import formats, read_classifier
from keras_mobilenets.deploy.formats import FORMATS


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_is_known_by_what_it_is(suffix, model, tmp_path):
    path = tmp_path / f"file{suffix}"
    km.export(model, path)
    other = path.rename(tmp_path / "renamed.h5")
    assert read_classifier(other).shape == (32, 32, 3)


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_says_something_else_is_kept_aside(suffix, model, tmp_path, monkeypatch):
    """Whole, with its report; here by a demand that nothing meets."""
    of = FORMATS[suffix]
    kind = of.kinds[None]._replace(least=1.01)
    monkeypatch.setitem(FORMATS, suffix, of._replace(kinds={None: kind}))
    path = tmp_path / f"file{suffix}"
    aside = tmp_path / f"file.rejected-1{suffix}"
    with pytest.raises(km.ExportFailed, match=f"kept as '{re.escape(str(aside))}'"):
        km.export(model, path)
    report = json.loads(aside.with_name(f"{aside.name}.json").read_text())
    assert report["file"] == aside.name
    assert "must agree on 101.0%" in report["failed"]
    assert len(list(tmp_path.iterdir())) == 2
    assert read_classifier(aside).shape == (32, 32, 3)


@pytest.mark.parametrize("name", ["file.onnx", "folder"])
@pytest.mark.parametrize("quantization", ["float16", "int8"])
def test_quantization_is_of_litert(name, quantization, model, calibration, tmp_path):
    with pytest.raises(km.UsageError, match="quantization is for .tflite files; got"):
        km.export(
            model,
            tmp_path / name,
            quantization=quantization,
            calibration=calibration,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".onnx", ".tflite", "folder.", "v1.0", "..", "a\0b"])
def test_names_of_no_format(name, model, tmp_path):
    with pytest.raises(km.UsageError, match="path must be that of a new file"):
        km.export(model, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["folder", "folder.json"])
def test_a_folder_is_not_overwritten(name, model, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(km.UsageError, match=f"new file; .*{name}' exists"):
        km.export(model, tmp_path / "folder")
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_models_of_keras_are_given_otherwise(few_blocks, model, tmp_path):
    for suffix in (".keras", ".h5"):
        path = tmp_path / f"model{suffix}"
        model.save(path)
        with pytest.raises(km.UsageError, match="a file of Keras: give the run"):
            read_classifier(path)


def test_what_is_no_model(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    with pytest.raises(
        km.UsageError, match="folder without saved_model.pb; give a run"
    ):
        read_classifier(tmp_path / "run")
    with pytest.raises(km.UsageError, match="nowhere.onnx': not a file"):
        read_classifier(tmp_path / "nowhere.onnx")
    for name in ("empty.onnx", "noise.onnx"):
        (tmp_path / name).write_bytes(b"" if name == "empty.onnx" else b"noise" * 9)
        with pytest.raises(km.UsageError, match=f"{name}', which is none"):
            read_classifier(tmp_path / name)
    monkeypatch.setattr(formats, "LARGEST", 10)
    np.save(tmp_path / "large.npy", np.zeros(100))
    with pytest.raises(km.UsageError, match="at most 10 bytes"):
        read_classifier(tmp_path / "large.npy")
