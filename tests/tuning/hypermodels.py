"""Hypermodels for the tests that other processes can import."""

import os
import signal
import time

import keras

import keras_mobilenets as km
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
    """Goes wrong on purpose, except at alpha 0.25."""

    def build(self, hp):
        alpha = self.space.declare(hp)["alpha"]
        if alpha in WRONG:
            WRONG[alpha]()
        return super().build(hp)


class Smallest(HyperMobileNet):
    """One dense layer instead of a network: the machinery around it is at work."""

    def build(self, hp):
        image = keras.Input([self.space.declare(hp)["resolution"]] * 2 + [3])
        x = keras.layers.Flatten()(image)
        model = keras.Model(image, keras.layers.Dense(10, "softmax")(x))
        return km.compile(model, self.recipe(hp), steps_per_epoch=1)
