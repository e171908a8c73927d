"""The notebook: executed again, from top to bottom, as a reader would."""

import base64
import io
import re

import nbformat
import pytest
from PIL import Image

from tests.experiments.notebooks import (
    FOLDER,
    check_outputs,
    check_whole,
    execute,
    outputs,
    printed,
)

NOTEBOOK = FOLDER / "quickstart.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    return execute(NOTEBOOK, tmp_path_factory.mktemp("notebook"))


@pytest.fixture(params=["saved", pytest.param("executed", marks=pytest.mark.slow)])
def notebook(request):
    """The notebook as saved, and as just executed."""
    if request.param == "saved":
        return nbformat.read(NOTEBOOK, as_version=4)
    return request.getfixturevalue("executed")


def test_is_whole_and_clean(notebook):
    check_whole(notebook)
    check_outputs(notebook)


def test_figures(notebook):
    figures = [o.data["image/png"] for o in outputs(notebook) if "data" in o]
    assert len(figures) == 3  # costs, curves, predictions
    for figure in figures:
        with Image.open(io.BytesIO(base64.b64decode(figure))) as image:
            image.load()
            assert min(image.size) > 200


def test_claims(notebook):
    text = printed(notebook)
    assert "300.8 M mult-adds, 3.54 M parameters" in text
    trained, own = (float(x) for x in re.findall(r"test accuracy ([\d.]+)%", text))
    assert trained >= 90
    assert own >= 80
    assert re.search(r"left behind: .*curves\.png.*model\.keras.*report\.json", text)
    assert "mobilenet_v2 alpha 0.5" in text
    assert "label_smoothing = 0.1" in text
