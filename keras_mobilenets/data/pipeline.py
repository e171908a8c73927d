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
    cropped,
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
    budget. `named` says that what is stored is a path.
    """

    examples: tf.data.Dataset
    count: int
    stored_bytes: int
    decode: Callable[[tf.Tensor, Box], tf.Tensor]
    named: bool = False


PARTS = ("train", "validation", "test")


class Source(NamedTuple):
    """What a source of images gives: three parts, and the names of the classes."""

    train: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]


class Epochs:
    """Where the next pass over the training data begins: epoch, and step of it.

    Passes count themselves from 0. `set` names the place of all following passes
    instead: exact under prefetching strategies, and for a resumed run.
    """

    def __init__(self) -> None:
        self._epoch = self._step = 0
        self._counting = True

    def set(self, epoch: int, step: int = 0) -> None:
        """Every pass that begins from now on is `epoch`, from `step` on."""
        self._epoch, self._step, self._counting = epoch, step, False

    def take(self) -> np.ndarray:
        """Epoch and step, int64 [2], of a pass that begins now."""
        place = np.array([self._epoch, self._step], np.int64)
        self._epoch += self._counting
        return place


class Running(NamedTuple):
    """How batches are made, whatever is in them.

    `batch_size` is that of all `workers` together, each of which gets `replicas`
    batches a step; this is the batches of number `worker`. `memory` is the bytes a
    split may take for its cache or its shuffle buffer. `threads` is the size of a
    thread pool of the dataset's own; None shares TensorFlow's.
    """

    batch_size: int
    memory: int = MEMORY_BUDGET
    threads: int | None = None
    worker: int = 0
    workers: int = 1
    replicas: int = 1

    @property
    def share(self) -> int:
        """The images of one batch of one replica."""
        return self.batch_size // (self.workers * self.replicas)

    def steps(self, count: int) -> int:
        """The full batches in so many images."""
        return count // self.batch_size


def training_batches(
    part: Part,
    resolution: int,
    recipe: Recipe,
    seed: int,
    shift: int,
    running: Running,
    epochs: Epochs | None,
    endless: bool = False,
) -> tf.data.Dataset:
    """Full, shuffled, augmented batches; a pass over them is one epoch.

    Gives (float32 [b, resolution, resolution, 3], int64 [b]); `epochs` says where a
    pass begins, and one that is `endless` goes on with the next epochs. None leaves
    that to chance, wherever the pass is made. `shift` is added to the labels. Several
    workers have the images of one worker's batch between them, step for step.
    """
    stored = _cached(part.examples, part, running).enumerate()
    buffer = max(1, min(part.count, running.memory // part.stored_bytes))
    steps = running.steps(part.count)

    def one_epoch(place: tf.Tensor) -> tf.data.Dataset:
        # tf.data mixes the global seed into its own; the global seed of this
        # function's graph is unset, so that the order depends on ours alone.
        tf.compat.v1.get_default_graph().seed = None
        epoch, step = place[0], place[1]
        key = tf.random.fold_in(tf.constant([seed, 0], tf.int64), epoch)
        order = tf.random.stateless_uniform([], key, minval=None, dtype=tf.int64)
        examples = (
            stored.shuffle(buffer, order, reshuffle_each_iteration=False)
            .take(steps * running.batch_size)
            .skip(step * running.batch_size)  # read, but not decoded
            .shard(running.workers, running.worker)
        )
        return tf.data.Dataset.zip(tf.data.Dataset.from_tensors(key).repeat(), examples)

    def example(key, indexed):
        index, (raw, label) = indexed
        key = tf.random.fold_in(key, index)
        image = part.decode(raw, train_box(key, recipe))
        image = after_train_box(image, key, resolution, recipe)
        return image, tf.cast(label, tf.int64) + shift

    def next_place(_):
        # Python state rather than a variable: it has no device and no strategy.
        return tf.ensure_shape(tf.numpy_function(epochs.take, [], tf.int64), [2])

    def and_the_next(place):
        later = tf.data.Dataset.range(place[0] + 1, tf.int64.max)
        later = later.map(lambda epoch: tf.stack([epoch, 0]))
        return tf.data.Dataset.from_tensors(place).concatenate(later)

    def any_place(_):
        # Without seeds, which would be the same in every process.
        low, high = tf.constant(0, tf.int64), tf.constant(2**40, tf.int64)
        epoch = tf.raw_ops.RandomUniformInt(
            shape=tf.zeros([0], tf.int32), minval=low, maxval=high
        )
        return tf.stack([epoch, 0])

    places = tf.data.Dataset.range(1).map(next_place if epochs else any_place)
    if endless:
        places = places.flat_map(and_the_next)
    batches = (
        places.flat_map(one_epoch)
        .map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(running.share, drop_remainder=True)
    )
    if not endless:
        batches = _of_length(batches, steps * running.replicas)
    return _finished(batches, running)


def evaluation_batches(
    part: Part,
    resolution: int,
    recipe: Recipe,
    shift: int,
    running: Running,
    pad: bool,
) -> tf.data.Dataset:
    """Every image of a split once, in a fixed order.

    The last batch may be short; with `pad` it is filled with black images, and each
    batch has a third part: weights, float32 [b], 1 for images and 0 for filling.
    """

    def example(raw, label):
        # Decoding three quarters of a JPEG takes longer than decoding all of it.
        image = cropped(part.decode(raw, None), eval_box(recipe))
        image = after_eval_box(image, resolution, recipe)
        return image, tf.cast(label, tf.int64) + shift

    stored = part.examples.apply(
        tf.data.experimental.assert_cardinality(part.count)
    ).shard(running.workers, running.worker)
    examples = _cached(stored, part, running).map(
        example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    if pad:
        steps = -(-part.count // running.batch_size)
        filling = (
            tf.zeros([resolution, resolution, 3]),
            tf.constant(shift, tf.int64),
            tf.constant(0.0),
        )
        missing = steps * running.share * running.replicas - len(examples)
        examples = examples.map(lambda image, label: (image, label, 1.0)).concatenate(
            tf.data.Dataset.from_tensors(filling).repeat(missing)
        )
    return _finished(examples.batch(running.share, drop_remainder=pad), running)


def _cached(stored: tf.data.Dataset, part: Part, running: Running) -> tf.data.Dataset:
    """The stored examples, in memory after the first pass if they fit the budget."""
    fits = part.count * part.stored_bytes <= running.memory
    return stored.cache() if fits else stored


def _of_length(batches: tf.data.Dataset, length: int) -> tf.data.Dataset:
    """`batches`, known to be `length` long, though a resumed pass is shorter.

    `assert_cardinality` would fail at the end of that pass. An empty dataset repeated
    for ever counts as infinite, and the first so many of infinitely many are known.
    """
    nothing = tf.nest.map_structure(
        lambda spec: tf.zeros(spec.shape, spec.dtype), batches.element_spec
    )
    nothing = tf.data.Dataset.from_tensors(nothing).filter(lambda *_: False).repeat()
    return batches.concatenate(nothing).take(length)


def _finished(batches: tf.data.Dataset, running: Running) -> tf.data.Dataset:
    """Prefetching, in order, and split by example where workers share a dataset."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
        if running.workers == 1
        else tf.data.experimental.AutoShardPolicy.OFF
    )
    if running.threads is not None:
        options.threading.private_threadpool_size = running.threads
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
