"""From stored examples to batches: order, augmentation, caching.

Which images a training batch holds, and how they are distorted, depends on the
seed, the epoch and the image's place in its split, on nothing else: not on the
number of threads, not on TensorFlow's global seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_mobilenets.data.preprocessing import (
    Box,
    after_eval_box,
    after_train_box,
    eval_box,
    train_box,
)
from keras_mobilenets.recipe import Recipe

MEMORY_BUDGET = 256 * 2**20  # bytes for the cache, or the shuffle buffer, of a split


@dataclasses.dataclass(frozen=True)
class Part:
    """One split of a source, in a fixed order.

    `examples` has (stored, label) pairs; `decode` turns what is stored (pixels,
    encoded bytes, a path) into the part of the uint8 image [h, w, channels] that a
    box takes. `stored_bytes` is the size of one stored example, for the memory
    budget.
    """

    examples: tf.data.Dataset
    count: int
    stored_bytes: int
    decode: Callable[[tf.Tensor, Box], tf.Tensor]


class Source(NamedTuple):
    """What a source of images gives: three parts, and the names of the classes."""

    train: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]


class Epochs:
    """The number of the epoch that the next pass over the training data will be.

    Passes count themselves from 0. `set` names the epoch of all following passes
    instead: exact under prefetching strategies, and for a resumed run.
    """

    def __init__(self) -> None:
        self._next = 0
        self._counting = True

    def set(self, epoch: int) -> None:
        """Every pass that begins from now on is `epoch`."""
        self._next, self._counting = epoch, False

    def take(self) -> np.int64:
        """The epoch of a pass that begins now."""
        epoch = self._next
        self._next += self._counting
        return np.int64(epoch)


def training_batches(
    part: Part, resolution: int, batch_size: int, recipe: Recipe, seed: int, shift: int
) -> tuple[tf.data.Dataset, Epochs]:
    """Full, shuffled, augmented batches; a pass over them is one epoch.

    Gives (float32 [batch_size, resolution, resolution, 3], int64 [batch_size]) and
    the epoch counter. `shift` is added to the labels.
    """
    epochs = Epochs()
    stored = _cached(part).enumerate()
    buffer = max(1, min(part.count, MEMORY_BUDGET // part.stored_bytes))

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        # tf.data mixes the global seed into its own; the global seed of this
        # function's graph is unset, so that the order depends on ours alone.
        tf.compat.v1.get_default_graph().seed = None
        key = tf.random.fold_in(tf.constant([seed, 0], tf.int64), epoch)
        order = tf.random.stateless_uniform([], key, minval=None, dtype=tf.int64)
        examples = stored.shuffle(buffer, order, reshuffle_each_iteration=False)
        return tf.data.Dataset.zip(tf.data.Dataset.from_tensors(key).repeat(), examples)

    def example(key, indexed):
        index, (raw, label) = indexed
        key = tf.random.fold_in(key, index)
        image = part.decode(raw, train_box(key, recipe))
        image = after_train_box(image, key, resolution, recipe)
        return image, tf.cast(label, tf.int64) + shift

    def next_epoch(_):
        # Python state rather than a variable: it has no device and no strategy.
        epoch = tf.numpy_function(epochs.take, [], tf.int64)
        epoch.set_shape([])
        return epoch

    batches = (
        tf.data.Dataset.range(1)
        .map(next_epoch)
        .flat_map(one_epoch)
        .map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size, drop_remainder=True)
    )
    steps = part.count // batch_size
    batches = batches.apply(tf.data.experimental.assert_cardinality(steps))
    return _finished(batches), epochs


def evaluation_batches(
    part: Part, resolution: int, batch_size: int, recipe: Recipe, shift: int
) -> tf.data.Dataset:
    """Every image of a split once, in a fixed order; the last batch may be short."""

    def example(raw, label):
        image = part.decode(raw, eval_box(recipe))
        image = after_eval_box(image, resolution, recipe)
        return image, tf.cast(label, tf.int64) + shift

    batches = (
        _cached(part)
        .apply(tf.data.experimental.assert_cardinality(part.count))
        .map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size)
    )
    return _finished(batches)


def _cached(part: Part) -> tf.data.Dataset:
    """The stored examples, in memory after the first pass if they fit the budget."""
    fits = part.count * part.stored_bytes <= MEMORY_BUDGET
    return part.examples.cache() if fits else part.examples


def _finished(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Prefetching, in order, and split by example where workers share a dataset."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
