"""Which steps a trained network survives: the crops, the two forms, what was found."""

import json

import keras
import numpy as np
from PIL import Image

import keras_mobilenets as km
from experiments import finetuning_photos as photos


def test_crops_of_the_two_halves(tmp_path):
    wide = np.zeros((80, 160, 3), np.uint8)
    wide[:, 80:] = 255  # the right half is white
    Image.fromarray(wide).save(tmp_path / "wide.png")
    photos.write_crops([tmp_path / "wide.png"], tmp_path / "crops", seed=0)
    for part, (count, left) in photos.CROPS.items():
        files = list((tmp_path / "crops" / part / "wide").iterdir())
        assert len(files) == count
        for path in files:
            with Image.open(path) as crop:
                assert crop.size == (128, 128)
                assert np.unique(crop).tolist() == [255 if left else 0]


def test_a_network_that_is_unfolded_gives_the_same_outputs(few_blocks):
    model = km.build("mobilenet_v1", alpha=0.25, resolution=32, classes=3)
    draws = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            values = [draws.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()]
            layer.set_weights(values)
    images = draws.uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    before, kernel = model(images), model.get_weights()[0]
    photos.unfold(model, 5)
    np.testing.assert_allclose(model(images), before, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.get_weights()[0], kernel / 5, rtol=1e-6)


def test_finetune_keeps_what_the_papers_steps_ruin():
    rows = json.loads(photos.RESULT.read_text())["rows"]
    found = {(row["rule"], row["weights"]): row for row in rows}
    assert {rule for rule, _ in found} == set(photos.RULES)
    for form in ("folded", "unfolded"):
        tuned = found["finetune", form]
        assert tuned["last"] >= tuned["after_classifier"] - 5
        assert found["papers' RMSProp, body at 0.3", form]["last"] < 20
