"""TensorFlow is imported late, and imports go one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import keras_mobilenets

PACKAGE = Path(keras_mobilenets.__file__).parent
ROOT = PACKAGE.parent

# What a room may import of the package, besides itself.
BASE = {"errors", "storage", "stopping", "text"}  # what every room may import
BELOW: dict[str, set[str]] = {
    "errors": set(),
    "storage": {"errors"},
    "stopping": {"errors"},
    "startup": set(),
    "machine": set(),
    "architecture": set(),
    "text": set(),
    "cluster": {"architecture"},
    "recipe": {"architecture", "options"},
    "options": {"architecture"},
    "given": {"architecture"},
    "settings": {"architecture", "options", "recipe", "given"},
    "execution": {"architecture", "options"},
    "printing": {"architecture", "recipe"},
    "weight_files": {"architecture"},
    "plots": {"architecture", "recipe", "options"},
    "models": {"architecture", "recipe", "weight_files"},
    "data": {"architecture", "recipe", "text", "given"},
    "deploy": {"architecture", "recipe", "models", "data", "startup"},
}
BELOW["training"] = {
    *("architecture", "recipe", "options", "settings", "execution", "given"),
    *("models", "data", "plots", "cluster", "startup", "stopping", "text"),
    "weight_files",
}
BELOW["inference"] = BELOW["training"] | {"training", "deploy", "machine"}
BELOW["tuning"] = BELOW["training"] | {"training", "deploy"}
BELOW["verbs"] = BELOW["inference"] | {"__init__", "inference", "tuning", "printing"}
BELOW["__main__"] = BELOW["verbs"] | {"verbs"}
BELOW["__init__"] = set(BELOW) - {"__main__", "verbs"}

PUBLIC = {
    "benchmark",
    "build",
    "compile",
    "cost",
    "evaluate",
    "export",
    "fuse",
    "load_data",
    "predict",
    "recipes",
    "recommend",
    "search",
    "train",
    *keras_mobilenets.__all__,
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(tree: ast.AST, package: str) -> set[str]:
    """The rooms of keras_mobilenets that a module imports, wherever it does."""
    modules = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parents = parts[: len(parts) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            modules += [f"{base}.{alias.name}" for alias in node.names]
    parts = [module.split(".") for module in modules]
    rooms = {(part + ["__init__"])[1] for part in parts if part[0] == PACKAGE.name}
    # A public name is imported from the room where it lives.
    homes = keras_mobilenets._HOME
    homes = {name: home.split(".")[0] for name, home in homes.items()}
    return {homes.get(room, room) for room in rooms} - {"__version__"}


def package_of(path: Path) -> str:
    return ".".join(path.parent.relative_to(ROOT).parts)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_go_one_way(path):
    room = room_of(path)
    assert room in BELOW, f"place {room} in the order of rooms"
    imported = imported_rooms(ast.parse(path.read_text()), package_of(path))
    assert imported <= BELOW[room] | BASE | {room}


@pytest.mark.parametrize(
    ("code", "rooms"),
    [
        ("import keras_mobilenets.tuning.search", {"tuning"}),
        ("from keras_mobilenets import tuning", {"tuning"}),
        ("from keras_mobilenets.training import train", {"training"}),
        ("from keras_mobilenets import build", {"models"}),
        ("from keras_mobilenets import __version__", set()),
        ("import keras_mobilenets", {"__init__"}),
        ("from ..tuning import search", {"tuning"}),
        ("from .. import tuning", {"tuning"}),
        ("from . import layers", {"models"}),
        ("def late():\n    from keras_mobilenets import tuning", {"tuning"}),
        ("import numpy, keras", set()),
    ],
)
def test_imports_are_found(code, rooms):
    assert imported_rooms(ast.parse(code), "keras_mobilenets.models") == rooms


def test_the_order_has_no_circle():
    assert all(
        room not in BELOW[below] for room, allowed in BELOW.items() for below in allowed
    )
    assert not any(BELOW[room] - BASE for room in BASE)


def test_no_module_hides_a_public_function():
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    assert not modules & PUBLIC


HEAVY = ("tensorflow", "keras", "keras_tuner", "tensorflow_datasets", "matplotlib")


@pytest.mark.parametrize(
    "code",
    [
        "import keras_mobilenets",
        "import keras_mobilenets as km; km.cost('mobilenet_v1', alpha=0.5)",
        "import keras_mobilenets as km; km.recommend(max_macs=100e6)",
        "import keras_mobilenets as km; km.recipes['slim_v2'].replace(epochs=1)",
        "import keras_mobilenets as km; dir(km), km.Cost, km.Recipe",
        "from keras_mobilenets.tuning.space import Space; Space(max_macs=50e6)",
        "import keras_mobilenets.tuning.results, keras_mobilenets.tuning.prior",
        "import experiments.v2_table_3 as e; e.rows()",
    ],
)
def test_without_tensorflow(code):
    report = f"import sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {report}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_unknown_public_name():
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        keras_mobilenets.biuld  # noqa: B018


def test_public_names_are_listed():
    assert {"build", "cost", "recommend", "recipes"} <= set(dir(keras_mobilenets))
    assert set(keras_mobilenets.__all__) <= set(dir(keras_mobilenets))


# shutil is there already: on Windows, that of Python 3.12 needs a module of Windows.
WINDOWS = """
import shutil, sys, types
locked = []
def locking(file, mode, count):
    if locked:
        raise PermissionError(13, "Permission denied")
    locked.append(file)
sys.platform = "win32"
sys.modules["fcntl"] = None
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
from keras_mobilenets import errors, storage
file = storage.lock(sys.argv[1])
try:
    storage.lock(sys.argv[1])
except errors.UsageError as error:
    print(error)
"""


def test_locks_without_fcntl(tmp_path):
    arguments = [sys.executable, "-c", WINDOWS, tmp_path / ".lock"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert "is in use" in done.stdout, done.stderr


@pytest.mark.slow
def test_what_only_linux_has_is_not_needed():
    """TensorFlow itself is imported first: it is this package that is asked."""
    code = (
        "import os, signal, tensorflow, keras, tensorflow_datasets, matplotlib\n"
        "del os.sched_getaffinity, os.sysconf, signal.SIGHUP, signal.SIGKILL\n"
        "import keras_mobilenets as km\n"
        "import keras_mobilenets.cluster, keras_mobilenets.verbs\n"
        "[getattr(km, name) for name, home in km._HOME.items() if 'tuning' not in home]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
