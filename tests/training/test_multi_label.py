"""Runs on images that have several labels, or none: trained, measured, said."""

import csv
import json
import re

import keras
import numpy as np
import pytest
import sklearn.metrics
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.__main__ import main
from tests.training.noise import RUN, train_until

pytestmark = pytest.mark.usefixtures("few_blocks")

CLASSES = ("blue", "green", "red")
COUNT = 240


def make(count, seed):
    """Noise; a channel that is bright is a label."""
    random = np.random.default_rng(seed)
    rows = random.integers(0, 2, (count, 3))
    means = 90 + 70 * rows[:, None, None, ::-1]  # red is the last label, and first
    pixels = means + random.normal(0, 40, (count, 32, 32, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8), rows


def text(row):
    return "|".join(name for name, has in zip(CLASSES, row, strict=True) if has)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    lines = ["path,label"]
    for number, (image, row) in enumerate(zip(*make(COUNT, 0), strict=True)):
        Image.fromarray(image).save(folder / f"{number:08}.png")
        lines.append(f"{number:08}.png,{text(row)}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder / "labels.csv"


SETTINGS = RUN | {"epochs": 6, "label_smoothing": 0.1}


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    """A run that the command line made."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    options = ["train", RUN["name"], "--data", str(table), "--multi-label", "--json"]
    for field, value in SETTINGS.items():
        option = field.replace("_", "-")
        if isinstance(value, bool) and field != "verbose":
            options.append(f"--{option}" if value else f"--no-{option}")
        elif field not in ("name", "verbose"):
            options += [f"--{option}", str(value)]
    assert main([*options, "--workdir", str(workdir)]) == 0
    return workdir


@pytest.fixture(scope="module")
def report(trained):
    return json.loads((trained / "report.json").read_text())


def test_it_learns_every_label(report, trained):
    assert report["multi_label"]
    assert report["classes"] == list(CLASSES)
    assert report["data_options"] == {"multi_label": True}
    assert "accuracy" not in report["test"]
    assert report["test"]["binary_accuracy"] > 0.95
    assert report["test"]["f1_score"] > 0.95
    with open(trained / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[-1]) == {
        "epoch", "loss", "binary_accuracy", "val_loss", "val_binary_accuracy",
        "val_f1_score", "learning_rate",
    }  # fmt: skip
    assert float(rows[-1]["val_f1_score"]) == report["validation"]["f1_score"]
    samples = sorted(path.stem for path in (trained / "samples").iterdir())
    assert {name.partition("-")[2] for name in samples} <= {
        text(row) or "none" for row in np.ndindex(2, 2, 2)
    }


def test_the_network_ends_in_sigmoid_and_the_loss_is_smoothed(table):
    splits = km.load_data(table, resolution=32, batch_size=8, multi_label=True)
    model = km.build(
        "mobilenet_v1", alpha=0.25, resolution=32, classes=3,
        classifier_activation="sigmoid",
    )  # fmt: skip
    km.compile(
        model, "quick", steps_per_epoch=4, loss="binary_crossentropy",
        label_smoothing=0.1, weight_decay=0,
    )  # fmt: skip
    images, labels = next(iter(splits.train))
    scores = model(images, training=False)
    expected = keras.losses.BinaryCrossentropy(label_smoothing=0.1)(labels, scores)
    ours = model.compute_loss(images, labels, scores)
    assert float(ours) == pytest.approx(float(expected), rel=1e-6)
    smoothed = 0.9 * np.array(labels) + 0.05
    p = np.array(scores)
    by_hand = -(smoothed * np.log(p) + (1 - smoothed) * np.log(1 - p)).mean()
    assert float(ours) == pytest.approx(by_hand, rel=1e-4)


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated") / "report"
    result = km.evaluate(trained, split="train", report=folder, verbose=False)
    return result, folder


@pytest.fixture(scope="module")
def answers(trained, table):
    """Labels and probabilities of the training split, by Keras alone."""
    splits = km.load_data(
        table, resolution=32, batch_size=16, multi_label=True, recipe="quick",
        index=trained / "data.json",
    )  # fmt: skip
    model = keras.saving.load_model(trained / "model.keras")
    pairs = [
        (labels, model.predict_on_batch(images))
        for images, labels in splits.train_once.as_numpy_iterator()
    ]
    return tuple(np.concatenate(part) for part in zip(*pairs, strict=True))


def test_figures_are_scikit_learns(evaluated, answers):
    result, _ = evaluated
    has, scores = answers
    has = has > 0.5
    said = scores > 0.5
    assert result["images"] == len(has)
    assert result["binary_accuracy"] == pytest.approx((said == has).mean())
    assert result["f1_score"] == pytest.approx(
        sklearn.metrics.f1_score(has, said, average="macro")
    )
    assert result["mean_average_precision"] == pytest.approx(
        sklearn.metrics.average_precision_score(has, scores, average="macro"), abs=1e-6
    )
    assert result["loss"] == pytest.approx(
        -np.where(has, np.log(scores), np.log1p(-scores)).mean(), rel=1e-4
    )
    for n, (name, of) in enumerate(result["per_class"].items()):
        assert name == CLASSES[n]
        assert of["support"] == has[:, n].sum()
        for figure in ("precision", "recall", "f1"):
            theirs = getattr(sklearn.metrics, f"{figure}_score")(has[:, n], said[:, n])
            assert of[figure] == pytest.approx(theirs)
    assert "confusion" not in result
    assert result["threshold"] == 0.5


def test_the_report_has_a_picture_of_labels(evaluated):
    result, folder = evaluated
    names = {path.name for path in folder.iterdir()}
    assert names - {"mistakes.png"} == {"evaluation.json", "labels.png"}
    assert ("mistakes.png" in names) == bool(result["mistakes"])
    assert json.loads((folder / "evaluation.json").read_text()) == result


def test_evaluate_prints_it(trained, capsys):
    assert main(["evaluate", str(trained), "--split", "validation"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"class +precision +recall +F1 +average precision +images", said)
    assert "mean average precision" in said.splitlines()[-1]
    assert "binary accuracy" in said.splitlines()[-1]


def test_predict_says_the_labels(trained, tmp_path, capsys):
    images, rows = make(12, 1)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number:02}.png")
    results = km.predict(tmp_path, trained, verbose=False)
    model = keras.saving.load_model(trained / "model.keras")
    for result, row, image in zip(results, rows, images, strict=True):
        scores = model.predict_on_batch((image[None] / 127.5 - 1).astype("float32"))[0]
        said = dict(zip(result["classes"], result["probabilities"], strict=True))
        assert list(said) == sorted(said, key=said.get, reverse=True)
        assert [said[name] for name in CLASSES] == pytest.approx(scores.tolist(), 1e-3)
        assert set(result["labels"]) == {name for name in CLASSES if said[name] > 0.5}
        assert "|".join(sorted(result["labels"])) == text(row), "learned"
    for threshold, wanted in ((0, 3), (1, 0)):
        some = km.predict(tmp_path, trained, threshold=threshold, verbose=False)
        assert {len(result["labels"]) for result in some} == {wanted}

    said = tmp_path / "said.csv"
    options = ["predict", str(tmp_path), "--workdir", str(trained), "--top", "2"]
    assert main([*options, "--csv", str(said)]) == 0
    with open(said, newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["labels"] for line in lines] == [
        "|".join(r["labels"]) for r in results
    ]
    assert "class_2" in lines[0]
    assert "class_3" not in lines[0]
    capsys.readouterr()
    assert main(options) == 0
    header = capsys.readouterr().out.splitlines()[0].split()
    assert header == ["image", "labels", "1.", "2."]


def test_a_run_that_was_stopped_ends_as_the_whole(table, trained, report, tmp_path):
    settings = SETTINGS | {"data": table, "multi_label": True}
    with pytest.raises(km.TrainingInterrupted):
        train_until(15, **settings, workdir=tmp_path / "run")
    kept = table.read_text()
    lines = [line.split("|")[0].rstrip(",") for line in kept.splitlines()]
    table.write_text("\n".join(line for line in lines if "," in line))
    try:  # what the file says by now is not what the run began with
        resumed = km.train(resume=True, workdir=tmp_path / "run", verbose=False)
        with pytest.raises(km.UsageError, match="multi_label True there and None here"):
            km.train(**SETTINGS, data=table, workdir=trained.parent / "run")
    finally:
        table.write_text(kept)
    whole = keras.saving.load_model(trained / "model.keras")
    for one, other in zip(
        resumed.model.get_weights(), whole.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert resumed.report == report


def test_arrays_and_replicas(two_replicas, tmp_path):
    run = km.train(
        **SETTINGS | {"epochs": 3, "batch_size": 8}, data=make(160, 2),
        workdir=tmp_path / "run", strategy=two_replicas,
    )  # fmt: skip
    assert run.report["validation"]["f1_score"] > 0.6
    with pytest.raises(km.UsageError, match="pass it again"):
        km.evaluate(run.workdir, verbose=False)
    one = km.evaluate(run.workdir, data=make(160, 2), strategy="none", verbose=False)
    for name, value in run.report["test"].items():
        assert one[name] == pytest.approx(value, abs=1e-5)


def test_other_data_has_to_be_of_the_same_kind(trained, table, tmp_path):
    images, rows = make(60, 3)
    names = [[CLASSES[n] for n in np.flatnonzero(row)] for row in rows]
    other = km.evaluate(trained, data=(images, names), verbose=False)
    assert other["f1_score"] > 0.9
    single = (images, [CLASSES[n % 3] for n in range(60)])
    with pytest.raises(
        km.UsageError, match="several labels, or none, an image.*got one"
    ):
        km.evaluate(trained, data=single, verbose=False)


def test_other_columns_of_other_data(trained, table, tmp_path, capsys):
    lines = [line.split(",") for line in table.read_text().splitlines()[1:]]
    rows = [f"{table.parent / path},x,{labels}" for path, labels in lines]
    other = tmp_path / "other.csv"
    other.write_text("\n".join(["picture,label,colours", *rows]))
    options = ["evaluate", str(trained), "--json", "--data", str(other)]
    assert main([*options, "--label", "colours", "--image", "picture"]) == 0
    result = json.loads(capsys.readouterr().out)
    own = km.evaluate(trained, data=str(table), verbose=False)
    assert result == {**own, "data": str(other), "mistakes": result["mistakes"]}
    assert main([*options, "--label", "colour", "--image", "picture"]) == 2
    assert "label must name one column" in capsys.readouterr().err
    assert main(["evaluate", str(trained), "--label", "colours"]) == 2
    error = capsys.readouterr().err
    assert "label is of another source than the run's own data" in error
    assert error.count("\n") == 1


def test_a_classifier_of_classes_is_not_one_of_labels(trained, tmp_path):
    network = {"alpha": 0.25, "resolution": 32, "shallow": True, "classes": 3}
    softmax = km.build("mobilenet_v1", **network)
    softmax.save(tmp_path / "softmax.keras")
    with pytest.warns(
        UserWarning, match="new and untrained: logits.*for softmax, not s"
    ):
        sigmoid = km.build(
            "mobilenet_v1", **network, classifier_activation="sigmoid",
            weights=tmp_path / "softmax.keras",
        )  # fmt: skip
    body = [
        (a.path, a, b) for a, b in zip(softmax.weights, sigmoid.weights, strict=True)
    ]
    for path, one, other in body:
        if not path.startswith("logits"):
            np.testing.assert_array_equal(one, other)
    same = km.build(
        "mobilenet_v1", **network, classifier_activation="sigmoid", weights=trained
    )
    whole = keras.saving.load_model(trained / "model.keras")
    np.testing.assert_array_equal(same.get_weights()[-2], whole.get_weights()[-2])
    with pytest.warns(UserWarning, match="for sigmoid, not softmax"):
        km.build("mobilenet_v1", **network, weights=trained)


REFUSED = {
    "without the word": ({}, "multi_label=True if these"),
    "class weights": (
        {"multi_label": True, "class_weight": "balanced"}, "class_weight is for images",
    ),
    "no flag": ({"multi_label": "perhaps"}, "multi_label must be True or False"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_is_left_of_what_is_refused(case, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, message = REFUSED[case]
    with pytest.raises(km.UsageError, match=message):
        km.train(**SETTINGS, data=table, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_search_is_refused(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(km.UsageError, match="one label for each image; got .*compare"):
        km.search(
            table, multi_label=True, names=("mobilenet_v1",), alphas=(0.25,),
            resolutions=(32,), recipe="quick", isolate=False, directory="search",
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_f1_of_labels_that_nobody_has():
    from keras_mobilenets.training.counting import mean_f1

    nothing = np.zeros(2)
    assert mean_f1(nothing, nothing, nothing) == 0
    right, said, has = np.array([[1, 0, 0], [2, 0, 1], [2, 0, 0]])
    assert mean_f1(right, said, has) == 0.25, "the mean of 0.5 and 0"


@pytest.mark.parametrize("fine_tune", [None, 1])
def test_a_file_says_the_labels(trained, report, tmp_path, fine_tune):
    """Of 8 bits, calibrated or fine-tuned, in the place of the run's model."""
    path = tmp_path / "labels.tflite"
    exported = km.export(
        trained, path, quantization="int8", fine_tune=fine_tune, verbose=False
    )
    assert exported["squashing"] == "sigmoid"
    assert exported["operations"]["LOGISTIC"] == 1
    assert exported["proof"]["source"].endswith("(test split)")
    assert "accuracy" not in exported["proof"]
    result = km.evaluate(trained, model=path, verbose=False)
    for figure in ("binary_accuracy", "f1_score"):
        assert result[figure] == pytest.approx(report["test"][figure], abs=0.05)
    assert result["loss"] == pytest.approx(report["test"]["loss"], abs=0.03)
    assert result["loss"] != report["test"]["loss"]
    if fine_tune:
        figures = exported["fine_tuning"]["validation"]
        assert figures["float32"]["f1_score"] == report["validation"]["f1_score"]
        least = min(figures["calibrated"]["divergence"], 0.001)
        assert figures["fine_tuned"]["divergence"] <= least
