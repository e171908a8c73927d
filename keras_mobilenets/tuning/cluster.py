"""The processes of a cluster: a chief that serves trials, and workers beside it."""

from __future__ import annotations

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
import keras_tuner
from keras_tuner.src import protos
from keras_tuner.src.engine.trial import Trial

from keras_mobilenets.errors import SearchStopped, UsageError
from keras_mobilenets.tuning.protocol import Chief

LOOPBACK = "127.0.0.1"
TICK = 0.2  # seconds between two looks of the chief at its workers

Job = tuple[Callable[..., None], tuple[Any, ...]]  # a function and its arguments


def serve(
    oracle: keras_tuner.Oracle,
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
    protos.get_service_grpc().add_OracleServicer_to_server(chief, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise UsageError(
            "KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT must be a free address "
            f"of this machine; got {address}"
        ) from error
    server.start()
    processes = {
        f"worker{number}": _start(f"worker{number}", port, job, logs)
        for number in range(workers)
    }
    try:
        while not chief.finished:
            time.sleep(TICK)
            ended = [name for name, p in processes.items() if p.poll() is not None]
            chief.bury(ended)
            if processes and len(ended) == len(processes) and chief.deserted:
                raise SearchStopped(
                    f"all {workers} workers have ended before the search, which can be "
                    f"resumed; what they said is in {os.fspath(logs)}"
                )
    finally:
        for process in processes.values():
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
