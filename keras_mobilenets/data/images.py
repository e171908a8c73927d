"""Image files."""

from __future__ import annotations

import os
from pathlib import Path

import tensorflow as tf

from keras_mobilenets.architecture.arguments import check_resolution
from keras_mobilenets.data.preprocessing import eval_image
from keras_mobilenets.recipe import Recipe, get_recipe

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")  # what decode_image reads


def read_image(path: tf.Tensor) -> tf.Tensor:
    """The uint8 RGB image [h, w, 3] in a file; of an animation, the first frame."""
    image = tf.io.decode_image(
        tf.io.read_file(path), channels=3, expand_animations=False
    )
    image.set_shape([None, None, 3])
    return image


def load_image(
    path: str | os.PathLike, resolution: int, recipe: str | Recipe = "quick"
) -> tf.Tensor:
    """One image file as a network expects it, prepared as for evaluation.

    Returns float32 [resolution, resolution, 3] in [-1, 1]. ValueError if the file is
    missing, is a folder or is not a JPEG, PNG, BMP or GIF image.

    >>> model.predict(load_image("cat.jpg", 224, "slim_v2")[None])
    """
    resolution = check_resolution(None, resolution)
    recipe = get_recipe(recipe)
    file = Path(path).expanduser()
    if file.is_dir():
        raise ValueError(
            f"path must be an image file; got the folder {str(path)!r}; give the "
            "files in it"
        )
    if not file.exists():
        raise ValueError(
            f"path must be an image file; {str(path)!r} does not exist (looked in "
            f"{file.absolute().parent})"
        )
    try:
        image = read_image(str(file))
    except (tf.errors.OpError, ValueError) as error:
        raise ValueError(
            f"path must be a JPEG, PNG, BMP or GIF image; {str(path)!r} cannot be "
            f"read as one ({str(error).splitlines()[0]})"
        ) from error
    return eval_image(image, resolution, recipe)
