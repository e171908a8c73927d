"""`load_data`: from the name of a source to batches for `model.fit`."""

from __future__ import annotations

import dataclasses
import os

import tensorflow as tf

from keras_mobilenets.architecture.arguments import check_integer, check_resolution
from keras_mobilenets.data.digits import prepared_digits
from keras_mobilenets.data.pipeline import (
    Epochs,
    evaluation_batches,
    training_batches,
)
from keras_mobilenets.data.prepared import prepared_source
from keras_mobilenets.recipe import Recipe, get_recipe


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """Batches to train on, to choose by and to report, and what they are.

    `train`, `validation` and `test` are `tf.data.Dataset`s of (float32 images
    [b, resolution, resolution, 3] in [-1, 1], int64 labels [b]). A pass over
    `train` is one epoch of `steps_per_epoch` full batches, in an order and with an
    augmentation that depend on (seed, epoch, image) only. `validation` and `test`
    hold every image once; their last batch may be short.
    """

    source: str
    train: tf.data.Dataset
    validation: tf.data.Dataset
    test: tf.data.Dataset
    classes: tuple[str, ...]
    num_train: int
    num_validation: int
    num_test: int
    resolution: int
    batch_size: int
    steps_per_epoch: int
    epochs: Epochs = dataclasses.field(repr=False)

    def set_epoch(self, epoch: int) -> None:
        """Make every following pass over `train` that epoch, counted from 0.

        Without it passes count themselves, so a look at a batch is a pass. Call it
        at the beginning of each epoch for a run that can be resumed.
        """
        self.epochs.set(check_integer("epoch", epoch, low=0))


def load_data(
    source: str | os.PathLike = "digits",
    *,
    resolution: int,
    batch_size: int | None = None,
    recipe: str | Recipe | None = None,
    seed: int = 0,
    data_dir: str | os.PathLike | None = None,
) -> Splits:
    """The digits as batches.

    >>> load_data("digits", resolution=48).classes[:3]
    ('0', '1', '2')
    """
    resolution = check_resolution(None, resolution)
    recipe = get_recipe("quick" if recipe is None else recipe)
    seed = check_integer("seed", seed, low=0)
    batch_size = check_integer(
        "batch_size", recipe.batch_size if batch_size is None else batch_size, low=1
    )
    parts, classes = prepared_source(prepared_digits(data_dir))
    shift = 0
    if recipe.background_class:
        classes, shift = ("background", *classes), 1
    train, epochs = training_batches(
        parts["train"], resolution, batch_size, recipe, seed, shift
    )
    validation, test = (
        evaluation_batches(parts[name], resolution, batch_size, recipe, shift)
        for name in ("validation", "test")
    )
    return Splits(
        source=os.fspath(source),
        train=train,
        validation=validation,
        test=test,
        classes=classes,
        num_train=parts["train"].count,
        num_validation=parts["validation"].count,
        num_test=parts["test"].count,
        resolution=resolution,
        batch_size=batch_size,
        steps_per_epoch=parts["train"].count // batch_size,
        epochs=epochs,
    )
