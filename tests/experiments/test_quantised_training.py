"""The experiment on fine-tuning to 8 bits, and what of it stands in the documents."""

import functools
import json
import pathlib

import numpy as np
import pytest

import experiments
import keras_mobilenets as km
from experiments import quantised_training as experiment
from tests.deploy.networks import images, outputs, randomize

ROOT = pathlib.Path(experiments.__file__).parent.parent
SMALL = {k: v for k, v in experiment.NETWORK.items() if k != "shallow"}


def test_scaling_changes_nothing_in_float32(few_blocks):
    model = randomize(km.build(**SMALL, classes=10, classifier_activation=None))
    x = images(model)
    before = outputs(model, x)
    kernel = np.array(model.get_layer("block_1_project").kernel)
    experiment.scale_channels(model, 30, seed=0)
    np.testing.assert_allclose(outputs(model, x), before, atol=1e-4)
    ratio = kernel / np.array(model.get_layer("block_1_project").kernel)
    assert ratio.max() / ratio.min() > 100


@pytest.mark.slow
def test_a_row_for_each_seed_and_factor(few_blocks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "RESULT", tmp_path / "result.json")
    monkeypatch.setattr(experiment, "NETWORK", SMALL)
    monkeypatch.setattr(experiment, "SEEDS", (3,))
    monkeypatch.setattr(experiment, "FACTORS", (1, 30))
    monkeypatch.setattr(experiment, "EPOCHS", 1)
    monkeypatch.setattr(km, "train", functools.partial(km.train, epochs=1))
    experiment.main()
    rows = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert [(row["seed"], row["n"]) for row in rows] == [(3, 1), (3, 30)]
    assert all(0 <= row[kind] <= 1 for row in rows for kind in experiment.KINDS)
    assert rows[0]["float32"] == pytest.approx(rows[1]["float32"], abs=0.02)
    assert experiment.text(rows) in capsys.readouterr().out


def test_the_documents_table_is_what_was_found():
    kept = json.loads(experiment.RESULT.read_text())
    assert kept["settings"]["fine_tuning_epochs"] == experiment.EPOCHS
    assert experiment.text(kept["rows"]) in (ROOT / "docs" / "deploy.md").read_text()
