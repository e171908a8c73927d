"""The processes of a cluster: a chief that serves trials, and workers beside it."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from keras_tuner.engine.trial import Trial

from keras_mobilenets.errors import SearchStopped, UsageError
from keras_mobilenets.tuning.engine import add_to_server
from keras_mobilenets.tuning.protocol import Chief
from keras_mobilenets.tuning.stored_oracle import StoredOracle

LOOPBACK = "127.0.0.1"
TICK = 0.2  # seconds between two looks of the chief at its workers

Job = tuple[Callable[..., None], tuple[Any, ...]]  # a function and its arguments


def serve(
    oracle: StoredOracle,
    on_result: Callable[[Trial], None],
    *,
    workers: int = 0,
    job: Job | None = None,
    logs: str | os.PathLike[str] = os.devnull,
) -> None:
    """Be the chief until the search is over.

    Listens where KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT say, by default on
    a free port of loopback. `workers` processes are started on this machine, each
    of which calls the function of `job` with its arguments and writes to
    `<logs>/<worker>.log`; those of other machines may join.

    Raises:
        ValueError: it cannot listen there.
        SearchStopped: the workers it has started have all ended before the search.
    """
    address = (
        f"{os.environ.get('KERASTUNER_ORACLE_IP', LOOPBACK)}:"
        f"{os.environ.get('KERASTUNER_ORACLE_PORT', 0)}"
    )
    chief = Chief(oracle, on_result)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    add_to_server(chief, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise UsageError(
            "KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT must be a free address "
            f"of this machine; got {address}"
        ) from error
    server.start()
    processes: dict[str, subprocess.Popen] = {}
    try:
        for name in (f"worker{number}" for number in range(workers)):
            processes[name] = _start(name, port, job, logs)
        while not chief.finished:
            time.sleep(TICK)
            ended = [name for name, p in processes.items() if p.poll() is not None]
            chief.drop_stale_workers(ended)
            if chief.failure is not None:
                raise chief.failure
            if processes and len(ended) == len(processes) and chief.has_no_workers:
                raise SearchStopped(
                    f"all {workers} workers have ended before the search, which can be "
                    f"resumed; what they said is in {os.fspath(logs)}"
                )
    finally:
        for process in processes.values():
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it has ended
                process.stdin.close()
        for process in processes.values():
            process.wait()
        server.stop(grace=1).wait()


def _start(
    name: str,
    port: int,
    job: Job | None,
    logs: str | os.PathLike[str],
) -> subprocess.Popen:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
        "KERASTUNER_TUNER_ID": name,
        "KERASTUNER_ORACLE_IP": LOOPBACK,
        "KERASTUNER_ORACLE_PORT": str(port),
    }
    with open(os.path.join(logs, f"{name}.log"), "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env=environment,
            stdin=subprocess.PIPE,  # its end is this process's
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # its log says why
        pickle.dump(job, process.stdin)
        process.stdin.flush()
    return process


def _work() -> None:
    """A worker that `serve` has started."""
    function, arguments = pickle.load(sys.stdin.buffer)

    def end_with_the_chief() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=end_with_the_chief, daemon=True).start()
    function(*arguments)


if __name__ == "__main__":
    _work()
