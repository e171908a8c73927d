import subprocess
import sys

import pytest

from keras_mobilenets.errors import UsageError
from keras_mobilenets.weight_files import find_weights


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.keras", "keras"),
        ("a.weights.h5", "hdf5"),
        ("a.H5", "hdf5"),
        ("a.safetensors", "safetensors"),
        ("a.tflite", "tflite"),
    ],
)
def test_kinds(tmp_path, name, kind):
    (tmp_path / name).touch()
    assert find_weights(tmp_path / name) == (kind, tmp_path / name)
    assert find_weights(str(tmp_path / name)) == (kind, tmp_path / name)


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001"])
def test_a_checkpoint_has_many_files(tmp_path, ending):
    (tmp_path / "model.ckpt-12.index").touch()
    asked = tmp_path / f"model.ckpt-12{ending}"
    assert find_weights(asked) == ("checkpoint", tmp_path / "model.ckpt-12")


def test_a_directory_of_checkpoints(tmp_path):
    (tmp_path / "model.ckpt-12.index").touch()
    with pytest.raises(UsageError, match="give '.*model.ckpt-12'"):
        find_weights(tmp_path)


@pytest.mark.parametrize(
    "name", ["a.pt", "a.pth", "a.pkl", "a.bin", "a.pth.tar", "a.ckpt"]
)
def test_pickles_are_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match=f"{name}'.*pickle.*safetensors"):
        find_weights(tmp_path / name)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (3, "weights must be None.*got 3"),
        ("", "weights must be None.*got ''"),
        ("a\0b", "weights must be None"),
        ("missing.keras", "got 'missing.keras': not a file"),
        (".", "a directory without model.keras"),
        ("imagenet21k", "not a file"),
    ],
)
def test_what_is_no_source(tmp_path, monkeypatch, weights, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        find_weights(weights)


def test_other_files(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(UsageError, match=r"a.txt': save with model.save\(\)"):
        find_weights(tmp_path / "a.txt")


def test_an_unfinished_run(tmp_path):
    (tmp_path / "settings.json").touch()
    with pytest.raises(UsageError, match="the run in it is not finished"):
        find_weights(tmp_path)


def test_tensorflow_is_not_imported():
    code = (
        "import sys, keras_mobilenets.weight_files; assert 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
