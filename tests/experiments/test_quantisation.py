"""The experiment on quantisation runs, on a small network and pictures of its own."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import keras_mobilenets as km
from experiments import quantisation
from tests.deploy.networks import randomize


@pytest.mark.slow
def test_a_row_for_each_kind(few_blocks, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(quantisation, "RESULT", tmp_path / "result.json")
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
    (kept,) = json.loads((tmp_path / "result.json").read_text()).values()
    assert [row["images"] for row in kept["rows"]] == [80] * len(rows)
    assert kept["network"]["weights"] == "model.keras"


def test_each_half_is_asked_by_the_other(few_blocks, tmp_path, monkeypatch):
    """With crops of one half calibrating, those of the other are asked, both ways."""
    seen = []

    def export(model, path, *, calibration, labels):
        images = [calibration.images(split, [0])[0] for split in ("train", "test")]
        seen.append([round(float(image.mean()), 1) for image in images])
        return {}

    monkeypatch.setattr(km, "export", export)
    for number, grey in enumerate((0, 255)):
        pixels = np.full((40, 60, 3), grey, "uint8")
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    model = km.build("mobilenet_v1", alpha=0.25, resolution=32, classes=3)
    quantisation.measure(model, sorted(tmp_path.iterdir()), {})
    assert seen == [[-1, 1], [1, -1]]


KEPT = json.loads(quantisation.RESULT.read_text())
DOCUMENT = (quantisation.ROOT / "docs" / "deploy.md").read_text()


@pytest.mark.parametrize("network", KEPT)
def test_every_kind_saw_the_same_crops(network):
    kept = KEPT[network]
    assert [row["kind"] for row in kept["rows"]] == list(quantisation.KINDS)
    crops = kept["photographs"] * kept["crops_of_each"]
    assert {row["images"] for row in kept["rows"]} == {crops}
    assert len({row["sure_images"] for row in kept["rows"]}) == 1
    assert not any(row["rejected"] for row in kept["rows"])


def test_no_path_is_kept():
    assert not re.search(r"/\w+/|\.(png|jpg|bmp)", json.dumps(KEPT))


def test_the_documents_table_is_what_was_found():
    expected = ["| | " + " | ".join(heads(KEPT)) + " |", "|---" * 7 + "|"]
    for kind in [kind for kind in quantisation.KINDS if kind != "float32"]:
        name, comma, more = kind.partition(",")
        cells = [f"`{name}`{comma}{more}"]
        for of in KEPT.values():
            (row,) = (row for row in of["rows"] if row["kind"] == kind)
            cells += [
                f"{100 * row['agreement']:.1f} %",
                f"{100 * row['agreement_where_sure']:.1f} %",
                f"{row['rms_logit_error']:.2g}",
            ]
        expected.append("| " + " | ".join(cells) + " |")
    assert "\n".join(expected) in DOCUMENT


def heads(kept):
    """Of the columns of each network."""
    for of in kept.values():
        network, sure = of["network"], of["rows"][0]["sure_images"]
        name = network["name"].removeprefix("mobilenet_").upper()
        yield f"{name} {network['alpha']}, {network['resolution']} px"
        yield f"where sure ({sure})"
        yield "rms error"
