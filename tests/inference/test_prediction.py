"""`predict` on one small run."""

import csv
import os
import warnings

import numpy as np
import pytest
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.inference import prediction


def test_predict_is_the_models_answer(run):
    samples = sorted((run.workdir / "samples").iterdir())
    answers = km.predict(samples, run.workdir, top=10)
    assert [answer["image"] for answer in answers] == [str(s) for s in samples]
    pixels = np.stack([np.asarray(Image.open(s), "float32") for s in samples])
    scores = run.model.predict(pixels / 127.5 - 1, verbose=0)
    for answer, score in zip(answers, scores, strict=True):
        given = dict(zip(answer["classes"], answer["probabilities"], strict=True))
        expected = dict(zip(run.report["classes"], score, strict=True))
        assert given == pytest.approx(expected, abs=1e-5)
        assert answer["probabilities"] == sorted(answer["probabilities"])[::-1]


def test_predict_has_learned(run):
    samples = sorted((run.workdir / "samples").iterdir())
    said = [a["classes"][0] for a in km.predict(samples, run.workdir, top=1)]
    true = [sample.stem.split("-")[1] for sample in samples]
    assert sum(s == t for s, t in zip(said, true, strict=True)) >= 6


def test_predict_one_path(run):
    sample = min((run.workdir / "samples").iterdir())
    (one,) = km.predict(sample, run.workdir)
    assert km.predict([str(sample)], run.workdir) == [one]
    assert len(one["classes"]) == 3
    (all_of_them,) = km.predict(str(sample), run.workdir, top=99)
    assert len(all_of_them["classes"]) == 10


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([], {}, "images must name at least one file"),
        (3, {}, "images must be paths of image files; got 3"),
        (np.array("a.png"), {}, "images must be paths of image files; got array"),
        ("-", {}, "'-' does not exist"),
        ("missing.png", {}, "'missing.png' does not exist"),
        ("report.json", {}, "cannot be read"),
        ("samples", {"top": 0}, "top must .* got 0"),
        ("samples", {"top": 1.5}, "top must .* got 1.5"),
        ("samples", {"workdir": "samples"}, "has no report.json and no model.keras"),
        ("samples", {"workdir": "nowhere"}, "'nowhere'"),
    ],
)
def test_predict_what_cannot_be(run, monkeypatch, images, options, message):
    monkeypatch.chdir(run.workdir)
    with pytest.raises(ValueError, match=message):
        km.predict(images, **{"workdir": ".", **options})


@pytest.fixture
def photos(run, tmp_path):
    """Images in folders, with hard names, and what is none."""
    samples = sorted((run.workdir / "samples").iterdir())
    names = ["b.png", "=1+1.png", "deep/er/a.JPG", os.fsdecode(b"\xff\n.png")]
    root = tmp_path / "photos"
    for name, sample in zip(names, samples, strict=False):
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(sample.read_bytes())  # whatever the name says
    (root / "notes.txt").touch()
    (root / ".hidden.png").touch()
    return root


def test_a_folder_and_all_in_it(run, photos):
    with pytest.warns(UserWarning, match="1 hidden"):
        results = km.predict(photos, run.workdir)
    found = [os.path.relpath(result["image"], photos) for result in results]
    assert found == ["=1+1.png", "b.png", "deep/er/a.JPG", "\udcff\n.png"]
    for result in results:
        (alone,) = km.predict(result["image"], run.workdir)
        assert alone["classes"] == result["classes"]
        assert alone["probabilities"] == pytest.approx(result["probabilities"])


def test_folders_files_and_patterns_in_the_order_given(run, photos, monkeypatch):
    monkeypatch.chdir(photos)
    given = ["deep", "b.png", "*1.png", "**/a.*"]
    found = [result["image"] for result in km.predict(given, run.workdir)]
    assert found == ["deep/er/a.JPG", "b.png", "=1+1.png", "deep/er/a.JPG"]


def test_a_name_comes_before_the_pattern_that_it_is(run, photos):
    (photos / "[b].png").write_bytes((photos / "b.png").read_bytes())
    (result,) = km.predict(photos / "[b].png", run.workdir)
    assert result["image"] == str(photos / "[b].png")


def test_many_images_in_batches_are_the_same(run, photos, monkeypatch):
    names = [str(photos / name) for name in ("b.png", "=1+1.png", "deep/er/a.JPG")]
    (photos / "broken.png").write_bytes(b"none")
    names.insert(2, str(photos / "broken.png"))
    with pytest.warns(UserWarning, match="1 of 4 images cannot be read"):
        once = km.predict(names, run.workdir)
    sizes = []
    answer = prediction._answers

    def answers(model, batch):
        sizes.append(len(batch))
        return answer(model, batch)

    monkeypatch.setattr(prediction, "BATCH", 3)
    monkeypatch.setattr(prediction, "_answers", answers)
    with pytest.warns(UserWarning, match="3 of 12 images"):
        many = km.predict(names * 3, run.workdir, verbose=False)
    assert sizes == [3] * 4
    assert [result["image"] for result in many] == names * 3
    for result, expected in zip(many, once * 3, strict=True):
        assert result.get("error") == expected.get("error")
        assert result["classes"] == expected["classes"]
        assert result["probabilities"] == pytest.approx(expected["probabilities"])


def test_broken_images_are_named_and_the_others_predicted(run, photos):
    (photos / "c.png").write_bytes(b"none")
    with pytest.warns(UserWarning, match="1 of 5 images cannot be read: .*c.png"):
        results = km.predict(photos, run.workdir)
    (broken,) = (result for result in results if "error" in result)
    assert broken["image"] == str(photos / "c.png")
    assert "c.png" in broken["error"]
    assert broken["classes"] == broken["probabilities"] == []
    assert sum(len(result["classes"]) for result in results) == 4 * 3


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("ignore")
def test_csv_is_what_is_returned(run, photos, monkeypatch):
    monkeypatch.chdir(photos)
    (photos / "c.png").write_bytes(b"none")
    names = ["b.png", "=1+1.png", "c.png", "\udcff\n.png"]
    results = km.predict(names, run.workdir, top=2, csv="said.csv")
    rows = rows_of("said.csv")
    assert [row["image"] for row in rows] == [
        "b.png",
        "./=1+1.png",  # no formula, and the same file
        "c.png",
        r"\udcff\n.png",
    ]
    assert len((photos / "said.csv").read_text().splitlines()) == 5
    for row, result in zip(rows, results, strict=True):
        places = range(1, len(result["classes"]) + 1)
        assert [row[f"class_{n}"] for n in places] == result["classes"]
        given = [float(row[f"probability_{n}"]) for n in places]
        assert given == result["probabilities"]
        assert row["error"] == result.get("error", "")
    assert rows[2]["class_1"] == ""
    assert "class_3" not in rows[0]


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("cat", "cat"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("@x", "'@x"),
        ("+x", "'+x"),
        ("-1", "-1"),
        ("-x", "'-x"),
        ("a\nb", r"a\nb"),
        ("\t=1", r"\t=1"),
    ],
)
def test_a_class_is_no_formula(name, cell):
    assert prediction._name(name) == cell


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("there.csv", "csv must be a new file; 'there.csv' exists"),
        ("said.txt", "csv must be a CSV file.* got 'said.txt'"),
        ("-", "csv must be a CSV file.* got '-'"),
        ("nowhere/said.csv", "csv must be in a folder that can be written"),
        (3, "csv must be a path; got 3"),
    ],
)
def test_what_can_be_no_csv(run, photos, monkeypatch, path, message):
    monkeypatch.chdir(photos)
    (photos / "there.csv").write_text("mine")
    before = sorted(photos.rglob("*"))
    with pytest.raises(ValueError, match=message):
        km.predict("b.png", run.workdir, csv=path)
    assert sorted(photos.rglob("*")) == before
    assert (photos / "there.csv").read_text() == "mine"


def test_without_a_single_answer_nothing_is_written(run, photos, monkeypatch):
    monkeypatch.chdir(photos)
    for name in ("c.png", "d.png"):
        (photos / name).write_bytes(b"none")
    before = sorted(photos.rglob("*"))
    with pytest.raises(ValueError, match=r"images must be .*'c\.png' .*so 1 more"):
        km.predict(["c.png", "d.png"], run.workdir, csv="said.csv")
    assert sorted(photos.rglob("*")) == before


def test_folders_and_patterns_without_images(run, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "photo.heic").touch()
    for given, message in (
        ("empty", "'.*empty' holds none: it is empty"),
        ("texts", r"'.*texts' holds none: .*1 named \.heic"),
        ("*.jpg", r"'.*\*\.jpg' matches nothing"),
    ):
        with pytest.raises(ValueError, match=f"^images must .*{message}"):
            km.predict([photos / "b.png", tmp_path / given], run.workdir)


def test_what_is_passed_over_harmlessly_is_not_told(run, photos):
    (photos / ".hidden.png").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(km.predict(photos, run.workdir, verbose=False)) == 4
