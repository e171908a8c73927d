"""The processes of a run over several machines: who is who, and starting them here.

TensorFlow's convention: each process finds the addresses of all, and which one it
is, as JSON in the environment variable TF_CONFIG. No TensorFlow in this module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras_mobilenets.architecture.arguments import check_integer, suggest
from keras_mobilenets.errors import TrainingInterrupted, UsageError, WorkerLost
from keras_mobilenets.stopping import SIGNALS

# This module, run as a program: the command line, which ends with its launcher.
PROGRAM = [sys.executable, "-m", "keras_mobilenets.cluster"]
VARIABLE = "TF_CONFIG"
EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
JOBS = ("chief", "worker", "ps")
ADDRESS = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
LOST = WorkerLost.status
KILLED = -9  # by SIGKILL, which Windows does not have
MAX_PROCESSES = 1000  # of a job; each needs a port, and half a gigabyte of memory
GRACE = 60.0  # seconds that the others have to notice that one is gone


@dataclasses.dataclass(frozen=True)
class Task:
    """One process of a cluster: addresses by job, its own job, and its number there."""

    cluster: dict[str, list[str]]
    job: str
    index: int

    @property
    def asynchronous(self) -> bool:
        """Whether this is a cluster with parameter servers."""
        return "ps" in self.cluster

    @property
    def trainers(self) -> int:
        """How many processes train; without parameter servers the chief does too."""
        jobs = ("worker",) if self.asynchronous else ("chief", "worker")
        return sum(len(self.cluster.get(job, ())) for job in jobs)


def is_chief(task: Task | None) -> bool:
    """Whether this process writes the files and speaks for all.

    The chief where the cluster has one, else worker 0; a process alone always.
    """
    if task is None:
        return True
    first = "chief" if "chief" in task.cluster else "worker"
    return (task.job, task.index) == (first, 0)


def read_task(environment: Mapping[str, str] = os.environ) -> Task | None:
    """What TF_CONFIG says, or None where it says nothing.

    Raises:
        UsageError: it is not TensorFlow's JSON, has jobs or addresses that cannot be,
            or names a task that is not in it.
    """
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return None
    try:
        config = json.loads(text)
        fault = _fault(config)
    except (ValueError, RecursionError) as error:
        config, fault = None, f"{type(error).__name__}: {error}"
    if fault:
        shown = text if len(text) <= 500 else f"{text[:500]}..."
        raise UsageError(
            f"{VARIABLE} must be JSON such as {EXAMPLE}; {fault}; got {shown!r}"
        )
    if not config.get("cluster"):
        return None
    task = config["task"]
    return Task(config["cluster"], task["type"], int(task["index"]))


def _fault(config: Any) -> str:
    """Why a value is no cluster with a task of it, or an empty text."""
    if not isinstance(config, dict):
        return "it must be an object"
    cluster, task = config.get("cluster"), config.get("task")
    if not cluster:
        return ""
    if not isinstance(cluster, dict):
        return "cluster must be an object"
    for job, addresses in cluster.items():
        if job not in JOBS:
            return f"{job!r} is none of the jobs {', '.join(JOBS)}{suggest(job, JOBS)}"
        if not isinstance(addresses, list) or not addresses:
            return f"{job!r} must have a list of addresses"
        for address in addresses:
            if not _is_address(address):
                return f"{address!r} is not host:port, with a port from 1 to 65535"
    everyone: list[str] = sum(cluster.values(), [])
    repeated = sorted({a for a in everyone if everyone.count(a) > 1})
    if repeated:
        return f"{repeated[0]!r} is the address of two processes"
    if len(cluster.get("chief", ())) > 1:
        return "there must be one chief"
    if not isinstance(task, dict) or task.get("type") not in list(cluster):
        return f"the type of the task must be one of {', '.join(cluster)}"
    index, number = str(task.get("index")), len(cluster[task["type"]])
    if not re.fullmatch("[0-9]{1,9}", index) or int(index) >= number:
        return f"the index of the task must be from 0 to {number - 1}"
    return ""


def _is_address(value: Any) -> bool:
    found = ADDRESS.fullmatch(value) if isinstance(value, str) else None
    return found is not None and 1 <= int(found[2]) <= 65535


def _free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def local_tasks(workers: int, servers: int = 0) -> list[Task]:
    """A cluster on this machine's loopback interface, the chief first.

    With `servers` a chief that trains nothing, `workers` and parameter servers;
    else `workers`, of which number 0 is the chief.
    """
    jobs = {"worker": workers}
    if servers:
        jobs = {"chief": 1, "worker": workers, "ps": servers}
    ports = iter(_free_ports(sum(jobs.values())))
    cluster = {
        job: [f"127.0.0.1:{next(ports)}" for _ in range(count)]
        for job, count in jobs.items()
    }
    return [
        Task(cluster, job, index) for job, hosts in cluster.items()
        for index in range(len(hosts))
    ]  # fmt: skip


def environment_of(task: Task) -> dict[str, str]:
    """The environment of a process that is to be this task."""
    config = {
        "cluster": task.cluster,
        "task": {"type": task.job, "index": task.index},
    }
    return {**os.environ, VARIABLE: json.dumps(config)}


def launch(
    arguments: Sequence[str],
    *,
    workers: int = 2,
    servers: int = 0,
    restarts: int = 0,
) -> int:
    """Run the command line once for every process of a cluster on this machine.

    The chief's output is shown; of the others only what they write to standard
    error. A signal to stop is passed on to all, and they end with this process,
    however it ends. With servers, workers that end are the chief's to judge; without,
    all stand and fall together.

    The addresses are of this machine's loopback interface, but TensorFlow's servers
    ignore that: they listen on every interface, to anyone, without a password or
    encryption, and run what they are sent. Where others reach this machine, close its
    ports to them.

    Args:
        arguments: of `keras-mobilenets`, such as ["train", "--workdir", "run"].
        workers: processes that train, at least 1.
        servers: parameter servers; 0 trains synchronously.
        restarts: how often to start all again after one was lost.

    Returns:
        The exit status: 0, or that of the first process that failed.

    Raises:
        UsageError: an impossible number, or no command.
    """
    workers = check_integer("workers", workers, low=1, high=MAX_PROCESSES)
    servers = check_integer("servers", servers, low=0, high=MAX_PROCESSES)
    restarts = check_integer("restarts", restarts, low=0)
    command = [] if isinstance(arguments, str) else list(map(str, arguments))
    if command[:1] not in (["train"], ["evaluate"]):
        raise UsageError(
            "launch takes a train or evaluate command after --, such as "
            "'launch -n 2 -- train --workdir run'; got "
            f"{' '.join(command) or arguments!r}"
        )
    if servers and command[0] != "train":
        raise UsageError(
            f"servers are for train; got servers={servers} for {command[0]}"
        )
    left = restarts
    while True:
        status, stopped = _run_once(command, local_tasks(workers, servers))
        if stopped or not left or status not in (LOST, KILLED):
            return status if status >= 0 else 128 - status
        left -= 1
        print(
            f"keras-mobilenets: starting all again ({restarts - left} of {restarts})",
            file=sys.stderr,
        )


def _run_once(command: Sequence[str], tasks: Sequence[Task]) -> tuple[int, bool]:
    """The status of a launch, and whether it was asked to stop."""
    processes: list[subprocess.Popen] = []
    with _passing_signals(processes) as passed:
        try:
            for number, task in enumerate(tasks):
                processes.append(_start(command, task, quiet=number > 0))
                if passed:  # before this one was there
                    processes[-1].send_signal(passed[0])
            return _wait(processes, tasks), bool(passed)
        finally:
            for process in processes:
                # Parameter servers and workers that wait for them know no end, and
                # TensorFlow takes SIGTERM for a preemption notice.
                process.kill()
                process.wait()


def _start(command: Sequence[str], task: Task, quiet: bool) -> subprocess.Popen:
    return subprocess.Popen(
        [*PROGRAM, *command],
        env=environment_of(task),
        stdin=subprocess.PIPE,  # its end is that of this process
        stdout=subprocess.DEVNULL if quiet else None,
        # Or a terminal's Ctrl-C would come twice: from it, and passed on from here.
        start_new_session=True,
    )


def _wait(processes: Sequence[subprocess.Popen], tasks: Sequence[Task]) -> int:
    """Wait for the chief, and where all are peers for everyone."""
    awaited = [0] if tasks[0].asynchronous else range(len(processes))
    failed, deadline = 0, math.inf
    while time.monotonic() < deadline:
        statuses = {number: processes[number].poll() for number in awaited}
        for number, status in statuses.items():
            if status and not failed:
                failed, deadline = status, time.monotonic() + GRACE
                ended = f"status {status}" if status > 0 else f"signal {-status}"
                print(
                    f"keras-mobilenets: {tasks[number].job} {tasks[number].index} "
                    f"ended with {ended}; the others have {GRACE:.0f} s to stop",
                    file=sys.stderr,
                )
        if None not in statuses.values():
            break
        time.sleep(0.1)
    return failed


@contextlib.contextmanager
def _passing_signals(processes: Sequence[subprocess.Popen]) -> Iterator[list[int]]:
    """Requests to stop this process go to all of `processes`; those that came."""
    passed: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # hears no signals
        yield passed
        return

    def pass_on(number: int, _: object) -> None:
        passed.append(number)
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as SIGHUP under nohup
            signal.signal(number, pass_on)
    try:
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _end_with_launcher() -> None:
    """Wait for the launcher's end; then save and stop, or else just stop."""
    while os.read(0, 1):  # a pipe, which only the launcher could write to
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(TrainingInterrupted.status)


if __name__ == "__main__":
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    runpy.run_module("keras_mobilenets", run_name="__main__", alter_sys=True)
