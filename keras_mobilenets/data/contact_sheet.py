"""The contact sheet of `check_data`: images as the network sees them, by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_mobilenets.architecture.shapes import Resolution, sides
from keras_mobilenets.data.images import as_picture
from keras_mobilenets.data.parts import Part, Running, in_order
from keras_mobilenets.data.preprocessing import eval_image, train_image
from keras_mobilenets.recipe import Recipe
from keras_mobilenets.storage import replacing

ROWS, COLUMNS = 8, 8  # images, and epochs of each
GAP = 4  # pixels between them


def enumerate_stored(part: Part) -> tf.data.Dataset:
    """A split: (number, (stored, label)), with a third part where it is fetched."""
    return in_order(part, Running(1)) if part.fetch else part.examples().enumerate()


def draw_sheet(
    part: Part,
    labels: Sequence[tuple[int, ...]],
    resolution: Resolution,
    channels: int,
    recipe: Recipe,
    path: Path,
) -> None:
    """Write it: a row an image, for evaluation, then as it is in some epochs.

    `labels` are those of each image of the split; the first of a class is shown.
    """
    first: dict[int, int] = {}  # label: number of its first image
    for number, has in enumerate(labels):
        for label in has:
            if len(first) < ROWS:
                first.setdefault(label, number)
    chosen = sorted(set(first.values()))
    stored = enumerate_stored(part).filter(
        lambda number, *_: tf.reduce_any(number == tf.constant(chosen, tf.int64))
    )
    rows = []
    for number, (raw, _), *_ in stored.take(len(chosen)):
        image = part.decode(raw, None, channels == 4)
        seeds = [tf.stack([number, epoch]) for epoch in range(COLUMNS - 1)]
        rows.append(
            [
                eval_image(image, resolution, recipe, channels),
                *(
                    train_image(image, seed, resolution, recipe, channels)
                    for seed in seeds
                ),
            ]
        )
    pixels = np.rint((np.clip(rows, -1, 1) + 1) * 127.5).astype(np.uint8)
    framed = np.pad(
        pixels, [(0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0)], constant_values=255
    )
    height, width = (side + GAP for side in sides(resolution))
    sheet = framed.transpose(0, 2, 1, 3, 4)
    sheet = sheet.reshape(len(rows) * height, COLUMNS * width, channels)
    with replacing(path) as beside:
        as_picture(sheet[:-GAP, :-GAP]).save(beside, "PNG")
