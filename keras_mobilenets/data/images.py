"""One image file, as a network expects it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_mobilenets.architecture.arguments import check_channels, check_resolution
from keras_mobilenets.architecture.shapes import Resolution
from keras_mobilenets.data.checking import problem, read_regular
from keras_mobilenets.data.decoding import decode
from keras_mobilenets.data.preprocessing import eval_image
from keras_mobilenets.errors import UsageError
from keras_mobilenets.recipe import Recipe, get_recipe


def load_image(
    path: str | os.PathLike,
    resolution: Resolution,
    recipe: str | Recipe = "quick",
    channels: int = 3,
) -> tf.Tensor:
    """One image file as a network expects it, prepared as for evaluation.

    Returns float32 [height, width, channels] in [-1, 1]. Whatever its name says, it
    may be JPEG, PNG, BMP, GIF (the first frame) or WebP (unless animated).

    UsageError if the file is missing, is not a regular file, is no image, or would be
    larger than 2**28 bytes once decoded (see `checking.problem`).

    >>> model.predict(load_image("cat.jpg", 224, "slim_v2")[None])
    """
    resolution = check_resolution(None, resolution)
    channels = check_channels(channels)
    recipe = get_recipe(recipe)
    if not isinstance(path, (str, os.PathLike)):
        raise UsageError(f"path must be an image file; got {path!r}")
    try:
        file = Path(path).expanduser()
    except RuntimeError as error:  # ~nobody
        raise UsageError(
            f"path must be an image file; got {path!r} ({error})"
        ) from error
    try:
        encoded = read_regular(os.fspath(file))
    except OSError as error:
        gone = isinstance(error, FileNotFoundError)
        reason = "does not exist" if gone else f"cannot be read: {error.strerror}"
        raise UsageError(
            f"path must be an image file; {os.fspath(path)!r} {reason} (looked in "
            f"{os.fspath(file.absolute().parent)!r})"
        ) from error
    except ValueError as error:  # of the path, or no regular file
        raise UsageError(
            f"path must be an image file; {os.fspath(path)!r}: {error}"
        ) from error
    broken = problem(encoded)
    if broken:
        raise UsageError(
            f"path must be an image file; {os.fspath(path)!r} cannot be read as one "
            f"({broken})"
        )
    image = decode(
        tf.constant(encoded), alpha=channels == 4, exif=recipe.exif_orientation
    )
    return eval_image(image, resolution, recipe, channels)


def as_picture(pixels: np.ndarray) -> Image.Image:
    """A grey, RGB or RGBA picture of uint8 [h, w, 1, 3 or 4].

    >>> as_picture(np.zeros([8, 8, 1], np.uint8)).mode
    'L'
    """
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
