"""Calls in processes of their own: results, and every way not to return."""

import math
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from keras_mobilenets.errors import SearchStopped, UsageError
from keras_mobilenets.tuning.isolation import CallFailed, Server


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


def report_process():
    import tensorflow as tf

    return os.getpid(), os.getpgid(0), tf.reduce_sum([1, 2]).numpy()


def print_and_leave(status):
    print("the last words")
    os._exit(status)


def kill_self(signal_number):
    os.kill(os.getpid(), signal_number)


def raise_without_pickle():
    class Local(Exception):
        pass

    raise Local("cannot\ntravel")


def leave_a_child(seconds):
    return subprocess.Popen(["sleep", str(seconds)]).pid


def leave_a_fork(seconds):
    """Unlike another program it holds the pipe of the answer."""
    pid = os.fork()
    if not pid:
        time.sleep(seconds)
        os._exit(0)
    return pid


def leave_a_fork_and_crash(path, seconds):
    pathlib.Path(path).write_text(str(leave_a_fork(seconds)))
    os.kill(os.getpid(), signal.SIGSEGV)


def write_pid_and_hang(path):
    pathlib.Path(path).write_text(str(os.getpid()))
    signal.pause()


def fill_memory():
    blocks = []
    while True:
        blocks.append(bytearray(16 << 20))
        time.sleep(0.005)


def is_running(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] not in "ZX"


def wait_until(condition):
    """Long enough for TensorFlow to start on a machine that is busy."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_result(server):
    assert server.call(math.factorial, 20) == math.factorial(20)


def test_a_large_result(server):
    assert len(server.call(bytes, 5_000_000)) == 5_000_000


def test_every_call_has_a_process_in_which_tensorflow_starts(server):
    first, second = (server.call(report_process) for _ in range(2))
    assert first[2] == second[2] == 3
    assert len({first[0], second[0], server.process.pid, os.getpid()}) == 4
    assert first[0] == first[1]  # and a group, by which its children are found


def test_exception_is_the_cause(server):
    with pytest.raises(CallFailed, match="^ValueError: .*(domain|nonneg)") as failed:
        server.call(math.sqrt, -1)
    assert isinstance(failed.value.__cause__, ValueError)


def test_exception_that_cannot_travel(server):
    with pytest.raises(CallFailed, match="^Local: cannot travel$") as failed:
        server.call(raise_without_pickle)
    assert failed.value.__cause__ is None


@pytest.mark.parametrize(
    ("function", "argument", "message"),
    [
        (kill_self, signal.SIGSEGV, "crashed by signal 11 "),
        (kill_self, signal.SIGABRT, "crashed by signal 6 "),
        (kill_self, signal.SIGKILL, "killed by signal 9, .* memory"),
        (print_and_leave, 3, "ended with status 3"),
        (print_and_leave, 0, "ended with status 0 instead of returning"),
    ],
)
def test_crash(server, function, argument, message, tmp_path):
    with pytest.raises(CallFailed, match=message):
        server.call(function, argument, log=tmp_path / "log")
    assert server.call(abs, -1) == 1  # and the server goes on


def test_hang(server, tmp_path):
    pid = tmp_path / "pid"
    hang = f"echo $$ > '{pid}'; exec sleep 900"
    with pytest.raises(CallFailed, match="time limit of 3 s"):
        server.call(subprocess.call, ["sh", "-c", hang], time_limit=3)
    assert wait_until(lambda: not is_running(int(pid.read_text())))


def test_out_of_memory(server):
    limit = 1 << 30
    with pytest.raises(CallFailed, match=r"1,\d+ MiB, above the limit of 1,024 MiB"):
        server.call(fill_memory, memory_limit=limit, time_limit=300)
    assert server.call(abs, -1, memory_limit=limit) == 1


def test_children_of_a_call_end_with_it(server):
    pid = server.call(leave_a_child, 1000)
    assert wait_until(lambda: not is_running(pid))


@pytest.mark.parametrize("limit", [None, 600], ids=["", "time limit"])
def test_answer_does_not_wait_for_what_the_call_left_running(server, limit):
    started = time.monotonic()
    pid = server.call(leave_a_fork, 900, time_limit=limit)
    assert time.monotonic() - started < 300
    assert wait_until(lambda: not is_running(pid))


def test_crash_is_noticed_although_a_fork_lives(server, tmp_path):
    pid = tmp_path / "pid"
    with pytest.raises(CallFailed, match="crashed by signal 11"):
        server.call(leave_a_fork_and_crash, pid, 900)
    assert wait_until(lambda: not is_running(int(pid.read_text())))


def test_interrupted_call_leaves_nothing_running(server, tmp_path):
    """As by Ctrl-C; when the caller goes on, the process has ended."""
    pid = tmp_path / "pid"

    def interrupt():
        assert wait_until(lambda: pid.exists() and pid.read_text())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        server.call(write_pid_and_hang, pid)
    assert not is_running(int(pid.read_text()))
    assert server.call(abs, -1) == 1  # and the server goes on


def test_without_fork_says_what_to_do(monkeypatch):
    monkeypatch.delattr(os, "fork")
    with pytest.raises(UsageError, match="give isolate=False"):
        Server()


def test_log_gets_what_is_printed(server, tmp_path):
    with pytest.raises(CallFailed):
        server.call(math.sqrt, -1, log=tmp_path / "log")
    server.call(subprocess.call, ["echo", "hello"], log=tmp_path / "log")
    log = (tmp_path / "log").read_text()
    assert "Traceback" in log
    assert log.endswith("hello\n")


def test_calls_at_the_same_time(server):
    results = {}

    def call(number):
        results[number] = server.call(math.factorial, number)

    threads = [threading.Thread(target=call, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: math.factorial(n) for n in range(8)}


def test_close_ends_what_runs(tmp_path):
    pid, outcome = tmp_path / "pid", []
    server = Server()

    def call():
        with pytest.raises(SearchStopped):
            server.call(write_pid_and_hang, pid)
        outcome.append("gone")

    thread = threading.Thread(target=call)
    thread.start()
    assert wait_until(lambda: pid.exists() and pid.read_text())
    server.close()
    thread.join()
    assert outcome == ["gone"]
    assert wait_until(lambda: not is_running(int(pid.read_text())))


def test_killed_caller_leaves_nothing_running(tmp_path):
    pid = tmp_path / "pid"
    code = (
        "from keras_mobilenets.tuning.isolation import Server\n"
        "from tests.tuning.test_isolation import write_pid_and_hang\n"
        "server = Server()\n"
        "print(server.process.pid, flush=True)\n"
        f"server.call(write_pid_and_hang, {str(pid)!r})\n"
    )
    root = pathlib.Path(__file__).parents[2]
    caller = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root
    )
    server = int(caller.stdout.readline())
    assert wait_until(lambda: pid.exists() and pid.read_text())
    caller.kill()
    caller.wait()
    assert wait_until(lambda: not is_running(int(pid.read_text())))
    assert wait_until(lambda: not is_running(server))


def test_server_that_cannot_start_says_why(monkeypatch, tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('broken install')")
    monkeypatch.syspath_prepend(tmp_path)
    with Server() as server, pytest.raises(SearchStopped, match="broken install"):
        server.call(abs, -1)
