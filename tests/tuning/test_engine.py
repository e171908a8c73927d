"""What is used of KerasTuner without being public: there, and used in one module."""

import ast
import pathlib

import keras_tuner
import pytest

import keras_mobilenets
from keras_mobilenets.errors import UsageError
from keras_mobilenets.tuning import engine

PACKAGE = pathlib.Path(keras_mobilenets.__file__).parent
NAMES = {
    name
    for _, names in (*engine.PRIVATE, *engine.PRIVATE_OF_OBJECTS)
    for name in names
    if name.startswith("_")
}


def test_this_kerastuner_has_all_that_is_used():
    assert engine.missing_members() == []


def test_what_a_new_version_lacks_is_named(monkeypatch):
    monkeypatch.delattr(keras_tuner.oracles.HyperbandOracle, "_get_size")
    monkeypatch.delattr(keras_tuner.Oracle, "_save_trial")
    assert engine.missing_members() == [
        "Oracle._save_trial",
        "HyperbandOracle._get_size",
    ]


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "tuning").glob("*.py")), ids=lambda path: path.stem
)
def test_nothing_else_uses_what_is_not_public(path):
    if path.stem == "engine":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = [getattr(node, "module", None) or "", *(a.name for a in node.names)]
            assert not any(name.startswith("keras_tuner.src") for name in names)
        elif isinstance(node, ast.Attribute):
            assert node.attr not in NAMES


def test_role(monkeypatch):
    for variable in engine.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert engine.role() is None
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with pytest.raises(UsageError, match="KERASTUNER_ORACLE_PORT=None"):
        engine.role()
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "8000")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "machine1")
    assert engine.role() == "worker"
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    assert engine.role() == "chief"
