"""What the README and the documents say to type works."""

import re
import shlex
from pathlib import Path

import keras
import pytest

import keras_mobilenets as km
from keras_mobilenets.__main__ import _make_parser
from keras_mobilenets.architecture.tables import NETWORKS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAPERS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in sorted(
        [*(ROOT / name for name in PAPERS), *ROOT.glob("docs/*.md")]
        + [*ROOT.glob("experiments/*.md")]
    )
}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_the_notebook_example_runs(tmp_path, monkeypatch):
    """With a few blocks of its network: all of them are trained in other tests."""
    (example,) = blocks(README, "python")
    assert len(example.splitlines()) <= 15
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    whole = NETWORKS["mobilenet_v2"]
    few = whole._replace(rows=(*whole.rows[:3], whole.rows[-1]))
    monkeypatch.setitem(NETWORKS, "mobilenet_v2", few)
    names: dict = {}
    exec(example.replace("epochs=10", "epochs=1"), names)
    saved = keras.saving.load_model(tmp_path / "digits.keras")
    assert saved.output_shape == (None, len(names["splits"].classes))


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if "docs/" in name])
def test_the_examples_run(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for example in blocks(DOCUMENTS[document], "python"):
        exec(example, {})


LINES = [
    (name, line.split("#")[0].strip())
    for name, text in DOCUMENTS.items()
    for block in blocks(text, "sh")
    for line in re.split(r"\n|&&", block)
]
COMMANDS = [(n, line) for n, line in LINES if line.startswith("keras-mobilenets ")]


@pytest.mark.parametrize(
    ("document", "line"), COMMANDS, ids=[f"{n}: {line}" for n, line in COMMANDS]
)
def test_the_command_lines_are_understood(document, line):
    _make_parser().parse_args(shlex.split(line)[1:])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_tests_and_experiments_that_are_named_exist(document):
    """`python -m pytest PATH` and `python -m experiments.MODULE`."""
    text = DOCUMENTS[document]
    for path in re.findall(r"python -m pytest(?: -\S+(?: 0)?)* (tests\S*?)[`\s]", text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m (experiments[\w.]*\w)", text):
        path = ROOT.joinpath(*module.split("."))
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", DOCUMENTS[document])
    for link in links:
        assert (ROOT / document).parent.joinpath(link).exists(), link


def test_each_document_is_found_from_the_readme():
    linked = set(re.findall(r"\]\(([^)]+\.md)\)", README))
    assert {name for name in DOCUMENTS if name != "README.md"} <= linked


def test_the_table_of_recipes_is_complete():
    for name in km.recipes:
        assert f"`{name}`" in README


def test_the_table_of_verbs_is_complete():
    (verbs,) = (a for a in _make_parser()._actions if a.metavar == "VERB")
    for verb in verbs.choices:
        assert re.search(rf"^\| `{verb}\b", README, flags=re.MULTILINE), verb
