"""TF_CONFIG read and made, without TensorFlow; launching commands that end at once."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from keras_mobilenets import cluster
from keras_mobilenets.cluster import (
    Task,
    environment_of,
    is_chief,
    launch,
    local_tasks,
    read_task,
)
from keras_mobilenets.errors import UsageError

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


LED = {"chief": ["a:1"], "worker": ["b:2"]}
SERVED = {"chief": ["a:1"], "worker": ["b:2", "c:3"], "ps": ["d:4"]}


@pytest.mark.parametrize(
    ("cluster", "trainers", "first"),
    [
        ({"worker": ["a:1"]}, 1, ("worker", 0)),
        ({"chief": ["a:1"]}, 1, ("chief", 0)),
        (TWO, 2, ("worker", 0)),
        (LED, 2, ("chief", 0)),  # TensorFlow counts the chief as a worker
        (SERVED, 2, ("chief", 0)),
    ],
)
def test_who_trains_and_who_is_first(cluster, trainers, first):
    tasks = [
        Task(cluster, job, index)
        for job, addresses in cluster.items()
        for index in range(len(addresses))
    ]
    assert {task.trainers for task in tasks} == {trainers}
    assert [(t.job, t.index) for t in tasks if is_chief(t)] == [first]


def test_a_process_alone_is_first():
    assert is_chief(None)


@pytest.mark.parametrize("index", [1, "1"])
def test_the_index_may_be_text(index):
    assert read_task(config(task={"type": "worker", "index": index})).index == 1


@pytest.mark.parametrize(
    "address", ["a:1", "host-1.example.org:65535", "10.0.0.1:2222", "[::1]:2222"]
)
def test_addresses(address):
    task = {"type": "worker", "index": 0}
    read = read_task(config(cluster={"worker": [address]}, task=task))
    assert read.cluster == {"worker": [address]}


def alone(**cluster):
    return config(cluster=cluster, task={"type": "worker", "index": 0})


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"TF_CONFIG": "{"}, "JSONDecodeError"),
        ({"TF_CONFIG": "[]"}, "it must be an object"),
        ({"TF_CONFIG": "[" * 100_000}, "RecursionError"),
        (config(task={"type": "worker", "index": 2}), "index .* from 0 to 1"),
        (config(task={"type": "worker", "index": -1}), "index .* from 0 to 1"),
        (config(task={"type": "worker", "index": 0.5}), "index .* from 0 to 1"),
        (config(task={"type": "worker", "index": True}), "index .* from 0 to 1"),
        (config(task={"type": "worker"}), "index .* from 0 to 1"),
        (config(task={"type": "ps", "index": 0}), "type .* one of worker"),
        (config(task={"type": ["worker"], "index": 0}), "type .* one of worker"),
        (config(task={}), "type .* one of worker"),
        (config(task=None), "type .* one of worker"),
        (config(cluster=["a:1"]), "cluster must be an object"),
        (alone(worker=3), "'worker' must have a list"),
        (alone(worker=[]), "'worker' must have a list"),
        (alone(worker=["a:1"], ps=[]), "'ps' must have a list"),
        # One worker is as strictly checked as several.
        (alone(worker=["nowhere"]), "'nowhere' is not host:port"),
        (alone(worker=["a:70000"]), "'a:70000' is not host:port"),
        (alone(worker=["a:0"]), "'a:0' is not host:port"),
        (alone(worker=["my host:1"]), "'my host:1' is not host:port"),
        (alone(worker=[":1"]), "':1' is not host:port"),
        (alone(worker=["a:\u0661"]), "is not host:port"),  # a digit, of Arabic
        (alone(worker=["grpc://a:1"]), "'grpc://a:1' is not host:port"),
        (alone(worker=[1]), "1 is not host:port"),
        (alone(worker=["a:1"], foo=["b:1"]), "'foo' is none of the jobs chief"),
        (alone(worker=["a:1"], wroker=["b:1"]), "did you mean 'worker'"),
        (alone(worker=["a:1"], evaluator=["b:1"]), "'evaluator' is none of the jobs"),
        (alone(worker=["a:1", "a:1"]), "'a:1' is the address of two processes"),
        (alone(worker=["a:1"], chief=["a:1"]), "'a:1' is the address of two"),
        (alone(worker=["a:1"], chief=["b:1", "c:1"]), "there must be one chief"),
    ],
    ids=str,
)
def test_what_is_no_cluster_is_refused(environment, reason):
    with pytest.raises(
        UsageError, match=f"TF_CONFIG must be JSON such .*{reason}"
    ) as e:
        read_task(environment)
    assert len(str(e.value)) < 1000


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
        ("train", {}, "got 'train'"),  # its letters are not arguments
        (["cost"], {}, "got 'cost'"),
        (["train"], {"workers": 0}, "workers must .* got 0"),
        (["train"], {"workers": 10**23}, "workers must .* at most 1000"),
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
        "time.sleep(0 if task['type'] == 'chief' else 900 * (task['type'] == 'ps'))"
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
        "time.sleep(900)"
    )
    began = time.monotonic()
    assert launch(["train"], workers=2) == 128 + signal.SIGKILL
    assert time.monotonic() - began < 300


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


CHILD = """
import os, pathlib, signal, sys, time
def stop(number, _):
    pathlib.Path(f"stopped{os.getpid()}").write_text(str(number))
    sys.exit(4)
for name in ("SIGTERM", "SIGINT", "SIGHUP"):
    signal.signal(getattr(signal, name), stop)
pathlib.Path(f"ready{os.getpid()}").touch()
while True:
    time.sleep(0.1)
"""

LAUNCH = """
import sys
from keras_mobilenets import cluster
cluster.PROGRAM = [sys.executable, *{program!r}]
cluster.GRACE = 60.0
sys.exit(cluster.launch(["train"], workers=2, restarts=3))
"""


def launcher(tmp_path, program, **options):
    """A launcher in a process of its own, when its two children are ready."""
    root = os.path.dirname(os.path.dirname(cluster.__file__))
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH.format(program=program)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"},
        start_new_session=True,
        **options,
    )
    while len(list(tmp_path.glob("ready*"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_goes_to_all_once(number, tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    process = launcher(tmp_path, ["child.py"])
    os.killpg(process.pid, number)  # as a terminal does, to its foreground
    assert process.wait(300) == 4
    stopped = list(tmp_path.glob("stopped*"))
    assert [path.read_text() for path in stopped] == [str(int(number))] * 2


def test_a_hangup_that_is_ignored_stays_so(tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    process = launcher(tmp_path, ["child.py"], **ignoring)  # as nohup does
    process.send_signal(signal.SIGHUP)
    process.terminate()
    assert process.wait(300) == 4
    stopped = {path.read_text() for path in tmp_path.glob("stopped*")}
    assert stopped == {str(int(signal.SIGTERM))}


def test_processes_end_with_their_launcher(tmp_path):
    """One that is killed cannot pass on anything: each holds a pipe to it."""
    # In the place of the command line, within the program that launch starts.
    (tmp_path / "standin.py").write_text(CHILD)
    text = pathlib.Path(cluster.__file__).read_text()
    text = text.replace('run_module("keras_mobilenets"', 'run_module("standin"')
    (tmp_path / "program.py").write_text(text)
    process = launcher(tmp_path, ["program.py"])
    process.kill()
    process.wait(300)
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("stopped*"))) < 2:  # asked to, so they can save
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_that_does_not_stop_ends_with_its_launcher(tmp_path):
    (tmp_path / "standin.py").write_text(CHILD.replace("sys.exit(4)", "return"))
    text = pathlib.Path(cluster.__file__).read_text()
    text = text.replace('run_module("keras_mobilenets"', 'run_module("standin"')
    text = text.replace("GRACE = 60.0", "GRACE = 0.2")
    (tmp_path / "program.py").write_text(text)
    process = launcher(tmp_path, ["program.py"])
    children = [int(path.name[5:]) for path in tmp_path.glob("ready*")]
    process.kill()
    process.wait(300)
    deadline = time.monotonic() + 300
    while any(map(is_running, children)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] != "Z"  # ended, and not yet waited for
