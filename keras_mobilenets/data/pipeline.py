"""From stored examples to batches: order, augmentation, caching.

Which images a training batch holds, and how they are distorted, depends on the
seed, the epoch and the image's place in its split, on nothing else: not on the
number of threads, not on TensorFlow's global seed.
"""

from __future__ import annotations

import dataclasses
import os
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
PREFETCHED = 4  # batches that are ready before they are asked for
LOOKED_AT = 64  # examples that are checked at a time, where a source checks any

# From the places of some examples in their split to what is stored of them, their
# labels, and for each whether it is itself, not another in its place.
Check = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Part:
    """One split of a source, in a fixed order.

    `examples` has (stored, label) pairs; `decode` turns what is stored (pixels,
    encoded bytes, a path) into the part of the uint8 image [h, w, channels] that a
    box takes. `stored_bytes` is the size of one stored example, for the memory
    budget. `named` says that what is stored is a path. `check`, where there is one,
    is asked about every example just before it is decoded. `portion(number, of)`,
    where there is one, is the examples of one of so many consecutive portions, as
    equal as can be with the longer ones first, read without the others.
    """

    examples: tf.data.Dataset
    count: int
    stored_bytes: int
    decode: Callable[[tf.Tensor, Box], tf.Tensor]
    named: bool = False
    check: Check | None = None
    portion: Callable[[int, int], tf.data.Dataset] | None = None


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

    @property
    def parallel(self) -> int:
        """Images that are prepared at the same time."""
        if self.threads is not None:
            return self.threads
        if hasattr(os, "sched_getaffinity"):  # those that this process may use
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def steps(self, count: int) -> int:
        """The full batches in so many images."""
        return count // self.batch_size

    def holds(self, part: Part) -> bool:
        """Whether the stored examples of a split fit in the memory that it may take."""
        return part.count * part.stored_bytes <= self.memory

    def apart(self, part: Part) -> bool:
        """Whether each worker reads a portion of a split only, not all of it."""
        some_for_each = 1 < self.workers <= part.count
        return some_for_each and part.portion is not None and not self.holds(part)


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
    workers have the images of one worker's batch between them, step for step; or of a
    portion each, where they read apart.
    """
    stored = _cached(_numbered(part, running), part, running)
    steps = running.steps(part.count)
    workers, worker = running.workers, running.worker
    if running.apart(part):
        workers, worker = 1, 0  # among whom the examples that are read are dealt out
    step_size = running.batch_size // running.workers * workers  # of them
    buffer = max(1, min(part.count, running.memory // part.stored_bytes))

    def one_epoch(place: tf.Tensor) -> tf.data.Dataset:
        # tf.data mixes the global seed into its own; the global seed of this
        # function's graph is unset, so that the order depends on ours alone.
        tf.compat.v1.get_default_graph().seed = None
        epoch, step = place[0], place[1]
        key = tf.random.fold_in(tf.constant([seed, 0], tf.int64), epoch)
        drawn = tf.random.stateless_uniform([2], key, minval=None, dtype=tf.int64)
        examples = (
            stored.shuffle(buffer, drawn[0], reshuffle_each_iteration=False)
            .take(steps * step_size)
            .skip(step * step_size)  # read, but not decoded
            .shard(workers, worker)
        )
        keys = tf.data.Dataset.from_tensors(drawn[1]).repeat()
        if epochs:  # else perhaps in another process, without this one's Python
            examples = _checked(examples, part)
        return tf.data.Dataset.zip(keys, examples)

    def example(key, numbered):
        index, (raw, label) = numbered[:2]
        key = tf.stack([key, index])
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
        .map(example, num_parallel_calls=running.parallel, deterministic=True)
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
    steps = -(-part.count // running.batch_size)
    mine = len(range(running.worker, part.count, running.workers))
    filling = (
        tf.zeros([resolution, resolution, 3]),
        tf.constant(shift, tf.int64),
        tf.constant(0.0),
    )

    def example(_, stored, itself=True):
        raw, label = stored
        # Decoding three quarters of a JPEG takes no less than decoding all of it.
        image = cropped(part.decode(raw, None), eval_box(recipe))
        image = after_eval_box(image, resolution, recipe)
        label = tf.cast(label, tf.int64) + shift
        return (image, label, tf.cast(itself, tf.float32)) if pad else (image, label)

    stored = _numbered(part, running)
    if not running.apart(part):
        stored = stored.shard(running.workers, running.worker)
    examples = _checked(_cached(stored, part, running), part)
    if not pad and part.check:
        examples = examples.filter(lambda _, stored, itself: itself)
    examples = examples.map(
        example, num_parallel_calls=running.parallel, deterministic=True
    )
    if pad:
        missing = steps * running.share * running.replicas - mine
        filled = tf.data.Dataset.from_tensors(filling).repeat(missing)
        batches = examples.concatenate(filled).batch(running.share, drop_remainder=True)
        length = steps * running.replicas
    else:
        batches = examples.batch(running.share)
        length = -(-mine // running.share)
    return _finished(_of_length(batches, length), running)


def _numbered(part: Part, running: Running) -> tf.data.Dataset:
    """(place in the split, (stored, label)) of the examples that a worker reads."""
    if not running.apart(part):
        return part.examples.enumerate()
    size, longer = divmod(part.count, running.workers)
    first = running.worker * size + min(running.worker, longer)
    return part.portion(running.worker, running.workers).enumerate(first)


def _cached(stored: tf.data.Dataset, part: Part, running: Running) -> tf.data.Dataset:
    """The stored examples, in memory after the first pass if they fit the budget."""
    return stored.cache() if running.holds(part) else stored


def _checked(numbered: tf.data.Dataset, part: Part) -> tf.data.Dataset:
    """With a third part, if the split has a check: whether the example is itself."""
    if part.check is None:
        return numbered
    _, stored = numbered.element_spec
    types = [spec.dtype for spec in stored]

    def check(index, _):
        raw, label, itself = tf.numpy_function(part.check, [index], [*types, tf.bool])
        for values in (raw, label, itself):
            values.set_shape(index.shape)
        return index, (raw, label), itself

    return numbered.batch(LOOKED_AT).map(check).unbatch()


def _of_length(batches: tf.data.Dataset, length: int) -> tf.data.Dataset:
    """`batches`, known to be `length` long, though a pass may be shorter.

    A resumed one is; `assert_cardinality` would fail at its end. An empty dataset
    repeated for ever counts as infinite, and the first so many of infinitely many are
    known.
    """
    nothing = tf.nest.map_structure(
        lambda spec: tf.zeros([side or 0 for side in spec.shape], spec.dtype),
        batches.element_spec,
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
    # Autotuning can hold up the end of a pass until it wakes next, and its naps double.
    options.autotune.enabled = False
    return batches.prefetch(PREFETCHED).with_options(options)
