"""Runs on images of any shape: from `train` to `predict`, killed and gone on with."""

import json

import numpy as np
import pytest
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.settings import make_settings
from keras_mobilenets.training.fitting import run_in

pytestmark = pytest.mark.usefixtures("few_blocks")

SHAPES = {1: ("L", (32, 48)), 4: ("RGBA", (48, 32))}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes that differ in their alpha alone."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("validation", 8), ("test", 8)):
        for name, alpha in (("clear", 0), ("opaque", 255)):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (12, 18, 4), np.uint8)
                pixels[..., 3] = alpha
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def options(photos, channels):
    return {
        "name": "mobilenet_v1",
        "data": photos,
        "alpha": 0.25,
        "resolution": SHAPES[channels][1],
        "channels": channels,
        "shallow": True,
        "recipe": "quick",
        "batch_size": 8,
        "learning_rate": 0.02,
        "epochs": 4,
        "warmup_epochs": 0,
        "exif_orientation": False,
    }


@pytest.fixture(scope="module", params=SHAPES, ids=["grey", "RGBA"])
def run(request, photos, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    return km.train(**options(photos, request.param), workdir=workdir, verbose=False)


def test_the_report_says_the_shape_and_its_cost(run):
    report = json.loads((run.workdir / "report.json").read_text())
    size, channels = report["resolution"], report["channels"]
    assert report["rho"] is None
    assert run.model.input_shape == (None, *size, channels)
    cost = km.cost(
        "mobilenet_v1",
        alpha=0.25,
        resolution=size,
        channels=channels,
        shallow=True,
        classes=2,
    )
    assert report["cost"]["macs"] == cost.macs
    assert report["cost"]["params"] == cost.params == run.model.count_params()


def test_evaluate_and_predict_are_the_models_answers(run):
    mode, (height, width) = SHAPES[run.report["channels"]]
    result = km.evaluate(run.workdir, verbose=False)
    assert result["accuracy"] == pytest.approx(run.report["test"]["accuracy"])
    samples = sorted((run.workdir / "samples").iterdir())
    assert len(samples) == 10
    pictures = [Image.open(sample) for sample in samples]
    assert {(p.mode, p.size) for p in pictures} == {(mode, (width, height))}
    pixels = np.stack([np.asarray(p, "float32") for p in pictures])
    scores = run.model.predict(
        pixels.reshape(10, height, width, -1) / 127.5 - 1, verbose=0
    )
    answers = km.predict(samples, run.workdir, top=2)
    for answer, score in zip(answers, scores, strict=True):
        given = dict(zip(answer["classes"], answer["probabilities"], strict=True))
        expected = dict(zip(("clear", "opaque"), score, strict=True))
        assert given == pytest.approx(expected, abs=1e-5)


def test_alpha_is_learned(run):
    if run.report["channels"] == 4:
        assert run.report["test"]["accuracy"] == 1.0
    else:  # noise is all that there is to see
        assert run.report["test"]["accuracy"] < 1.0


def test_a_stopped_run_goes_on_in_its_shape(run, photos, tmp_path):
    asked = options(photos, run.report["channels"])
    settings = make_settings(asked)
    run_in(tmp_path / "run", settings, until=2)
    again = km.train(workdir=tmp_path / "run", resume=True, verbose=False)
    assert again.report["resolution"] == run.report["resolution"]
    for one, other in zip(again.model.weights, run.model.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_of_another_shape_is_another_run(run, photos):
    asked = options(photos, run.report["channels"])
    for changed, message in (
        ({"resolution": 32}, "resolution .* there and 32 here"),
        ({"channels": 3}, "channels . there and 3 here"),
    ):
        with pytest.raises(ValueError, match=message):
            km.train(**asked | changed, workdir=run.workdir, verbose=False)
    same = km.train(**asked, workdir=run.workdir, verbose=False)
    assert same.report == json.loads((run.workdir / "report.json").read_text())
