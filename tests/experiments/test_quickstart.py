"""The notebook: executed again, from top to bottom, as a reader would."""

import re

from tests.experiments.notebooks import (
    check_figures,
    check_outputs,
    check_whole,
    printed,
)

NOTEBOOK = "quickstart.ipynb"


def test_is_whole_and_clean(notebook):
    check_whole(notebook)
    check_outputs(notebook)


def test_figures(notebook):
    check_figures(notebook, 3, smallest=200)  # costs, curves, predictions


def test_claims(notebook):
    text = printed(notebook)
    assert "300.8 M mult-adds, 3.54 M parameters" in text
    trained, own = (float(x) for x in re.findall(r"test accuracy ([\d.]+)%", text))
    assert trained >= 90
    assert own >= 80
    assert re.search(r"left behind: .*curves\.png.*model\.keras.*report\.json", text)
    assert "mobilenet_v2 alpha 0.5" in text
    assert "label_smoothing = 0.1" in text
