"""A folder of noise, and the settings of runs on it that take seconds."""

import os
import pathlib
import signal
from typing import Any

import keras
import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.training import job
from keras_mobilenets.training.callbacks import Follow

CLASSES = ("dark", "grey", "light")

# Images whose every channel varies: float32 then loses nothing to batch norm. Steps
# are few, so that a run is worth only its tracing.
RUN = {
    "name": "mobilenet_v1",
    "alpha": 0.25,
    "resolution": 32,
    "shallow": True,
    "recipe": "quick",
    "warmup_epochs": 0,
    "dropout": 0.0,
    "epochs": 2,
    "batch_size": 16,
    "batch_norm_momentum": 0.5,
    "verbose": False,
}


def make_folder(path: pathlib.Path, images: int = 50) -> pathlib.Path:
    """`images` noisy images of each class, about 80 % of them for training."""
    random = np.random.default_rng(0)
    for level, name in zip((60, 120, 180), CLASSES, strict=True):
        (path / name).mkdir(parents=True)
        for number in range(images):
            pixels = np.clip(random.normal(level, 40, (32, 32, 3)), 0, 255)
            file = path / name / f"{number}.png"
            keras.utils.save_img(file, pixels, scale=False)
    return path


def train_until(stop_after: int | None, **options: Any) -> Any:
    """`km.train`; this process gets a SIGTERM after so many steps."""

    class Stop(Follow):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if self.position.steps == stop_after:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "Follow", Stop)
        return km.train(**options)
