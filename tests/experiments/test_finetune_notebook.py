"""The notebook of fine-tuning: own pictures to a checked classifier, offline."""

import re

from tests.experiments.notebooks import (
    check_figures,
    check_outputs,
    check_whole,
    printed,
)

NOTEBOOK = "finetune.ipynb"


def test_is_whole_and_clean(notebook):
    check_whole(notebook)
    check_outputs(notebook)


def test_figures(notebook):
    """The sheet, the curves, the confusion, the mistakes, the answers."""
    check_figures(notebook, 5, smallest=150)


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
