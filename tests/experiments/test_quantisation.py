"""The experiment on quantisation runs, on a small network and pictures of its own."""

import numpy as np
import pytest
from PIL import Image

import keras_mobilenets as km
from experiments import quantisation
from tests.deploy.networks import randomize


@pytest.mark.slow
def test_a_row_for_each_kind(few_blocks, tmp_path, capsys):
    network = {"alpha": 0.25, "resolution": 32, "classes": 7}
    model = randomize(km.build("mobilenet_v1", **network))
    kernel = model.get_layer("logits").kernel
    kernel.assign(kernel * 50)
    model.save(tmp_path / "model.keras")
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 256, (40, 60, 3)).astype("uint8")
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    quantisation.main(
        [str(tmp_path / "model.keras"), str(tmp_path / "photos"), "mobilenet_v1"]
        + ["--alpha", "0.25", "--resolution", "32", "--classes", "7"]
    )
    _, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split("  ")[0] for row in rows] == list(quantisation.KINDS)
    assert "100.0% of 80" in rows[0]
