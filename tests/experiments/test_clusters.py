"""The examples of clusters.md, run by bash with stand-ins for the schedulers."""

import os
import re
import subprocess
import textwrap
from pathlib import Path

from keras_mobilenets.cluster import read_task

TEXT = (Path(__file__).parents[2] / "experiments" / "clusters.md").read_text()


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)[1]


def task_made(script: str, tmp_path: Path, **variables: str):
    """What a process that the script starts reads in TF_CONFIG."""
    programs = {
        "scontrol": "printf 'node7\\nnode8\\nnode9\\n'",
        "srun": 'shift; exec "$@"',
        "keras-mobilenets": 'echo "$TF_CONFIG"; echo "$@" >&2',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = {**os.environ, **variables, "PATH": path}
    done = subprocess.run(
        ["bash", "-ec", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("train ")
    return read_task({"TF_CONFIG": done.stdout})


def test_slurm(tmp_path):
    variables = {"SLURM_JOB_NODELIST": "node[7-9]", "SLURM_PROCID": "2"}
    task = task_made(block("bash"), tmp_path, **variables)
    assert task.cluster == {"worker": ["node7:2222", "node8:2222", "node9:2222"]}
    assert (task.job, task.index) == ("worker", 2)


def test_kubernetes(tmp_path):
    script = re.search(r"- \|\n(.*?)          resources", block("yaml"), re.DOTALL)[1]
    variables = {"WORKERS": "3", "JOB_COMPLETION_INDEX": "1"}
    task = task_made(textwrap.dedent(script), tmp_path, **variables)
    names = [f"mobilenet-{number}.mobilenet:2222" for number in range(3)]
    assert task.cluster == {"worker": names}
    assert (task.job, task.index) == ("worker", 1)


def test_the_example_of_the_variable(tmp_path):
    assert read_task({"TF_CONFIG": block("json")}).cluster["worker"][1] == "host2:2222"
