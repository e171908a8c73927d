"""docs/predict.py: a file alone, LiteRT and NumPy are enough."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

import keras_mobilenets as km
from tests.deploy.conftest import SMALL
from tests.deploy.networks import randomize

SCRIPT = Path(__file__).parents[2] / "docs" / "predict.py"
NEEDED = ("ai-edge-litert", "numpy")
ABSENT = ("tensorflow", "keras", "keras_mobilenets", "PIL", "scipy", "sklearn", "h5py")
CLASSES = ["cat", "a dog", "naïve", "bird", "fish"]
# Python with a folder of packages and no others, in which a script is run.
ALONE = f"""
import importlib.util, runpy, sys
sys.path.append(sys.argv.pop(1))
print(*(name for name in {ABSENT} if importlib.util.find_spec(name)))
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def distributions(names):
    """These and all that they require, as `pip install` finds it."""
    found, missing = {}, list(names)
    while missing:
        name = missing.pop()
        if name not in found:
            found[name] = metadata.distribution(name)
            for text in found[name].requires or ():
                required = Requirement(text)
                if required.marker is None or required.marker.evaluate({"extra": ""}):
                    missing.append(required.name)
    return found


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder of what `pip install ai-edge-litert numpy` brings, file by file."""
    folder = tmp_path_factory.mktemp("packages")
    for distribution in distributions(NEEDED).values():
        for file in distribution.files:
            if ".." not in file.parts:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).symlink_to(file.locate())
    return folder


def run_alone(packages, *arguments):
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", ALONE, packages, SCRIPT, *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    present, *lines = done.stdout.splitlines()
    assert present == ""
    return lines


def test_it_is_short():
    assert len(SCRIPT.read_text().splitlines()) <= 30


@pytest.mark.parametrize(
    ("recipe", "input", "quantization", "apart"),
    [
        ("slim_v2", "float32", None, 0.1),
        ("slim_v2", "float32", "int8", 0.5),  # its own are multiples of 0.4 %
        ("model_garden_v2", "uint8", None, 1.5),
    ],
    ids=["float32", "int8", "uint8"],
)
def test_it_says_what_predict_says(
    few_blocks, packages, tmp_path, recipe, input, quantization, apart
):
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
    how = {"calibration": splits, "input": input, "quantization": quantization}
    km.export(model, tmp_path / "file.tflite", **how)
    # Smooth, as photos are: noise changes its colour with half a pixel.
    smooth = np.asarray(
        Image.fromarray(pixels[0, :4, :4]).resize((61, 83), Image.Resampling.BICUBIC)
    )
    files = []
    for number, image in enumerate((pixels[1], smooth)):
        files.append(tmp_path / f"{number}.npy")
        np.save(files[-1], image)
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    lines = run_alone(packages, tmp_path / "file.tflite", *files)
    pictures = [str(file.with_suffix(".png")) for file in files]
    answers = km.predict(pictures, model=tmp_path / "file.tflite")
    for line, file, answer in zip(lines, files, answers, strict=True):
        assert line.startswith(f"{file} {answer['classes'][0]} ")
        shares = [float(share) for share in re.findall(r"([\d.]+)%", line)]
        expected = [100 * p for p in answer["probabilities"]]
        assert shares == pytest.approx(expected, abs=apart)
