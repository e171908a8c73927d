"""`load_data`: from the name of a source to batches for `model.fit`."""

from __future__ import annotations

import dataclasses
import os

import tensorflow as tf
import tensorflow_datasets as tfds

from keras_mobilenets.architecture.arguments import check_integer, check_resolution
from keras_mobilenets.data.digits import prepared_digits
from keras_mobilenets.data.folder import folder_source
from keras_mobilenets.data.pipeline import (
    Epochs,
    Source,
    evaluation_batches,
    training_batches,
)
from keras_mobilenets.data.prepared import builder_source, tfds_source
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
    """A source of images as batches, prepared as the recipe says.

    `source`:

    - "digits": scikit-learn's handwritten digits, which need no download;
    - a TFDS name, such as "oxford_flowers102": downloaded and prepared if need be;
      its splits as `prepared.builder_source` says;
    - a folder of class folders, with or without train, validation and test folders
      above them, as `folder.folder_source` says. A bare word is a folder only if
      TFDS does not know it: write "./cifar10" for a folder of that name.

    `resolution` is the side of the network's input in pixels (at least 32) and
    `batch_size` the images of a step on all replicas together (default: the
    recipe's). `recipe` (a name or a `Recipe`; default "quick", which distorts
    nothing; "slim_v2" prepares as the papers do) gives the preprocessing and whether
    class 0 is a background class. `seed` (a whole number) decides order and
    distortions. `data_dir` is TFDS's directory of prepared datasets; folders do
    without.

    Small sets are kept in memory, up to `pipeline.MEMORY_BUDGET` bytes a split.
    ValueError if the source is unknown, cannot be prepared or has too few images, or
    if an argument is out of range.

    >>> data = load_data("digits", resolution=48)
    >>> data.classes[:3], data.steps_per_epoch
    (('0', '1', '2'), 44)
    >>> model.fit(data.train, epochs=10, validation_data=data.validation)
    """
    resolution = check_resolution(None, resolution)
    recipe = get_recipe("quick" if recipe is None else recipe)
    seed = check_integer("seed", seed, low=0)
    if seed >= 2**63:
        raise ValueError(f"seed must be below 2**63; got {seed}")
    batch_size = check_integer(
        "batch_size", recipe.batch_size if batch_size is None else batch_size, low=1
    )
    parts = _find(source, data_dir)
    if parts.train.count < batch_size:
        raise ValueError(
            f"batch_size must be at most the {parts.train.count} training images of "
            f"{os.fspath(source)!r}, as training batches are full; got {batch_size}"
        )
    classes, shift = parts.classes, 0
    if recipe.background_class:
        classes, shift = ("background", *classes), 1
    train, epochs = training_batches(
        parts.train, resolution, batch_size, recipe, seed, shift
    )
    validation, test = (
        evaluation_batches(part, resolution, batch_size, recipe, shift)
        for part in (parts.validation, parts.test)
    )
    return Splits(
        source=os.fspath(source),
        train=train,
        validation=validation,
        test=test,
        classes=classes,
        num_train=parts.train.count,
        num_validation=parts.validation.count,
        num_test=parts.test.count,
        resolution=resolution,
        batch_size=batch_size,
        steps_per_epoch=parts.train.count // batch_size,
        epochs=epochs,
    )


def _find(source: str | os.PathLike, data_dir: str | os.PathLike | None) -> Source:
    """The source of that name or at that path."""
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source):
        raise ValueError(
            f"source must be 'digits', a TFDS name or a folder; got {source!r}"
        )
    if source == "digits":
        return builder_source(prepared_digits(data_dir))
    is_path = isinstance(source, os.PathLike) or os.path.isabs(source)
    if is_path or source.startswith((".", "~")):
        return folder_source(source)
    if os.path.isdir(source) and source.split("/")[0] not in tfds.list_builders(
        with_community_datasets=False
    ):
        return folder_source(source)
    return tfds_source(source, data_dir)
