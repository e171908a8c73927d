"""The splits of a source, and how their examples are read: in order, or shuffled."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_mobilenets.data.order import permutation, shards_at_once, stretches
from keras_mobilenets.data.preprocessing import Box
from keras_mobilenets.given import MEMORY_BUDGET as MEMORY_BUDGET
from keras_mobilenets.given import PARTS as PARTS

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
    image [h, w, channels] that a box takes; the channels are those that are stored, or
    RGB, or RGBA where it is told to keep alpha. How they are read in another order:

    - by `fetch`, from numbers, if there is one;
    - from `shards`, if there are any, through a buffer of `buffer` examples: the split
      is larger than the memory budget;
    - else all of them are kept in memory.

    What is stored of one that is `of_files` is a path. `labels`, int64 [count], are
    there where they are known without reading.
    """

    examples: Callable[[], tf.data.Dataset]
    count: int
    decode: Callable[[tf.Tensor, Box, bool], tf.Tensor]  # (stored, box, alpha)
    fetch: Fetch | None = None
    shards: Shards | None = None
    buffer: int = 1
    of_files: bool = False
    labels: np.ndarray | None = None


def numbers_only(part: Part) -> Part:
    """A part whose examples come in the same order, with nothing in them."""

    def nothing() -> tf.data.Dataset:
        return tf.data.Dataset.range(part.count).map(lambda n: (n, n))

    def fetch(some: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        empty = np.full(len(some), b"", object)
        return empty, np.zeros(len(some), np.int64), np.ones(len(some), bool)

    return dataclasses.replace(
        part, examples=nothing, fetch=fetch if part.fetch else None
    )


class Source(NamedTuple):
    """What a source of images gives: three parts, and the names of the classes.

    `describe` says which examples these are, ready for JSON: see `data.index`. Where an
    image may have several labels, the label of an example is the number of one of
    `label_sets`, which are the numbers of their classes.
    """

    train: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]
    describe: Callable[[], dict[str, Any]]
    label_sets: tuple[tuple[int, ...], ...] | None = None


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


# From the place where a pass begins (int64 [2]: epoch, step) and a number drawn for the
# epoch to (number, (stored, label)) of a worker's examples. Those that are fetched have
# a third part: whether the example is itself.
Shuffled = Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]


def shuffled(part: Part, seed: int, running: Running, by_chance: bool) -> Shuffled:
    """The examples of a worker in the order of an epoch, from a step on.

    In whole steps; the rest of the split is dropped. `by_chance` needs no Python, and
    its order is that of the number drawn alone.

    >>> examples = shuffled(part, 0, Running(32), by_chance=False)
    >>> examples(tf.constant([2, 0], tf.int64), drawn)
    """
    if part.shards:
        return _shuffled_shards(part, part.shards, seed, running, by_chance)
    if part.fetch and not by_chance:
        return _shuffled_numbers(part, seed, running)
    return _shuffled_memory(part, running)


def in_order(part: Part, running: Running) -> tf.data.Dataset:
    """(number, (stored, label)) of a worker's examples, in the order of the split.

    Of a split that is read from shards it is a portion, else every so manieth. Those
    that are fetched have a third part: whether the example is itself.
    """
    workers, worker = running.workers, running.worker
    if part.shards:
        lengths = part.shards.lengths
        rows = stretches(lengths, np.arange(len(lengths)), worker, workers)
        return _read(part.shards, rows, 1)
    if part.fetch:
        return _fetched(tf.data.Dataset.range(worker, part.count, workers), part)
    return part.examples().enumerate().shard(workers, worker).cache()


def examples_at(part: Part, numbers: Sequence[int]) -> tf.data.Dataset:
    """(number, (stored, label)) of these examples, in the order of the split."""
    chosen = tf.constant(list(numbers), tf.int64)
    if part.fetch and not part.of_files:
        examples = _fetched(tf.data.Dataset.from_tensor_slices(chosen), part)
        return examples.map(lambda number, pair, _: (number, pair))
    examples = part.examples().enumerate()
    return examples.filter(lambda number, _: tf.reduce_any(number == chosen))


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

    def fetch(some: tf.Tensor) -> tuple[Any, ...]:
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
    part: Part, shards: Shards, seed: int, running: Running, by_chance: bool
) -> Shuffled:
    """Of a portion of the examples, from the step on.

    The shards come in an order of the epoch's own, several at once, and what is read
    leaves the buffer by chance. Workers share what comes in that order: the images of
    a worker change from epoch to epoch. What lies before the step is read, but not
    decoded. `by_chance` needs no Python.
    """
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
