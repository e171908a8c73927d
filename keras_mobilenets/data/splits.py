"""`Splits`: what `load_data` gives."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mobilenets.architecture.arguments import check_integer
from keras_mobilenets.architecture.shapes import Resolution
from keras_mobilenets.data.index import Index
from keras_mobilenets.data.parts import Source, examples_at
from keras_mobilenets.data.pipeline import Epochs
from keras_mobilenets.data.preprocessing import eval_image
from keras_mobilenets.given import label_text
from keras_mobilenets.recipe import Recipe


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """Batches to train on, to choose by and to report, and what they are.

    `train`, `validation` and `test` are `tf.data.Dataset`s of (float32 images
    [b, height, width, channels] in [-1, 1], int64 labels [b]). A pass over
    `train` is one epoch of `steps_per_epoch` full batches, in an order and with an
    augmentation that depend on (seed, epoch, image) only. `validation` and `test`
    hold every image once; their last batch may be short, or padded: see
    `pad_evaluation` in `load_data`. `steps_per_epoch` counts batches of
    `batch_size`, those of all workers together.

    Where an image may have several labels, or none (`multi_label`), labels are float32
    [b, classes], 1 for those that it has and 0 for the others.

    `train_once` has the training images prepared as for evaluation, every one once, as
    `validation` has its own. Each of the four is made when it is first asked for.
    `enumerated` batches say which image is which; `names_of`
    and `images` tell more of those.

    `source` is the absolute path of a folder or a CSV file, the name, or what data in
    memory is known by ("arrays:" and a digest of it). `index` says which examples
    these are; saved, it gives the same splits again: see `Index`.

    `endless()` is `train` without an end: a pass goes from the position on through all
    following epochs. Under a strategy give it to `fit` with `steps_per_epoch`: where
    the data of several replicas end inside `fit`, Keras counts a step too many.
    `endless(anywhere=True)` begins at an epoch by chance, for processes that train
    each at its own pace.
    `undistorted()` has every training image once, in the order of their numbers, as an
    epoch shows it where the recipe distorts nothing; `endless(rows=...)` has rows of
    arrays with these numbers in the place of (images, labels), which a source that is
    not `numbered` cannot have.
    `for_worker(input_context)` are the splits that `load_data` gives with that
    `input_context`, without looking through the source again; `set_epoch` and
    `set_position` of either hold for both.
    """

    source: str
    classes: tuple[str, ...]
    num_train: int
    num_validation: int
    num_test: int
    resolution: Resolution
    channels: int
    batch_size: int
    steps_per_epoch: int
    class_weights: tuple[float, ...] | None  # without a background class
    multi_label: bool
    recipe: Recipe = dataclasses.field(repr=False)  # which prepares the images
    index: Index = dataclasses.field(repr=False)
    epochs: Epochs = dataclasses.field(repr=False)
    endless: Callable[..., tf.data.Dataset] = dataclasses.field(repr=False)
    for_worker: Callable[[tf.distribute.InputContext], Splits] = dataclasses.field(
        repr=False
    )
    undistorted: Callable[[], tf.data.Dataset] = dataclasses.field(repr=False)
    numbered: bool
    _once: Callable[..., tf.data.Dataset] = dataclasses.field(repr=False)
    _shuffled: Callable[[], tf.data.Dataset] = dataclasses.field(repr=False)
    _parts: Source = dataclasses.field(repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """Images of each split."""
        return {
            "train": self.num_train,
            "validation": self.num_validation,
            "test": self.num_test,
        }

    # Tracing a pipeline takes a second, and few need all of them. In an init_scope: a
    # dataset that is first asked for inside a tf.function would belong to its graph.

    @functools.cached_property
    def train(self) -> tf.data.Dataset:
        """Shuffled, distorted batches: a pass is an epoch."""
        with tf.init_scope():
            return self._shuffled()

    @functools.cached_property
    def validation(self) -> tf.data.Dataset:
        """Every validation image once."""
        with tf.init_scope():
            return self._once("validation")

    @functools.cached_property
    def test(self) -> tf.data.Dataset:
        """Every test image once."""
        with tf.init_scope():
            return self._once("test")

    @functools.cached_property
    def train_once(self) -> tf.data.Dataset:
        """Every training image once, prepared as for evaluation."""
        with tf.init_scope():
            return self._once("train")

    def enumerated(self, split: str) -> tf.data.Dataset:
        """Every image of a split once, padded: (images, labels, weights, numbers).

        The numbers, int64 [b], count the images of the split from 0; those of weight 0
        mean nothing.
        """
        return self._once(split, numbered=True)

    def names_of(self, split: str, numbers: Sequence[int]) -> list[str | int]:
        """The paths of images, or their numbers where they have no files."""
        part = getattr(self._parts, split)
        if not part.of_files:
            return list(numbers)
        found = {
            int(number): os.fsdecode(path.numpy())
            for number, (path, _) in examples_at(part, numbers)
        }
        return [found[number] for number in numbers]

    def images(self, split: str, numbers: Sequence[int]) -> list[np.ndarray]:
        """Images of a split by their numbers, prepared as for evaluation."""
        part = getattr(self._parts, split)
        found = {
            int(number): eval_image(
                part.decode(stored, None, self.channels == 4),
                self.resolution,
                self.recipe,
                self.channels,
            ).numpy()
            for number, (stored, _) in examples_at(part, numbers)
        }
        return [found[number] for number in numbers]

    def labels(self, split: str, numbers: Sequence[int]) -> list[int]:
        """Labels of images of a split by their numbers, as its batches have them."""
        shift = int(self.recipe.background_class)
        found = {
            int(number): int(label) + shift
            for number, (_, label) in examples_at(getattr(self._parts, split), numbers)
        }
        return [found[number] for number in numbers]

    def label_text(self, label: Any) -> str:
        """The class of a label, or all classes of one of several, as batches have it.

        >>> splits.label_text(np.array([1, 0, 1], np.float32))
        'cat|dog'
        """
        if not self.multi_label:
            return self.classes[int(label)]
        return label_text(tuple(self.classes[n] for n in np.flatnonzero(label)))

    @property
    def test_is_validation(self) -> bool:
        """Whether the source has no test split, so that validation stands in for it."""
        parts = self.index.as_dict()["parts"]
        return parts["test"] == parts["validation"]

    def set_epoch(self, epoch: int) -> None:
        """Make every following pass over `train` that epoch, counted from 0.

        Without it passes count themselves, so a look at a batch is a pass. Call it
        at the beginning of each epoch for a run that can be resumed.
        """
        self.set_position(epoch, 0)

    def set_position(self, epoch: int, step: int) -> None:
        """Make every following pass over `train` the rest of an epoch, from a step on.

        Both count from 0. The batches are those that the whole epoch has from `step`
        on; what lies before is skipped undecoded. For a run that was stopped inside
        an epoch; `set_epoch` at the beginning of the next makes passes whole again.
        `len(train)` remains that of a whole epoch, so `model.fit` warns at the end of
        the rest that the data ran out, and goes on with the next epoch.

        >>> data.set_position(2, 30)
        """
        self.epochs.set(
            check_integer("epoch", epoch, low=0),
            check_integer("step", step, low=0, high=self.steps_per_epoch - 1),
        )
