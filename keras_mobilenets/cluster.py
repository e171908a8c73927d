"""The processes of a run over several machines: who is who, and starting them here.

TensorFlow's convention: each process finds the addresses of all, and which one it
is, as JSON in the environment variable TF_CONFIG. No TensorFlow in this module.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from keras_mobilenets.architecture.arguments import check_integer
from keras_mobilenets.errors import UsageError, WorkerLost

PROGRAM = [sys.executable, "-m", "keras_mobilenets"]
VARIABLE = "TF_CONFIG"
EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
LOST = WorkerLost.status
GRACE = 60.0  # seconds that the others have to notice that one is gone


class Task(NamedTuple):
    """One process of a cluster: addresses by job, its own job, and its number there."""

    cluster: dict[str, list[str]]
    job: str
    index: int

    @property
    def asynchronous(self) -> bool:
        """Whether this is a cluster with parameter servers."""
        return "ps" in self.cluster


def read_task(environment: Mapping[str, str] = os.environ) -> Task | None:
    """What TF_CONFIG says, or None where it says nothing.

    Raises:
        ValueError: it is not TensorFlow's JSON, or names a task that is not in it.
    """
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return None
    try:
        config = json.loads(text)
        if not config.get("cluster"):
            return None
        cluster = {str(job): list(hosts) for job, hosts in config["cluster"].items()}
        task = Task(cluster, config["task"]["type"], int(config["task"]["index"]))
        address = task.cluster[task.job][task.index]
        if task.index < 0 or not all(
            isinstance(host, str) and host.rpartition(":")[2].isdigit()
            for hosts in cluster.values()
            for host in hosts
        ):
            raise UsageError(f"every address must be host:port; got {address!r}")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{VARIABLE} must be JSON such as {EXAMPLE}; got {text!r} "
            f"({type(error).__name__}: {error})"
        ) from error
    return task


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
    error. A signal to stop is passed on to all. With servers, workers that end are
    the chief's to judge; without, all stand and fall together.

    Args:
        arguments: of `keras-mobilenets`, such as ["train", "--workdir", "run"].
        workers: processes that train, at least 1.
        servers: parameter servers; 0 trains synchronously.
        restarts: how often to start all again after one was lost.

    Returns:
        The exit status: 0, or that of the first process that failed.

    Raises:
        ValueError: an impossible number, or no command.
    """
    workers = check_integer("workers", workers, low=1)
    servers = check_integer("servers", servers, low=0)
    restarts = check_integer("restarts", restarts, low=0)
    if not arguments or arguments[0] not in ("train", "evaluate"):
        raise UsageError(
            "launch takes a train or evaluate command after --, such as "
            f"'launch -n 2 -- train --workdir run'; got {' '.join(arguments)!r}"
        )
    if servers and arguments[0] != "train":
        raise UsageError(
            f"servers are for train; got servers={servers} for {arguments[0]}"
        )
    for attempt in range(restarts + 1):
        status = _run_once(arguments, local_tasks(workers, servers))
        if status not in (LOST, -signal.SIGKILL) or attempt == restarts:
            return status if status >= 0 else 128 - status
        print(
            f"keras-mobilenets: starting all again ({attempt + 1} of {restarts})",
            file=sys.stderr,
        )
    raise AssertionError("unreachable")


def _run_once(arguments: Sequence[str], tasks: Sequence[Task]) -> int:
    processes = [
        subprocess.Popen(
            [*PROGRAM, *arguments],
            env=environment_of(task),
            stdout=None if number == 0 else subprocess.DEVNULL,
        )
        for number, task in enumerate(tasks)
    ]
    with _passing_signals(processes):
        try:
            return _wait(processes, tasks)
        finally:
            for process in processes:
                # Parameter servers and workers that wait for them know no end, and
                # TensorFlow takes SIGTERM for a preemption notice.
                process.kill()
                process.wait()


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
def _passing_signals(processes: Sequence[subprocess.Popen]) -> Iterator[None]:
    """SIGTERM and SIGINT of this process go to all of `processes`."""

    def pass_on(number: int, _: object) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
