"""The contenders of the pipeline benchmark do comparable work."""

import numpy as np
import pytest
from PIL import Image

from experiments.benchmarks import pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    pipeline.generate(folder, 40)
    return folder


def test_files_are_as_large_as_photographs(folder):
    files = list(folder.glob("train/*/*.jpg"))
    assert len(files) == 40
    assert 50_000 < np.mean([file.stat().st_size for file in files]) < 100_000
    with Image.open(files[0]) as image:
        assert image.size == (500, 375)
        assert image.format == "JPEG"


@pytest.mark.parametrize("which", ["ours", "keras", "slim"])
def test_contenders_prepare_the_same_input(folder, which, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = pipeline.CONTENDERS[which](str(folder))
    for mode in pipeline.MODES:
        images, labels = next(iter(data[mode]))
        assert images.shape == (32, 224, 224, 3)
        assert images.dtype == np.float32
        assert -1.3 <= np.min(images) < -0.5  # Keras' brightness clips at 255 only
        assert 0.5 < np.max(images) <= 1.3
        assert labels.shape == (32,)
