"""From stored examples to batches: order, augmentation, caching.

Which images a training batch holds, and how they are distorted, depends on the
seed, the epoch and the image's place in its split, on nothing else: not on the
number of threads, not on TensorFlow's global seed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_mobilenets.data.order import permutation, shards_at_once, stretches
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
FETCHED = 64  # examples that are fetched by their numbers at a time

# From the numbers of some examples of a split to what is stored of them, their
# labels, and for each whether it is itself, not another in its place.
Fetch = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Shards:
    """The files of a split that is read in order, not by number.

    `lengths` are their examples; `read(shard, first, count)` gives so many
    (stored, label) of one of them, from the first on.
    """

    lengths: tuple[int, ...]
    read: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.data.Dataset]


@dataclasses.dataclass(frozen=True)
class Part:
    """One split of a source: `count` examples, numbered from 0.

    `examples()` has their (stored, label) pairs in order, and needs no Python. `decode`
    turns what is stored (pixels, encoded bytes, a path) into the part of the uint8
    image [h, w, channels] that a box takes. How they are read in another order:

    - by `fetch`, from numbers, if there is one; what is stored is then a path;
    - from `shards`, if there are any, through a buffer of `buffer` examples: the split
      is larger than the memory budget;
    - else all of them are kept in memory.
    """

    examples: Callable[[], tf.data.Dataset]
    count: int
    decode: Callable[[tf.Tensor, Box], tf.Tensor]
    fetch: Fetch | None = None
    shards: Shards | None = None
    buffer: int = 1


PARTS = ("train", "validation", "test")


class Source(NamedTuple):
    """What a source of images gives: three parts, and the names of the classes.

    `describe` says which examples these are, ready for JSON: see `data.index`.
    """

    train: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]
    describe: Callable[[], dict[str, Any]]


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
    batches a step; this is the batches of number `worker`. `threads` is the size of a
    thread pool of the dataset's own; None shares TensorFlow's.
    """

    batch_size: int
    threads: int | None = None
    worker: int = 0
    workers: int = 1
    replicas: int = 1

    @property
    def replica_batch_size(self) -> int:
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
    that to chance, wherever the pass is made, which may be in a process without this
    one's Python. `shift` is added to the labels. Several workers have the images of
    one worker's batch between them, step for step; or of a portion each, where a split
    is read from its shards.
    """
    steps = running.steps(part.count)

    if part.shards:
        examples_of = _shuffled_shards(part, seed, running, by_chance=epochs is None)
    elif part.fetch and epochs:
        examples_of = _shuffled_numbers(part, seed, running)
    else:
        examples_of = _shuffled_memory(part, running)

    def one_epoch(place: tf.Tensor) -> tf.data.Dataset:
        # tf.data mixes the global seed into its own; the global seed of this
        # function's graph is unset, so that the order depends on ours alone.
        tf.compat.v1.get_default_graph().seed = None
        key = tf.random.fold_in(tf.constant([seed, 0], tf.int64), place[0])
        drawn = tf.random.stateless_uniform([2], key, minval=None, dtype=tf.int64)
        keys = tf.data.Dataset.from_tensors(drawn[1]).repeat()
        return tf.data.Dataset.zip(keys, examples_of(place, drawn[0]))

    def example(key, numbered):
        index, (raw, label) = numbered[:2]
        key = tf.stack([key, index])
        image = part.decode(raw, train_box(key, recipe))
        image = after_train_box(image, key, resolution, recipe)
        return image, tf.cast(label, tf.int64) + shift

    take = epochs.take if epochs else None

    def next_place(_):
        # Python state rather than a variable: it has no device and no strategy.
        return tf.ensure_shape(tf.numpy_function(take, [], tf.int64), [2])

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
        .batch(running.replica_batch_size, drop_remainder=True)
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
    batch has a third part: weights, float32 [b], 1 for images and 0 for filling. An
    image that has broken since it was found good does not count: it has weight 0, and
    is left out where there are no weights.
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

    workers, worker = running.workers, running.worker
    if part.shards:
        lengths = part.shards.lengths
        rows = stretches(lengths, np.arange(len(lengths)), worker, workers)
        examples = _read(part.shards, rows, 1)
    elif part.fetch:
        numbers = tf.data.Dataset.range(worker, part.count, workers)
        examples = _fetched(numbers, part)
        if not pad:
            examples = examples.filter(lambda _, stored, itself: itself)
    else:
        examples = part.examples().enumerate().shard(workers, worker).cache()
    examples = examples.map(
        example, num_parallel_calls=running.parallel, deterministic=True
    )
    if pad:
        missing = steps * running.replica_batch_size * running.replicas - mine
        filled = tf.data.Dataset.from_tensors(filling).repeat(missing)
        batches = examples.concatenate(filled).batch(
            running.replica_batch_size, drop_remainder=True
        )
        length = steps * running.replicas
    else:
        batches = examples.batch(running.replica_batch_size)
        length = -(-mine // running.replica_batch_size)
    return _finished(_of_length(batches, length), running)


# Where the examples of an epoch come from. Each gives a function from the place where a
# pass begins (epoch, step) and a number drawn for the epoch to (number, (stored,
# label)) of this worker's examples. Those that are fetched have a third part: whether
# the example is itself.

Shuffled = Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]


def _shuffled_numbers(part: Part, seed: int, running: Running) -> Shuffled:
    """Of a permutation of all numbers, from the step on."""
    size, steps = running.batch_size, running.steps(part.count)

    def order(place: np.ndarray) -> np.ndarray:
        numbers = permutation(part.count, seed, place[0])[: steps * size]
        return numbers[place[1] * size :][running.worker :: running.workers]

    def epoch(place: tf.Tensor, _: tf.Tensor) -> tf.data.Dataset:
        numbers = tf.ensure_shape(tf.numpy_function(order, [place], tf.int64), [None])
        return _fetched(tf.data.Dataset.from_tensor_slices(numbers), part)

    return epoch


def _fetched(numbers: tf.data.Dataset, part: Part) -> tf.data.Dataset:
    """The examples of these numbers, a few at a time."""

    def fetch(some: tf.Tensor) -> tuple[tf.Tensor, ...]:
        found = tf.numpy_function(part.fetch, [some], [tf.string, tf.int64, tf.bool])
        raw, label, itself = (tf.ensure_shape(values, [None]) for values in found)
        return some, (raw, label), itself

    return numbers.batch(FETCHED).map(fetch).unbatch()


def _shuffled_memory(part: Part, running: Running) -> Shuffled:
    """Of all examples, in memory, from the step on; needs no Python."""
    stored = part.examples().enumerate().cache()  # once for all epochs
    size, steps = running.batch_size, running.steps(part.count)

    def epoch(place: tf.Tensor, chance: tf.Tensor) -> tf.data.Dataset:
        return (
            stored.shuffle(part.count, chance, reshuffle_each_iteration=False)
            .take(steps * size)
            .skip(place[1] * size)
            .shard(running.workers, running.worker)
        )

    return epoch


def _shuffled_shards(
    part: Part, seed: int, running: Running, by_chance: bool
) -> Shuffled:
    """Of a portion of the examples, from the step on.

    The shards come in an order of the epoch's own, several at once, and what is read
    leaves the buffer by chance. Workers share what comes in that order: the images of
    a worker change from epoch to epoch. What lies before the step is read, but not
    decoded. `by_chance` needs no Python.
    """
    shards = part.shards
    assert shards is not None
    lengths = shards.lengths
    size = running.batch_size // running.workers  # of a step of this worker
    at_once = shards_at_once(len(lengths) // running.workers)
    whole = stretches(lengths, np.arange(len(lengths)), running.worker, running.workers)

    def plan(place: np.ndarray) -> np.ndarray:
        order = permutation(len(lengths), seed, place[0])
        return stretches(lengths, order, running.worker, running.workers)

    def epoch(place: tf.Tensor, chance: tf.Tensor) -> tf.data.Dataset:
        if by_chance:
            pair = tf.stack([chance, 0])
            rows = tf.random.experimental.stateless_shuffle(whole, pair)
        else:
            rows = tf.numpy_function(plan, [place], tf.int64)
        return (
            _read(shards, tf.ensure_shape(rows, [None, 3]), at_once)
            .shuffle(part.buffer, chance, reshuffle_each_iteration=False)
            .take(running.steps(part.count) * size)
            .skip(place[1] * size)
        )

    return epoch


def _read(shards: Shards, rows: tf.Tensor | np.ndarray, at_once: int) -> Any:
    """The examples in stretches of shards, with their numbers in the split."""
    before = tf.constant(np.cumsum([0, *shards.lengths])[:-1], tf.int64)

    def read(row: tf.Tensor) -> tf.data.Dataset:
        shard, first, count = row[0], row[1], row[2]  # tf.unstack would crash here
        number = tf.gather(before, shard) + first
        return shards.read(shard, first, count).enumerate(number)

    return tf.data.Dataset.from_tensor_slices(rows).interleave(
        read, cycle_length=at_once, block_length=1
    )


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
