"""Sources that are images in memory: arrays, and what was read from a dataset."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mobilenets.data.dividing import Note, divide
from keras_mobilenets.data.parts import PARTS, Fetch, Part, Source
from keras_mobilenets.data.preprocessing import Box, cropped
from keras_mobilenets.errors import UsageError
from keras_mobilenets.given import Given

SIDES = 8  # bytes before the pixels of an image: its height and width, int32 each


def memory_source(
    given: Given, note: Note = lambda sentence, loses_images: None
) -> Source:
    """The source of these images, which are not copied.

    Which of them go where, if not all splits are there, and in which order,
    `dividing.divide` says: as in a folder whose class folders are named by the labels,
    with the files 00000000.png, 00000001.png, ... in the order that they were given.
    """
    numbered = {
        split: [(label, (split, n)) for n, label in enumerate(labels)]
        for split, labels in given.labels.items()
    }
    classes, parts, label_sets = divide(
        numbered, lambda item: f"{item[1]:08}.png", repr(str(given)), note
    )

    def describe() -> dict[str, Any]:
        return {
            "kind": "memory",
            "source": str(given),
            "classes": list(classes),
            "parts": {split: {"examples": len(parts[split])} for split in PARTS},
        }

    def part(split: str) -> Part:
        images = [given.items[came_from][n] for _, (came_from, n) in parts[split]]
        return _part(images, np.array([label for label, _ in parts[split]], np.int64))

    return Source(
        **{split: part(split) for split in PARTS},
        classes=classes,
        describe=describe,
        label_sets=label_sets,
    )


def indexed_memory_source(given: Given, index: dict[str, Any]) -> Source:
    """The source of these images. UsageError if an index is of others."""
    source = memory_source(given)
    now = source.describe()
    for key in ("source", "classes", "parts"):
        if now[key] != index[key]:
            raise UsageError(
                f"index {index['file']!r} is of {index['source']!r}, images in memory; "
                f"got {str(given)!r}: pass the same images and labels"
            )
    return source


def _part(images: Sequence[np.ndarray], labels: np.ndarray) -> Part:
    """Images of one number of channels stay so; else all are RGB, or RGBA if any is."""
    numbers = {image.shape[2] if image.ndim == 3 else 1 for image in images}
    channels = max(*numbers, 3) if len(numbers) > 1 else numbers.pop()

    def packed(chosen: np.ndarray) -> np.ndarray:
        return np.array([_packed(images[n], channels) for n in chosen], object)

    fetch: Fetch = lambda chosen: (  # noqa: E731
        packed(chosen), labels[chosen], np.ones(len(chosen), bool),
    )  # fmt: skip
    return Part(
        examples=lambda: tf.data.Dataset.from_tensor_slices(
            (packed(np.arange(len(images))), labels)
        ),
        count=len(images),
        decode=functools.partial(_unpacked, channels=channels),
        fetch=fetch,
        labels=labels,
    )


def _packed(image: np.ndarray, channels: int) -> bytes:
    """An image as one value of a dataset, whatever its size."""
    image = image.reshape(*image.shape[:2], -1)  # grey may be [h, w]
    if image.shape[2] == 1 < channels:
        image = np.repeat(image, 3, axis=2)
    if image.shape[2] == 3 < channels:
        image = np.pad(image, [(0, 0), (0, 0), (0, 1)], constant_values=255)
    return np.array(image.shape[:2], "<i4").tobytes() + image.tobytes()


def _unpacked(packed: tf.Tensor, box: Box, alpha: bool, *, channels: int) -> tf.Tensor:
    """uint8 [h, w, channels] again, whether alpha is asked for or not, or a part."""
    sides = tf.io.decode_raw(tf.strings.substr(packed, 0, SIDES), tf.int32)
    length = tf.strings.length(packed) - SIDES
    pixels = tf.io.decode_raw(tf.strings.substr(packed, SIDES, length), tf.uint8)
    return cropped(tf.reshape(pixels, [sides[0], sides[1], channels]), box)
