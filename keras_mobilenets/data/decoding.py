"""Encoded images to pixels: whole or in part, and the right way up."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_mobilenets.data.headers import BMP, JPEG, PNG, RIFF
from keras_mobilenets.data.preprocessing import Box, cropped

EXIF, ORIENTATION = b"Exif\0\0", 0x112  # the segment, and the tag in it
SEGMENTS = 64  # of a JPEG, or chunks of a PNG, that are searched for EXIF
TAGS = 512  # of EXIF, that are searched for the orientation

# What is traced once for all pipelines of the process: most of what one takes to make.
ENCODED = [tf.TensorSpec([], tf.string)]


class Chunks(NamedTuple):
    """How a PNG or a WebP is made of chunks: length and kind, four bytes each."""

    first_at: int
    kind_at: int
    weights: tuple[int, ...]  # of the bytes of a length
    around: int  # bytes of a chunk beside those that its length counts
    multiple: int  # to which lengths are filled up
    exif: bytes
    last: bytes  # there is no EXIF behind


BIG = (1 << 24, 1 << 16, 1 << 8, 1)
PNG_CHUNKS = Chunks(8, 4, BIG, 12, 1, b"eXIf", b"IDAT")
RIFF_CHUNKS = Chunks(12, 0, BIG[::-1], 8, 2, b"EXIF", b"\0\0\0\0")


def decode(
    encoded: tf.Tensor,
    box: Box = None,
    alpha: bool = False,
    *,
    bmp: bool = True,
    exif: bool = False,
) -> tf.Tensor:
    """The uint8 RGB image [h, w, 3] in an encoded one, or the part that a box takes.

    Of a JPEG only that part is decoded; the pixels are those of the whole image. Of
    an animation it is the first frame, of 16 bits the upper 8. Alpha is dropped; with
    `alpha` it is kept [h, w, 4], and what has none (all JPEGs and GIFs) is opaque.
    `bmp=False`, for a pipeline without BMP images, leaves out a call of Python that
    slows all of it down, though it is never made. `exif` turns an image as its EXIF
    orientation says, before the box is laid.

    InvalidArgumentError for what is no image, and for an animated WebP.

    >>> decode(tf.io.read_file("cat.jpg"), eval_box(recipes["slim_v2"]))
    """
    is_jpeg = _begins(encoded, JPEG)
    upright, turned = is_jpeg, tf.constant(1)
    if exif:
        turned = exif_orientation(encoded)
        upright = is_jpeg & tf.equal(turned, 1)

    def whole() -> tf.Tensor:
        image = _whole(encoded, bmp, alpha)
        return turn(image, turned) if exif else image

    if box is None:
        image = whole()
    else:
        image = tf.cond(
            upright,
            lambda: _jpeg_part(encoded, box, alpha),
            lambda: cropped(whole(), box),
        )
    image.set_shape([None, None, 4 if alpha else 3])
    return image


def _begins(encoded: tf.Tensor, start: bytes) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, len(start)), start)


def _jpeg_part(encoded: tf.Tensor, box: Callable[..., Any], alpha: bool) -> tf.Tensor:
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
    part = part[:, left - first : left - first + width]
    return _opaque(part) if alpha else part


def _opaque(image: tf.Tensor) -> tf.Tensor:
    """A uint8 image of three channels or four, with four."""
    return tf.pad(image, [[0, 0], [0, 0], [0, 1]], constant_values=255)[..., :4]


def _whole(encoded: tf.Tensor, bmp: bool, alpha: bool) -> tf.Tensor:
    any_but_bmp = functools.partial(_rgba if alpha else _rgb, encoded)
    if not bmp:
        return any_but_bmp()
    return tf.cond(
        _begins(encoded, BMP),
        # As numbers: text would lose the zeros at its end on the way.
        lambda: tf.numpy_function(
            functools.partial(_bmp, mode="RGBA" if alpha else "RGB"),
            [tf.io.decode_raw(encoded, tf.uint8)],
            tf.uint8,
        ),
        any_but_bmp,
    )


@tf.function(input_signature=ENCODED, autograph=False)
def _rgb(encoded: tf.Tensor) -> tf.Tensor:
    return tf.cond(
        _begins(encoded, RIFF),
        lambda: _webp(encoded, alpha=False),
        lambda: _decoded(encoded),
    )


@tf.function(input_signature=ENCODED, autograph=False)
def _rgba(encoded: tf.Tensor) -> tf.Tensor:
    def no_webp() -> tf.Tensor:
        return tf.cond(
            _begins(encoded, PNG),
            lambda: _png(encoded),
            lambda: _opaque(_decoded(encoded)),
        )

    return tf.cond(_begins(encoded, RIFF), lambda: _webp(encoded, alpha=True), no_webp)


def _decoded(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def _png(encoded: tf.Tensor) -> tf.Tensor:
    """The RGBA image in a PNG, opaque where it says nothing of alpha."""
    header = tf.strings.substr(encoded, 24, 2)
    bits, kind = tf.unstack(tf.io.decode_raw(header, tf.uint8, fixed_length=2))

    def others() -> tf.Tensor:
        image = tf.io.decode_png(encoded, channels=4)
        # TensorFlow's filling is 1, 3 or 15 where there are so few bits a pixel; alpha
        # that such an image does have is 0 or 255.
        filling = tf.bitwise.left_shift(1, tf.minimum(tf.cast(bits, tf.int32), 8)) - 1
        alpha = image[..., 3:]
        is_filling = tf.equal(tf.cast(alpha, tf.int32), filling)
        return tf.concat(
            [image[..., :3], tf.where(is_filling, tf.constant(255, tf.uint8), alpha)],
            -1,
        )

    return tf.cond(
        tf.equal(kind, 3),  # a palette, of three channels or four
        lambda: _opaque(tf.io.decode_png(encoded, channels=0)),
        others,
    )


def _webp(encoded: tf.Tensor, alpha: bool) -> tf.Tensor:
    head = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=21), tf.int32)
    extended = tf.reduce_all(head[12:16] == list(b"VP8X"))
    still = tf.debugging.assert_equal(
        extended & (head[20] & 2 > 0), False, "an animated WebP image is not read"
    )
    # TensorFlow 2.21 writes past its memory for an animation, and fails where three
    # channels are asked of an image that has four.
    with tf.control_dependencies([still] if still is not None else []):
        image = tf.io.decode_webp(tf.identity(encoded), channels=0)[0]
    return _opaque(image) if alpha else image[..., :3]


def _bmp(encoded: np.ndarray, mode: str) -> np.ndarray:
    # TensorFlow takes the colour numbers of a BMP with a palette for grey.
    with Image.open(io.BytesIO(encoded.tobytes())) as image:
        return np.asarray(image.convert(mode))


@tf.function(input_signature=ENCODED, autograph=False)
def exif_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG, PNG or WebP, int32, 1 (upright, or none) to 8.

    TensorFlow operations only, so that it works in a pipeline without Python.

    >>> int(exif_orientation(tf.io.read_file("phone.jpg")))
    6
    """
    start = tf.case(
        [
            (_begins(encoded, JPEG), lambda: _in_segments(encoded)),
            (_begins(encoded, PNG), lambda: _in_chunks(encoded, PNG_CHUNKS)),
            (_begins(encoded, RIFF), lambda: _in_chunks(encoded, RIFF_CHUNKS)),
        ],
        default=lambda: tf.constant(0),
    )
    return tf.cond(
        start > 0, lambda: _orientation(encoded, start), lambda: tf.constant(1)
    )


def _values(encoded: tf.Tensor, at: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """So many bytes from there on, as numbers; zeros beyond the end."""
    at = tf.clip_by_value(at, 0, tf.strings.length(encoded))
    piece = tf.strings.substr(encoded, at, count)
    return tf.cast(tf.io.decode_raw(piece, tf.uint8, fixed_length=count), tf.int32)


def _in_segments(encoded: tf.Tensor) -> tf.Tensor:
    """Where the EXIF of a JPEG begins; 0 if it has none."""
    size = tf.strings.length(encoded)

    def next_segment(at: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        head = _values(encoded, at, 4 + len(EXIF))
        application = (head[0] == 0xFF) & ((head[1] & 0xF0 == 0xE0) | (head[1] == 0xFE))
        found = (head[1] == 0xE1) & tf.reduce_all(head[4:] == list(EXIF))
        later = at + 2 + head[2] * 256 + head[3]
        return tf.where(application, later, size), tf.where(found, at + 10, 0)

    return _walk(next_segment, 2, size)


def _in_chunks(encoded: tf.Tensor, chunks: Chunks) -> tf.Tensor:
    """Where the EXIF of a PNG or a WebP begins; 0 if it has none."""
    size = tf.strings.length(encoded)

    def next_chunk(at: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        head = _values(encoded, at, 8)
        kind = head[chunks.kind_at : chunks.kind_at + 4]
        parts = tf.cast(head[4 - chunks.kind_at : 8 - chunks.kind_at], tf.int64)
        length = tf.reduce_sum(parts * tf.constant(chunks.weights, tf.int64))
        length = tf.cast(tf.minimum(length, tf.cast(size, tf.int64)), tf.int32)
        later = at + chunks.around + length + length % chunks.multiple
        last = tf.reduce_all(kind == list(chunks.last))
        # Some writers put the start of JPEG's segment here, too.
        prefix = tf.reduce_all(_values(encoded, at + 8, len(EXIF)) == list(EXIF))
        begins = at + 8 + tf.where(prefix, len(EXIF), 0)
        found = tf.reduce_all(kind == list(chunks.exif))
        return tf.where(last, size, later), tf.where(found, begins, 0)

    return _walk(next_chunk, chunks.first_at, size)


def _walk(step: Callable[..., Any], first: int, size: tf.Tensor) -> tf.Tensor:
    """What `step` from part to part finds, before the end."""
    _, start = tf.while_loop(
        lambda at, found: (found == 0) & (at < size),
        step,
        (tf.constant(first), tf.constant(0)),
        maximum_iterations=SEGMENTS,
    )
    return start


def _orientation(encoded: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """The orientation in the EXIF that begins there."""
    little = _values(encoded, start, 1)[0] == ord("I")

    def number(pairs: tf.Tensor) -> tf.Tensor:
        """Of 16 bits, in the byte order of the file."""
        first, second = pairs[..., 0], pairs[..., 1]
        return tf.where(little, first + 256 * second, 256 * first + second)

    # The directory is near: the upper half of its offset is not looked at.
    offset = number(_values(encoded, start + tf.where(little, 4, 6), 2))
    tags = tf.minimum(number(_values(encoded, start + offset, 2)), TAGS)
    table = _values(encoded, start + offset + 2, tags * 12)
    table = tf.reshape(table, [tags, 12])
    named = tf.equal(number(table[:, :2]), ORIENTATION)
    value = tf.reduce_max(
        tf.concat([tf.where(named, number(table[:, 8:10]), 0), [1]], 0)
    )
    return tf.where(value > 8, 1, value)


def turn(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """An image [h, w, c] as its EXIF orientation (1 to 8) wants it shown."""

    def when(
        numbers: range | tuple[int, ...], change: Callable[..., Any], image: tf.Tensor
    ) -> tf.Tensor:
        wanted = tf.reduce_any(tf.equal(orientation, list(numbers)))
        return tf.cond(wanted, lambda: change(image), lambda: image)

    image = when(range(5, 9), lambda x: tf.transpose(x, [1, 0, 2]), image)
    image = when((2, 3, 6, 7), lambda x: tf.reverse(x, [1]), image)
    return when((3, 4, 7, 8), lambda x: tf.reverse(x, [0]), image)


def read_image(
    path: tf.Tensor,
    box: Box = None,
    alpha: bool = False,
    *,
    bmp: bool = True,
    exif: bool = False,
) -> tf.Tensor:
    """As `decode`, the image in a file."""
    return decode(tf.io.read_file(path), box, alpha, bmp=bmp, exif=exif)
