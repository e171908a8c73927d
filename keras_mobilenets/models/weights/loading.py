"""`load_weights`: from wherever they lie onto a network."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import keras

from keras_mobilenets.errors import UsageError
from keras_mobilenets.models.weights.applications import fetch_imagenet
from keras_mobilenets.models.weights.checkpoints import read_checkpoint
from keras_mobilenets.models.weights.keras_files import read_hdf5_file, read_keras_file
from keras_mobilenets.models.weights.litert import read_tflite
from keras_mobilenets.models.weights.pytorch import read_safetensors
from keras_mobilenets.models.weights.setting import Loaded, set_stored
from keras_mobilenets.models.weights.stored import Stored
from keras_mobilenets.weight_files import IMAGENET, find_weights

READERS: dict[str, Callable[[str], Stored]] = {
    "keras": read_keras_file,
    "hdf5": read_hdf5_file,
    "checkpoint": read_checkpoint,
    "safetensors": read_safetensors,
    "tflite": read_tflite,
}


def load_weights(model: keras.Model, weights: str | os.PathLike[str] | Any) -> Loaded:
    """Load weights into a model of `build`: all but a classifier of other classes.

    The file is checked whole before anything is set. No code that it may hold is run.

    Args:
        weights: "imagenet" (keras.applications' weights, downloaded), a `.keras`,
            `.weights.h5` or `.h5` file in which such a network is, the directory of a
            finished run, the prefix of one of the authors' TensorFlow checkpoints, a
            `.safetensors` file of timm or torchvision, or a `.tflite` file.

    Returns:
        What was loaded and what is new; `str` of it is one line.

    Raises:
        UsageError: there is no such file, it cannot be read, or it belongs to another
            network; the model is then as it was.

    >>> load_weights(build("mobilenet_v2", classes=5), "photos.keras").new
    ('logits',)
    """
    if find_weights(weights).kind == IMAGENET:
        file, notes = fetch_imagenet(model)
        stored, path = read_weights(file)
        stored = stored._replace(notes=(*notes, *stored.notes))
    else:
        stored, path = read_weights(weights)
    return set_stored(model, stored, path)


def read_weights(weights: str | os.PathLike[str] | Any) -> tuple[Stored, str]:
    """What a file holds, and its path.

    Raises:
        UsageError: there is no such file, or it cannot be read.
    """
    kind, path = find_weights(weights)
    try:
        return READERS[kind](os.fspath(path)), os.fspath(path)
    except Exception as error:  # of zip, HDF5, JSON or TensorFlow, as the damage has it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"weights file {str(path)!r} cannot be read: {reason}"
        ) from error
