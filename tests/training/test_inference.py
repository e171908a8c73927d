"""`evaluate` and `predict` on one small run."""

import shutil

import keras
import numpy as np
import pytest
from PIL import Image

import keras_mobilenets as km


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inference")
    return km.train(
        "mobilenet_v1",
        alpha=0.25,
        resolution=32,
        shallow=True,
        epochs=3,
        decay_epochs=3,
        label_smoothing=0.1,
        workdir=folder / "run",
        data_dir=folder / "data",
        verbose=False,
    )


@pytest.fixture(scope="module")
def splits(run):
    return km.load_data(
        "digits", resolution=32, batch_size=50, data_dir=run.report["data_dir"]
    )


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
        ("missing.png", {}, "'missing.png' does not exist"),
        ("samples", {}, "is a directory"),
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


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"classes": 3}'],
    ids=["empty", "nothing", "list", "null", "classes"],
)
def test_a_damaged_report(run, tmp_path, text):
    copy = tmp_path / "copy"
    shutil.copytree(run.workdir, copy)
    (copy / "report.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"report\.json' (is not of this|cannot be read)"
    ):
        km.evaluate(copy)


def test_weights_that_are_no_numbers_say_nothing(run, tmp_path):
    """0.1.0 answered with probabilities of NaN."""
    copy = tmp_path / "copy"
    shutil.copytree(run.workdir, copy)
    model = keras.saving.load_model(copy / "model.keras")
    model.set_weights([w * np.nan for w in model.get_weights()])
    model.save(copy / "model.keras")
    with pytest.raises(
        ValueError, match=r"model\.keras' holds weights that are no num"
    ):
        km.predict(next((copy / "samples").iterdir()), copy)


def test_a_model_of_other_classes_than_its_report(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run.workdir, copy)
    network = {"alpha": 0.25, "resolution": 32, "shallow": True}
    km.build("mobilenet_v1", classes=20, **network).save(copy / "model.keras")
    with pytest.raises(ValueError, match="must have the 10 classes of its report"):
        km.predict(next((copy / "samples").iterdir()), copy)


def test_a_damaged_model(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run.workdir, copy)
    whole = (copy / "model.keras").read_bytes()
    (copy / "model.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.keras' cannot be read"):
        km.evaluate(copy, verbose=False)
