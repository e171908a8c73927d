"""What the README says to type works."""

import re
from pathlib import Path

import keras
import pytest

import keras_mobilenets as km
from keras_mobilenets.__main__ import _make_parser

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_notebook_example_runs(tmp_path, monkeypatch):
    (example,) = blocks("python")
    assert len(example.splitlines()) <= 15
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    names: dict = {}
    exec(example.replace("epochs=10", "epochs=1"), names)
    saved = keras.saving.load_model(tmp_path / "digits.keras")
    assert saved.output_shape == (None, len(names["splits"].classes))


LINES = [
    line.split("#")[0].strip()
    for block in blocks("sh")
    for line in re.split(r"\n|&&", block)
]


@pytest.mark.parametrize(
    "line", [line for line in LINES if line.startswith("keras-mobilenets ")]
)
def test_the_command_lines_are_understood(line):
    _make_parser().parse_args(line.split()[1:])


def test_the_table_of_recipes_is_complete():
    for name in km.recipes:
        assert f"`{name}`" in README


def test_the_table_of_verbs_is_complete():
    (verbs,) = (a for a in _make_parser()._actions if a.metavar == "VERB")
    for verb in verbs.choices:
        assert re.search(rf"^\| `{verb}\b", README, flags=re.MULTILINE), verb


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_links_lead_somewhere(path):
    assert (Path(__file__).parent.parent / path).exists()
