"""Balanced class weights help the rare class; through `train` and the command line."""

import json

import numpy as np
import pytest
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.__main__ import main
from tests.training.noise import RUN

pytestmark = pytest.mark.usefixtures("few_blocks")

COUNTS = {"common": 400, "rare": 20}


def make(count, level, random):
    """Noise whose brightness says the class, though not surely."""
    means = random.normal(level, 12, (count, 1, 1, 1))
    pixels = means + random.normal(0, 30, (count, 16, 16, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty to one to train on, one to one to test on."""
    root, random = tmp_path_factory.mktemp("rare"), np.random.default_rng(0)
    for split, counts in (
        ("train", COUNTS), ("val", {"common": 50, "rare": 50}),
    ):  # fmt: skip
        for level, (name, count) in zip((118, 138), counts.items(), strict=True):
            (root / split / name).mkdir(parents=True)
            for number, image in enumerate(make(count, level, random)):
                Image.fromarray(image).save(root / split / name / f"{number}.png")
    return root


SETTINGS = RUN | {"epochs": 6}


def recalls(run, folder):
    """The share of each class's images in validation that are found."""
    batches = km.load_data(folder, resolution=32, batch_size=50).validation
    scores = run.model.predict(batches, verbose=0)
    labels = np.concatenate([labels for _, labels in batches.as_numpy_iterator()])
    right = scores.argmax(axis=1) == labels
    return [right[labels == label].mean() for label in range(len(COUNTS))]


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))]
)
def test_balanced_weights_raise_the_recall_of_the_rare_class(seed, folder, tmp_path):
    settings = {**SETTINGS, "data": folder, "seed": seed}
    plain = km.train(**settings, workdir=tmp_path / "plain")
    weighed = km.train(
        **settings, workdir=tmp_path / "weighed", class_weight="balanced"
    )
    assert "class_weights" not in plain.report
    assert weighed.report["class_weights"] == {"common": 0.525, "rare": 10.5}
    assert weighed.report["data_options"] == {"class_weight": "balanced"}
    before, after = recalls(plain, folder), recalls(weighed, folder)
    print(before, after)
    assert after[1] >= before[1] + 0.2
    assert sum(after) > sum(before)


def test_the_command_line(folder, tmp_path, capsys):
    options = ["train", RUN["name"], "--data", str(folder), "--json"]
    for field, value in (SETTINGS | {"epochs": 1}).items():
        if field in ("alpha", "resolution", "recipe", "epochs", "batch_size"):
            options += [f"--{field.replace('_', '-')}", str(value)]
        elif field not in ("name", "verbose"):
            options += ["--set", f"{field}={value}"]
    options += ["--workdir", str(tmp_path / "run"), "--class-weight"]
    assert main([*options, "{'rare': 20, 0: 2}"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["class_weights"] == {"common": 2, "rare": 20}
    assert main([*options, "{'rare': 20, 0: 2}"]) == 0, "the same run"
    assert main([*options, "{'rare': 30, 0: 2}"]) == 2, "another"
    assert "class_weight" in capsys.readouterr().err
    assert main([*options, "{'rar': 20}"]) == 2
