"""Image files."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_mobilenets.architecture.arguments import check_resolution
from keras_mobilenets.data.preprocessing import Box, cropped, eval_image
from keras_mobilenets.errors import UsageError
from keras_mobilenets.recipe import Recipe, get_recipe

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")  # what decode_image reads


JPEG = b"\xff\xd8\xff"  # how such a file begins, whatever its name says
BMP = b"BM"


def decode(encoded: tf.Tensor, box: Box = None, bmp: bool = True) -> tf.Tensor:
    """The uint8 RGB image [h, w, 3] in an encoded one, or the part that a box takes.

    Of a JPEG only that part is decoded; the pixels are those of the whole image. Of
    an animation it is the first frame, of 16 bits the upper 8; alpha is dropped.
    `bmp=False`, for a pipeline without BMP images, leaves out a call of Python that
    slows all of it down, though it is never made.
    """
    begins = tf.strings.substr(encoded, 0, len(JPEG))
    if box is not None:
        image = tf.cond(
            begins == JPEG,
            lambda: _jpeg_part(encoded, box),
            lambda: cropped(decode(encoded, None, bmp), box),
        )
    else:
        image = _whole(encoded, bmp)
    image.set_shape([None, None, 3])
    return image


def _jpeg_part(encoded: tf.Tensor, box: Box) -> tf.Tensor:
    shape = tf.io.extract_jpeg_shape(encoded)
    begin, size = box(shape)
    (top, left), (height, width) = tf.unstack(begin[:2]), tf.unstack(size[:2])
    # libjpeg interpolates halved colours between neighbouring columns: with one more
    # on either side the columns of the part have the neighbours of the whole image.
    first = tf.maximum(left - 1, 0)
    end = tf.minimum(left + width + 1, shape[1])
    part = tf.image.decode_and_crop_jpeg(
        encoded, tf.stack([top, first, height, end - first]), channels=3
    )
    return part[:, left - first : left - first + width]


def _whole(encoded: tf.Tensor, bmp: bool) -> tf.Tensor:
    if not bmp:
        return tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image = tf.cond(
        tf.strings.substr(encoded, 0, len(BMP)) == BMP,
        # As numbers: text would lose the zeros at its end on the way.
        lambda: tf.numpy_function(
            _bmp, [tf.io.decode_raw(encoded, tf.uint8)], tf.uint8
        ),
        lambda: _whole(encoded, bmp=False),
    )
    image.set_shape([None, None, 3])
    return image


def _bmp(encoded: np.ndarray) -> np.ndarray:
    # TensorFlow takes the colour numbers of a BMP with a palette for grey.
    with Image.open(io.BytesIO(encoded.tobytes())) as image:
        return np.asarray(image.convert("RGB"))


def read_image(path: tf.Tensor, box: Box = None, bmp: bool = True) -> tf.Tensor:
    """As `decode`, the image in a file."""
    return decode(tf.io.read_file(path), box, bmp)


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
        raise UsageError(
            f"path must be an image file; got the folder {str(path)!r}; give the "
            "files in it"
        )
    if not file.exists():
        raise UsageError(
            f"path must be an image file; {str(path)!r} does not exist (looked in "
            f"{file.absolute().parent})"
        )
    try:
        image = read_image(str(file))
    except (tf.errors.OpError, ValueError) as error:
        raise UsageError(
            f"path must be a JPEG, PNG, BMP or GIF image; {str(path)!r} cannot be "
            f"read as one ({str(error).splitlines()[0]})"
        ) from error
    return eval_image(image, resolution, recipe)
