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
# are few, so that a run is worth only its tracing, most of which a search for EXIF
# would be.
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
    "exif_orientation": False,
    "verbose": False,
}


def make_arrays(images: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """`images` noisy images of each class, about 80 % of them for training."""
    random = np.random.default_rng(0)
    levels = np.repeat([60, 120, 180], images)
    pixels = random.normal(levels[:, None, None, None], 40, (len(levels), 32, 32, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8), np.repeat(CLASSES, images)


def make_folder(path: pathlib.Path, images: int = 50) -> pathlib.Path:
    """The same in files."""
    for number, (pixels, name) in enumerate(zip(*make_arrays(images), strict=True)):
        (path / name).mkdir(parents=True, exist_ok=True)
        file = path / name / f"{number % images}.png"
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
