"""Requests to stop, as processes get them; without TensorFlow."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from keras_mobilenets import stopping
from keras_mobilenets.errors import TrainingInterrupted
from keras_mobilenets.stopping import SIGNALS, keeping_handlers, stop_requests


@pytest.fixture(autouse=True)
def _the_same_handlers_afterwards():
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    after = [signal.getsignal(number) for number in SIGNALS]
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)
    assert after == before
    assert stopping._heard is None


def ask(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_start_is_left_at_once(number):
    cleaned = False
    with pytest.raises(TrainingInterrupted, match="nothing left to save"):  # noqa: PT012
        with stop_requests():
            try:
                ask(number)
                pytest.fail("went on")
            except Exception:
                pytest.fail("a handler of errors held it up")
            finally:
                cleaned = True
    assert cleaned


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_deferred_is_only_noted(number):
    with stop_requests() as request:
        assert not request.wanted
        with request.deferred():
            ask(number)
            assert request.wanted
            with request.deferred():
                assert request.wanted
        went_on = True  # such as the last files of a run
    assert went_on


def test_a_second_interrupt_is_at_once():
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with stop_requests() as request, request.deferred():
            ask(signal.SIGINT)
            ask(signal.SIGTERM)  # a scheduler repeats itself: no more than a wish
            ask(signal.SIGTERM)
            assert request.wanted
            ask(signal.SIGINT)


def test_a_second_signal_leaves_the_cleaning_alone():
    cleaned = False
    with pytest.raises(TrainingInterrupted), stop_requests():  # noqa: PT012
        try:
            ask()
        finally:
            ask()
            cleaned = True
    assert cleaned


def test_a_block_in_a_block_hears_with_the_outer_one():
    with stop_requests() as outer:
        with stop_requests() as inner, inner.deferred():
            ask()
        assert inner is outer
        assert outer.wanted


def test_interrupts_work_again_afterwards():
    with stop_requests() as request, request.deferred():
        ask(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        ask(signal.SIGINT)


def test_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_requests() as request:
            ask(signal.SIGHUP)
            assert not request.wanted
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_hear_nothing():
    heard = []

    def run():
        with stop_requests() as request:
            heard.append(request.wanted)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert heard == [False]


def test_handlers_are_kept():
    def handler(*_):
        pass

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with keeping_handlers():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_without_sighup():
    code = (
        "import signal; del signal.SIGHUP\n"  # as on Windows
        "from keras_mobilenets import cluster, stopping\n"
        "with stopping.stop_requests() as request: print(len(stopping.SIGNALS))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "2"
