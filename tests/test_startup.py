"""What is said while TensorFlow starts; by stand-ins for it and for a GPU."""

import os
import subprocess
import sys

import pytest

from keras_mobilenets import startup

TENSORFLOW = """
import os
level = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
os.write(2, b"W0000 Cannot dlopen some GPU libraries.\\nI0000 a notice\\n")
class config:
    def list_physical_devices(kind=None):
        os.write(2, b"E0000 failed call to cuInit\\n")
        return {devices!r}
{more}
"""

CODE = """
import os, sys
from keras_mobilenets import startup
startup.has_nvidia = lambda: {nvidia}
startup.start_tensorflow()
print("imported", "tensorflow" in sys.modules, os.environ["TF_CPP_MIN_LOG_LEVEL"])
print("said", file=sys.stderr)
"""


def start(tmp_path, nvidia, devices=(), more="", level=None):
    text = TENSORFLOW.format(devices=list(devices), more=more)
    (tmp_path / "tensorflow.py").write_text(text)
    environment = {k: v for k, v in os.environ.items() if k != startup.LEVEL}
    if level is not None:
        environment[startup.LEVEL] = level
    roots = [str(tmp_path), *filter(None, sys.path), os.getcwd()]
    environment["PYTHONPATH"] = os.pathsep.join(roots)
    return subprocess.run(
        [sys.executable, "-c", CODE.format(nvidia=nvidia)],
        env=environment,
        capture_output=True,
        text=True,
    )


def test_no_gpu_no_notice(tmp_path):
    done = start(tmp_path, nvidia=False)
    assert done.stdout == "imported True 2\n"
    assert done.stderr == "said\n"


def test_a_gpu_that_is_not_used_is_told_of(tmp_path):
    done = start(tmp_path, nvidia=True)
    assert done.stdout == "imported True 1\n"
    assert "Cannot dlopen some GPU libraries" in done.stderr
    assert "failed call to cuInit" in done.stderr
    assert "a notice" not in done.stderr


def test_a_gpu_that_is_used_is_not(tmp_path):
    assert start(tmp_path, nvidia=True, devices=["GPU:0"]).stderr == "said\n"


def test_all_is_shown_where_the_import_fails(tmp_path):
    done = start(tmp_path, nvidia=False, more="raise ImportError('no glibc')")
    assert done.returncode == 1
    assert "a notice" in done.stderr
    assert "no glibc" in done.stderr


def test_a_level_of_ones_own_lets_all_through(tmp_path):
    done = start(tmp_path, nvidia=False, level="0")
    assert done.stdout == "imported False 0\n"


@pytest.mark.parametrize(
    ("files", "program", "visible", "found"),
    [
        ([], None, None, False),
        (["/dev/nvidia0"], None, None, True),
        ([], "/usr/bin/nvidia-smi", None, True),
        (["/dev/nvidia0"], None, "0,1", True),
        (["/dev/nvidia0"], "/usr/bin/nvidia-smi", "-1", False),
        (["/dev/nvidia0"], "/usr/bin/nvidia-smi", "", False),
    ],
)
def test_devices_of_nvidia(files, program, visible, found, monkeypatch):
    monkeypatch.setattr(startup.glob, "glob", lambda pattern: files)
    monkeypatch.setattr(startup.shutil, "which", lambda name: program)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert startup.has_nvidia() is found
