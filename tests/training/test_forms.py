"""Runs on every form of data: begun, stopped, resumed, evaluated, searched."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.__main__ import main
from tests.training.noise import CLASSES, RUN, make_folder, train_until

pytestmark = pytest.mark.usefixtures("few_blocks")


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """One set of images in every form; files are named as arrays are numbered."""
    folder = tmp_path_factory.mktemp("forms") / "noise"
    make_folder(folder)
    pairs, images, labels = [], [], []
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        path = path.rename(path.with_name(f"{number:08}.png"))
        pairs.append((path, path.parent.name))
        with Image.open(path) as image:
            images.append(np.asarray(image))
        labels.append(path.parent.name)
    table = folder.parent / "labels.csv"
    table.write_text("\n".join(f"noise/{p.parent.name}/{p.name},{c}" for p, c in pairs))
    arrays = (np.stack(images), np.array(labels))
    return {
        "folder": folder, "table": table, "list": pairs, "arrays": arrays,
        "dataset": tf.data.Dataset.from_tensor_slices(arrays),
    }  # fmt: skip


def run(workdir, stop_after=None, **settings):
    return train_until(stop_after, **{**RUN, "workdir": workdir, **settings})


@pytest.fixture(scope="module")
def whole(forms, tmp_path_factory):
    """A run on the class folder that nothing happens to."""
    return run(tmp_path_factory.mktemp("whole") / "run", data=forms["folder"])


@pytest.fixture(scope="module")
def expected(whole):
    return km.evaluate(whole.workdir, verbose=False)


# What a run says when the data in memory is not passed again.
LOST = {"arrays": r"data=\(images, labels\)", "dataset": "data=the tf.data.Dataset"}


@pytest.mark.parametrize("form", ["table", "list", "arrays", "dataset"])
def test_a_run_that_was_stopped_ends_as_one_on_the_folder(
    form, forms, whole, expected, tmp_path
):
    data, workdir = forms[form], tmp_path / "run"
    with pytest.raises(km.TrainingInterrupted, match="after step 10;"):
        run(workdir, stop_after=10, data=data)
    written = json.loads((workdir / "settings.json").read_text())["data"]
    if form in LOST:
        assert written.startswith(f"{form}:")
        with pytest.raises(km.UsageError, match=f"pass it again, {LOST[form]}"):
            km.train(resume=True, workdir=workdir)
        images, labels = forms["arrays"]
        other = (images[:, ::-1].copy(), labels)
        with pytest.raises(km.UsageError, match=f"data '{written}' there and 'arrays:"):
            run(workdir, data=other)
        resumed = km.train(resume=True, workdir=workdir, data=data, verbose=False)
    else:
        resumed = km.train(resume=True, workdir=workdir, verbose=False)
    for file in ("history.csv", "curves.png"):
        assert (workdir / file).read_bytes() == (whole.workdir / file).read_bytes()
    for one, other in zip(
        resumed.model.get_weights(), whole.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert resumed.report == {**whole.report, "data": written}
    again = run(workdir, data=data)  # finished, the same
    assert again.report == resumed.report

    if form in LOST:
        with pytest.raises(km.UsageError, match="pass it again"):
            km.evaluate(workdir, verbose=False)
    measured = km.evaluate(workdir, data=data if form in LOST else None, verbose=False)
    for key in ("loss", "accuracy", "images"):
        assert measured[key] == expected[key]
    assert measured["data"] == written


BAD = {
    "images alone": lambda forms: forms["arrays"][0],
    "floats": lambda forms: (forms["arrays"][0] / 255, forms["arrays"][1]),
    "batches": lambda forms: forms["dataset"].batch(2),
    "missing files": lambda forms: [*forms["list"], ("nowhere.png", "dark")],
    "two labels": lambda forms: [*forms["list"], (forms["list"][0][0], "light")],
    "one class": lambda forms: [(path, "one") for path, _ in forms["list"]],
    "too few": lambda forms: forms["list"][:3],
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_leaves_nothing_behind(case, forms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = BAD[case](forms)
    for start in (
        lambda: run(tmp_path / "run", data=data),
        lambda: km.search(data, directory=tmp_path / "search", isolate=False),
    ):
        with pytest.raises(km.UsageError) as raised:
            start()
        assert "\n" not in str(raised.value)
        assert list(tmp_path.iterdir()) == []


def test_the_command_line_takes_a_csv(forms, whole, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(forms["table"].parent)
    options = ["--workdir", str(tmp_path / "run"), "--json", RUN["name"]]
    for field, value in RUN.items():
        if field in ("alpha", "resolution", "recipe", "epochs", "batch_size"):
            options += [f"--{field.replace('_', '-')}", str(value)]
        elif field not in ("name", "verbose"):
            options += ["--set", f"{field}={value}"]
    assert main(["train", "--data", "labels.csv", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {**whole.report, "data": str(forms["table"])}
    monkeypatch.chdir(tmp_path)  # the path of the CSV was made absolute
    assert main(["evaluate", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == str(forms["table"])

    bad = tmp_path / "bad.csv"
    bad.write_text("path,label\nnowhere.png,cat\n")
    assert main(["train", "--data", "bad.csv", "--workdir", "other"]) == 2
    error = capsys.readouterr().err
    assert "names 1 of 1 files that are not there" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "other").exists()
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "CSV file" in capsys.readouterr().out


@pytest.mark.parametrize("isolate", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_search_on_arrays(isolate, forms, tmp_path):
    settings = {k: v for k, v in RUN.items() if k not in ("name", "alpha", "shallow")}
    settings |= {"names": ("mobilenet_v1",), "alphas": (0.25, 0.3)}
    settings |= {"isolate": isolate, "directory": tmp_path / "search", "epochs": 1}
    settings["resolutions"] = (settings.pop("resolution"),)
    result = km.search(forms["arrays"], **settings)
    assert [row["status"] for row in result.table] == ["COMPLETED"] * 2
    kept = json.loads((tmp_path / "search" / "search.json").read_text())
    assert "arrays:" in json.dumps(kept)
    again = km.search(forms["arrays"], **settings)
    assert again.table == result.table
    images, labels = forms["arrays"]
    with pytest.raises(km.UsageError, match="holds a search with"):
        km.search((images[::-1], labels), **settings)


def test_keras_tuner_on_pairs(forms):
    hyper = km.HyperMobileNet(
        iter(forms["list"]), names=("mobilenet_v1",), alphas=(0.25,), resolutions=(32,),
        recipe="quick", batch_size=16,
    )  # fmt: skip
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    hyper.declare_hyperparameters(hp)
    model = hyper.build(hp)
    assert isinstance(model, keras.Model)
    splits = hyper.load(hyper.settings(hp))
    assert splits.classes == CLASSES
    assert hyper.load(hyper.settings(hp)) is splits, "read once"
