"""`evaluate` on one small run."""

import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

import keras_mobilenets as km
from keras_mobilenets.inference import evaluation, run_data


@pytest.mark.parametrize(
    ("split", "images"), [("test", 180), ("validation", 180), ("train", 1437)]
)
def test_every_image_exactly_once(run, splits, split, images):
    result = km.evaluate(run.workdir, split=split, verbose=False)
    assert result["split"] == split
    assert (result["images"], result["data"]) == (images, "digits")
    assert result["workdir"] == str(run.workdir)
    right, loss = 0, 0.0
    part = "train_once" if split == "train" else split
    for x, y in getattr(splits, part).as_numpy_iterator():
        scores = run.model.predict(x, verbose=0)
        right += int((scores.argmax(-1) == y).sum())
        loss -= float(np.log(scores[np.arange(len(y)), y]).sum())
    assert result["accuracy"] == pytest.approx(right / images)
    assert result["loss"] == pytest.approx(loss / images, rel=1e-4)  # not smoothed


def test_other_classes_are_refused(run, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(60):
            grey = np.full((8, 8, 3), number)
            keras.utils.save_img(tmp_path / name / f"{number}.png", grey, scale=False)
    with pytest.raises(ValueError, match="data must have the classes") as caught:
        km.evaluate(run.workdir, data=tmp_path, verbose=False)
    assert "10: 0, 1, 2, 3, ..." in str(caught.value)
    assert "2: cat, dog" in str(caught.value)


def test_other_data_of_the_same_classes(run, splits, tmp_path):
    """The test images as a folder are worth what the test split is."""
    number = 0
    for images, labels in splits.test.as_numpy_iterator():
        for image, label in zip(images, labels, strict=True):
            for split in ("train", "test"):
                folder = tmp_path / split / str(label)
                folder.mkdir(parents=True, exist_ok=True)
                pixels = np.rint((image + 1) * 127.5).astype("uint8")
                Image.fromarray(pixels).save(folder / f"{number}.png")
            number += 1
    result = km.evaluate(run.workdir, data=tmp_path, verbose=False)
    assert result["images"] == 180
    assert result["data"] == str(tmp_path)
    assert result["accuracy"] == pytest.approx(
        run.report["test"]["accuracy"], abs=0.011
    )


def test_the_newest_run_is_meant(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="keras-mobilenets train"):
        km.evaluate()
    shutil.copytree(run.workdir, tmp_path / "runs" / "a")
    (tmp_path / "runs" / "unfinished").mkdir()
    assert km.evaluate(verbose=False)["workdir"] == "runs/a"


@pytest.mark.parametrize("split", ["tests", "", None, "val"])
def test_unknown_split(run, split):
    with pytest.raises(ValueError, match="split must be one of 'test'"):
        km.evaluate(run.workdir, split=split)


@pytest.fixture(scope="module")
def folder(splits, tmp_path_factory):
    """120 digits as a folder: as test images, with names that are hard."""
    root = tmp_path_factory.mktemp("digits")
    number = 0
    for images, labels in splits.test.as_numpy_iterator():
        for image, label in zip(images, labels, strict=True):
            name = f"{number}\n%.png" if number % 2 else f"{number}.png"
            parts = {"train"} | ({"test"} if number < 123 and label != 7 else set())
            for part in parts:
                place = root / part / str(label)
                place.mkdir(parents=True, exist_ok=True)
                pixels = np.rint((image + 1) * 127.5).astype("uint8")
                Image.fromarray(pixels).save(place / name)
            number += 1
    return root


@pytest.fixture(scope="module")
def answers(run, folder):
    """Paths, labels and probabilities, one by one."""
    paths = sorted((folder / "test").rglob("*.png"))
    images = np.stack([km.data.load_image(p, 32, "quick") for p in paths])
    labels = np.array([int(path.parent.name) for path in paths])
    return [str(p) for p in paths], labels, run.model.predict(images, verbose=0)


@pytest.fixture(scope="module")
def result(run, folder):
    return km.evaluate(run.workdir, data=folder, verbose=False)


def once(batches):
    """Images and labels of all batches."""
    pairs = list(batches.as_numpy_iterator())
    return [np.concatenate(parts) for parts in zip(*pairs, strict=True)]


def test_figures_are_scikit_learns(result, answers):
    _, labels, scores = answers
    said, numbers = scores.argmax(axis=1), range(10)
    names = list(result["per_class"])
    assert names == [str(number) for number in numbers]
    ours = [[result["confusion"].get(t, {}).get(p, 0) for p in names] for t in names]
    assert ours == metrics.confusion_matrix(labels, said, labels=numbers).tolist()
    columns = metrics.precision_recall_fscore_support(
        labels, said, labels=numbers, zero_division=np.nan
    )
    for of, *figures in zip(result["per_class"].values(), *columns, strict=True):
        given = [np.nan if value is None else value for value in of.values()]
        np.testing.assert_allclose(given, figures, rtol=1e-12)
    assert result["per_class"]["7"]["recall"] is None  # no images
    assert result["images"] == len(labels)
    assert result["accuracy"] == pytest.approx(metrics.accuracy_score(labels, said))


def test_calibration_by_hand(result, answers):
    _, labels, scores = answers
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    error = 0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            error += inside.mean() * gap
    assert result["calibration_error"] == pytest.approx(error, abs=1e-5)


def test_mistakes_are_named_by_their_files(result, answers):
    paths, labels, scores = answers
    said = scores.argmax(axis=1)
    wrong = sorted(np.flatnonzero(said != labels), key=lambda i: -scores[i].max())
    assert [m["image"] for m in result["mistakes"]] == [paths[i] for i in wrong][:25]
    assert 3 < len(wrong) < 60, "the test can fail"
    for mistake, i in zip(result["mistakes"], wrong, strict=False):
        assert mistake["true"] == str(labels[i])
        assert mistake["predicted"] == str(said[i])
        assert mistake["confidence"] == pytest.approx(scores[i].max(), abs=1e-5)


def test_mistakes_without_files_are_numbers_of_the_split(run, splits):
    images, labels = once(splits.test)
    mistakes = km.evaluate(run.workdir, verbose=False)["mistakes"]
    assert mistakes
    pictures = splits.images("test", [m["image"] for m in mistakes])
    for mistake, picture in zip(mistakes, pictures, strict=True):
        assert str(labels[mistake["image"]]) == mistake["true"]
        np.testing.assert_array_equal(picture, images[mistake["image"]])


def test_two_replicas_say_what_one_device_says(run, folder, result, two_replicas):
    two = km.evaluate(run.workdir, data=folder, strategy=two_replicas, verbose=False)
    assert two.keys() == result.keys()
    for key in ("images", "accuracy", "per_class", "confusion"):
        assert two[key] == result[key]
    for key in ("loss", "calibration_error"):
        assert two[key] == pytest.approx(result[key], rel=1e-5)
    assert {m["image"] for m in two["mistakes"]} == {
        m["image"] for m in result["mistakes"]
    }


def test_what_has_broken_since_does_not_count(run, folder, tmp_path, monkeypatch):
    """And does not shift the numbers of what comes after it."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    load = run_data.load_data
    broken = sorted((copy / "test" / "0").iterdir())[0]

    def load_and_break(*args, **options):
        found = load(*args, **options)
        broken.write_bytes(b"")
        return found

    before = km.evaluate(run.workdir, data=copy, verbose=False)
    monkeypatch.setattr(run_data, "load_data", load_and_break)
    with pytest.warns(UserWarning, match="cannot be read as images"):
        after = km.evaluate(run.workdir, data=copy, verbose=False)
    assert after["images"] == before["images"] - 1
    own = str(broken)
    assert [m["image"] for m in after["mistakes"] if m["image"] != own][:20] == [
        m["image"] for m in before["mistakes"] if m["image"] != own
    ][:20]


def test_a_report_is_what_is_returned_and_its_pictures(run, folder, tmp_path):
    report = tmp_path / "new" / "report"
    result = km.evaluate(run.workdir, data=folder, report=report, verbose=False)
    names = ["confusion.png", "evaluation.json", "mistakes.png", "reliability.png"]
    assert sorted(path.name for path in report.iterdir()) == names
    assert [path.name for path in report.parent.iterdir()] == ["report"]

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    text = (report / "evaluation.json").read_text()
    assert json.loads(text, parse_constant=refuse) == result
    for name in names:
        if name.endswith(".png"):
            with Image.open(report / name) as image:
                image.load()


def test_an_empty_folder_can_be_the_report(run, tmp_path):
    (tmp_path / "report").mkdir()
    km.evaluate(run.workdir, report=tmp_path / "report", verbose=False)
    assert (tmp_path / "report" / "evaluation.json").is_file()


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("full", "report '.*full' exists and is not empty"),
        ("file", "report '.*file' exists and is not empty"),
        ("file/report", "report must be a directory that can be made .*is a file"),
        ("", "report must be a path"),
        (3, "report must be a path; got 3"),
    ],
)
def test_what_can_be_no_report(run, tmp_path, monkeypatch, report, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message):
        km.evaluate(run.workdir, report=report)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_report_is_whole_or_not_there(run, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluation.storage, "write_json", fail)
    with pytest.raises(OSError, match="No space"):
        km.evaluate(run.workdir, report=tmp_path / "new" / "report", verbose=False)
    assert not list(tmp_path.iterdir())


def test_top5_from_100_classes_on(run, splits, monkeypatch):
    assert "top5" not in km.evaluate(run.workdir, verbose=False)
    monkeypatch.setattr(evaluation, "TOP_5_FROM", 10)
    top5 = km.evaluate(run.workdir, verbose=False)["top5"]
    images, labels = once(splits.test)
    scores = run.model.predict(images, verbose=0)
    expected = metrics.top_k_accuracy_score(labels, scores, k=5, labels=range(10))
    assert top5 == pytest.approx(expected)
    assert top5 < 1 or expected == 1
