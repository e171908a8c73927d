"""A wish to stop: SIGTERM, Ctrl-C or a closed terminal ends a run between two steps.

No TensorFlow here: the command line listens while TensorFlow is still being imported.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from keras_mobilenets.errors import TrainingInterrupted

# SIGHUP comes when a terminal or its connection is closed; Windows has none.
SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP")
    if hasattr(signal, name)
)


class _StopNow(KeyboardInterrupt):
    """Leaves what has nothing to save yet; no `except Exception` holds it up."""


class StopRequest:
    """Whether somebody asked this process to stop: `wanted`.

    Until `deferred` a request leaves the block of `stop_requests` at once; within it
    the program looks at `wanted` where it can stop. A second Ctrl-C always is a
    KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._interrupts = 0
        self._deferred = False

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the block a request is only noted; one made before ends it at once."""
        before, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = before

    def _hear(self, number: int, frame: FrameType | None) -> None:
        first, self.wanted = not self.wanted, True
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
        if first and not self._deferred:
            raise _StopNow


_heard: StopRequest | None = None  # by the main thread, in the outermost block


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within the block signals to stop are requests; afterwards what they were before.

    Only the main thread hears signals; elsewhere the request is never made. A block
    in a block hears with the outer one. A signal that is ignored, as SIGHUP under
    nohup, stays so.

    Raises:
        TrainingInterrupted: asked to stop while nothing was deferred.

    Example:
        with stop_requests() as request:
            prepare()
            with request.deferred():
                while not request.wanted:
                    take_a_step()
    """
    global _heard
    if threading.current_thread() is not threading.main_thread():
        yield StopRequest()
        return
    if _heard is not None:
        yield _heard
        return
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        _heard = request
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, request._hear)
        yield request
    except _StopNow:
        raise TrainingInterrupted(
            "asked to stop, with nothing left to save: give the same command again to "
            "go on"
        ) from None
    finally:
        _heard = None
        for number, handler in before.items():
            # None: a handler of C, which Python cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def keeping_handlers() -> Iterator[None]:
    """Signals reach afterwards whom they reached before.

    TensorFlow's workers take SIGTERM for a notice of preemption, without a word to
    Python's handler and without an end of the process.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)
