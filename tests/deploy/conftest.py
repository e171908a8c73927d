"""One small network, sure of its answers, and what it looks like as files."""

import keras
import pytest

import keras_mobilenets as km
from tests.deploy.networks import images, randomize

SMALL = {"alpha": 0.25, "resolution": 32, "classes": 5}
NAMES = ["cat", "dog", "naïve\n", "bird", "fish"]


@pytest.fixture(scope="module")
def model(few_blocks) -> keras.Model:
    made = randomize(km.build("mobilenet_v1", **SMALL))
    logits = made.get_layer("logits").kernel
    logits.assign(logits * 20)
    return made


@pytest.fixture(scope="module")
def calibration(model):
    return images(model, count=64)
