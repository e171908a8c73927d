"""The comparison of fine-tuning with training from scratch, and of kept features."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments import finetuning
from experiments.benchmarks import features
from keras_mobilenets.data.fashion import examples, has_fashion_mnist
from keras_mobilenets.settings import make_settings


@pytest.mark.skipif(not has_fashion_mnist(), reason="dataset-fashion-mnist is missing")
def test_folders_hold_other_images_of_these_classes(tmp_path):
    sizes = {"train": 3, "validation": 2, "test": 4}
    folders = [
        finetuning.write_folder(tmp_path / str(seed), (5, 7), sizes, seed)
        for seed in (0, 1)
    ]
    found = [example for _, example in examples("train")]
    names = []
    for folder in folders:
        assert {path.name for path in folder.glob("*/*")} == {"5", "7"}
        for part, size in sizes.items():
            assert len(list((folder / part / "5").iterdir())) == size
        train, held = (
            {p.name for p in (folder / part / "5").iterdir()}
            for part in ("train", "validation")
        )
        assert not train & held
        names.append(train)
    assert names[0] != names[1]
    of_class = [e["image"][..., 0] for e in found if e["label"] == 7]
    for path in (folders[0] / "train" / "7").iterdir():
        with Image.open(path) as image:
            np.testing.assert_array_equal(image, of_class[int(path.stem)])


@pytest.mark.parametrize("runs", [finetuning.FROM_SCRATCH, finetuning.FINE_TUNED])
def test_all_take_the_same_steps(runs):
    for label, settings in runs.items():
        weights = "imagenet" if runs is finetuning.FINE_TUNED else None
        recipe = make_settings({"weights": weights, **settings}).recipe
        assert (recipe.batch_size, recipe.epochs) == (20, 8), label
        assert recipe.early_stopping_patience is None
        assert (recipe.head_epochs > 0) == (weights is not None)


def test_fine_tuning_pays():
    """Ten points and more, with every seed, by the recipe as it is."""
    stored = json.loads(finetuning.RESULT.read_text())
    assert stored["steps"] == 40
    rows = {row["run"]: row for row in stored["rows"]}
    assert set(finetuning.FROM_SCRATCH | finetuning.FINE_TUNED) < set(rows)
    gains = stored["gains"]["from scratch, quick"]
    assert len(gains) == len(finetuning.SEEDS) >= 3
    assert min(gains) >= stored["bar"] == 10
    for label, row in rows.items():
        assert row["mean"] == pytest.approx(np.mean(row["test_accuracy"]), abs=0.01)
        if label in stored["gains"]:
            tuned = rows["finetune: batch norm frozen"]["test_accuracy"]
            gains = np.subtract(tuned, row["test_accuracy"])
            np.testing.assert_allclose(stored["gains"][label], gains, atol=0.011)


def test_an_epoch_on_features_is_ten_times_faster():
    stored = json.loads(features.RESULT.read_text())
    assert stored["images"] == {"train": 500, "validation": 100, "test": 100}
    assert stored["network"] == features.NETWORK
    kept, through = (stored["runs"][label] for label in features.CONTENDERS)
    ratio = through["epoch_seconds"] / kept["epoch_seconds"]
    assert stored["times_faster"] == pytest.approx(ratio, rel=0.02)
    assert ratio >= stored["bar"] == 10
    assert kept["test_accuracy"] == through["test_accuracy"]
    assert stored["largest_difference_of_weights"] < 1e-5
