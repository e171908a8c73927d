"""Functions called in processes of their own: a crash, a hang or a leak ends there.

A server process imports TensorFlow once and never starts it. For every call it
forks a keeper, and the keeper forks the process that computes:

    caller -- socket --> server -- fork --> keeper -- fork --> function(*arguments)

A fork costs a few milliseconds, where a fresh Python imports for five seconds. The
keeper enforces the limits, tells the caller how it ended, and ends the computation
where the caller is gone, kill -9 included. What a function has started itself and
left running ends with it, and is not waited for.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from keras_mobilenets.errors import SearchStopped, UsageError

PRELOAD = ("keras_mobilenets.tuning.trial",)
POLL = 0.1  # seconds between two looks at the time, the memory and the process
LENGTH = struct.Struct("!Q")  # bytes of an answer, before it


class CallFailed(RuntimeError):
    """A call that did not return; the message says why, in one line.

    `__cause__` is the exception that was raised there, where there was one.
    """


class Server:
    """Calls functions in processes forked from one that has imported TensorFlow.

    Calls may come from several threads at a time. Functions, arguments and results
    are pickled; functions must be importable.

    Example:
        with Server() as server:
            server.call(math.factorial, 5, time_limit=10)
    """

    def __init__(self) -> None:
        if not hasattr(os, "fork"):  # Windows
            raise UsageError(
                "isolate=True needs processes that fork, which this system does not "
                "have: give isolate=False"
            )
        self._lock = threading.Lock()
        self._calls: set[socket.socket] = set()
        self._closed = False
        self._control, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()
        path = [os.path.abspath(entry) for entry in sys.path]
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is the caller's alone to answer
        )
        theirs.close()

    def call(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        time_limit: float | None = None,
        memory_limit: float | None = None,
        log: str | os.PathLike[str] | None = None,
    ) -> Any:
        """What `function(*arguments)` returns, computed in a process of its own.

        Args:
            time_limit: seconds after which it is ended.
            memory_limit: bytes of resident memory above which it is ended; needs
                Linux's /proc.
            log: a file that gets what it prints.

        Raises:
            CallFailed: it raised, crashed, or exceeded a limit.
            SearchStopped: the server ended, and nothing is known of the call.
        """
        request = pickle.dumps((function, arguments))
        ours, theirs = socket.socketpair()
        with ours, theirs, Connection(os.dup(ours.fileno())) as connection:
            try:
                with self._lock:
                    socket.send_fds(self._control, [b"."], [theirs.fileno()])
                    self._calls.add(ours)
                theirs.close()  # or the end of the keeper would not be noticed
                connection.send((time_limit, memory_limit, log and os.fspath(log)))
                connection.send_bytes(request)
                kind, value = connection.recv()
            except (EOFError, OSError) as error:
                raise SearchStopped(self._last_words()) from error
            except BaseException:  # Ctrl-C: nothing of it runs on when this returns
                with contextlib.suppress(EOFError, OSError):
                    ours.shutdown(socket.SHUT_WR)
                    connection.recv()
                raise
            finally:
                self._calls.discard(ours)
        if self._closed and kind == "ended":
            raise SearchStopped("the process that starts trials was closed")
        if kind == "returned":
            return pickle.loads(value)
        if kind == "raised":
            message, cause = pickle.loads(value)
            raise CallFailed(message) from cause
        raise CallFailed(value)

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "nothing")
        return f"the process that starts trials has ended; it said last: {last}"

    def close(self) -> None:
        """End the server, and with it everything that still computes."""
        with self._lock:
            self._closed = True
            self._control.close()
            for call in tuple(self._calls):  # its keeper ends it, its thread hears
                with contextlib.suppress(OSError):
                    call.shutdown(socket.SHUT_WR)
        self.process.terminate()  # it may still be importing
        self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(control: socket.socket) -> None:
    for module in PRELOAD:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers need no burial
    while True:
        _, fds, _, _ = socket.recv_fds(control, 1, 1)
        if not fds:  # the caller is gone
            return
        if not os.fork():
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _never_return(_keep, Connection(fds[0]))
        os.close(fds[0])


def _never_return(function: Callable[..., None], *arguments: Any) -> NoReturn:
    """Call it as the whole rest of a forked process."""
    status = 1
    try:
        function(*arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)  # what is to run at exit belongs to the server


def _keep(connection: Connection) -> None:
    """Start one call, watch it, and tell the caller how it ended."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with the call, not before
    time_limit, memory_limit, log = connection.recv()
    request = connection.recv_bytes()
    ours, theirs = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        connection.close()
        os.close(ours)
        _never_return(_compute, request, theirs, log)
    os.close(theirs)
    os.set_blocking(ours, False)
    answer = _Answer(ours)
    code: int | None = None
    stopped: str | None = None
    watched: list[Any] = [ours, connection]
    while not answer.complete and code is None and stopped is None:
        ready, _, _ = select.select(watched, [], [], POLL)
        # Before the answer is looked at: what it wrote before its end is there then.
        ended, status = os.waitpid(pid, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if ended else None
        answer.read()
        if connection in ready:  # the caller says no more, so it is gone
            stopped = "the caller is gone"
        elif time_limit is not None and time.monotonic() - started > time_limit:
            stopped = f"stopped after the time limit of {time_limit:g} s"
        elif memory_limit is not None and (taken := _resident(pid)) > memory_limit:
            stopped = (
                f"stopped for memory: {taken / 2**20:,.0f} MiB, above the limit of "
                f"{memory_limit / 2**20:,.0f} MiB"
            )
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # with what it started itself
    if code is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it may not have had a group yet
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):
        if answer.complete:
            connection.send(pickle.loads(answer.body))
        else:
            connection.send(("ended", stopped or _how(code)))


class _Answer:
    """What a call answers, complete or not; its length stands before it.

    The end of the pipe is no sign of the end of the answer: whatever the call has
    started and left running holds the other side of it.
    """

    def __init__(self, pipe: int):
        self._pipe, self._bytes = pipe, bytearray()

    def read(self) -> None:
        """Take what is there."""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._pipe, 1 << 20):
                self._bytes += part

    @property
    def body(self) -> bytes:
        return bytes(self._bytes[LENGTH.size :])

    @property
    def complete(self) -> bool:
        return (
            len(self._bytes) >= LENGTH.size
            and len(self._bytes) - LENGTH.size >= LENGTH.unpack_from(self._bytes)[0]
        )


def _how(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed by signal 9, as the system does where memory runs out"
    if code < 0:
        return f"crashed by signal {-code} ({signal.strsignal(-code)})"
    return f"ended with status {code} instead of returning"


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):  # it has just ended
        return 0


def _compute(request: bytes, answers: int, log: str | None) -> None:
    """The call itself; its answer goes to the keeper."""
    os.setsid()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory runs out, this process is the one to go
    if log is not None:
        with open(log, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    try:
        function, arguments = pickle.loads(request)
        answer = ("returned", pickle.dumps(function(*arguments)))
    except Exception as error:
        traceback.print_exc()
        message = " ".join(f"{type(error).__name__}: {error}".split())
        try:
            pickle.loads(raised := pickle.dumps((message, error)))
        except Exception:  # not every exception can travel
            raised = pickle.dumps((message, None))
        answer = ("raised", raised)
    sys.stdout.flush()
    sys.stderr.flush()
    body = pickle.dumps(answer)
    with os.fdopen(answers, "wb") as file:
        file.write(LENGTH.pack(len(body)) + body)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
