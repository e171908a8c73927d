"""TF_CONFIG read and made, without TensorFlow; launching commands that end at once."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from keras_mobilenets import cluster
from keras_mobilenets.cluster import (
    Task,
    environment_of,
    launch,
    local_tasks,
    read_task,
)

TWO = {"worker": ["a:1", "b:2"]}


def config(**changes) -> dict[str, str]:
    value = {"cluster": TWO, "task": {"type": "worker", "index": 1}, **changes}
    return {"TF_CONFIG": json.dumps(value)}


def test_a_task_is_read_and_written():
    task = read_task(config())
    assert task == Task(TWO, "worker", 1)
    assert not task.asynchronous
    assert read_task(environment_of(task)) == task


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": " "}, config(cluster={})])
def test_no_cluster(environment):
    assert read_task(environment) is None


@pytest.mark.parametrize(
    "environment",
    [
        {"TF_CONFIG": "{"},
        {"TF_CONFIG": "[]"},
        config(task={"type": "worker", "index": 2}),
        config(task={"type": "worker", "index": -1}),
        config(task={"type": "ps", "index": 0}),
        config(task={}),
        config(cluster={"worker": ["nowhere", "b:2"]}),
        config(cluster={"worker": 3}),
    ],
    ids=str,
)
def test_what_is_no_cluster_is_refused(environment):
    with pytest.raises(ValueError, match="TF_CONFIG must be JSON such as"):
        read_task(environment)


def test_local_clusters():
    workers = local_tasks(3)
    assert [(t.job, t.index) for t in workers] == [("worker", n) for n in range(3)]
    tasks = local_tasks(2, servers=1)
    assert [t.job for t in tasks] == ["chief", "worker", "worker", "ps"]
    assert all(task.asynchronous for task in tasks)
    addresses = sum(tasks[0].cluster.values(), [])
    assert len(set(addresses)) == 4
    assert all(address.startswith("127.0.0.1:") for address in addresses)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ([], {}, "launch takes a train or evaluate command"),
        (["cost"], {}, "got 'cost'"),
        (["train"], {"workers": 0}, "workers must .* got 0"),
        (["evaluate"], {"servers": 1}, "servers are for train"),
        (["train"], {"servers": -1}, "servers must .* got -1"),
        (["train"], {"restarts": 0.5}, "restarts must .* got 0.5"),
    ],
)
def test_impossible_launches(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        launch(arguments, **options)


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Puts a program of ours in the place of the command line."""

    def program(text: str) -> None:
        script = tmp_path / "keras_mobilenets.py"
        script.write_text("import json, os, pathlib, signal, sys, time\n" + text)
        monkeypatch.setattr(cluster, "PROGRAM", [sys.executable, str(script)])
        monkeypatch.chdir(tmp_path)

    return program


def test_every_process_is_told_who_it_is(program, tmp_path):
    program(
        "task = json.loads(os.environ['TF_CONFIG'])['task']\n"
        "pathlib.Path(task['type'] + str(task['index'])).write_text(sys.argv[1])\n"
        "time.sleep(0 if task['type'] == 'chief' else 60 * (task['type'] == 'ps'))"
    )
    assert launch(["train"], workers=2) == 0
    assert launch(["train"], workers=1, servers=1) == 0  # the server does not end
    made = {p.name: p.read_text() for p in tmp_path.iterdir() if p.suffix != ".py"}
    assert made == dict.fromkeys(made, "train")
    assert {"worker0", "worker1", "chief0"} <= set(made)


def test_the_first_failure_is_the_status(program, capfd):
    program("sys.exit(7 * ('\"index\": 1' in os.environ['TF_CONFIG']))")
    assert launch(["train"], workers=3) == 7
    assert "worker 1 ended with status 7" in capfd.readouterr().err


def test_others_have_their_time_and_no_more(program, monkeypatch):
    monkeypatch.setattr(cluster, "GRACE", 0.5)
    program(
        "if '\"index\": 1' in os.environ['TF_CONFIG']: os.kill(os.getpid(), 9)\n"
        "time.sleep(60)"
    )
    began = time.monotonic()
    assert launch(["train"], workers=2) == 128 + signal.SIGKILL
    assert time.monotonic() - began < 30


def test_restarts_after_one_was_lost(program, tmp_path):
    program(
        "if '\"index\": 0' in os.environ['TF_CONFIG']:\n"
        "    tries = pathlib.Path('tries'); tries.open('a').write('x')\n"
        "    sys.exit(5 if len(tries.read_text()) < 3 else 0)"
    )
    assert launch(["train"], workers=2, restarts=1) == 5
    (tmp_path / "tries").unlink()
    assert launch(["train"], workers=2, restarts=2) == 0
    assert (tmp_path / "tries").read_text() == "xxx"


def test_a_signal_goes_to_all(tmp_path):
    script = tmp_path / "keras_mobilenets_child.py"
    script.write_text(
        "import os, pathlib, signal, sys, time\n"
        "def stop(*_):\n"
        "    pathlib.Path(f'stopped{os.getpid()}').touch()\n"
        "    sys.exit(4)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "pathlib.Path(f'ready{os.getpid()}').touch()\n"
        "time.sleep(60)"
    )
    parent = (
        "import sys; from keras_mobilenets import cluster; "
        f"cluster.PROGRAM = [sys.executable, {str(script)!r}]; "
        "sys.exit(cluster.launch(['train'], workers=2))"
    )
    root = os.path.dirname(os.path.dirname(cluster.__file__))
    process = subprocess.Popen(
        [sys.executable, "-c", parent],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
    )
    while len(list(tmp_path.glob("ready*"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert process.wait(30) == 4
    assert len(list(tmp_path.glob("stopped*"))) == 2
