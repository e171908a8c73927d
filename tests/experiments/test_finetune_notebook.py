"""The notebook of fine-tuning: own pictures to a checked classifier, offline."""

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

NOTEBOOK = FOLDER / "finetune.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    return execute(NOTEBOOK, tmp_path_factory.mktemp("finetune"))


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
    """The sheet, the curves, the confusion, the mistakes, the answers."""
    data = [output.get("data", {}) for output in outputs(notebook)]
    found = [one["image/png"] for one in data if "image/png" in one]
    assert len(found) == 5
    for figure in found:
        with Image.open(io.BytesIO(base64.b64decode(figure))) as image:
            image.load()
            assert min(image.size) > 150


def test_claims(notebook):
    text = printed(notebook)
    assert "problem: 1 file cannot be read" in text
    assert re.search("the same: .*00.png of eight.*again.png of nine", text)
    assert "new: logits" in text
    (pretrained,) = re.findall(r"0 to 5: ([\d.]+)%", text)
    assert float(pretrained) > 85
    (scratch,) = re.findall(r"from scratch: ([\d.]+)%", text)
    tuned = re.findall(r"fine-tuned: +([\d.]+)%", text)
    assert len(set(tuned)) == 1
    assert float(tuned[0]) >= float(scratch) + 10, "fine-tuning pays"
    assert f"accuracy {tuned[0]}% on 240 pictures" in text
