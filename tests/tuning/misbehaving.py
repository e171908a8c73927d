"""A hypermodel whose trials go wrong on purpose: with processes, in the tests."""

import os
import signal
import time

from keras_mobilenets.tuning.hypermodel import HyperMobileNet

CRASH, HANG, EAT, RAISE, GOOD = 0.1, 0.15, 0.2, 0.22, 0.25  # by alpha


def eat():
    blocks = []
    while True:
        blocks.append(bytearray(16 << 20))
        time.sleep(0.005)


def fail():
    raise ValueError("no such luck")


WRONG = {
    CRASH: lambda: os.kill(os.getpid(), signal.SIGSEGV),
    HANG: signal.pause,
    EAT: eat,
    RAISE: fail,
}


class Misbehaving(HyperMobileNet):
    """Builds a network only at alpha 0.25."""

    def build(self, hp):
        alpha = self.space.declare(hp)["alpha"]
        if alpha in WRONG:
            WRONG[alpha]()
        return super().build(hp)
