"""Trials that go wrong on purpose, for tests in which other processes import them."""

import os
import signal
import time

from keras_mobilenets.tuning import trial as trials

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


def run_trial_misbehaving(task):
    """Goes wrong, except at alpha 0.25."""
    if task.settings.alpha in WRONG:
        WRONG[task.settings.alpha]()
    return trials.run_trial(task)


def score_without_training(task):
    """The machinery around a trial is at work, and nothing else."""
    return {"val_accuracy": task.settings.alpha}
