"""What pyproject.toml promises."""

import ast
import importlib.metadata
import inspect
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import keras_mobilenets as km

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRA = PROJECT["optional-dependencies"]["onnx"]
DECLARED = {Requirement(line).name.lower() for line in PROJECT["dependencies"]}
OPTIONAL = {Requirement(line).name.lower() for line in EXTRA}
# The distribution of a module, where its name is another.
DISTRIBUTIONS = {
    "absl": "absl-py",
    "ai_edge_litert": "ai-edge-litert",
    "grpc": "grpcio",
    "keras_tuner": "keras-tuner",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}


def imported(folder: str) -> set[str]:
    """Top-level modules that are imported anywhere, and are not Python's or ours."""
    modules = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(str(node.module))
    top = {module.split(".")[0] for module in modules}
    return top - set(sys.stdlib_module_names) - {"keras_mobilenets", "__future__"}


def test_everything_imported_is_declared():
    """h5py, numpy, absl and grpcio came by chance, with TensorFlow."""
    modules = imported("keras_mobilenets")
    assert "tensorflow" in modules
    needed = {DISTRIBUTIONS.get(module, module) for module in modules}
    assert needed <= DECLARED | OPTIONAL
    assert needed >= OPTIONAL


def test_what_is_optional_is_imported_in_functions_only():
    for path in (ROOT / "keras_mobilenets").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in getattr(node, "names", [])]
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            assert not OPTIONAL & {name.split(".")[0] for name in names}, path


def test_the_tests_have_what_is_optional():
    assert "keras_mobilenets[onnx]" in PROJECT["optional-dependencies"]["test"]


@pytest.mark.parametrize("line", PROJECT["dependencies"] + EXTRA)
def test_the_environment_is_within_what_is_declared(line):
    requirement = Requirement(line)
    assert importlib.metadata.version(requirement.name) in requirement.specifier


def test_the_pythons_are_those_that_are_claimed():
    claimed = [re.fullmatch(r".*Python :: (3\.\d+)", c) for c in PROJECT["classifiers"]]
    assert [c[1] for c in claimed if c] == ["3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == ">=3.11,<3.14"


def test_the_license_is_apache():
    assert PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    docker = (ROOT / "Dockerfile").read_text(), (ROOT / ".dockerignore").read_text()
    assert all("LICENSE" in part for part in docker)  # the build needs it


def test_the_tests_that_ci_names_exist():
    named = re.findall(r"tests/[\w/.]+", (ROOT / ".ci" / "run").read_text())
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", [name for name in km.__all__ if name[0] != "_"])
def test_public_functions_say_their_types(name):
    """py.typed promises it."""
    public = getattr(km, name)
    if inspect.isclass(public):
        methods = inspect.getmembers(public, inspect.isfunction)
        ours = [m for n, m in methods if n[0] != "_" and "mobilenets" in m.__module__]
    else:
        ours = [public] if inspect.isfunction(public) else []
    for function in ours:
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, function
        for parameter in list(signature.parameters.values()):
            said = parameter.annotation is not inspect.Parameter.empty
            assert said or parameter.name == "self", f"{function}: {parameter}"
