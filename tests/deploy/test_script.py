"""docs/predict.py: a file alone, LiteRT and NumPy are enough."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_mobilenets as km
from tests.deploy.conftest import SMALL
from tests.deploy.networks import randomize

SCRIPT = Path(__file__).parents[2] / "docs" / "predict.py"
ABSENT = ("tensorflow", "keras", "keras_mobilenets", "PIL", "scipy", "sklearn")
CLASSES = ["cat", "a dog", "naïve", "bird", "fish"]


def run_without_tensorflow(*arguments):
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({ABSENT}))\n"
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", code, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_it_is_short():
    assert len(SCRIPT.read_text().splitlines()) <= 30


@pytest.mark.parametrize(
    ("recipe", "input"), [("slim_v2", "float32"), ("model_garden_v2", "uint8")]
)
def test_it_says_what_predict_says(few_blocks, tmp_path, recipe, input):
    """For images of other sizes too, cropped and resized by either kernel."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5 * 40, 32, 32, 3)).astype("uint8")
    labels = np.array(CLASSES)[np.arange(5 * 40) % 5]
    parts = {"train": (pixels, labels), "test": (pixels[:50], labels[:50])}
    fields = km.recipes[recipe].replace(background_class=False)
    splits = km.load_data(parts, resolution=32, recipe=fields, batch_size=8)
    model = randomize(km.build("mobilenet_v1", **SMALL))
    logits = model.get_layer("logits").kernel
    logits.assign(logits * 5)
    km.export(model, tmp_path / "file.tflite", calibration=splits, input=input)
    # Smooth, as photos are: noise changes its colour with half a pixel.
    smooth = np.asarray(
        Image.fromarray(pixels[0, :4, :4]).resize((61, 83), Image.Resampling.BICUBIC)
    )
    files = []
    for number, image in enumerate((pixels[1], smooth)):
        files.append(tmp_path / f"{number}.npy")
        np.save(files[-1], image)
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    lines = run_without_tensorflow(tmp_path / "file.tflite", *files).splitlines()
    pictures = [str(file.with_suffix(".png")) for file in files]
    answers = km.predict(pictures, model=tmp_path / "file.tflite")
    for line, file, answer in zip(lines, files, answers, strict=True):
        assert line.startswith(f"{file} {answer['classes'][0]} ")
        shares = [float(share) for share in re.findall(r"([\d.]+)%", line)]
        expected = [100 * p for p in answer["probabilities"]]
        assert shares == pytest.approx(expected, abs=1.5 if input == "uint8" else 0.1)
